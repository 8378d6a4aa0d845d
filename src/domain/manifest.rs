//! The document that makes archives a backup. It is written last and holds no key, value or secret.

use std::fmt;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    aof::{self, FileFacts},
    archive::{Codec, Encryption},
    catalog::{self, Key},
    digest::{Crc64Nvme, Sha256},
    identity::{BackupId, ScheduleName, SourceName},
    rdb::{Content, SlotRange},
    shrink_guard::ShrinkGuard,
};

/// The version this program writes. It reads this and every earlier one, for ever.
pub const VERSION: u32 = 1;

/// More than any installation needs; what is longer is no manifest of ours.
pub const BYTES_MAX: usize = 64 << 20;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifest {
    pub version: u32,
    pub backup: BackupId,
    pub source: SourceName,
    pub origin: Origin,
    pub schedule: Option<ScheduleName>,
    /// The moment the schedule meant; none when a person asked.
    pub scheduled_for: Option<Timestamp>,
    /// Name and version of the program that wrote it.
    pub tool: String,
    pub begun: Timestamp,
    pub ended: Timestamp,
    pub server: Server,
    pub topology: TopologyKind,
    /// Time between the first and the last shard's capture; a Cluster backup is consistent per shard only.
    pub skew_seconds: f64,
    pub shards: Vec<ShardManifest>,
    /// `installation.json`: what a restore needs to know and the manifest must not tell.
    pub installation: Archive,
    pub shrink_guard: ShrinkGuard,
}

/// Which installation a prefix belongs to. Any identity in common means the same origin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Origin {
    pub identities: Vec<String>,
    /// Where the source was reached, as configured: all that can be compared without asking it.
    #[serde(default)]
    pub addresses: Vec<String>,
}

impl Origin {
    pub fn overlaps(&self, other: &Self) -> bool {
        self.identities.iter().any(|identity| other.identities.contains(identity))
    }

    /// Whether a source that was not asked looks like this one by what its config says.
    pub fn is_reached_at(&self, addresses: &[String]) -> bool {
        let known = || self.identities.iter().chain(&self.addresses);
        addresses.iter().any(|address| known().any(|known| known == address))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Server {
    pub flavour: Flavour,
    /// As INFO tells it, such as `7.0.15`.
    pub version: String,
}

#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Flavour {
    Redis,
    Valkey,
}

impl fmt::Display for Flavour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Redis => "Redis",
            Self::Valkey => "Valkey",
        })
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.flavour, self.version)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TopologyKind {
    Standalone,
    Sentinel,
    Cluster,
}

