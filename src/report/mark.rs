//! What `pin`, `unpin` and `accept` noted.

use std::fmt;

use serde::Serialize;

use crate::domain::identity::{BackupId, SourceName};

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MarkReport {
    pub kind: &'static str,
    pub version: u32,
    /// `pinned`, `unpinned` or `accepted`.
    pub event: &'static str,
    pub store: String,
    pub source: SourceName,
    pub backup: BackupId,
    /// It was so before; nothing was noted.
    pub already: bool,
    /// Objects whose legal hold was set or lifted, where the bucket has Object Lock.
    pub legal_holds: Option<usize>,
    pub dry_run: bool,
}

impl fmt::Display for MarkReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match (self.already, self.dry_run) {
            (true, _) => "is already",
            (false, true) => "would be",
            (false, false) => "is now",
        };
        let Self { event, store, source, backup, legal_holds, .. } = self;
        writeln!(f, "{backup} of {source} in {store} {verb} {event}")?;
        match legal_holds {
            Some(objects) => {
                let done = if *event == "pinned" { "put on" } else { "lifted from" };
                writeln!(f, "  legal hold {done} {objects} objects")
            }
            None => Ok(()),
        }
    }
}
