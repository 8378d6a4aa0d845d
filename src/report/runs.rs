//! What was tried, how it ended, and why it failed.

use std::fmt;

use serde::Serialize;

use super::{table::Table, text};
use crate::domain::record::Run;

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RunsReport {
    pub kind: &'static str,
    pub version: u32,
    /// Newest first.
    pub runs: Vec<ListedRun>,
    /// Of each source in each store the last run that failed, however long ago.
    pub last_failed: Vec<ListedRun>,
    /// Where was looked.
    pub stores: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListedRun {
    pub store: String,
    pub run: Run,
}

impl fmt::Display for RunsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.runs.is_empty() {
            return writeln!(f, "no run is noted in {}", self.stores.join(", "));
        }
        let mut table =
            Table::new(&["BEGUN", "RUN", "SOURCE", "STORE", "SCHEDULE", "TOOK", "EXIT", "RESULT"]);
        for ListedRun { store, run } in &self.runs {
            let took = run.ended.duration_since(run.begun).as_secs_f64();
            let schedule = run.schedule.as_ref().map_or("–".to_owned(), ToString::to_string);
            let backup = run.backup.as_ref().map(ToString::to_string);
            let result = run.error.clone().or(backup).unwrap_or_default();
            table.row([
                text::time(run.begun),
                run.kind.word().to_owned(),
                run.source.to_string(),
                store.clone(),
                schedule,
                text::seconds(took),
                run.exit.to_string(),
                result,
            ]);
        }
        write!(f, "{table}")?;
        for ListedRun { store, run } in &self.last_failed {
            let (source, kind, at) = (&run.source, run.kind.word(), text::time(run.begun));
            let error = run.error.as_deref().unwrap_or("it does not say why");
            writeln!(
                f,
                "last failed: {kind} of {source} in {store} at {at}, exit {}: {error}",
                run.exit
            )?;
        }
        Ok(())
    }
}
