//! What `pin`, `unpin` and `accept` noted, in each store that holds the backup.

use std::fmt;

use serde::Serialize;

use super::FailedStore;
use crate::domain::identity::{BackupId, SourceName};

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MarkReport {
    pub kind: &'static str,
    pub version: u32,
    /// `pinned`, `unpinned` or `accepted`.
    pub event: &'static str,
    pub source: SourceName,
    pub backup: BackupId,
    pub stores: Vec<MarkedStore>,
    /// Where nothing was noted, because the store failed; it may hold the backup too.
    pub failures: Vec<FailedStore>,
    pub dry_run: bool,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MarkedStore {
    pub store: String,
    /// It was so before; nothing was noted.
    pub already: bool,
    /// Objects whose legal hold was set or lifted, where the bucket has Object Lock.
    pub legal_holds: Option<usize>,
}

impl fmt::Display for MarkReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind: _, version: _, event, source, backup, stores, failures, dry_run } = self;
        for MarkedStore { store, already, legal_holds } in stores {
            let verb = match (already, dry_run) {
                (true, _) => "is already",
                (false, true) => "would be",
                (false, false) => "is now",
            };
            writeln!(f, "{backup} of {source} in {store} {verb} {event}")?;
            if let Some(objects) = legal_holds {
                let done = if *event == "pinned" { "put on" } else { "lifted from" };
                writeln!(f, "  legal hold {done} {objects} objects")?;
            }
        }
        for FailedStore { store, exit: _, error, hint } in failures {
            writeln!(f, "NOT {event} in {store}: {error}")?;
            writeln!(f, "  hint: {hint}; then run it again")?;
        }
        Ok(())
    }
}
