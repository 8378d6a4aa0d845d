//! What becomes of one backup, and every reason for it. Never acts.

use std::fmt;

use jiff::Timestamp;

use super::Period;
use crate::domain::{identity::BackupId, lock::Lock, record::Standing};

/// A backup and the reasons to keep it; without one it expires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub backup: BackupId,
    pub standing: Standing,
    /// In the order of [`Reason`].
    pub reasons: Vec<Reason>,
}

impl Verdict {
    pub fn is_kept(&self) -> bool {
        !self.reasons.is_empty()
    }

    /// Why it expires; none when it is kept.
    pub fn expiry(&self) -> Option<Expiry> {
        if self.is_kept() {
            None
        } else if self.standing.is_good() {
            Some(Expiry::NoRuleWantsIt)
        } else {
            Some(Expiry::NotGoodAndNoRuleWouldWantIt)
        }
    }
}

/// Why a backup stays.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Among so many of the newest of its schedule.
    Last,
    /// Begun so recently.
    Within,
    Hourly,
    Daily,
    Weekly,
    Monthly,
    Yearly,
    Pinned,
    /// Of its schedule in this store.
    NewestGood,
    /// Until that one is accepted or followed by a good one, nothing of the schedule expires.
    NewestIsSuspect(BackupId),
    NoneIsGood,
    /// Its schedule stands in the config without `keep`.
    ScheduleKeepsAll,
    /// The config has no such schedule for this source and store.
    UnknownSchedule,
    /// The config has no `keepManual`.
    ManualKeepsAll,
    /// A clock ran ahead, or runs behind now.
    FutureDated(Timestamp),
    NewerManifest(u32),
    UnreadableManifest,
    NewerRecord,
    /// No rule wants it, but the store was told to keep it.
    Locked(Lock),
}

impl Reason {
    pub(super) const fn of_period(period: Period) -> Self {
        match period {
            Period::Hour => Self::Hourly,
            Period::Day => Self::Daily,
            Period::Week => Self::Weekly,
            Period::Month => Self::Monthly,
            Period::Year => Self::Yearly,
        }
    }
}

impl Reason {
    /// For programs.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Last => "last",
            Self::Within => "within",
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Yearly => "yearly",
            Self::Pinned => "pinned",
            Self::NewestGood => "newest-good",
            Self::NewestIsSuspect(_) => "newest-is-suspect",
            Self::NoneIsGood => "none-is-good",
            Self::ScheduleKeepsAll => "schedule-keeps-all",
            Self::UnknownSchedule => "unknown-schedule",
            Self::ManualKeepsAll => "manual-keeps-all",
            Self::FutureDated(_) => "future-dated",
            Self::NewerManifest(_) => "newer-manifest",
            Self::UnreadableManifest => "unreadable-manifest",
            Self::NewerRecord => "newer-record",
            Self::Locked(_) => "locked",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Last => f.write_str("last"),
            Self::Within => f.write_str("within"),
            Self::Hourly => f.write_str("hourly"),
            Self::Daily => f.write_str("daily"),
            Self::Weekly => f.write_str("weekly"),
            Self::Monthly => f.write_str("monthly"),
            Self::Yearly => f.write_str("yearly"),
            Self::Pinned => f.write_str("pinned"),
            Self::NewestGood => f.write_str("newest good one"),
            Self::NewestIsSuspect(newest) => write!(f, "the newest, {newest}, is suspect"),
            Self::NoneIsGood => f.write_str("none of its schedule is good"),
            Self::ScheduleKeepsAll => f.write_str("its schedule has no `keep`"),
            Self::UnknownSchedule => f.write_str("no such schedule here in the config"),
            Self::ManualKeepsAll => f.write_str("taken by hand, and no `keepManual`"),
            Self::FutureDated(begun) => write!(f, "begun in the future, at {begun}"),
            Self::NewerManifest(version) => write!(f, "manifest of newer version {version}"),
            Self::UnreadableManifest => f.write_str("its manifest cannot be read"),
            Self::NewerRecord => f.write_str("a newer program noted something beside it"),
            Self::Locked(lock) => write!(f, "no rule wants it, but it is {lock}"),
        }
    }
}

/// Why a backup goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    NoRuleWantsIt,
    NotGoodAndNoRuleWouldWantIt,
}

impl Expiry {
    /// For programs.
    pub const fn word(self) -> &'static str {
        match self {
            Self::NoRuleWantsIt => "no-rule-wants-it",
            Self::NotGoodAndNoRuleWouldWantIt => "not-good-and-no-rule-would-want-it",
        }
    }
}

impl fmt::Display for Expiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoRuleWantsIt => "no rule wants it",
            Self::NotGoodAndNoRuleWouldWantIt => {
                "not good, and no rule would want a good one in its place"
            }
        })
    }
}
