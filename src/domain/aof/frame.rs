//! The smallest parts of a command as Redis writes it. Never reads past what it is given.
//!
//! The loader (aof.c:loadSingleAppendOnlyFile) reads lines by `fgets` and numbers by `atoi`; the writer
//! (aof.c:catAppendOnlyGenericCommand) knows one form only, and so does this.

use super::Fault;

/// No token is longer: a marker, a number and its end, or a short argument that matters.
pub(super) const TOKEN_BYTES_MAX: usize = 32;

/// Digits of the longest number that a length may have.
const DIGITS_MAX: usize = 19;

/// A value and how many bytes it took; none when the bytes end before it does.
pub(super) type Token<T> = Result<Option<(T, usize)>, Fault>;

/// A number behind its marker, with its line's end.
#[inline]
pub(super) fn number(input: &[u8]) -> Token<u64> {
    let mut value: u64 = 0;
    let mut at = 1;
    loop {
        match input.get(at) {
            None => return Ok(None),
            Some(digit @ b'0'..=b'9') if at <= DIGITS_MAX => {
                // 19 digits are always below 2^64.
                value = value * 10 + u64::from(digit - b'0');
                at += 1;
            }
            Some(b'\r') if at > 1 => break,
            Some(_) => return Err(Fault::Number),
        }
    }
    match input.get(at + 1) {
        None => Ok(None),
        Some(b'\n') => Ok(Some((value, at + 2))),
        Some(_) => Err(Fault::Number),
    }
}

/// What a command does to where a file may be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Multi,
    Exec,
    Select,
    Other,
}

impl Command {
    /// Longer names are none of those that matter.
    pub(super) const NAME_BYTES_MAX: u64 = 6;

    #[inline]
    pub(super) fn named(name: &[u8]) -> Self {
        match name.len() {
            5 if name.eq_ignore_ascii_case(b"multi") => Self::Multi,
            4 if name.eq_ignore_ascii_case(b"exec") => Self::Exec,
            6 if name.eq_ignore_ascii_case(b"select") => Self::Select,
            _ => Self::Other,
        }
    }
}

/// The number of a database, as SELECT takes it.
pub(super) fn database(text: &[u8]) -> Option<u32> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_whole_broken_or_awaited() {
        assert_eq!(number(b"*12\r\n$"), Ok(Some((12, 5))));
        for part in [&b"*"[..], b"*1", b"*12\r"] {
            assert_eq!(number(part), Ok(None));
        }
        for broken in [&b"*\r\n"[..], b"*-1\r\n", b"* 1\r\n", b"*1\n", b"*1\rx", b"*1x\r\n"] {
            assert_eq!(number(broken), Err(Fault::Number), "{broken:?}");
        }
        assert_eq!(number(b"*9999999999999999999\r\n"), Ok(Some((9_999_999_999_999_999_999, 22))));
        assert_eq!(number(b"*99999999999999999999\r\n"), Err(Fault::Number));
    }
}
