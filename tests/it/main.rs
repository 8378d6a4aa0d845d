//! All integration tests, in one binary: one link, one place for the servers they share.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test stops at the first surprise and says what it saw"
)]
#![expect(unreachable_pub, reason = "`pub` says what a module offers; a binary offers nothing")]

mod aof_properties;
mod architecture;
mod breakage;
mod cli;
mod container;
mod crash;
mod data_directory;
mod dataset;
mod faults;
mod jobs;
mod journeys;
mod load;
mod manifest_fixture;
mod rdb_encoder;
mod rdb_properties;
mod rdb_servers;
mod redis_node;
mod redis_topology;
mod retention;
#[expect(dead_code, reason = "the fixtures come before the tests that need all of them")]
mod servers;
mod store_contract;
mod store_directory;
mod store_flaky;
mod store_lock;
mod store_s3;
mod tcp_proxy;
mod throw_away;
