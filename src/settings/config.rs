//! The config file as it is written. Types only; what they mean together is decided by `Settings`.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use bytesize::ByteSize;
use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, MapAccess, Visitor, value::MapAccessDeserializer},
};

use crate::domain::{
    agenda::Lapse,
    archive::Codec,
    capture::{MethodChoice, PrimaryUse},
    identity::{ScheduleName, SourceName, StoreName},
    lock::LockMode,
    retention::{Age, Keep},
    shrink_guard,
    source::NodeAddress,
    time_limit::TimeLimit,
};

/// Configuration of redis-backup. Secrets never stand in it.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// The Redis installations that are backed up.
    #[serde(default)]
    pub sources: BTreeMap<SourceName, Source>,
    /// Where backups live.
    #[serde(default)]
    pub stores: BTreeMap<StoreName, Store>,
    /// What to capture when, and where to keep it.
    #[serde(default)]
    pub schedules: BTreeMap<ScheduleName, Schedule>,
    /// How long a backup stays that no schedule took, such as `30d`; without it for ever.
    #[schemars(with = "Option<String>")]
    pub keep_manual: Option<Age>,
    /// When retention is applied.
    #[serde(default)]
    pub retention: Retention,
    /// How encrypted backups are read. Who only takes backups must not have it.
    pub encryption: Option<Decryption>,
    /// What `redis-backup serve` needs besides.
    #[serde(default)]
    pub serve: Serve,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Retention {
    /// After each backup of a schedule that has `keep`, and by `prune`.
    #[default]
    Inline,
    /// By `prune` alone, where whoever takes backups may not delete.
    Separate,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Decryption {
    /// An age identity file or an SSH private key, asked for only by verbs that read encrypted archives.
    pub identity_from: SecretFrom,
}

/// Archives are encrypted by age after they were compressed. Each recipient can open them alone.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Encryption {
    /// Public keys: `age1…`, or lines of SSH .pub files (ssh-ed25519, ssh-rsa).
    #[serde(default)]
    pub recipients: Vec<String>,
    /// A file with a recipient in each line, read when a backup is taken.
    pub recipients_file: Option<PathBuf>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Source {
    /// A standalone server, nodes of one Redis Cluster, or `sentinel://host:26379/master-name`.
    #[serde(default)]
    pub nodes: Vec<String>,
    /// Pods of a Kubernetes cluster, in the place of `nodes`.
    pub kubernetes: Option<super::Kubernetes>,
    pub auth: Option<Auth>,
    pub tls: Option<Tls>,
    /// How the sentinels are reached, where it differs from Redis itself.
    pub sentinel: Option<Sentinel>,
    /// Whether a primary may be captured.
    #[serde(default)]
    pub primary: PrimaryUse,
    /// The data directory of the one node in `nodes`, as it is mounted here.
    pub data_dir: Option<PathBuf>,
    /// Data directories by the addresses of their nodes, such as `{"10.0.0.5:6379": /mnt/redis-0}`.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, PathBuf>")]
    pub data_dirs: BTreeMap<NodeAddress, PathBuf>,
    /// How an RDB is taken.
    #[serde(default)]
    pub method: MethodChoice,
    /// Server for `verify --level load`; otherwise one that fits is looked for in PATH.
    pub server_binary: Option<PathBuf>,
    pub spool: Option<Spool>,
    /// After how long what does not come is given up.
    #[serde(default)]
    pub timeouts: Timeouts,
    #[serde(default)]
    pub compression: Compression,
    /// Shards captured at the same time.
    pub captures_at_once: Option<u32>,
    /// Refuse a Cluster backup whose first and last shard were captured further apart, in seconds.
    pub skew_max_seconds: Option<u32>,
    /// When a backup is suspect for what it no longer holds.
    #[serde(default)]
    pub shrink_guard: shrink_guard::Limit,
    /// Without it the archives are in clear.
    pub encryption: Option<Encryption>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Auth {
    /// ACL user; the default user when absent.
    pub username: Option<String>,
    pub password_from: Option<SecretFrom>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum SecretFrom {
    /// Name of an environment variable.
    Env(String),
    /// A file whose content is the secret; one newline at its end is not part of it.
    File(PathBuf),
}

/// TLS is used when this is present, even empty, or when a URL begins with `rediss://`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tls {
    /// PEM of the only authority to trust; the system's authorities when absent.
    pub ca_file: Option<PathBuf>,
    /// PEM of the client certificate and its chain, for servers with `tls-auth-clients yes`.
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    /// The name to expect in the server's certificate instead of the host's.
    pub server_name: Option<String>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Sentinel {
    pub auth: Option<Auth>,
    pub tls: Option<Tls>,
}

/// A file for bytes that the store does not take as fast as Redis sends them.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spool {
    /// A folder on a disk; one in memory is refused.
    pub path: PathBuf,
    /// Such as `8GiB`.
    #[schemars(with = "String")]
    pub bytes_max: ByteSize,
}

/// Lengths of time such as `30s`, `10m` or `4h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Timeouts {
    /// To a node or sentinel, and for its TLS handshake.
    #[schemars(with = "Option<String>")]
    pub connect: TimeLimit,
    /// To one command, also of a server that forks.
    #[schemars(with = "Option<String>")]
    pub reply: TimeLimit,
    /// For a delay of the server's, its fork and, where it saves first, its save.
    #[schemars(with = "Option<String>")]
    pub begin: TimeLimit,
    /// For the next byte of a snapshot, keep-alives included.
    #[schemars(with = "Option<String>")]
    pub silence: TimeLimit,
    /// For everything about one shard, from the first node that is tried to the last byte that is stored.
    #[schemars(with = "Option<String>")]
    pub capture: TimeLimit,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Compression {
    #[serde(default)]
    pub codec: Codec,
    /// zstd 1 to 19, gzip 1 to 9.
    pub level: Option<i32>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Store {
    Directory(Directory),
    S3(S3),
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Directory {
    pub path: PathBuf,
    /// Such as `50MiB`: how fast backups may be sent to it; without it as fast as it takes them.
    #[schemars(with = "Option<String>")]
    pub upload_max_per_second: Option<ByteSize>,
}

/// Credentials come from the AWS SDK's own chain: environment, profile, web identity, container, instance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct S3 {
    pub bucket: String,
    #[serde(default)]
    pub prefix: String,
    pub region: Option<String>,
    /// URL of an S3-compatible server.
    pub endpoint: Option<String>,
    /// `https://host/bucket` instead of `https://bucket.host`; the default with an `endpoint`.
    pub force_path_style: Option<bool>,
    /// PEM of the authority to trust for this endpoint.
    pub ca_file: Option<PathBuf>,
    /// Such as `STANDARD_IA`.
    pub storage_class: Option<String>,
    pub server_side_encryption: Option<ServerSideEncryption>,
    #[serde(default)]
    pub checksums: Checksums,
    pub object_lock: Option<ObjectLock>,
    /// Such as `50MiB`: how fast backups may be sent to it; without it as fast as it takes them.
    #[schemars(with = "Option<String>")]
    pub upload_max_per_second: Option<ByteSize>,
}

/// Every object is locked as it is written. The bucket must have Object Lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ObjectLock {
    pub mode: LockMode,
    /// Until then nobody deletes it; with governance, nobody without the right to bypass the lock.
    pub days: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum ServerSideEncryption {
    /// Keys that S3 manages.
    SseS3 {},
    /// A key of AWS KMS; the account's default key for S3 when no id is given.
    SseKms {
        #[serde(rename = "keyId")]
        key_id: Option<String>,
    },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Checksums {
    /// CRC-64/NVME on every object, compared by `verify --level stored`.
    #[default]
    WhenSupported,
    /// For servers that refuse or lack checksums: sizes are compared, and the reports say so.
    WhenRequired,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Schedule {
    pub source: SourceName,
    /// Five fields as Kubernetes reads them, or `@hourly`, `@daily`, …
    pub cron: String,
    /// A name of the IANA database, such as `Europe/Berlin`.
    #[serde(default = "utc")]
    pub timezone: String,
    pub capture: Vec<CaptureKind>,
    /// The store that keeps the backups; exactly one.
    pub stores: Vec<ScheduleStore>,
    /// What is kept in every store that says nothing else; without it nothing ever expires.
    pub keep: Option<Keep>,
    /// `serve` spreads its starts over so long after their moments, such as `5m`.
    #[schemars(with = "Option<String>")]
    pub jitter: Option<Lapse>,
    /// `serve` gives a moment up that passed so long ago, such as `30m`; without it, only when the next one comes.
    #[schemars(with = "Option<String>")]
    pub start_deadline: Option<Lapse>,
    /// How far `serve` proves each backup once it is taken.
    #[serde(default)]
    pub verify: VerifyAfter,
}

/// `disk`, or `{store: disk, keep: {last: 7}}`.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(with = "ScheduleStoreForms")]
pub struct ScheduleStore {
    pub store: StoreName,
    pub keep: Option<Keep>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "describes the two forms to editors")]
enum ScheduleStoreForms {
    Name(StoreName),
    Entry(ScheduleStoreEntry),
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ScheduleStoreEntry {
    store: StoreName,
    /// What is kept in this store.
    keep: Option<Keep>,
}

/// By hand, because serde's untagged enums name nothing in their errors.
impl<'de> Deserialize<'de> for ScheduleStore {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Forms;

        impl<'de> Visitor<'de> for Forms {
            type Value = ScheduleStore;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a store, or `{store: NAME, keep: …}`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                let store = text.parse().map_err(E::custom)?;
                Ok(ScheduleStore { store, keep: None })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                let deserializer = MapAccessDeserializer::new(map);
                let ScheduleStoreEntry { store, keep } =
                    ScheduleStoreEntry::deserialize(deserializer)?;
                Ok(ScheduleStore { store, keep })
            }
        }

        deserializer.deserialize_any(Forms)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CaptureKind {
    Rdb,
    /// The append-only files; they need `dataDir`.
    Aof,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum VerifyAfter {
    None,
    /// Sizes and checksums as the store tells them.
    #[default]
    Stored,
    /// Every byte read back.
    Content,
    /// Content, and a throw-away server loads it.
    Load,
}

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Serve {
    /// Address and port of health and metrics, such as `0.0.0.0:8080`; `127.0.0.1:8080` when absent.
    pub listen: Option<String>,
    /// Backups of different sources that run at the same time; 2 when absent.
    pub backups_at_once: Option<u32>,
}

fn utc() -> String {
    "UTC".to_owned()
}
