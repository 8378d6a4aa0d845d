//! The outside world. Acts; never chooses.

pub mod redis_node;
pub mod spool;
pub mod data_directory;
pub mod store;
