//! Each backup, what became of it, and why.

use std::fmt;

use serde::Serialize;

use super::table::Table;
use crate::domain::{
    identity::{BackupId, SourceName},
    record::Standing,
};

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PruneReport {
    pub kind: &'static str,
    pub version: u32,
    pub dry_run: bool,
    pub places: Vec<PrunedPlace>,
    /// Where nothing could be decided, where several places were asked for.
    pub failures: Vec<FailedPrune>,
}

/// A source in a store.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PrunedPlace {
    pub source: SourceName,
    pub store: String,
    /// Newest first.
    pub backups: Vec<PrunedBackup>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PrunedBackup {
    pub backup: BackupId,
    pub state: PrunedState,
    pub standing: Standing,
    /// Why it is kept, or why it is not.
    pub reasons: Vec<StatedReason>,
    /// Why it could not be deleted, or not wholly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PrunedState {
    Kept,
    /// It would be deleted.
    Expires,
    Expired,
    Failed,
}

/// A word for programs and a text for people.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StatedReason {
    pub word: &'static str,
    pub text: String,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FailedPrune {
    pub source: SourceName,
    pub store: String,
    /// As the process would have ended for this place alone.
    pub exit: u8,
    pub error: String,
    pub hint: String,
}

impl fmt::Display for PrunedState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kept => "kept",
            Self::Expires => "expires",
            Self::Expired => "expired",
            Self::Failed => "FAILED",
        })
    }
}

impl fmt::Display for PruneReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for PrunedPlace { source, store, backups } in &self.places {
            let gone = backups.iter().filter(|backup| {
                matches!(backup.state, PrunedState::Expired | PrunedState::Expires)
            });
            let verb = if self.dry_run { "would expire" } else { "expired" };
            let (gone, all) = (gone.count(), backups.len());
            writeln!(f, "{source} in {store}: {gone} of {all} {verb}")?;
            let mut table = Table::default();
            for PrunedBackup { backup, state, standing, reasons, error } in backups {
                let mut why: Vec<&str> = reasons.iter().map(|reason| &*reason.text).collect();
                why.extend(error.as_deref());
                let words = standing.words();
                let note = if words.is_empty() { String::new() } else { format!(" ({words})") };
                let why = format!("{}{note}", why.join(", "));
                table.row([format!("  {backup}"), state.to_string(), why]);
            }
            write!(f, "{table}")?;
        }
        for FailedPrune { source, store, exit: _, error, hint } in &self.failures {
            writeln!(f, "{source} in {store}: nothing was decided: {error}\n  hint: {hint}")?;
        }
        Ok(())
    }
}
