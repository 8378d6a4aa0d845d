//! The keys with the largest values, a limited number of them. Forgets all others at once.

use super::{BigKey, ValueType};

/// More than anybody reads.
const KEYS_MAX: usize = 1000;

#[derive(Debug)]
pub(super) struct Biggest {
    /// Largest first; of equal ones that which came first.
    keys: Vec<BigKey>,
    keys_max: usize,
}

impl Biggest {
    pub(super) fn new(keys_max: usize) -> Self {
        Self { keys: Vec::new(), keys_max: keys_max.min(KEYS_MAX) }
    }

    #[inline]
    pub(super) fn offer(&mut self, database: u32, key: &[u8], value_type: ValueType, bytes: u64) {
        let is_full = self.keys.len() >= self.keys_max;
        if !is_full || self.keys.last().is_some_and(|smallest| bytes > smallest.bytes) {
            self.insert(BigKey { database, key: escape(key), value_type, bytes });
        }
    }

    pub(super) fn into_keys(self) -> Vec<BigKey> {
        self.keys
    }

    #[cold]
    fn insert(&mut self, key: BigKey) {
        let place = self.keys.partition_point(|other| other.bytes >= key.bytes);
        self.keys.insert(place, key);
        self.keys.truncate(self.keys_max);
    }
}

/// Text that is safe to print: bytes outside printable ASCII, and the backslash, as `\xNN`.
pub(super) fn escape(bytes: &[u8]) -> String {
    use std::fmt::Write;

    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        if matches!(byte, b' '..=b'~') && byte != b'\\' {
            text.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_largest_stay_and_the_first_of_equal_ones() {
        let mut biggest = Biggest::new(2);
        for (key, bytes) in [("a", 5), ("b", 9), ("c", 5), ("d", 7), ("e", 7)] {
            biggest.offer(0, key.as_bytes(), ValueType::Set, bytes);
        }
        let keys: Vec<_> = biggest.into_keys().into_iter().map(|key| key.key).collect();
        assert_eq!(keys, ["b", "d"]);
    }

    #[test]
    fn none_are_kept_when_none_are_wanted() {
        let mut biggest = Biggest::new(0);
        biggest.offer(0, b"a", ValueType::Set, 5);
        assert!(biggest.into_keys().is_empty());
    }

    #[test]
    fn keys_print_without_harm() {
        assert_eq!(escape(b"a b\n\\\xff~"), "a b\\x0a\\x5c\\xff~");
    }
}
