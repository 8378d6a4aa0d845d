//! Notes beside a backup that are only ever added, and notes of each run. Holds no secret.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    identity::{BackupId, ScheduleName, SourceName},
    manifest::Server,
    shrink_guard::Comparison,
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
    /// Kept until it is unpinned, whatever the rules say.
    Pinned,
    Unpinned,
    /// The shrink guard's doubt; written before the manifest.
    Suspect(Comparison),
    /// A person takes a suspect backup for the new normal.
    Accepted,
}

impl Event {
    /// As it stands in the record's key.
    pub const fn kind(&self) -> &'static str {
        self.mark().word()
    }

    pub const fn mark(&self) -> Mark {
        match self {
            Self::Verified(Verification { level, server: _, findings }) => match level {
                Level::Stored if findings.is_empty() => Mark::ProvenStored,
                Level::Stored => Mark::BrokenStored,
                Level::Content if findings.is_empty() => Mark::ProvenContent,
                Level::Content => Mark::BrokenContent,
                Level::Load if findings.is_empty() => Mark::ProvenLoad,
                Level::Load => Mark::BrokenLoad,
            },
            Self::Pinned => Mark::Pinned,
            Self::Unpinned => Mark::Unpinned,
            Self::Suspect(_) => Mark::Suspect,
            Self::Accepted => Mark::Accepted,
        }
    }

    /// Whether it speaks of one store, and not of the bytes, which are the same in each.
    pub const fn is_of_one_store(&self) -> bool {
        match self {
            Self::Verified(verification) => matches!(verification.level, Level::Stored),
            Self::Pinned | Self::Unpinned | Self::Suspect(_) | Self::Accepted => false,
        }
    }
}

/// What the name of a record's key tells, so that nobody must read 100,000 records to know which backups are good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    ProvenStored,
    BrokenStored,
    ProvenContent,
    BrokenContent,
    ProvenLoad,
    BrokenLoad,
    Pinned,
    Unpinned,
    Suspect,
    Accepted,
    /// Of a newer program.
    Unknown,
}

impl Mark {
    const KNOWN: [Self; 10] = [
        Self::ProvenStored,
        Self::BrokenStored,
        Self::ProvenContent,
        Self::BrokenContent,
        Self::ProvenLoad,
        Self::BrokenLoad,
        Self::Pinned,
        Self::Unpinned,
        Self::Suspect,
        Self::Accepted,
    ];

    pub const fn word(self) -> &'static str {
        match self {
            Self::ProvenStored => "proven-stored",
            Self::BrokenStored => "broken-stored",
            Self::ProvenContent => "proven-content",
            Self::BrokenContent => "broken-content",
            Self::ProvenLoad => "proven-load",
            Self::BrokenLoad => "broken-load",
            Self::Pinned => "pinned",
            Self::Unpinned => "unpinned",
            Self::Suspect => "suspect",
            Self::Accepted => "accepted",
            Self::Unknown => "unknown",
        }
    }

    /// The level at which it proves a backup.
    pub const fn proves(self) -> Option<Level> {
        match self {
            Self::ProvenStored => Some(Level::Stored),
            Self::ProvenContent => Some(Level::Content),
            Self::ProvenLoad => Some(Level::Load),
            Self::BrokenStored
            | Self::BrokenContent
            | Self::BrokenLoad
            | Self::Pinned
            | Self::Unpinned
            | Self::Suspect
            | Self::Accepted
            | Self::Unknown => None,
        }
    }

    pub fn of_word(word: &str) -> Self {
        Self::KNOWN.into_iter().find(|mark| mark.word() == word).unwrap_or(Self::Unknown)
    }
}

/// What all records of a backup say together; of each kind the last one counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_excessive_bools, reason = "each follows from records of its own")]
pub struct Standing {
    pub pinned: bool,
    /// By the shrink guard, and nobody accepted it.
    pub suspect: bool,
    pub accepted: bool,
    /// The last proof of the content, by reading or loading it, failed.
    pub broken: bool,
    /// A newer program noted something that this one does not know.
    pub unknown: bool,
}

