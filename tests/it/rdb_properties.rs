//! The scanner against RDBs of every version, type and opcode: right facts in any chunks, and no damage unseen.

use std::collections::BTreeMap;

use proptest::prelude::*;
use redis_backup::domain::rdb::{
    Checksum, Content, DatabaseFacts, Error, Expectations, Facts, Fault, Magic, Scanned, Scanner,
    SlotRange, ValueType,
};

use crate::rdb_encoder::{Encoder, Form};

/// An RDB and what a scan of it must tell.
#[derive(Clone, Debug)]
struct Written {
    encoder: Encoder,
    facts: Facts,
    database: u32,
}

/// What can be written into an RDB, with the Redis version of the format that brought it.
#[derive(Clone, Copy, Debug)]
enum Item {
    Value { code: u8, since: u32, value_type: ValueType },
    HashWithExpiry { code: u8 },
    Hash2,
    Select,
    Resize,
    Aux,
    Function,
    ModuleAux,
    SlotInfo,
    SlotImport,
    KeyMetadata,
    Idle,
    Frequency,
}

const VERSIONS: [(Magic, u32); 14] = [
    (Magic::Redis, 1),
    (Magic::Redis, 2),
    (Magic::Redis, 3),
    (Magic::Redis, 4),
    (Magic::Redis, 5),
    (Magic::Redis, 6),
    (Magic::Redis, 7),
    (Magic::Redis, 8),
    (Magic::Redis, 9),
    (Magic::Redis, 10),
    (Magic::Redis, 11),
    (Magic::Redis, 12),
    (Magic::Redis, 13),
    (Magic::Valkey, 80),
];

const VALUES: [(u8, u32, ValueType); 23] = [
    (0, 1, ValueType::String),
    (1, 1, ValueType::List),
    (2, 1, ValueType::Set),
    (3, 1, ValueType::SortedSet),
    (4, 1, ValueType::Hash),
    (9, 2, ValueType::Hash),
    (10, 2, ValueType::List),
    (11, 2, ValueType::Set),
    (12, 2, ValueType::SortedSet),
    (13, 4, ValueType::Hash),
    (14, 7, ValueType::List),
    (5, 8, ValueType::SortedSet),
    (7, 8, ValueType::Module),
    (15, 9, ValueType::Stream),
    (16, 10, ValueType::Hash),
    (17, 10, ValueType::SortedSet),
    (18, 10, ValueType::List),
    (19, 10, ValueType::Stream),
    (20, 11, ValueType::Set),
    (21, 11, ValueType::Stream),
    (23, 12, ValueType::Hash),
    (25, 12, ValueType::Hash),
    (26, 13, ValueType::Stream),
];

fn items(magic: Magic, version: u32) -> Vec<Item> {
    // Valkey left Redis's line at version 11.
    let redis_version = if magic == Magic::Valkey { 11 } else { version };
    let mut items: Vec<Item> = VALUES
        .iter()
        .filter(|(_, since, _)| *since <= redis_version)
        .map(|&(code, since, value_type)| Item::Value { code, since, value_type })
        .collect();
    items.push(Item::Select);
    let since =
        |version, more: &[Item]| if version <= redis_version { more.to_vec() } else { vec![] };
    items.extend(since(7, &[Item::Resize, Item::Aux]));
    items.extend(since(9, &[Item::ModuleAux, Item::Idle, Item::Frequency]));
    items.extend(since(10, &[Item::Function]));
    items.extend(since(
        12,
        &[Item::SlotInfo, Item::HashWithExpiry { code: 22 }, Item::HashWithExpiry { code: 24 }],
    ));
    items.extend(since(13, &[Item::KeyMetadata]));
    if magic == Magic::Valkey {
        items.extend([Item::Hash2, Item::SlotInfo, Item::SlotImport]);
    }
    items
}

