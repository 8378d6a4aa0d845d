//! What was copied into another store, or would be.

use std::fmt;

use serde::Serialize;

use super::text;
use crate::domain::identity::{BackupId, SourceName};

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CopyReport {
    pub kind: &'static str,
    pub version: u32,
    /// The store that the copies are in.
    pub to: String,
    pub copies: Vec<CopiedBackup>,
    /// Backups that it had before; those that were looked at one by one are among the copies.
    pub there: usize,
    pub failures: Vec<FailedCopy>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CopiedBackup {
    pub source: SourceName,
    pub backup: BackupId,
    pub from: String,
    pub state: CopyState,
    pub objects: usize,
    pub stored_bytes: u64,
    /// It was encrypted to other recipients on its way, or would be.
    pub resealed: bool,
    pub seconds: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CopyState {
    Copied,
    /// It was there already.
    There,
    /// It would be copied.
    Missing,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FailedCopy {
    pub source: SourceName,
    pub backup: BackupId,
    pub from: String,
    /// As the process would have ended for this backup alone.
    pub exit: u8,
    pub error: String,
    pub hint: String,
}

impl CopyReport {
    pub fn new(to: String, there: usize) -> Self {
        let (copies, failures) = (Vec::new(), Vec::new());
        Self { kind: "copy", version: 1, to, copies, there, failures }
    }
}

impl fmt::Display for CopyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind: _, version: _, to, copies, there, failures } = self;
        for copy in copies {
            let CopiedBackup {
                source,
                backup,
                from,
                state,
                objects,
                stored_bytes,
                resealed,
                seconds,
            } = copy;
            let bytes = text::bytes(*stored_bytes);
            let anew = if *resealed { ", encrypted anew" } else { "" };
            match state {
                CopyState::Copied => writeln!(
                    f,
                    "{backup} of {source} is in {to} too: {bytes} in {objects} objects from {from}{anew}, {}",
                    text::seconds(*seconds),
                )?,
                // To whom it is encrypted there, only its identities tell.
                CopyState::There if *resealed => writeln!(
                    f,
                    "{backup} of {source} was in {to} already, encrypted by an earlier copy; that stays as it is"
                )?,
                CopyState::There => writeln!(f, "{backup} of {source} was in {to} already")?,
                CopyState::Missing => writeln!(
                    f,
                    "{backup} of {source} would be copied from {from} to {to}{anew}: {bytes}; nothing was changed"
                )?,
            }
        }
        if *there > 0 {
            writeln!(f, "{} in {to} already", text::counted(*there as u64, "backup"))?;
        }
        if copies.is_empty() && *there == 0 && failures.is_empty() {
            writeln!(f, "nothing to copy to {to}")?;
        }
        for FailedCopy { source, backup, from, exit: _, error, hint } in failures {
            writeln!(f, "NOT COPIED {backup} of {source} from {from}: {error}")?;
            writeln!(f, "  hint: {hint}")?;
        }
        Ok(())
    }
}
