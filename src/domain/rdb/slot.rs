//! Which of the 16384 slots of a Cluster a key belongs to. Sees the key in pieces; never keeps it.
//!
//! Definition: the Cluster specification's "key hash tags" and CRC-16/XMODEM (crc16.c).

use super::SlotRange;

const SLOTS: u16 = 16384;

/// CRC-16/XMODEM: `TABLES[n]` moves a byte's effect over `n` further bytes.
static TABLES: [[u16; 256]; 8] = tables();

const fn tables() -> [[u16; 256]; 8] {
    let mut tables = [[0_u16; 256]; 8];
    let mut index = 0;
    while index < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "the index is below 256")]
        let mut crc = (index as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 };
            bit += 1;
        }
        tables[0][index] = crc;
        index += 1;
    }
    let mut table = 1;
    while table < 8 {
        let mut index = 0;
        while index < 256 {
            let crc = tables[table - 1][index];
            tables[table][index] = crc << 8 ^ tables[0][(crc >> 8) as usize];
            index += 1;
        }
        table += 1;
    }
    tables
}

fn crc16(mut crc: u16, bytes: &[u8]) -> u16 {
    let (eights, rest) = bytes.as_chunks::<8>();
    for eight in eights {
        let [high, low] = crc.to_be_bytes();
        crc = TABLES[7][usize::from(eight[0] ^ high)]
            ^ TABLES[6][usize::from(eight[1] ^ low)]
            ^ TABLES[5][usize::from(eight[2])]
            ^ TABLES[4][usize::from(eight[3])]
            ^ TABLES[3][usize::from(eight[4])]
            ^ TABLES[2][usize::from(eight[5])]
            ^ TABLES[1][usize::from(eight[6])]
            ^ TABLES[0][usize::from(eight[7])];
    }
    for &byte in rest {
        let [high, low] = crc.to_be_bytes();
        crc = u16::from_be_bytes([low, 0]) ^ TABLES[0][usize::from(high ^ byte)];
    }
    crc
}

/// The slot of a key that comes in pieces.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Hasher {
    whole: u16,
    tag: Tag,
}

#[derive(Clone, Copy, Debug, Default)]
enum Tag {
    /// No `{` yet.
    #[default]
    Awaited,
    /// Behind the first `{`.
    Open { crc: u16, empty: bool },
    /// The first `}` behind it came.
    Closed { crc: u16 },
    /// The first `{` was followed by `}` at once, so the whole key counts.
    Empty,
}

impl Hasher {
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        self.whole = crc16(self.whole, bytes);
        if matches!(self.tag, Tag::Awaited) {
            let Some(brace) = bytes.iter().position(|&byte| byte == b'{') else { return };
            self.tag = Tag::Open { crc: 0, empty: true };
            bytes = &bytes[brace + 1..];
        }
        if let Tag::Open { crc, empty } = self.tag {
            self.tag = match bytes.iter().position(|&byte| byte == b'}') {
                Some(0) if empty => Tag::Empty,
                Some(end) => Tag::Closed { crc: crc16(crc, &bytes[..end]) },
                None => Tag::Open { crc: crc16(crc, bytes), empty: empty && bytes.is_empty() },
            };
        }
    }

    pub(super) fn slot(self) -> u16 {
        let crc = match self.tag {
            Tag::Closed { crc } => crc,
            Tag::Awaited | Tag::Open { .. } | Tag::Empty => self.whole,
        };
        crc % SLOTS
    }
}

/// Slots as a bitmap, so that the test costs the same for any number of ranges.
#[derive(Debug)]
pub(super) struct SlotSet(Box<[u64; SLOTS as usize / 64]>);

impl SlotSet {
    pub(super) fn new(ranges: &[SlotRange]) -> Self {
        let mut bits = Box::new([0; SLOTS as usize / 64]);
        for slot in 0..SLOTS {
            if ranges.iter().any(|range| range.contains(slot)) {
                bits[usize::from(slot / 64)] |= 1 << (slot % 64);
            }
        }
        Self(bits)
    }

    pub(super) fn contains(&self, slot: u16) -> bool {
        self.0[usize::from(slot / 64)] & 1 << (slot % 64) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(key: &[u8], piece_bytes: usize) -> u16 {
        let mut hasher = Hasher::default();
        key.chunks(piece_bytes).for_each(|piece| hasher.feed(piece));
        hasher.slot()
    }

    /// Asked from a server by CLUSTER KEYSLOT.
    const KNOWN: [(&[u8], u16); 9] = [
        (b"123456789", 0x31c3),
        (b"foo", 12182),
        (b"{foo}bar", 12182),
        (b"a{foo}{bar}", 12182),
        (b"{}foo", 9500),
        (b"foo{", 7673),
        (b"foo{bar", 15278),
        (b"a{{foo}}bar", 13308),
        (b"", 0),
    ];

    #[test]
    fn slots_are_those_of_the_server() {
        for (key, expected) in KNOWN {
            for piece_bytes in 1..=16 {
                assert_eq!(slot(key, piece_bytes), expected, "{key:?} in pieces of {piece_bytes}");
            }
        }
    }

    #[test]
    fn long_keys_hash_alike_in_any_pieces() {
        let key: Vec<u8> = (0..=255).filter(|byte| *byte != b'}').collect();
        let expected = slot(&key, 1);
        for piece_bytes in 2..=key.len() {
            assert_eq!(slot(&key, piece_bytes), expected);
        }
    }

    #[test]
    fn a_set_holds_both_ends_of_its_ranges() {
        let ranges = [SlotRange { first: 5, last: 70 }, SlotRange { first: 16383, last: 16383 }];
        let set = SlotSet::new(&ranges);
        let held: Vec<u16> = (0..16384).filter(|slot| set.contains(*slot)).collect();
        let expected: Vec<u16> = (5..=70).chain([16383]).collect();
        assert_eq!(held, expected);
    }
}
