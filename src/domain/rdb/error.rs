//! Where an RDB is broken and how: the byte, what was being read there, and what was wrong with it.

use std::fmt;

use super::Magic;

/// The scan stopped; nothing that it counted so far may be trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("read {reading} at byte {offset}")]
pub struct Error {
    /// Offset from the first byte of the RDB.
    pub offset: u64,
    pub reading: Reading,
    #[source]
    pub fault: Fault,
}

/// What the scanner was at, such as "the element count" of "a list".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    pub part: &'static str,
    pub of: &'static str,
}

impl fmt::Display for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.part, self.of)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("the input ends before the RDB does")]
    Ended,
    #[error("an RDB begins with REDIS and four digits, or VALKEY and three")]
    Magic,
    #[error("{magic} has no RDB version {version}")]
    Version { magic: Magic, version: u32 },
    #[error("{0} is no type and no opcode here")]
    UnknownType(u8),
    #[error("{0} marks a pre-release format that no released server loads")]
    PreRelease(u8),
    #[error("{0:#04x} begins no length")]
    LengthEncoding(u8),
    #[error("{0:#04x} begins no string")]
    StringEncoding(u8),
    #[error("{found} is above the limit of {limit}")]
    TooLong { found: u64, limit: u64 },
    #[error("more than {limit} of them")]
    TooMany { limit: usize },
    #[error("found {found} where only {wanted} may stand")]
    Unexpected { found: u64, wanted: &'static str },
    #[error("LZF data {0}")]
    Lzf(&'static str),
    #[error("the code does not begin with a line such as `#!lua name=mylibrary`")]
    NoLibraryName,
    #[error("the last byte before the checksum is no end marker")]
    NoEndMarker,
    #[error("bytes follow after the end of the RDB")]
    Trailing,
    #[error("the checksum stored is {stored:016x}, that of the bytes is {computed:016x}")]
    Checksum { stored: u64, computed: u64 },
}
