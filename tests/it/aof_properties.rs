//! The scanner of append-only files against a generator of its own: any split, any cut, any flipped bit.

use proptest::prelude::*;
use redis_backup::domain::{
    aof::{Error, FileFacts, Scanned, Scanner, list::FileList},
    rdb::Expectations,
};

use crate::rdb_encoder::Encoder;

/// What a server could have written, one whole thing each.
#[derive(Clone, Debug)]
enum Unit {
    Command(Vec<Vec<u8>>),
    Select(u32),
    Annotation(Vec<u8>),
    Timestamp(i64),
    Transaction(Vec<Unit>),
}

impl Unit {
    fn write(&self, file: &mut Vec<u8>) {
        match self {
            Self::Command(arguments) => command(arguments, file),
            Self::Select(database) => {
                command(&[b"SELECT".to_vec(), database.to_string().into_bytes()], file);
            }
            Self::Annotation(text) => {
                file.push(b'#');
                file.extend(text);
                file.extend(b"\r\n");
            }
            Self::Timestamp(seconds) => file.extend(format!("#TS:{seconds}\r\n").into_bytes()),
            Self::Transaction(units) => {
                command(&[b"MULTI".to_vec()], file);
                for unit in units {
                    unit.write(file);
                }
                command(&[b"exec".to_vec()], file);
            }
        }
    }

    /// Adds itself to what the scanner must tell.
    fn count(&self, facts: &mut FileFacts) {
        match self {
            Self::Command(_) => facts.commands += 1,
            Self::Select(database) => {
                facts.commands += 1;
                facts.databases.insert(*database);
            }
            Self::Annotation(_) => facts.annotations += 1,
            Self::Timestamp(seconds) => {
                let time = jiff::Timestamp::from_second(*seconds).unwrap();
                facts.annotations += 1;
                facts.first_timestamp = facts.first_timestamp.or(Some(time));
                facts.last_timestamp = Some(time);
            }
            Self::Transaction(units) => {
                facts.commands += 2;
                for unit in units {
                    unit.count(facts);
                }
            }
        }
    }
}

fn command(arguments: &[Vec<u8>], file: &mut Vec<u8>) {
    file.extend(format!("*{}\r\n", arguments.len()).into_bytes());
    for argument in arguments {
        file.extend(format!("${}\r\n", argument.len()).into_bytes());
        file.extend(argument);
        file.extend(b"\r\n");
    }
}

fn flat() -> impl Strategy<Value = Unit> {
    let argument = prop::collection::vec(any::<u8>(), 0..80);
    let name =
        prop::sample::select(vec![&b"SET"[..], b"RPUSH", b"selector", b"a-long-command", b""]);
    prop_oneof![
        6 => (name, prop::collection::vec(argument, 0..5)).prop_map(|(name, arguments)| {
            Unit::Command([vec![name.to_vec()], arguments].concat())
        }),
        1 => (0..99_u32).prop_map(Unit::Select),
        1 => "[ -~]{0,60}".prop_filter("no timestamp", |text| !text.starts_with("TS:"))
            .prop_map(|text| Unit::Annotation(text.into_bytes())),
        1 => (0..4_000_000_000_i64).prop_map(Unit::Timestamp),
    ]
}

fn units() -> impl Strategy<Value = Vec<Unit>> {
    let transaction = prop::collection::vec(flat(), 0..4).prop_map(Unit::Transaction);
    prop::collection::vec(prop_oneof![4 => flat(), 1 => transaction], 0..12)
}

/// The file and the offsets at which it may be cut.
fn write(preamble: &[u8], units: &[Unit]) -> (Vec<u8>, Vec<usize>) {
    let mut file = preamble.to_vec();
    let mut ends = vec![file.len()];
    for unit in units {
        unit.write(&mut file);
        ends.push(file.len());
    }
    (file, ends)
}

fn scan(file: &[u8], sizes: &[usize]) -> Result<Scanned, Error> {
    let mut scanner = Scanner::new(&Expectations::default());
    let (mut rest, mut sizes) = (file, sizes.iter().cycle());
    while !rest.is_empty() {
        let size = sizes.next().map_or(rest.len(), |size| (*size).min(rest.len()));
        let (chunk, after) = rest.split_at(size);
        scanner.feed(chunk)?;
        rest = after;
    }
    let whole = scanner.whole_bytes();
    let found = scanner.finish()?;
    assert_eq!(found.facts.whole_bytes, whole);
    Ok(found)
}