impl Standing {
    /// `marks` are in order of time.
    pub fn of(marks: impl IntoIterator<Item = Mark>) -> Self {
        let mut standing = Self::default();
        for mark in marks {
            match mark {
                // A store may lose an object and find it again; only the content is a proof.
                Mark::ProvenStored | Mark::BrokenStored => {}
                Mark::ProvenContent | Mark::ProvenLoad => standing.broken = false,
                Mark::BrokenContent | Mark::BrokenLoad => standing.broken = true,
                Mark::Pinned => standing.pinned = true,
                Mark::Unpinned => standing.pinned = false,
                Mark::Suspect => standing.suspect = true,
                Mark::Accepted => standing.accepted = true,
                Mark::Unknown => standing.unknown = true,
            }
        }
        standing.suspect &= !standing.accepted;
        standing
    }

    /// Committed is what every listed backup is.
    pub const fn is_good(&self) -> bool {
        !self.suspect && !self.broken
    }

    /// Such as `pinned, suspect`; empty for most.
    pub fn words(&self) -> String {
        let Self { pinned, suspect, accepted, broken, unknown } = *self;
        [
            (pinned, "pinned"),
            (suspect, "suspect"),
            (accepted, "accepted"),
            (broken, "broken"),
            (unknown, "noted by a newer program"),
        ]
        .into_iter()
        .filter_map(|(holds, word)| holds.then_some(word))
        .collect::<Vec<_>>()
        .join(", ")
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
            Event::Pinned => write!(f, "{at}: pinned"),
            Event::Unpinned => write!(f, "{at}: unpinned"),
            Event::Suspect(comparison) => write!(f, "{at}: SUSPECT: {comparison}"),
            Event::Accepted => write!(f, "{at}: accepted as the new normal"),
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
    Prune,
    Copy,
}

impl RunKind {
    /// As it stands in the run's key.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Prune => "prune",
            Self::Copy => "copy",
        }
    }
}

impl Run {
    /// As it stands in the run's key: names alone tell when something last failed.
    pub fn word(&self) -> String {
        let failed = if self.exit == 0 { "" } else { FAILED };
        format!("{}{failed}", self.kind.word())
    }
}

/// Ends the name of a run that did not end well.
pub const FAILED: &str = "-failed";

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(marks: &[Mark]) -> Standing {
        Standing::of(marks.iter().copied())
    }

    #[test]
    fn the_last_proof_of_the_content_decides() {
        use Mark::{BrokenLoad, BrokenStored, ProvenContent};
        assert!(standing(&[]).is_good());
        assert!(standing(&[BrokenStored]).is_good());
        assert!(!standing(&[ProvenContent, BrokenLoad, BrokenStored]).is_good());
        assert!(standing(&[BrokenLoad, ProvenContent]).is_good());
    }

    #[test]
    fn a_pin_holds_until_it_is_taken_off_and_holds_again() {
        use Mark::{Pinned, Unpinned};
        assert!(standing(&[Pinned]).pinned);
        assert!(!standing(&[Pinned, Unpinned]).pinned);
        assert!(standing(&[Unpinned, Pinned]).pinned);
    }

    #[test]
    fn who_accepts_a_suspect_backup_makes_it_good_but_mends_nothing() {
        use Mark::{Accepted, BrokenLoad, Suspect};
        assert!(!standing(&[Suspect]).is_good());
        assert!(standing(&[Suspect, Accepted]).is_good());
        assert!(!standing(&[Suspect, BrokenLoad, Accepted]).is_good());
    }

    #[test]
    fn the_name_of_a_record_tells_what_it_says() {
        for mark in Mark::KNOWN {
            assert_eq!(Mark::of_word(mark.word()), mark);
        }
        assert_eq!(Mark::of_word("held"), Mark::Unknown);
        let broken = Verification {
            level: Level::Load,
            server: None,
            findings: vec!["a key is gone".to_owned()],
        };
        assert_eq!(Event::Verified(broken).kind(), "broken-load");
    }
}
