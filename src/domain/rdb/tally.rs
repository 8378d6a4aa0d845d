//! Counts what the walk meets. Bounded: a hostile RDB cannot make it grow without end.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Checksum, DatabaseFacts, Facts, Magic, Private, ValueType,
    biggest::{Biggest, escape},
    error::Fault,
};

const DATABASES_MAX: usize = 1 << 16;
const FUNCTIONS_MAX: usize = 10_000;
const MODULES_MAX: usize = 1_000;
/// Servers write about ten; those above the limit are not kept.
const AUX_MAX: usize = 256;

/// Valkey writes one for each slot: a hint about sizes, and thousands of them.
const AUX_SLOT_INFO: &[u8] = b"slot-info";

const MODULE_CHARACTERS: &[u8; 64] =
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// keymeta.c has the last two the other way round.
const METADATA_CHARACTERS: &[u8; 64] =
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";

#[derive(Debug)]
pub(super) struct Tally {
    database: u32,
    /// Those of the current database since it was selected.
    here: DatabaseFacts,
    databases: BTreeMap<u32, DatabaseFacts>,
    types: [u64; ValueType::ALL.len()],
    functions: BTreeSet<String>,
    modules: BTreeSet<String>,
    hashes_with_field_expiry: u64,
    keys_outside_slots: u64,
    expiry_min_ms: Option<i64>,
    expiry_max_ms: Option<i64>,
    aux: BTreeMap<String, String>,
    biggest: Biggest,
}

impl Tally {
    pub(super) fn new(biggest_keys_max: usize) -> Self {
        Self {
            database: 0,
            here: DatabaseFacts::default(),
            databases: BTreeMap::new(),
            types: [0; ValueType::ALL.len()],
            functions: BTreeSet::new(),
            modules: BTreeSet::new(),
            hashes_with_field_expiry: 0,
            keys_outside_slots: 0,
            expiry_min_ms: None,
            expiry_max_ms: None,
            aux: BTreeMap::new(),
            biggest: Biggest::new(biggest_keys_max),
        }
    }

    pub(super) fn database(&self) -> u32 {
        self.database
    }

    pub(super) fn select(&mut self, database: u32) -> Result<(), Fault> {
        self.close_database();
        if self.databases.len() > DATABASES_MAX {
            return Err(Fault::TooMany { limit: DATABASES_MAX });
        }
        self.database = database;
        Ok(())
    }

    #[inline]
    pub(super) fn key(
        &mut self,
        key: &[u8],
        value_type: ValueType,
        expiry_ms: Option<i64>,
        bytes: u64,
    ) {
        self.here.keys += 1;
        self.types[value_type as usize] += 1;
        if let Some(expiry_ms) = expiry_ms {
            self.here.expires += 1;
            self.expiry_min_ms =
                Some(self.expiry_min_ms.map_or(expiry_ms, |min| min.min(expiry_ms)));
            self.expiry_max_ms =
                Some(self.expiry_max_ms.map_or(expiry_ms, |max| max.max(expiry_ms)));
        }
        self.biggest.offer(self.database, key, value_type, bytes);
    }

    pub(super) fn hash_with_field_expiry(&mut self) {
        self.hashes_with_field_expiry += 1;
    }

    pub(super) fn key_outside_slots(&mut self) {
        self.keys_outside_slots += 1;
    }

    pub(super) fn aux(&mut self, name: &[u8], text: &[u8]) {
        if name == AUX_SLOT_INFO {
            return;
        }
        let name = escape(name);
        if self.aux.len() < AUX_MAX || self.aux.contains_key(&name) {
            self.aux.insert(name, escape(text));
        }
    }

    /// From the first bytes of a library's code, which name it (`functionsCreateWithLibraryCtx`).
    pub(super) fn function(&mut self, code: &[u8]) -> Result<(), Fault> {
        let name = library_name(code).ok_or(Fault::NoLibraryName)?;
        insert(&mut self.functions, name, FUNCTIONS_MAX)
    }

    /// From a 64-bit id: nine characters and a version of ten bits (`moduleTypeNameByID`).
    pub(super) fn module(&mut self, id: u64) -> Result<(), Fault> {
        let name = characters(id >> 10, 9, MODULE_CHARACTERS);
        insert(&mut self.modules, name, MODULES_MAX)
    }

    /// From a class of key metadata: four characters, a version of five bits, three flags (`keyMetaClassDecode`).
    pub(super) fn metadata_class(&mut self, class: u32) -> Result<(), Fault> {
        let name = format!("META-{}", characters(u64::from(class >> 8), 4, METADATA_CHARACTERS));
        insert(&mut self.modules, name, MODULES_MAX)
    }