impl TopologyKind {
    /// For people, such as `Cluster of 3 shards`.
    pub fn of(self, shards: usize) -> String {
        match self {
            Self::Standalone => "standalone".to_owned(),
            Self::Sentinel => "Sentinel".to_owned(),
            Self::Cluster if shards == 1 => "Cluster of one shard".to_owned(),
            Self::Cluster => format!("Cluster of {shards} shards"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ShardManifest {
    pub shard: u32,
    /// Empty where the topology has no slots.
    pub slots: Vec<SlotRange>,
    /// None where only the append-only files were captured.
    pub rdb: Option<RdbCapture>,
    /// None where only the RDB was captured.
    pub aof: Option<AofCapture>,
    pub archives: Vec<Archive>,
}

impl ShardManifest {
    /// What the scanner found in the RDB, where one was captured.
    pub fn rdb_content(&self) -> Option<&Content> {
        self.rdb.as_ref().map(|rdb| &rdb.content)
    }

    pub fn archive(&self, name: &str) -> Option<&Archive> {
        self.archives.iter().find(|archive| archive.name == name)
    }

    /// What is wrong with it, for people: captures and archives must be each other's.
    fn finding(&self) -> Option<String> {
        let Self { shard: _, slots: _, rdb, aof, archives } = self;
        if archives.is_empty() {
            return Some("it has no archive".to_owned());
        }
        if rdb.is_some() != self.archive(catalog::DUMP).is_some() {
            return Some(format!("{} and the capture of an RDB go together", catalog::DUMP));
        }
        let captured = usize::from(rdb.is_some()) + aof.as_ref().map_or(0, |aof| aof.files.len());
        if archives.len() != captured {
            return Some(format!(
                "it has {} archives and {captured} captured files",
                archives.len()
            ));
        }
        aof.as_ref()?.finding(self)
    }
}

/// One RDB, to which moment it reaches, and what is in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RdbCapture {
    pub method: Method,
    /// By the captured server's own clock.
    pub captured_at: Timestamp,
    pub captured_from: NodeRole,
    pub replication: ReplicationPoint,
    pub content: Content,
}

/// One append-only set, to which moment it reaches, and what its files are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AofCapture {
    /// By the captured server's own clock.
    pub captured_at: Timestamp,
    pub captured_from: NodeRole,
    /// The set holds at least all up to this place.
    pub replication: ReplicationPoint,
    /// In the order in which a server loads them. The single file of Redis 6.2 is a base.
    pub files: Vec<AofFile>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AofFile {
    /// As the server named it, without a path.
    pub name: String,
    /// Its number in the server's own list; 1 for the single file of Redis 6.2.
    pub sequence: u64,
    pub role: AofRole,
    /// Name of the archive that holds it.
    pub archive: String,
    /// Of what is stored, which ends with the last whole command.
    pub facts: FileFacts,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AofRole {
    Base,
    Increment,
}

impl From<aof::list::Role> for AofRole {
    /// History is never loaded, so nobody asks for it.
    fn from(role: aof::list::Role) -> Self {
        match role {
            aof::list::Role::Base => Self::Base,
            aof::list::Role::History | aof::list::Role::Increment => Self::Increment,
        }
    }
}

impl fmt::Display for AofRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Base => "base",
            Self::Increment => "increment",
        })
    }
}

impl AofCapture {
    /// Before their codec.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.facts.bytes).sum()
    }

    pub fn commands(&self) -> u64 {
        self.files.iter().map(|file| file.facts.commands).sum()
    }

    /// The RDB that the set begins with.
    pub fn preamble(&self) -> Option<&Content> {
        self.files.first()?.facts.preamble.as_ref()
    }

    /// The setting `appendfilename` as far as the files' names tell it, without `.1.base.rdb` and the like.
    pub fn stem(&self) -> &str {
        let name = self.files.first().map_or("appendonly.aof", |file| file.name.as_str());
        let mut parts = name.rsplitn(4, '.');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some("rdb" | "aof"), Some("base" | "incr"), Some(number), Some(stem))
                if number.bytes().all(|byte| byte.is_ascii_digit()) =>
            {
                stem
            }
            _ => name,
        }
    }

    /// The list as a server of the multi-part form reads it.
    pub fn file_list(&self) -> Result<aof::list::FileList, aof::list::Error> {
        let files = self.files.iter().map(|file| aof::list::File {
            name: file.name.clone(),
            sequence: file.sequence,
            role: match file.role {
                AofRole::Base => aof::list::Role::Base,
                AofRole::Increment => aof::list::Role::Increment,
            },
        });
        aof::list::FileList::new(files.collect())
    }

    /// What is wrong with it, for people.
    fn finding(&self, shard: &ShardManifest) -> Option<String> {
        if let Err(error) = self.file_list() {
            return Some(error.to_string());
        }
        for (index, file) in self.files.iter().enumerate() {
            let AofFile { name, sequence: _, role, archive, facts } = file;
            if *archive != catalog::aof_archive(index) {
                return Some(format!("append-only file {index} is in archive {archive}"));
            }
            if shard.archive(archive).is_none() {
                return Some(format!("there is no archive {archive} for {name}"));
            }
            if (index > 0) && *role == AofRole::Base {
                return Some(format!("the base {name} does not come first"));
            }
            if facts.whole_bytes != facts.bytes {
                return Some(format!("{name} does not end with a whole command"));
            }
        }
        None
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    Replication,
    /// A save of its own, read from the server's data directory.
    Bgsave,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NodeRole {
    Primary,
    Replica,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Replication => "replication",
            Self::Bgsave => "BGSAVE",
        })
    }
}

