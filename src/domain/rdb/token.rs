//! The smallest parts of the format: lengths and the heads of strings. Never reads past what it is given.
//!
//! Layouts: `rdbLoadLenByRef` and `rdbGenericLoadStringObject` in Redis's rdb.c.

use super::error::Fault;

/// No token is longer than this many bytes; bodies of strings are not part of a token.
pub(super) const TOKEN_BYTES_MAX: usize = 64;

/// A terabyte: far above what a server holds in one string, far below what overflows.
const STRING_BYTES_MAX: u64 = 1 << 40;

/// A back reference of three bytes stands for at most 264.
const LZF_EXPANSION_MAX: u64 = 88;

/// A value and how many bytes it took; none when the bytes end before it does.
pub(super) type Token<T> = Result<Option<(T, usize)>, Fault>;

/// The head of a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Head {
    Plain {
        bytes: u64,
    },
    /// Wholly in the head: no body follows.
    Integer {
        value: i32,
    },
    Lzf {
        bytes: u64,
        plain_bytes: u64,
    },
}

impl Head {
    /// Bytes that follow the head.
    pub(super) const fn body_bytes(self) -> u64 {
        match self {
            Self::Plain { bytes } | Self::Lzf { bytes, plain_bytes: _ } => bytes,
            Self::Integer { value: _ } => 0,
        }
    }
}

#[inline]
pub(super) fn length(bytes: &[u8]) -> Token<u64> {
    let Some(&first) = bytes.first() else { return Ok(None) };
    match first {
        0x00..=0x3f => Ok(Some((u64::from(first), 1))),
        0x40..=0x7f => {
            Ok(bytes.get(1).map(|&second| (u64::from(first & 0x3f) << 8 | u64::from(second), 2)))
        }
        0x80 => Ok(array(bytes, 1).map(|bytes| (u64::from(u32::from_be_bytes(bytes)), 5))),
        0x81 => Ok(array(bytes, 1).map(|bytes| (u64::from_be_bytes(bytes), 9))),
        0x82.. => Err(Fault::LengthEncoding(first)),
    }
}

#[inline]
pub(super) fn head(bytes: &[u8]) -> Token<Head> {
    let Some(&first) = bytes.first() else { return Ok(None) };
    if first >= 0xc0 {
        return special_head(first, bytes);
    }
    let Some((bytes, used)) = length(bytes)? else { return Ok(None) };
    Ok(Some((Head::Plain { bytes: within(bytes, STRING_BYTES_MAX)? }, used)))
}

fn special_head(first: u8, bytes: &[u8]) -> Token<Head> {
    let integer = |value, used| (Head::Integer { value }, used);
    match first {
        0xc0 => Ok(array(bytes, 1).map(|byte| integer(i32::from(i8::from_le_bytes(byte)), 2))),
        0xc1 => Ok(array(bytes, 1).map(|bytes| integer(i32::from(i16::from_le_bytes(bytes)), 3))),
        0xc2 => Ok(array(bytes, 1).map(|bytes| integer(i32::from_le_bytes(bytes), 5))),
        0xc3 => lzf_head(bytes),
        0x00..=0xbf | 0xc4.. => Err(Fault::StringEncoding(first)),
    }
}

fn lzf_head(bytes: &[u8]) -> Token<Head> {
    let Some((compressed, used)) = length(&bytes[1..])? else { return Ok(None) };
    let Some((plain_bytes, used_too)) = length(&bytes[1 + used..])? else { return Ok(None) };
    let bytes = within(compressed, STRING_BYTES_MAX)?;
    within(plain_bytes, bytes * LZF_EXPANSION_MAX)?;
    if bytes == 0 || plain_bytes == 0 {
        return Err(Fault::Lzf("is empty"));
    }
    Ok(Some((Head::Lzf { bytes, plain_bytes }, 1 + used + used_too)))
}

#[inline]
pub(super) const fn within(found: u64, limit: u64) -> Result<u64, Fault> {
    if found <= limit { Ok(found) } else { Err(Fault::TooLong { found, limit }) }
}

/// The `N` bytes from `at` on, if they are there.
#[inline]
pub(super) fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_have_four_forms() {
        assert_eq!(length(&[0x3f]), Ok(Some((63, 1))));
        assert_eq!(length(&[0x41, 0x02]), Ok(Some((258, 2))));
        assert_eq!(length(&[0x80, 0, 1, 0, 0]), Ok(Some((65536, 5))));
        assert_eq!(length(&[0x81, 0, 0, 0, 1, 0, 0, 0, 0]), Ok(Some((1 << 32, 9))));
        assert_eq!(length(&[0x81, 0, 0, 0, 1, 0, 0, 0]), Ok(None));
        assert_eq!(length(&[0xc0]), Err(Fault::LengthEncoding(0xc0)));
    }

    #[test]
    fn strings_may_be_integers_or_compressed() {
        assert_eq!(head(&[0xc0, 0xff]), Ok(Some((Head::Integer { value: -1 }, 2))));
        assert_eq!(head(&[0xc1, 0, 0x80]), Ok(Some((Head::Integer { value: -32768 }, 3))));
        assert_eq!(head(&[0xc2, 0, 0, 1, 0]), Ok(Some((Head::Integer { value: 65536 }, 5))));
        assert_eq!(
            head(&[0xc3, 5, 0x40, 100]),
            Ok(Some((Head::Lzf { bytes: 5, plain_bytes: 100 }, 4))),
        );
        assert_eq!(head(&[0xc3, 5, 0x40]), Ok(None));
        assert_eq!(head(&[0xc4]), Err(Fault::StringEncoding(0xc4)));
    }

    #[test]
    fn a_length_that_no_server_could_mean_is_refused() {
        let hostile = [0x81, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(
            head(&hostile),
            Err(Fault::TooLong { found: u64::MAX, limit: STRING_BYTES_MAX }),
        );
        assert!(matches!(head(&[0xc3, 1, 0x7f, 0xff]), Err(Fault::TooLong { .. })));
    }
}