impl Written {
    fn new(magic: Magic, version: u32) -> Self {
        let encoder = match magic {
            Magic::Redis => Encoder::redis(version),
            Magic::Valkey => Encoder::valkey(version),
        };
        let facts = Facts {
            magic,
            version,
            bytes: 0,
            checksum: if version < 5 { Checksum::Absent } else { Checksum::Verified },
            databases: BTreeMap::new(),
            types: BTreeMap::new(),
            functions: Vec::new(),
            modules: Vec::new(),
            hashes_with_field_expiry: 0,
            keys_outside_slots: 0,
            expiry_min_ms: None,
            expiry_max_ms: None,
        };
        Self { encoder, facts, database: 0 }
    }

    fn add(&mut self, item: Item, seed: u64) {
        let key = format!("key{{{seed}}}aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
        let form = [Form::Plain, Form::Long, Form::Lzf][usize::try_from(seed % 3).unwrap()];
        let encoder = &mut self.encoder;
        match item {
            Item::Value { code, since, value_type } => {
                self.add_expiry(since, seed);
                self.encoder.value(code, key.as_bytes(), form, seed);
                self.facts.hashes_with_field_expiry += u64::from(matches!(code, 23 | 25));
                self.count(value_type, code == 7);
            }
            Item::HashWithExpiry { code } => {
                encoder.hash_with_expiry(code, key.as_bytes(), &[0, seed % 2]);
                self.facts.hashes_with_field_expiry += 1;
                self.count(ValueType::Hash, false);
            }
            Item::Hash2 => {
                let expiry_ms = if seed.is_multiple_of(2) { -1 } else { 1_900_000_000_000 };
                encoder.hash_2(key.as_bytes(), &[-1, expiry_ms]);
                self.facts.hashes_with_field_expiry += 1;
                self.count(ValueType::Hash, false);
            }
            Item::Select => {
                self.database = u32::try_from(seed % 20_000).unwrap();
                encoder.select(u64::from(self.database));
            }
            Item::Resize => drop(encoder.resize(seed, seed / 2)),
            Item::Aux => drop(encoder.aux("redis-ver", "7.0.15")),
            Item::Function => {
                let name = format!("library{}", seed % 10);
                encoder.function(&format!("#!lua name={name}\n{}", "-".repeat(2000)));
                self.facts.functions.push(name);
            }
            Item::ModuleAux => {
                encoder.module_aux("auxiliary");
                self.facts.modules.push("auxiliary".to_owned());
            }
            Item::SlotInfo => drop(encoder.byte(244).length(seed % 16384).length(1).length(0)),
            Item::SlotImport => drop(encoder.slot_import()),
            Item::KeyMetadata => {
                encoder.key_metadata();
                self.facts.modules.push("META-KMT1".to_owned());
            }
            Item::Idle => drop(encoder.byte(248).length(seed)),
            Item::Frequency => drop(encoder.byte(249).byte(7)),
        }
    }

    fn add_expiry(&mut self, since: u32, seed: u64) {
        let expiry_ms = match seed % 5 {
            0 => {
                self.encoder.expiry_seconds(1_900_000_000);
                1_900_000_000_000
            }
            1 if since >= 3 => {
                let expiry_ms = 1_800_000_000_000 + i64::try_from(seed % 1000).unwrap();
                self.encoder.expiry_ms(expiry_ms);
                expiry_ms
            }
            _ => return,
        };
        let facts = &mut self.facts;
        facts.expiry_min_ms = facts.expiry_min_ms.min(Some(expiry_ms)).or(Some(expiry_ms));
        facts.expiry_max_ms = facts.expiry_max_ms.max(Some(expiry_ms));
        self.here().expires += 1;
    }

    fn count(&mut self, value_type: ValueType, is_module: bool) {
        self.here().keys += 1;
        *self.facts.types.entry(value_type).or_default() += 1;
        if is_module {
            self.facts.modules.push("test-type".to_owned());
        }
    }

    fn here(&mut self) -> &mut DatabaseFacts {
        self.facts.databases.entry(self.database).or_default()
    }

    fn end(mut self) -> (Vec<u8>, Facts) {
        let bytes = self.encoder.end(self.facts.version >= 5);
        self.facts.bytes = bytes.len() as u64;
        for names in [&mut self.facts.functions, &mut self.facts.modules] {
            names.sort();
            names.dedup();
        }
        (bytes, self.facts)
    }
}

/// Everything that a version knows, each thing once and small.
fn sample(magic: Magic, version: u32) -> (Vec<u8>, Facts) {
    let mut written = Written::new(magic, version);
    for (seed, item) in (1..).zip(items(magic, version)) {
        let seed = if matches!(item, Item::Value { .. }) { seed % 3 } else { seed };
        written.add(item, seed);
    }
    written.end()
}

fn scan(bytes: &[u8], chunk_bytes: usize) -> Result<Scanned, Error> {
    scan_for(&Expectations { slots: Vec::new(), biggest_keys_max: 3 }, bytes, chunk_bytes)
}

fn scan_for(
    expectations: &Expectations,
    bytes: &[u8],
    chunk_bytes: usize,
) -> Result<Scanned, Error> {
    let mut scanner = Scanner::new(expectations);
    for chunk in bytes.chunks(chunk_bytes) {
        scanner.feed(chunk)?;
    }
    scanner.finish()
}

fn facts(scanned: Scanned) -> Facts {
    match scanned.content {
        Content::Read(facts) => facts,
        Content::Unread(unread) => unreachable!("{unread:?}"),
    }
}

#[test]
fn every_version_type_and_opcode_is_read_in_any_chunks() {
    for (magic, version) in VERSIONS {
        let (bytes, expected) = sample(magic, version);
        for chunk_bytes in (1..70).chain([bytes.len()]) {
            let scanned = scan(&bytes, chunk_bytes).unwrap();
            assert_eq!(facts(scanned), expected, "{magic} {version}, chunks of {chunk_bytes}");
        }
    }
}

#[test]
fn every_truncation_is_an_error_at_the_very_end() {
    for (magic, version) in VERSIONS {
        let (bytes, _) = sample(magic, version);
        for length in 0..bytes.len() {
            let error = scan(&bytes[..length], 1 << 20).unwrap_err();
            assert_eq!(error.fault, Fault::Ended, "{magic} {version} cut to {length} bytes");
            assert_eq!(error.offset, length as u64);
        }
    }
}

#[test]
fn every_flipped_bit_is_an_error_where_there_is_a_checksum() {
    for (magic, version) in VERSIONS.into_iter().filter(|(_, version)| *version >= 5) {
        let (mut bytes, _) = sample(magic, version);

        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            let result = scan(&bytes, 1 << 20);
            assert!(result.is_err(), "{magic} {version}, bit {bit}: {result:?}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

#[test]
fn bytes_after_the_end_are_an_error_where_they_begin() {
    for (magic, version) in VERSIONS {
        let (mut bytes, _) = sample(magic, version);
        let length = bytes.len();
        bytes.push(b'*');
        for chunk_bytes in [1, length, length + 1] {
            let error = scan(&bytes, chunk_bytes).unwrap_err();
            assert_eq!((error.offset, error.fault), (length as u64, Fault::Trailing));
        }
    }
}

#[test]
fn an_rdb_without_checksum_is_walked_and_says_so() {
    let bytes = Encoder::redis(10).value(0, b"k", Form::Plain, 1).end_without_checksum();
    let facts = facts(scan(&bytes, 7).unwrap());
    assert_eq!((facts.checksum, facts.keys()), (Checksum::NotChecksummed, 1));
}

#[test]
fn a_wrong_checksum_names_both() {
    let mut bytes = Encoder::redis(10).value(0, b"k", Form::Plain, 1).end(true);
    let length = bytes.len();
    let computed = u64::from_le_bytes(*bytes.last_chunk().unwrap());
    bytes[length - 1] ^= 1;
    let error = scan(&bytes, 7).unwrap_err();
    let stored = computed ^ 1 << 56;
    assert_eq!(error.fault, Fault::Checksum { stored, computed });
    assert_eq!(error.offset, length as u64 - 8);
    assert_eq!(error.to_string(), format!("read the checksum of the RDB at byte {}", length - 8));
}

#[test]
fn a_newer_version_is_not_read_but_its_frame_is_proven() {
    for (mut encoder, magic, version) in [
        (Encoder::redis(14), Magic::Redis, 14),
        (Encoder::redis(9999), Magic::Redis, 9999),
        (Encoder::valkey(81), Magic::Valkey, 81),
    ] {
        let bytes = encoder.raw(b"what nobody knows yet").end(true);
        for chunk_bytes in 1..=bytes.len() {
            let Content::Unread(unread) = scan(&bytes, chunk_bytes).unwrap().content else {
                unreachable!("version {version} was read");
            };
            assert_eq!((unread.magic, unread.version), (magic, version));
            assert_eq!(unread.bytes, bytes.len() as u64);
            assert_eq!(unread.checksum, Checksum::Verified);
        }
        for length in 0..bytes.len() {
            assert!(scan(&bytes[..length], 5).is_err());
        }
    }
}

#[test]
fn a_newer_version_without_checksum_is_told_apart_and_needs_its_end_marker() {
    let mut bytes = Encoder::redis(14).raw(b"unknown").end_without_checksum();
    let scanned = scan(&bytes, 5).unwrap();
    assert_eq!(scanned.content.checksum(), Checksum::NotChecksummed);
    let marker = bytes.len() - 9;
    bytes[marker] = 0xfe;
    let error = scan(&bytes, 5).unwrap_err();
    assert_eq!((error.offset, error.fault), (marker as u64, Fault::NoEndMarker));
}

#[test]
fn what_is_no_rdb_is_refused_at_its_first_bytes() {
    let fault = |bytes: &[u8]| scan(bytes, 4).unwrap_err().fault;
    assert_eq!(fault(b"*3\r\n$3\r\nSET\r\n"), Fault::Magic);
    assert_eq!(fault(b"REDIS00x1"), Fault::Magic);
    assert_eq!(fault(b"VALKEY+80"), Fault::Magic);
    assert_eq!(fault(b"REDIS0000"), Fault::Version { magic: Magic::Redis, version: 0 });
    assert_eq!(fault(b"VALKEY011"), Fault::Version { magic: Magic::Valkey, version: 11 });
}

#[test]
fn pre_release_formats_and_unknown_types_are_refused() {
    for (magic, version) in VERSIONS {
        for code in [6, 8, 27, 100, 242, 246] {
            let mut encoder = Written::new(magic, version).encoder;
            let bytes = encoder.byte(code).string("x").string("y").end(true);
            let error = scan(&bytes, 3).unwrap_err();
            let expected = match code {
                6 | 246 => Fault::PreRelease(code),
                _ => Fault::UnknownType(code),
            };
            assert_eq!((error.offset, error.fault), (9, expected));
        }
    }
}

#[test]
fn an_error_says_what_was_read_and_where() {
    let bytes =
        Encoder::redis(10).byte(1).string("k").length(2).string("a").byte(0xff).bytes.clone();
    for chunk_bytes in 1..bytes.len() {
        let error = scan(&bytes, chunk_bytes).unwrap_err();
        assert_eq!(error.to_string(), "read an element of a list at byte 15");
        assert_eq!(error.fault.to_string(), "0xff begins no string");
    }
}

#[test]
fn a_hostile_length_or_count_neither_allocates_nor_loops() {
    for code in [0, 1, 2, 3, 4, 5, 14, 15, 16, 18, 21, 24, 245, 250] {
        let hostile = Encoder::redis(12).byte(code).length(u64::MAX).bytes.clone();
        assert!(matches!(scan(&hostile, 3).unwrap_err().fault, Fault::TooLong { .. }));
        let hostile = Encoder::redis(12).byte(code).string("k").length(u64::MAX).bytes.clone();
        assert!(scan(&hostile, 3).is_err());
    }
}

#[test]
fn keys_outside_the_declared_slots_are_counted() {
    let mut encoder = Encoder::redis(11);
    // Slots 12182, 12182, 5061 and, in another database, 5061.
    for key in ["foo", "{foo}bar", "bar"] {
        encoder.value(0, key.as_bytes(), Form::Plain, 1);
    }
    encoder.select(1).value(0, b"bar", Form::Lzf, 1);
    let bytes = encoder.end(true);
    let outside = |ranges: &[(u16, u16)]| {
        let slots = ranges.iter().map(|&(first, last)| SlotRange { first, last }).collect();
        let expectations = Expectations { slots, biggest_keys_max: 0 };
        facts(scan_for(&expectations, &bytes, 4).unwrap()).keys_outside_slots
    };
    assert_eq!(outside(&[]), 0);
    assert_eq!(outside(&[(0, 16383)]), 0);
    assert_eq!(outside(&[(5061, 5061)]), 2);
    assert_eq!(outside(&[(0, 5060), (12182, 12182)]), 1);
    assert_eq!(outside(&[(0, 5060), (12183, 16383)]), 3);
}

#[test]
fn slots_count_in_every_database_where_a_cluster_has_several() {
    let mut encoder = Encoder::valkey(80);
    let bytes = encoder.select(1).value(0, b"bar", Form::Plain, 1).end(true);
    let slots = vec![SlotRange { first: 0, last: 0 }];
    let scanned = scan_for(&Expectations { slots, biggest_keys_max: 0 }, &bytes, 4).unwrap();
    assert_eq!(facts(scanned).keys_outside_slots, 1);
}

#[test]
fn the_largest_values_are_named_by_the_beginning_of_their_key() {
    let mut encoder = Encoder::redis(11);
    let long_key = "\u{e9}".repeat(100);
    for (key, bytes) in [("small", 10), (long_key.as_str(), 5000), ("middle", 700)] {
        encoder.byte(0).string(key).string(vec![b'x'; bytes]);
    }
    let bytes = encoder.end(true);
    let expectations = Expectations { slots: Vec::new(), biggest_keys_max: 2 };
    for chunk_bytes in [1, 9, 1000, bytes.len()] {
        let biggest = scan_for(&expectations, &bytes, chunk_bytes).unwrap().private.biggest_keys;
        let found: Vec<_> = biggest.iter().map(|key| (key.key.as_str(), key.bytes)).collect();
        assert_eq!(found, [("\\xc3\\xa9".repeat(64).as_str(), 5002), ("middle", 702)]);
    }
}

proptest! {
    #[test]
    fn any_rdb_in_any_chunks_gives_the_same_facts(
        version in proptest::sample::select(VERSIONS.to_vec()),
        content in prop::collection::vec(any::<(prop::sample::Index, u64)>(), 0..20),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let items = items(version.0, version.1);
        let mut written = Written::new(version.0, version.1);
        for (index, seed) in content {
            written.add(items[index.index(items.len())], seed % (1 << 40));
        }
        let (bytes, expected) = written.end();
        let whole = scan(&bytes, bytes.len()).unwrap();
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let mut scanner = Scanner::new(&Expectations { slots: Vec::new(), biggest_keys_max: 3 });
        for cut in cuts.windows(2) {
            scanner.feed(&bytes[cut[0]..cut[1]]).unwrap();
        }
        prop_assert_eq!(&scanner.finish().unwrap(), &whole);
        prop_assert_eq!(facts(whole), expected);
    }

    #[test]
    fn random_bytes_never_panic(
        header in prop::sample::select(vec!["", "REDIS0003", "REDIS0013", "REDIS0014", "VALKEY080"]),
        content in prop::collection::vec(any::<u8>(), 0..600),
        chunk_bytes in 1..100_usize,
    ) {
        let bytes = [header.as_bytes(), content.as_slice()].concat();
        let whole = scan(&bytes, bytes.len().max(1));
        prop_assert_eq!(whole, scan(&bytes, chunk_bytes));
    }

    #[test]
    fn a_damaged_rdb_never_panics_and_fails_alike_in_any_chunks(
        version in proptest::sample::select(VERSIONS.to_vec()),
        damage in prop::collection::vec(any::<(prop::sample::Index, u8)>(), 1..6),
        chunk_bytes in 1..100_usize,
    ) {
        let (mut bytes, _) = sample(version.0, version.1);
        for (index, byte) in damage {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        let whole = scan(&bytes, bytes.len());
        prop_assert_eq!(whole, scan(&bytes, chunk_bytes));
    }
}