    pub(super) fn finish(
        mut self,
        magic: Magic,
        version: u32,
        bytes: u64,
        checksum: Checksum,
    ) -> (Facts, Private) {
        self.close_database();
        let types = ValueType::ALL.into_iter().zip(self.types).filter(|(_, keys)| *keys > 0);
        let facts = Facts {
            magic,
            version,
            bytes,
            checksum,
            databases: self.databases,
            types: types.collect(),
            functions: self.functions.into_iter().collect(),
            modules: self.modules.into_iter().collect(),
            hashes_with_field_expiry: self.hashes_with_field_expiry,
            keys_outside_slots: self.keys_outside_slots,
            expiry_min_ms: self.expiry_min_ms,
            expiry_max_ms: self.expiry_max_ms,
        };
        (facts, Private { aux: self.aux, biggest_keys: self.biggest.into_keys() })
    }

    fn close_database(&mut self) {
        let here = std::mem::take(&mut self.here);
        if here.keys > 0 {
            let facts = self.databases.entry(self.database).or_default();
            facts.keys += here.keys;
            facts.expires += here.expires;
        }
    }
}

fn insert(names: &mut BTreeSet<String>, name: String, limit: usize) -> Result<(), Fault> {
    names.insert(name);
    if names.len() > limit { Err(Fault::TooMany { limit }) } else { Ok(()) }
}

/// Six bits each, the first character highest.
fn characters(bits: u64, count: u32, alphabet: &[u8; 64]) -> String {
    (0..count)
        .rev()
        .map(|place| char::from(alphabet[(bits >> (6 * place) & 0x3f) as usize]))
        .collect()
}

fn library_name(code: &[u8]) -> Option<String> {
    let line = code.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
    // A line without its end may be cut, and so may the name.
    if line.len() + 2 == code.len() {
        return None;
    }
    let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace().skip(1);
    let name = words.find_map(name_of_word)?;
    let is_name =
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    is_name.then(|| name.to_owned())
}

/// Servers take `name=` in any case, and quotes around the whole word.
fn name_of_word(word: &str) -> Option<&str> {
    let word = word.trim_matches(['"', '\'']);
    let (key, name) = word.split_once('=')?;
    key.eq_ignore_ascii_case("name").then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_named_in_its_first_line() {
        let name = |code: &str| library_name(code.as_bytes());
        assert_eq!(name("#!lua name=mylib\nredis.register_function"), Some("mylib".to_owned()));
        assert_eq!(name("#!LUA  other=1 NAME=my_lib2 \n"), Some("my_lib2".to_owned()));
        assert_eq!(name("#!lua name=mylib"), None);
        assert_eq!(name("#!lua\nname=mylib\n"), None);
        assert_eq!(name("#!lua name=my-lib\n"), None);
        assert_eq!(name("return 1\n"), None);
    }

    #[test]
    fn modules_are_named_by_nine_characters_of_their_id() {
        let mut tally = Tally::new(0);
        let id = b"ReJSON-RL".iter().fold(0, |id: u64, character| {
            let place = MODULE_CHARACTERS.iter().position(|known| known == character).unwrap();
            id << 6 | place as u64
        });
        tally.module(id << 10 | 3).unwrap();
        assert_eq!(tally.modules.first().unwrap(), "ReJSON-RL");
    }

    #[test]
    fn slots_hints_are_no_aux_worth_keeping_and_the_number_of_others_is_limited() {
        let mut tally = Tally::new(0);
        tally.aux(AUX_SLOT_INFO, b"1,2,3");
        for index in 0..AUX_MAX + 9 {
            tally.aux(index.to_string().as_bytes(), b"\xff");
        }
        assert_eq!(tally.aux.len(), AUX_MAX);
        assert_eq!(tally.aux["0"], "\\xff");
    }

    #[test]
    fn a_database_selected_twice_is_counted_once() {
        let mut tally = Tally::new(0);
        for database in [3, 0, 3, 7] {
            tally.select(database).unwrap();
            if database != 7 {
                tally.key(b"k", ValueType::Set, (database == 3).then_some(5), 1);
            }
        }
        let (facts, _) = tally.finish(Magic::Redis, 9, 0, Checksum::Verified);
        let expected = [
            (0, DatabaseFacts { keys: 1, expires: 0 }),
            (3, DatabaseFacts { keys: 2, expires: 2 }),
        ];
        assert_eq!(facts.databases, BTreeMap::from(expected));
    }

    #[test]
    fn databases_without_end_are_refused() {
        let mut tally = Tally::new(0);
        let refused = (0..).find_map(|database| {
            tally.key(b"k", ValueType::Set, None, 1);
            tally.select(database).err()
        });
        assert_eq!(refused, Some(Fault::TooMany { limit: DATABASES_MAX }));
    }
}
