//! Reads the few strings that matter, such as keys, in whatever form they lie. Keeps no more than it is told to.

use super::{error::Fault, lzf::Decoder, slot::Hasher, token::Head};

#[derive(Debug)]
pub(super) struct Reader {
    kept: Vec<u8>,
    kept_bytes_max: usize,
    hasher: Option<Hasher>,
    decoder: Decoder,
    compressed: bool,
    /// Bytes of the body still to come.
    left: u64,
}

impl Reader {
    pub(super) fn new() -> Self {
        Self {
            kept: Vec::new(),
            kept_bytes_max: 0,
            hasher: None,
            decoder: Decoder::new(),
            compressed: false,
            left: 0,
        }
    }

    /// Begins another string, of which the first bytes are kept.
    #[inline]
    pub(super) fn begin(&mut self, head: Head, kept_bytes_max: usize, hasher: Option<Hasher>) {
        self.kept.clear();
        self.kept_bytes_max = kept_bytes_max;
        self.hasher = hasher;
        self.left = head.body_bytes();
        self.compressed = false;
        match head {
            Head::Plain { bytes: _ } => {}
            Head::Integer { value } => self.put_integer(value),
            Head::Lzf { bytes: _, plain_bytes } => {
                self.compressed = true;
                self.decoder.restart(plain_bytes);
            }
        }
    }

    /// Takes what belongs to the string and says how much that was.
    #[inline]
    pub(super) fn feed(&mut self, input: &[u8]) -> Result<usize, Fault> {
        let taken = usize::try_from(self.left).unwrap_or(usize::MAX).min(input.len());
        let input = &input[..taken];
        if self.compressed {
            let (kept, kept_bytes_max, hasher) =
                (&mut self.kept, self.kept_bytes_max, &mut self.hasher);
            self.decoder.feed(input, |byte| put(kept, kept_bytes_max, hasher, &[byte]))?;
        } else {
            put(&mut self.kept, self.kept_bytes_max, &mut self.hasher, input);
        }
        self.left -= taken as u64;
        if self.compressed && self.left == 0 {
            self.decoder.finish()?;
        }
        Ok(taken)
    }

    pub(super) fn is_complete(&self) -> bool {
        self.left == 0
    }

    /// The string's first bytes.
    pub(super) fn kept(&self) -> &[u8] {
        &self.kept
    }

    /// The slot, if a hasher was given.
    pub(super) fn slot(&self) -> Option<u16> {
        self.hasher.map(Hasher::slot)
    }

    fn put_integer(&mut self, value: i32) {
        let mut digits = [0; 11];
        let mut begin = digits.len();
        let mut rest = value.unsigned_abs();
        loop {
            begin -= 1;
            digits[begin] = b'0' + u8::try_from(rest % 10).unwrap_or_default();
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        if value < 0 {
            begin -= 1;
            digits[begin] = b'-';
        }
        put(&mut self.kept, self.kept_bytes_max, &mut self.hasher, &digits[begin..]);
    }
}

#[inline]
fn put(kept: &mut Vec<u8>, kept_bytes_max: usize, hasher: &mut Option<Hasher>, bytes: &[u8]) {
    let room = (kept_bytes_max - kept.len()).min(bytes.len());
    kept.extend_from_slice(&bytes[..room]);
    if let Some(hasher) = hasher {
        hasher.feed(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_read_as_their_digits() {
        for value in [0, 7, -1, 12345, i32::MIN, i32::MAX] {
            let mut reader = Reader::new();
            reader.begin(Head::Integer { value }, 64, None);
            assert!(reader.is_complete());
            assert_eq!(reader.kept(), value.to_string().as_bytes());
        }
    }

    #[test]
    fn all_of_a_string_is_hashed_and_little_of_it_kept() {
        let mut reader = Reader::new();
        reader.begin(Head::Plain { bytes: 8 }, 3, Some(Hasher::default()));
        assert_eq!(reader.feed(b"{fo"), Ok(3));
        assert!(!reader.is_complete());
        assert_eq!(reader.feed(b"o}bar and more"), Ok(5));
        assert!(reader.is_complete());
        assert_eq!(reader.kept(), b"{fo");
        assert_eq!(reader.slot(), Some(12182));
    }
}
