//! End to end on a real Kubernetes: installations as people deploy them, our image in pods, a real S3 server.
//!
//! `make e2e` brings the cluster and runs them; `cargo test` alone does not.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test stops at the first surprise and says what it saw"
)]
#![expect(unreachable_pub, reason = "`pub` says what a module offers; a binary offers nothing")]

mod broken_source;
mod by_exec;
mod check;
mod cluster;
mod discovery;
mod every_installation;
mod installation;
mod jobs;
mod live;
mod mid_backup;
mod namespace;
mod place;
mod plain;
mod product;
mod ready;
mod rights;
mod s3;
#[expect(
    clippy::expect_used,
    dead_code,
    unused_imports,
    reason = "the integration tests use all of it, and so they write"
)]
mod servers;
#[expect(
    clippy::expect_used,
    dead_code,
    reason = "the integration tests use all of it, and so they write"
)]
#[path = "../it/throw_away.rs"]
mod throw_away;
mod turns;
mod workers;
mod writer;
