//! What a verb tells its caller: text for people, JSON for programs, progress while it lasts. Decides nothing.

mod progress;
mod table;
mod text;

mod backup;
mod check;
mod copy;
mod discover;
mod inspect;
mod install;
mod list;
mod mark;
mod plain;
mod prune;
mod restore;
mod runs;
mod show;
mod verify;

use std::{fmt, io};

use serde::Serialize;

pub use self::{
    backup::{
        AlreadyDone, AppliedRetention, BackedUp, BackupReport, FailedSource, FailedStore,
        PlanReport, PlannedShard,
    },
    check::{CheckReport, CheckedItem, Verdict},
    copy::{CopiedBackup, CopyReport, CopyState, FailedCopy},
    discover::{DiscoverReport, DiscoveredPod, DiscoveredSource},
    inspect::{InspectFailure, InspectReport, InspectedAof, InspectedAofFile, InspectedKeys},
    install::{InstallReport, InstalledFile},
    list::{ListReport, ListedBackup, ListedDetails, ListedOrigin},
    mark::{MarkReport, MarkedStore},
    plain::{FetchReport, FetchedFile, PlainText},
    progress::{Bar, Progress},
    prune::{FailedPrune, PruneReport, PrunedBackup, PrunedPlace, PrunedState, StatedReason},
    restore::{RestoreReport, RestoreState},
    runs::{ListedRun, RunsReport},
    show::ShowReport,
    verify::{VerifiedBackup, VerifyReport},
};
use crate::{cli::OutputForm, failure::Exit};

/// Something that has a text form and a JSON form.
pub trait Report: fmt::Display + fmt::Debug + Send {
    fn json(&self) -> serde_json::Result<serde_json::Value>;
}

impl<T: fmt::Display + fmt::Debug + Serialize + Send> Report for T {
    fn json(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::to_value(self)
    }
}

/// What a verb that came to its end has to say, and how the process ends.
#[derive(Debug)]
pub struct Outcome {
    pub report: Box<dyn Report>,
    pub exit: Exit,
}

impl Outcome {
    pub fn done(report: impl Report + 'static) -> Self {
        Self { report: Box::new(report), exit: Exit::Done }
    }
}

/// Writes a report, each form ending with a newline.
pub fn print(out: &mut dyn io::Write, form: OutputForm, report: &dyn Report) -> io::Result<()> {
    match form {
        OutputForm::Text => {
            let text = report.to_string();
            out.write_all(text.as_bytes())?;
            if !text.is_empty() && !text.ends_with('\n') {
                out.write_all(b"\n")?;
            }
        }
        OutputForm::Json => {
            serde_json::to_writer_pretty(&mut *out, &report.json()?)?;
            out.write_all(b"\n")?;
        }
    }
    out.flush()
}

/// A failure in the JSON form; the text form goes to the log.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FailureReport {
    pub kind: &'static str,
    pub version: u32,
    pub exit: u8,
    pub error: String,
    pub hint: String,
}

impl fmt::Display for FailureReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", self.error)?;
        writeln!(f, "hint: {}", self.hint)
    }
}