fn small_rdb() -> Vec<u8> {
    let mut rdb = Encoder::redis(10);
    rdb.byte(0).string("key").string("value");
    rdb.end(true)
}

fn preambles() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![Just(Vec::new()), Just(small_rdb())]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_file_is_counted_alike_in_any_chunks(
        preamble in preambles(),
        units in units(),
        sizes in prop::collection::vec(1..40_usize, 1..6),
    ) {
        let (file, _) = write(&preamble, &units);
        let mut expected = FileFacts {
            bytes: file.len() as u64,
            whole_bytes: file.len() as u64,
            ..FileFacts::default()
        };
        for unit in &units { unit.count(&mut expected); }
        let whole = scan(&file, &[]).unwrap();
        expected.preamble.clone_from(&whole.facts.preamble);
        prop_assert_eq!(expected.preamble.is_some(), !preamble.is_empty());
        prop_assert_eq!(&whole.facts, &expected);
        prop_assert_eq!(scan(&file, &sizes), Ok(whole));
    }

    #[test]
    fn a_cut_file_is_whole_up_to_the_last_command_outside_a_transaction(
        preamble in preambles(),
        units in units(),
        size in 1..40_usize,
    ) {
        let (file, ends) = write(&preamble, &units);
        for cut in preamble.len()..=file.len() {
            let facts = scan(&file[..cut], &[size]).unwrap().facts;
            let whole = *ends.iter().rfind(|end| **end <= cut).unwrap();
            prop_assert_eq!(facts.whole_bytes, whole as u64, "cut at {}", cut);
            prop_assert_eq!(facts.bytes, cut as u64);
        }
        for cut in 1..preamble.len() {
            scan(&file[..cut], &[size]).unwrap_err();
        }
    }

    #[test]
    fn a_flipped_bit_is_told_alike_in_any_chunks_and_never_panics(
        units in units(),
        place in any::<prop::sample::Index>(),
        bit in 0..8_u8,
        sizes in prop::collection::vec(1..40_usize, 1..6),
    ) {
        let (mut file, _) = write(&[], &units);
        prop_assume!(!file.is_empty());
        let place = place.index(file.len());
        file[place] ^= 1 << bit;
        prop_assert_eq!(scan(&file, &[]), scan(&file, &sizes));
    }

    #[test]
    fn bytes_by_chance_are_told_alike_in_any_chunks(
        bytes in prop::collection::vec(prop::sample::select(b"*$#0123456789\r\nMULTIEXCS".to_vec()), 0..200),
        sizes in prop::collection::vec(1..9_usize, 1..6),
    ) {
        prop_assert_eq!(scan(&bytes, &[]), scan(&bytes, &sizes));
        if let Ok(list) = FileList::parse(&bytes) {
            prop_assert_eq!(FileList::parse(list.encode().as_bytes()), Ok(list));
        }
    }
}

#[test]
fn what_is_no_command_is_named_with_its_offset() {
    let good = b"*1\r\n$4\r\nPING\r\n".to_vec();
    for (broken, offset, finding) in [
        (&b"PING\r\n"[..], 0, "0x50 begins neither"),
        (b"\n", 0, "0x0a begins neither"),
        (b"*0\r\n", 0, "no argument"),
        (b"*-1\r\n", 0, "no decimal number"),
        (b"*9999999999\r\n", 0, "above the limit"),
        (b"*1\r\n:1\r\n", 4, "0x3a begins no argument"),
        (b"*1\r\n$-1\r\n", 4, "no decimal number"),
        (b"*1\r\n$4\r\nPINGS\r\n", 12, "does not end with CR LF"),
        (b"*1\r\n$9\r\nPING-PONGS\r\n", 17, "does not end with CR LF"),
        (b"*1\r\n$9999999999999\r\n", 4, "above the limit"),
        (b"*2\r\n$6\r\nSELECT\r\n$2\r\n-1\r\n", 16, "no database"),
    ] {
        for size in 1..40 {
            let error = scan(&[&good[..], broken].concat(), &[size]).unwrap_err();
            assert_eq!(error.offset, good.len() as u64 + offset, "{error:?}");
            assert!(error.fault.to_string().contains(finding), "{error:?}");
        }
    }
    let endless = [&good[..], b"#", &[b'x'; 1023], b"\n"].concat();
    assert_eq!(scan(&endless, &[100]).unwrap_err().offset, good.len() as u64);
    scan(&[&good[..], b"#", &[b'x'; 1021], b"\n"].concat(), &[100]).unwrap();
}
