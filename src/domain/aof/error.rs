//! Where an append-only file is broken and how: the byte, and what was wrong with it.

use crate::domain::rdb;

/// The scan stopped; nothing that it counted behind the last whole command may be trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("read the append-only file at byte {offset}")]
pub struct Error {
    /// Offset from the first byte of the file.
    pub offset: u64,
    #[source]
    pub fault: Fault,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("{0:#04x} begins neither a command (`*`), nor an annotation (`#`), nor an RDB")]
    NoCommand(u8),
    #[error("{0:#04x} begins no argument of a command (`$`)")]
    NoArgument(u8),
    #[error("the length is no decimal number that ends with CR LF")]
    Number,
    #[error("a command has no argument")]
    Empty,
    #[error("{found} is above the limit of {limit}")]
    TooLong { found: u64, limit: u64 },
    #[error("an argument does not end with CR LF where its length says")]
    ArgumentEnd,
    #[error("the line of an annotation is longer than {limit} bytes")]
    Annotation { limit: usize },
    #[error("SELECT names no database")]
    Database,
    #[error("commands select more than {limit} databases")]
    TooManyDatabases { limit: usize },
    #[error("the RDB at its beginning is broken")]
    Preamble(#[source] rdb::Error),
}