impl fmt::Display for NodeRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
        })
    }
}

/// The place in the replication stream that the RDB stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReplicationPoint {
    pub id: String,
    pub offset: u64,
}

/// One captured file as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Archive {
    /// Name of the captured file, such as `dump.rdb`.
    pub name: String,
    pub codec: Codec,
    /// After the codec. Absent means none.
    #[serde(default)]
    pub encryption: Encryption,
    /// In order; their stored bytes joined are the archive.
    pub objects: Vec<Object>,
}

impl Archive {
    pub fn stored_bytes(&self) -> u64 {
        self.objects.iter().map(|object| object.bytes).sum()
    }
}

/// One object in a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Object {
    pub key: Key,
    /// Where the bucket keeps versions. Reads use it, so a later overwrite changes nothing.
    pub version_id: Option<String>,
    pub bytes: u64,
    pub sha256: Sha256,
    pub crc64nvme: Crc64Nvme,
}

impl Object {
    /// What the store holds instead, for people. A store without checksums tells only a length.
    pub fn difference(&self, bytes: u64, crc64nvme: Option<Crc64Nvme>) -> Option<String> {
        if bytes != self.bytes {
            return Some(format!("{} has {bytes} bytes, not {}", self.key, self.bytes));
        }
        let crc = crc64nvme.filter(|crc| *crc != self.crc64nvme)?;
        Some(format!("{} has CRC-64/NVME {crc}, not {}", self.key, self.crc64nvme))
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("decode a manifest")]
    Decode(#[source] serde_json::Error),
    #[error(
        "manifest version {found} is newer than {VERSION}, the newest this program reads; use a newer redis-backup"
    )]
    Newer { found: u32 },
    #[error("the manifest contradicts itself: {0}")]
    Inconsistent(String),
}

impl Manifest {
    pub fn encode(&self) -> Result<Vec<u8>, Error> {
        let mut bytes = serde_json::to_vec_pretty(self).map_err(Error::Decode)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let Versioned { version } = serde_json::from_slice(bytes).map_err(Error::Decode)?;
        if version > VERSION {
            return Err(Error::Newer { found: version });
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(Error::Decode)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// Checked after each read and before each write: a manifest names objects of its own backup only.
    pub fn check(&self) -> Result<(), Error> {
        let inconsistent = |text: String| Err(Error::Inconsistent(text));
        if self.shards.is_empty() {
            return inconsistent("it has no shard".to_owned());
        }
        for (index, shard) in self.shards.iter().enumerate() {
            if shard.shard as usize != index {
                return inconsistent(format!("shard {} stands at place {index}", shard.shard));
            }
            if let Some(finding) = shard.finding() {
                return inconsistent(format!("shard {index}: {finding}"));
            }
        }
        let prefix = catalog::archives_prefix(&self.source, &self.backup);
        for archive in self.archives() {
            if archive.objects.is_empty() {
                return inconsistent(format!("archive {} has no object", archive.name));
            }
            if let Some(object) =
                archive.objects.iter().find(|object| !object.key.as_str().starts_with(&prefix))
            {
                return inconsistent(format!("{} belongs to another backup", object.key));
            }
        }
        Ok(())
    }

    /// Every archive, the installation's last.
    pub fn archives(&self) -> impl Iterator<Item = &Archive> {
        self.shards.iter().flat_map(|shard| &shard.archives).chain([&self.installation])
    }

    /// Whether any archive needs an identity to be read.
    pub fn is_encrypted(&self) -> bool {
        self.archives().any(|archive| archive.encryption != Encryption::None)
    }

    pub fn stored_bytes(&self) -> u64 {
        self.archives().map(Archive::stored_bytes).sum()
    }

    /// Keys of all shards, or none if a shard's RDB could not be read.
    pub fn keys(&self) -> Option<u64> {
        self.shards
            .iter()
            .map(|shard| match shard.rdb_content()? {
                Content::Read(facts) => Some(facts.keys()),
                Content::Unread(_) => None,
            })
            .sum()
    }
}
