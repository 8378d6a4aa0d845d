//! What a scan of an RDB tells. The public part goes into the manifest, the private part never does.

use std::{collections::BTreeMap, fmt};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Redis and Valkey number their RDB versions apart, so a version means nothing without its magic.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Magic {
    /// `REDIS` and four digits.
    Redis,
    /// `VALKEY` and three digits, from Valkey 9 on.
    Valkey,
}

impl fmt::Display for Magic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Redis => "REDIS",
            Self::Valkey => "VALKEY",
        })
    }
}

/// How the bytes were protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Checksum {
    /// CRC-64/REDIS over everything before it; it was right.
    Verified,
    /// Eight zero bytes: the server ran with `rdbchecksum no`.
    NotChecksummed,
    /// RDB versions 1 to 4 carry none.
    Absent,
}

/// Keys of one logical database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DatabaseFacts {
    pub keys: u64,
    /// Keys of these that carry a time to live.
    pub expires: u64,
}

/// The user's view of a value's type, whatever its encoding.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum ValueType {
    String,
    List,
    Set,
    SortedSet,
    Hash,
    Stream,
    Module,
}

impl ValueType {
    pub const ALL: [Self; 7] = [
        Self::String,
        Self::List,
        Self::Set,
        Self::SortedSet,
        Self::Hash,
        Self::Stream,
        Self::Module,
    ];
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::String => "string",
            Self::List => "list",
            Self::Set => "set",
            Self::SortedSet => "sorted set",
            Self::Hash => "hash",
            Self::Stream => "stream",
            Self::Module => "module",
        })
    }
}

/// Both ends belong to it.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub struct SlotRange {
    pub first: u16,
    pub last: u16,
}

impl SlotRange {
    pub const ALL: Self = Self { first: 0, last: 16383 };

    pub const fn contains(self, slot: u16) -> bool {
        self.first <= slot && slot <= self.last
    }
}

impl fmt::Display for SlotRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// How much of an RDB could be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Content {
    /// Walked to its end: every opcode known, counted and checked.
    Read(Facts),
    /// Of a version newer than this program: end marker and checksum looked at, the content not.
    Unread(Unread),
}

impl Content {
    pub const fn bytes(&self) -> u64 {
        match self {
            Self::Read(facts) => facts.bytes,
            Self::Unread(unread) => unread.bytes,
        }
    }

    pub const fn checksum(&self) -> Checksum {
        match self {
            Self::Read(facts) => facts.checksum,
            Self::Unread(unread) => unread.checksum,
        }
    }
}

/// An RDB of a version newer than this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Unread {
    pub magic: Magic,
    pub version: u32,
    /// Length of the RDB with magic and checksum, in bytes.
    pub bytes: u64,
    /// Without one nothing about the content is proven.
    pub checksum: Checksum,
}

/// What may stand in a manifest: counts and names of code, no key and no value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Facts {
    pub magic: Magic,
    /// RDB version, such as 10 for Redis 7.0 or 80 for Valkey 9.
    pub version: u32,
    /// Length of the RDB with magic and checksum, in bytes.
    pub bytes: u64,
    pub checksum: Checksum,
    pub databases: BTreeMap<u32, DatabaseFacts>,
    pub types: BTreeMap<ValueType, u64>,
    /// Names of the function libraries, sorted.
    pub functions: Vec<String>,
    /// Names of the modules whose types or auxiliary data occur, sorted.
    pub modules: Vec<String>,
    /// Hashes in a form with room for a time to live of each field, which servers without this feature refuse. Redis
    /// keeps a small hash in this form even when its last field that expires is gone.
    pub hashes_with_field_expiry: u64,
    /// Keys whose slot lies in none of the declared ranges; zero in a sound backup.
    pub keys_outside_slots: u64,
    /// Earliest and latest key expiry, in milliseconds since the Unix epoch.
    pub expiry_min_ms: Option<i64>,
    pub expiry_max_ms: Option<i64>,
}

impl Facts {
    pub fn keys(&self) -> u64 {
        self.databases.values().map(|database| database.keys).sum()
    }

    pub fn expires(&self) -> u64 {
        self.databases.values().map(|database| database.expires).sum()
    }
}

/// What a scan tells that must not leave the installation archive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Private {
    /// AUX fields as the server wrote them, such as `redis-ver`, `ctime` and `repl-offset`.
    pub aux: BTreeMap<String, String>,
    /// The largest values by serialised size, largest first.
    pub biggest_keys: Vec<BigKey>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BigKey {
    pub database: u32,
    /// The key, bytes outside printable ASCII as `\xNN`, cut to a limited length.
    pub key: String,
    pub value_type: ValueType,
    /// Bytes of the value as the RDB holds it, after Redis's own compression.
    pub bytes: u64,
}
