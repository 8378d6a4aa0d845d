//! Notes beside a backup that are only ever added, and notes of each run. Holds no secret.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    identity::{BackupId, ScheduleName, SourceName},
    manifest::Server,
};

/// The version this program writes of records and runs.
pub const VERSION: u32 = 1;

/// More than any record needs.
pub const BYTES_MAX: usize = 1 << 20;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    pub version: u32,
    pub backup: BackupId,
    pub at: Timestamp,
    pub tool: String,
    pub event: Event,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    Verified(Verification),
}

impl Event {
    /// As it stands in the record's key.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Verified(_) => "verified",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verification {
    pub level: Level,
    /// The server that loaded it; only at that level.
    pub server: Option<Server>,
    /// Empty when the backup was proven.
    pub findings: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    Stored,
    Content,
    Load,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stored => "stored",
            Self::Content => "content",
            Self::Load => "load",
        })
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at.strftime("%Y-%m-%d %H:%M:%S UTC");
        match &self.event {
            Event::Verified(Verification { level, server, findings }) => {
                let by = server.as_ref().map(|server| format!(" by {server}")).unwrap_or_default();
                if findings.is_empty() {
                    write!(f, "{at}: proven ({level}{by})")
                } else {
                    write!(f, "{at}: NOT proven ({level}{by}): {}", findings.join("; "))
                }
            }
        }
    }
}

/// One run of a verb over one source, also a failed one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    pub version: u32,
    pub source: SourceName,
    pub kind: RunKind,
    pub begun: Timestamp,
    pub ended: Timestamp,
    pub tool: String,
    /// The backup that came of it.
    pub backup: Option<BackupId>,
    pub schedule: Option<ScheduleName>,
    pub scheduled_for: Option<Timestamp>,
    /// Exit code of the process, as documented.
    pub exit: u8,
    /// The chain of causes, on one line.
    pub error: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunKind {
    Backup,
}

impl RunKind {
    /// As it stands in the run's key.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Backup => "backup",
        }
    }
}
