//! The outside world. Acts; never chooses.

pub mod spool;
pub mod store;
