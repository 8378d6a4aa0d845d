//! What the process tells its caller when it fails: one message, one hint, one exit code.

use std::{error::Error, fmt::Write as _, process::ExitCode};

/// Exit codes are an interface: Jobs retry or give up because of them. Never renumbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Exit {
    Done = 0,
    Unexpected = 1,
    /// Arguments, config, or the prefix of another installation.
    Usage = 2,
    SourceUnavailable = 10,
    StoreUnavailable = 11,
    /// Kubernetes unavailable or forbidden.
    KubernetesUnavailable = 12,
    /// Another run holds the lock, or an unfinished restore is there.
    Locked = 13,
    /// One store of several failed.
    Partial = 14,
    /// A backup or dump is corrupt or incomplete.
    Corrupt = 20,
    /// Stored, but the shrink guard calls it suspect.
    Suspect = 21,
    Incompatible = 22,
    /// Refused by a preflight; nothing was changed.
    Refused = 23,
    RestoreRolledBack = 30,
    RestoreNeedsPerson = 31,
    DrillFailed = 40,
    /// Ended by SIGINT.
    Interrupted = 130,
    /// Ended by SIGTERM.
    Terminated = 143,
}

impl Exit {
    pub const ALL: [Self; 17] = [
        Self::Done,
        Self::Unexpected,
        Self::Usage,
        Self::SourceUnavailable,
        Self::StoreUnavailable,
        Self::KubernetesUnavailable,
        Self::Locked,
        Self::Partial,
        Self::Corrupt,
        Self::Suspect,
        Self::Incompatible,
        Self::Refused,
        Self::RestoreRolledBack,
        Self::RestoreNeedsPerson,
        Self::DrillFailed,
        Self::Interrupted,
        Self::Terminated,
    ];
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// The error and all its causes on one line. The only place that walks a chain.
pub fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(line, ": {error}");
        cause = error.source();
    }
    line
}
