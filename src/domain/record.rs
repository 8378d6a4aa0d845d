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

/// Whether the last proof of the content, by reading or loading it, failed. `records` are in order of time.
pub fn is_known_broken(records: &[Record]) -> bool {
    let mut proofs = records.iter().rev().filter_map(|record| match &record.event {
        Event::Verified(Verification {
            level: Level::Content | Level::Load,
            server: _,
            findings,
        }) => Some(!findings.is_empty()),
        Event::Verified(Verification { level: Level::Stored, .. }) => None,
    });
    proofs.next().unwrap_or(false)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn verified(level: Level, findings: &[&str]) -> Record {
        let findings = findings.iter().map(|&finding| finding.to_owned()).collect();
        Record {
            version: VERSION,
            backup: "20261120T020000Z-daily-k3x9q2".parse().unwrap(),
            at: Timestamp::UNIX_EPOCH,
            tool: "test".to_owned(),
            event: Event::Verified(Verification { level, server: None, findings }),
        }
    }

    #[test]
    fn the_last_proof_of_the_content_decides() {
        let (good, bad) =
            (verified(Level::Content, &[]), verified(Level::Load, &["a key is gone"]));
        let stored = verified(Level::Stored, &["an object is gone"]);
        assert!(!is_known_broken(&[]));
        assert!(!is_known_broken(std::slice::from_ref(&stored)));
        assert!(is_known_broken(&[good.clone(), bad.clone(), stored]));
        assert!(!is_known_broken(&[bad, good]));
    }
}
