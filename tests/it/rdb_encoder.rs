//! Writes RDBs of every version, type and opcode as Redis's rdb.c does. Knows nothing of the scanner.

use crc_fast::{CrcAlgorithm, checksum};

/// Bytes of an RDB, or of a part of one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Encoder {
    pub(crate) bytes: Vec<u8>,
}

/// How a string is written.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Form {
    Plain,
    /// With a length of 32 bits where 6 would do, which a loader must take.
    Long,
    /// As LZF literals and one back reference.
    Lzf,
}

impl Encoder {
    pub(crate) fn redis(version: u32) -> Self {
        Self { bytes: format!("REDIS{version:04}").into_bytes() }
    }

    pub(crate) fn valkey(version: u32) -> Self {
        Self { bytes: format!("VALKEY{version:03}").into_bytes() }
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    pub(crate) fn byte(&mut self, byte: u8) -> &mut Self {
        self.raw(&[byte])
    }

    /// `rdbSaveLen`
    pub(crate) fn length(&mut self, length: u64) -> &mut Self {
        if let Ok(short @ 0..=0x3f) = u8::try_from(length) {
            self.byte(short)
        } else if let Ok(middle @ 0..=0x3fff) = u16::try_from(length) {
            self.raw(&(0x4000 | middle).to_be_bytes())
        } else if let Ok(long) = u32::try_from(length) {
            self.byte(0x80).raw(&long.to_be_bytes())
        } else {
            self.byte(0x81).raw(&length.to_be_bytes())
        }
    }

    /// `rdbSaveRawString` without its attempts to save space.
    pub(crate) fn string(&mut self, text: impl AsRef<[u8]>) -> &mut Self {
        self.length(text.as_ref().len() as u64).raw(text.as_ref())
    }

    pub(crate) fn string_as(&mut self, form: Form, text: &[u8]) -> &mut Self {
        match form {
            Form::Plain => self.string(text),
            Form::Long => {
                let bytes = u32::try_from(text.len()).unwrap();
                self.byte(0x80).raw(&bytes.to_be_bytes()).raw(text)
            }
            Form::Lzf if text.is_empty() => self.string(text),
            Form::Lzf => {
                let packed = lzf(text);
                self.byte(0xc3).length(packed.len() as u64).length(text.len() as u64).raw(&packed)
            }
        }
    }

    /// `rdbEncodeInteger`
    pub(crate) fn integer(&mut self, value: i32) -> &mut Self {
        if let Ok(small) = i8::try_from(value) {
            self.byte(0xc0).raw(&small.to_le_bytes())
        } else if let Ok(middle) = i16::try_from(value) {
            self.byte(0xc1).raw(&middle.to_le_bytes())
        } else {
            self.byte(0xc2).raw(&value.to_le_bytes())
        }
    }

    pub(crate) fn aux(&mut self, name: &str, text: &str) -> &mut Self {
        self.byte(250).string(name).string(text)
    }

    pub(crate) fn select(&mut self, database: u64) -> &mut Self {
        self.byte(254).length(database)
    }

    pub(crate) fn resize(&mut self, keys: u64, expires: u64) -> &mut Self {
        self.byte(251).length(keys).length(expires)
    }

    pub(crate) fn expiry_ms(&mut self, expiry_ms: i64) -> &mut Self {
        self.byte(252).raw(&expiry_ms.to_le_bytes())
    }

    pub(crate) fn expiry_seconds(&mut self, expiry_seconds: i32) -> &mut Self {
        self.byte(253).raw(&expiry_seconds.to_le_bytes())
    }

    pub(crate) fn function(&mut self, code: &str) -> &mut Self {
        self.byte(245).string_as(Form::Lzf, code.as_bytes())
    }

    pub(crate) fn module_aux(&mut self, module: &str) -> &mut Self {
        self.byte(247).length(module_id(module)).length(2).length(1).module_value()
    }

    /// One of each part that a module may write, and the end.
    pub(crate) fn module_value(&mut self) -> &mut Self {
        self.length(1).length(u64::MAX);
        self.length(2).length(7);
        self.length(3).raw(&1.5_f32.to_le_bytes());
        self.length(4).raw(&1.5_f64.to_le_bytes());
        self.length(5).string("what only the module understands");
        self.length(0)
    }

    pub(crate) fn key_metadata(&mut self) -> &mut Self {
        // "KMT1", version 1, no flags.
        let class = [b'K', b'M', b'T', b'1']
            .iter()
            .fold(0, |class: u32, character| class << 6 | character_place(*character));
        self.byte(243).length(1).raw(&((class << 5 | 1) << 3).to_le_bytes()).module_value()
    }

    pub(crate) fn slot_import(&mut self) -> &mut Self {
        self.byte(243).string("a".repeat(40)).length(2).length(0).length(5).length(9).length(16383)
    }

    /// The end marker, and the checksum from version 5 on.
    pub(crate) fn end(&mut self, has_checksum: bool) -> Vec<u8> {
        self.byte(255);
        if has_checksum {
            let checksum = checksum(CrcAlgorithm::Crc64Redis, &self.bytes);
            self.raw(&checksum.to_le_bytes());
        }
        self.bytes.clone()
    }

    /// Ends as with `rdbchecksum no`.
    pub(crate) fn end_without_checksum(&mut self) -> Vec<u8> {
        self.byte(255).raw(&[0; 8]).bytes.clone()
    }

    /// Type, key and value, all filled with `seed`'s whims.
    pub(crate) fn value(&mut self, code: u8, key: &[u8], form: Form, seed: u64) -> &mut Self {
        self.byte(code).string_as(form, key);
        let count = seed % 4 + 1;
        match code {
            1 | 2 | 14 => self.times(count, |it, n| it.string_as(form, &filler(seed + n))),
            3 => self.times(count, |it, n| {
                it.string(filler(n));
                match n {
                    0 => it.byte(255),
                    1 => it.byte(254),
                    _ => it.byte(4).raw(b"1.25"),
                }
            }),
            4 => self.times(count, |it, n| it.string(filler(n)).integer(to_i32(seed))),
            5 => self.times(count, |it, n| it.string(filler(n)).raw(&1.5_f64.to_le_bytes())),
            7 => self.length(module_id("test-type")).module_value(),
            0 | 9..=13 | 16 | 17 | 20 | 23 => self.string_as(form, &filler(seed)),
            15 => self.stream(1, seed),
            18 => self.times(count, |it, n| it.length(n % 2 + 1).string_as(form, &filler(n))),
            19 => self.stream(2, seed),
            21 => self.stream(3, seed),
            25 => self.raw(&(seed % 3).to_le_bytes()).string(filler(seed)),
            26 => self.stream(4, seed),
            // 22 differs by magic, and 22 and 24 have methods of their own.
            _ => unreachable!("type {code}"),
        }
    }

    /// Redis's types 22 and 24.
    pub(crate) fn hash_with_expiry(&mut self, code: u8, key: &[u8], expiries: &[u64]) -> &mut Self {
        self.byte(code).string(key);
        if code == 24 {
            self.raw(&1_900_000_000_000_u64.to_le_bytes());
        }
        self.length(expiries.len() as u64);
        for expiry in expiries {
            self.length(*expiry).string("field").string("value");
        }
        self
    }

    /// Valkey's type 22.
    pub(crate) fn hash_2(&mut self, key: &[u8], expiries_ms: &[i64]) -> &mut Self {
        self.byte(22).string(key).length(expiries_ms.len() as u64);
        for expiry_ms in expiries_ms {
            self.string("field").string("value").raw(&expiry_ms.to_le_bytes());
        }
        self
    }

    fn stream(&mut self, generation: u8, seed: u64) -> &mut Self {
        self.times(seed % 3, |it, n| it.string([7; 16]).string(filler(n)));
        // Entries and the last id; the first id, the highest deleted one, entries ever added.
        self.length(3).length(1_700_000_000_000).length(0);
        if generation >= 2 {
            self.length(1_600_000_000_000).length(1).length(0).length(0).length(9);
        }
        self.times(seed % 3, |it, n| it.group(generation, n));
        if generation >= 4 {
            self.length(100).length(1000);
            self.times(seed % 3, |it, _| {
                it.string("producer");
                it.times(2, |it, n| it.string(filler(n)).length(1_700_000_000_000).length(n))
            });
            self.length(12).length(3);
        }
        self
    }

    fn group(&mut self, generation: u8, pending: u64) -> &mut Self {
        self.string("group").length(1_700_000_000_000).length(5);
        if generation >= 2 {
            self.length(77);
        }
        self.times(pending, |it, n| it.raw(&[3; 16]).raw(&[4; 8]).length(n));
        self.times(2, |it, _| {
            it.string("consumer").raw(&[5; 8]);
            if generation >= 3 {
                it.raw(&[6; 8]);
            }
            it.times(pending, |it, _| it.raw(&[3; 16]))
        })
    }

    fn times(&mut self, count: u64, part: impl Fn(&mut Self, u64) -> &mut Self) -> &mut Self {
        self.length(count);
        for index in 0..count {
            part(self, index);
        }
        self
    }
}

pub(crate) fn module_id(name: &str) -> u64 {
    let name = name.bytes().fold(0, |id, byte| id << 6 | u64::from(character_place(byte)));
    name << 10 | 1
}

fn character_place(character: u8) -> u32 {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    u32::try_from(alphabet.iter().position(|known| *known == character).unwrap()).unwrap()
}

fn filler(seed: u64) -> Vec<u8> {
    let bytes = [0, 5, 63, 64, 300, 20_000][usize::try_from(seed % 6).unwrap()];
    (0..bytes).map(|index: u64| (index * (seed + 1)).to_le_bytes()[0]).collect()
}

fn to_i32(seed: u64) -> i32 {
    i32::from_le_bytes(*seed.to_le_bytes().first_chunk().unwrap())
}

/// LZF of runs: a byte that repeats becomes a back reference, all others literals.
fn lzf(text: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    let mut literals: Vec<u8> = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let run = match at.checked_sub(1) {
            Some(before) => {
                text[at..].iter().take(264).take_while(|byte| **byte == text[before]).count()
            }
            None => 0,
        };
        if run >= 3 {
            flush(&mut packed, &mut literals);
            match u8::try_from(run).map_or(u8::MAX, |run| run) {
                short @ 3..=8 => packed.extend([(short - 2) << 5, 0]),
                _ => packed.extend([0xe0, u8::try_from(run - 9).unwrap(), 0]),
            }
            at += run;
        } else {
            literals.push(text[at]);
            at += 1;
            if literals.len() == 32 {
                flush(&mut packed, &mut literals);
            }
        }
    }
    flush(&mut packed, &mut literals);
    packed
}

fn flush(packed: &mut Vec<u8>, literals: &mut Vec<u8>) {
    if let Some(control) = literals.len().checked_sub(1) {
        packed.push(u8::try_from(control).unwrap());
        packed.append(literals);
    }
}
