//! The outside world. Acts; never chooses.

pub mod data_directory;
pub mod direct;
pub mod host_lock;
pub mod kubernetes;
pub mod live_directory;
pub mod program;
pub mod redis_node;
pub mod server_process;
pub mod spool;
pub mod store;
