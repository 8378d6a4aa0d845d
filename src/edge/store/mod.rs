//! Where backups live: S3, a directory, or memory in tests. Nothing in a store is ever overwritten.
//!
//! `tests/it/store_contract.rs` holds every implementation to the same contract.

mod as_of;
mod directory;
mod flaky;
mod memory;
mod received;
mod s3;

use std::{error, fmt};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use tokio::sync::OwnedSemaphorePermit;

use crate::domain::{
    catalog::Key,
    digest::{Crc64Nvme, Digester, Digests},
    lock::{Lock, Protection},
};

pub use self::{
    as_of::AsOf,
    directory::Directory,
    flaky::{Fault, Flaky, Operation},
    memory::Memory,
    s3::{Checksums, Encryption, LockOnPut, S3, S3Settings},
};

/// Bytes of a part in flight. Every part of an object but the last has this size, as S3 demands
/// five MiB at least and some S3 servers demand equal parts.
pub const PART_BYTES: usize = 8 << 20;

/// Keys that one listing may yield; more is an error, never a shortened answer.
pub const LISTED_MAX: usize = 1_000_000;

const NO_VERSIONS: &str = "the store keeps no versions";
const NO_LOCKS: &str = "the store has no Object Lock";

type Cause = Box<dyn error::Error + Send + Sync>;

/// Variants by what the caller can do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{attempt}: not found")]
    NotFound { attempt: String },
    #[error("{attempt}: already exists")]
    AlreadyExists { attempt: String },
    /// `advice` names the missing permission.
    #[error("{attempt}: access denied; {advice}")]
    Denied {
        attempt: String,
        advice: String,
        #[source]
        source: Option<Cause>,
    },
    #[error("{attempt}: no space left in the store")]
    Full {
        attempt: String,
        #[source]
        source: Cause,
    },
    /// The store was told to keep it; nothing was deleted.
    #[error("{attempt}: {lock}")]
    Locked { attempt: String, lock: Lock },
    /// This store has no such thing, or is looked at in a way that does not allow it.
    #[error("{attempt}: {finding}")]
    Unsupported { attempt: String, finding: &'static str },
    /// What arrived or lies there is not what was sent.
    #[error("{attempt}: {finding}")]
    Corrupt { attempt: String, finding: String },
    /// Transient, and retries are used up.
    #[error("{attempt}: store unavailable")]
    Unavailable {
        attempt: String,
        #[source]
        source: Cause,
    },
    /// Trying again cannot help.
    #[error("{attempt}")]
    Permanent {
        attempt: String,
        #[source]
        source: Cause,
    },
}

/// Up to [`PART_BYTES`] bytes that keep their share of the process-wide memory budget until the
/// store has let go of them.
#[derive(Debug)]
pub struct Part {
    pub body: Bytes,
    pub budget: Option<Share>,
}

/// Memory of one part: of what one store may take, and of what the whole process may.
pub type Share = [OwnedSemaphorePermit; 2];

/// An object that a store has confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Where the store keeps versions.
    pub version_id: Option<String>,
}

/// What a store says of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes {
    pub bytes: u64,
    /// Where the store keeps checksums of whole objects.
    pub crc64nvme: Option<Crc64Nvme>,
    pub modified: Timestamp,
    /// Where the store keeps versions.
    pub version_id: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub key: Key,
    pub bytes: u64,
    pub modified: Timestamp,
}

/// One version of an object, or a marker that hides those before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    pub key: Key,
    pub version_id: String,
    pub is_marker: bool,
    pub bytes: u64,
    /// When it was written, by the store's clock.
    pub modified: Timestamp,
}

/// What a store has against deleting and overwriting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Safeguards {
    pub versions: Versioning,
    pub object_lock: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Versioning {
    #[default]
    Never,
    /// What was written before is still kept; what is overwritten or deleted from now on may be lost.
    Suspended,
    Enabled,
}

/// An upload that was begun and neither finished nor aborted, such as by a killed process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// As the store names it.
    pub id: String,
    /// The key it was meant for, as far as the store remembers.
    pub key: Option<Key>,
    pub begun: Timestamp,
}

#[async_trait]
pub trait Store: fmt::Debug + Send + Sync {
    /// For people: `s3://bucket/prefix` or a path. Holds no secret.
    fn address(&self) -> String;

    /// Begin an object that must not exist yet. Readers see nothing of it before
    /// [`Upload::finish`]; dropping the upload leaves an [`Unfinished`] at most.
    async fn upload(&self, key: &Key) -> Result<Box<dyn Upload>, Error>;

