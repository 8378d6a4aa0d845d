//! The RDB format as bytes that pass by: what they hold, or where they are broken. Never reads a file.

mod biggest;
mod error;
mod facts;
mod layout;
mod lzf;
mod place;
mod scanner;
mod slot;
mod tail;
mod tally;
mod text;
mod token;
mod walker;

pub use self::{
    error::{Error, Fault, Reading},
    facts::{
        BigKey, Checksum, Content, DatabaseFacts, Facts, Magic, Private, SlotRange, Unread,
        ValueType,
    },
    scanner::{Expectations, Scanned, Scanner},
};
