//! What a restore did to a data directory, and what comes next.

use std::{fmt, path::PathBuf};

use serde::Serialize;

use super::text;
use crate::domain::identity::BackupId;

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreReport {
    pub kind: &'static str,
    pub version: u32,
    pub state: RestoreState,
    pub data_dir: PathBuf,
    pub backup: Option<BackupId>,
    pub shard: Option<u32>,
    pub keys: Option<u64>,
    pub bytes: u64,
    pub seconds: f64,
    /// What was or would be done, one sentence each.
    pub steps: Vec<String>,
    pub warnings: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestoreState {
    Planned,
    Restored,
    Undone,
    Finished,
    /// No restore was there to undo or finish.
    Unchanged,
}

impl fmt::Display for RestoreReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let folder = self.data_dir.display();
        let backup = self.backup.as_ref().map_or("the backup".to_owned(), ToString::to_string);
        match self.state {
            RestoreState::Planned => {
                writeln!(f, "{backup} would be restored into {folder}; nothing was changed")?;
            }
            RestoreState::Restored => {
                let seconds = text::seconds(self.seconds);
                if self.bytes == 0 {
                    writeln!(f, "{backup} is restored into {folder}, {seconds}")?;
                } else {
                    let (keys, bytes) = (text::keys(self.keys), text::bytes(self.bytes));
                    writeln!(f, "{backup} is restored into {folder}: {keys}, {bytes}, {seconds}")?;
                }
            }
            RestoreState::Undone => writeln!(f, "{folder} holds its previous dataset again")?,
            RestoreState::Finished => writeln!(f, "the previous dataset of {folder} is deleted")?,
            RestoreState::Unchanged => writeln!(f, "nothing was changed in {folder}")?,
        }
        self.steps.iter().try_for_each(|step| writeln!(f, "  {step}"))?;
        self.warnings.iter().try_for_each(|warning| writeln!(f, "  warning: {warning}"))?;
        if self.state == RestoreState::Restored {
            writeln!(
                f,
                "  next: start the server and look at your data, then one of
    redis-backup restore --data-dir {folder} --finish   deletes the previous dataset
    redis-backup restore --data-dir {folder} --undo     puts it back"
            )?;
        }
        Ok(())
    }
}