    /// Write a small object that must not exist yet. Readers see all of it or none of it.
    async fn create(&self, key: &Key, body: Bytes) -> Result<Stored, Error>;

    /// Read a small object of at most `bytes_max` bytes; a larger one is [`Error::Corrupt`]. Where the
    /// store keeps versions, its first one: we overwrite nothing, so that a later one is not ours.
    async fn read(&self, key: &Key, bytes_max: usize) -> Result<Bytes, Error>;

    /// Read an object from its beginning, at that version where the store keeps versions.
    async fn download(
        &self,
        key: &Key,
        version_id: Option<&str>,
    ) -> Result<Box<dyn Download>, Error>;

    async fn attributes(&self, key: &Key, version_id: Option<&str>) -> Result<Attributes, Error>;

    /// All keys below `prefix`, sorted. A prefix ends at any character, not only at `/`.
    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, Error>;

    /// The distinct first parts of all keys, sorted: the sources that have something here.
    async fn folders(&self) -> Result<Vec<String>, Error>;

    /// Deleting what is already gone is a success. Where the store keeps versions, the object is only
    /// hidden; what is locked is left as it is, and [`Error::Locked`].
    async fn delete(&self, key: &Key) -> Result<(), Error>;

    /// Delete an object with all its versions, for good. If one is locked, all stay as they are.
    async fn purge(&self, key: &Key) -> Result<(), Error>;

    /// What forbids deleting that version, or the current one. Nothing where the store has no locks.
    async fn protection(&self, key: &Key, version_id: Option<&str>) -> Result<Protection, Error>;

    /// Set or lift the legal hold of that version, or of the current one. Other stores than those with
    /// Object Lock are [`Error::Unsupported`].
    async fn hold(&self, key: &Key, version_id: Option<&str>, is_held: bool) -> Result<(), Error>;

    /// All versions and markers below `prefix`, by key, of each key the newest first.
    /// [`Error::Unsupported`] where the store keeps none.
    async fn versions(&self, prefix: &str) -> Result<Vec<Version>, Error>;

    async fn safeguards(&self) -> Result<Safeguards, Error>;

    /// Uploads below `prefix` that were begun and not ended.
    async fn unfinished(&self, prefix: &str) -> Result<Vec<Unfinished>, Error>;

    /// Forgetting what is already gone is a success.
    async fn forget(&self, unfinished: &Unfinished) -> Result<(), Error>;

    /// The store's own clock, to the second at least.
    async fn clock(&self) -> Result<Timestamp, Error>;
}

#[async_trait]
pub trait Upload: fmt::Debug + Send {
    /// Take the next part, which must not be empty. Returns when the store has room for another, not when this one has
    /// arrived. Every part but the last must have [`PART_BYTES`] bytes.
    async fn write(&mut self, part: Part) -> Result<(), Error>;

    /// Make the object visible if the store holds exactly what `digests` tells; otherwise
    /// [`Error::Corrupt`], and nothing is visible.
    async fn finish(self: Box<Self>, digests: Digests) -> Result<Stored, Error>;

    /// Remove every trace.
    async fn abort(self: Box<Self>) -> Result<(), Error>;
}

#[async_trait]
pub trait Download: fmt::Debug + Send {
    /// The next bytes; none at the end. A transfer that broke is taken up again where it stood.
    async fn next(&mut self) -> Result<Option<Bytes>, Error>;
}

/// Read an object that fits into memory: at most `bytes_max` bytes.
async fn read_whole(
    download: &mut dyn Download,
    bytes_max: usize,
    attempt: impl Fn() -> String,
) -> Result<Bytes, Error> {
    let mut body = BytesMut::new();
    while let Some(piece) = download.next().await? {
        if body.len() + piece.len() > bytes_max {
            let finding = format!("it has more than {bytes_max} bytes");
            return Err(Error::Corrupt { attempt: attempt(), finding });
        }
        body.extend_from_slice(&piece);
    }
    Ok(body.freeze())
}

/// Write an object that is in memory already. An upload that fails is aborted.
async fn write_whole(mut upload: Box<dyn Upload>, body: Bytes) -> Result<Stored, Error> {
    let mut digester = Digester::default();
    digester.update(&body);
    let mut rest = body;
    while !rest.is_empty() {
        let body = rest.split_to(rest.len().min(PART_BYTES));
        if let Err(error) = upload.write(Part { body, budget: None }).await {
            // The first error is the one to tell; what cannot be removed now is swept later.
            let _ = upload.abort().await;
            return Err(error);
        }
    }
    upload.finish(digester.finish()).await
}
