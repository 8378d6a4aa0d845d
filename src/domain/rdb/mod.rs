//! The RDB format as bytes that pass by: what they hold, or where they are broken. Never reads a file.

mod facts;

pub use self::facts::{
    BigKey, Checksum, Content, DatabaseFacts, Facts, Magic, Private, SlotRange, Unread, ValueType,
};
