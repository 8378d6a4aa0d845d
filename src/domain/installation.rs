//! What a restore must know and the manifest must not tell. Stored as an archive of its own.

use serde::{Deserialize, Serialize};

use super::{
    digest::{Digests, Sha256},
    identity::{BackupId, SourceName},
    rdb::Private,
    topology::Topology,
};

/// The version this program writes.
pub const VERSION: u32 = 1;

/// More than any installation needs.
pub const BYTES_MAX: u64 = 256 << 20;

/// As written.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Installation<'a> {
    pub version: u32,
    pub backup: &'a BackupId,
    pub source: &'a SourceName,
    /// Nodes, roles, persistence settings, Sentinel's options, as observed before the capture.
    pub topology: &'a Topology,
    pub shards: &'a [InstallationShard],
}

/// As read back: what verification and restore need of it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReadInstallation {
    pub version: u32,
    pub backup: BackupId,
    pub source: SourceName,
    pub shards: Vec<InstallationShard>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstallationShard {
    pub shard: u32,
    pub archives: Vec<PlainArchive>,
    /// AUX fields and the biggest keys of the shard's RDB.
    pub rdb: Private,
}

/// A captured file before its codec.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlainArchive {
    pub name: String,
    pub bytes: u64,
    pub sha256: Sha256,
}

impl PlainArchive {
    pub fn new(name: &str, digests: &Digests) -> Self {
        let Digests { bytes, sha256, crc64nvme: _ } = *digests;
        Self { name: name.to_owned(), bytes, sha256 }
    }

    /// What differs, for people.
    pub fn difference(&self, found: &Digests) -> Option<String> {
        if found.bytes != self.bytes {
            Some(format!("{} has {} bytes, not {}", self.name, found.bytes, self.bytes))
        } else if found.sha256 != self.sha256 {
            Some(format!("{} has SHA-256 {}, not {}", self.name, found.sha256, self.sha256))
        } else {
            None
        }
    }
}

impl ReadInstallation {
    pub fn plain(&self, shard: u32, name: &str) -> Option<&PlainArchive> {
        let shard = self.shards.iter().find(|it| it.shard == shard)?;
        shard.archives.iter().find(|archive| archive.name == name)
    }
}
