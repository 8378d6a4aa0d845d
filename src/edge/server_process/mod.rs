//! Throw-away servers that load an RDB and tell what they found. Never serves anybody else.

mod binary;
mod reply;
mod room;

use std::{io, path::PathBuf, time::Duration};

pub use self::{
    binary::{Binary, find},
    room::{Loading, Progress, Proof, Room},
};
use crate::domain::compatibility::NotAServerVersion;

/// Variants by what the caller can do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("run {} --version", path.display())]
    Run {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("read the version of {}", path.display())]
    Version {
        path: PathBuf,
        #[source]
        source: NotAServerVersion,
    },
    #[error("{attempt}")]
    File {
        attempt: String,
        #[source]
        source: io::Error,
    },
    /// The server ended, so it did not take the RDB.
    #[error("{server} refused to load: {log}")]
    Refused { server: String, log: String },
    /// From outside, which says nothing about the RDB.
    #[error("{server} was killed while it loaded")]
    Killed { server: String },
    #[error("{server} did not load within {} s; it stood at {progress}", limit.as_secs())]
    TooSlow { server: String, limit: Duration, progress: Progress },
    #[error("ask {server} for {what}")]
    Ask {
        server: String,
        what: &'static str,
        #[source]
        source: redis::RedisError,
    },
    #[error("{server} answered {what} in an unknown form: {found}")]
    Reply { server: String, what: &'static str, found: String },
}
