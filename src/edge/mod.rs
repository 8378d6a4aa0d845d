//! The outside world. Acts; never chooses.

pub mod store;
