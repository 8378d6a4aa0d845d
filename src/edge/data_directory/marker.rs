//! The truth about one volume: which restore is under way there and how far. Never acts on it.

use std::{fmt, fs, io, path::Path};

use serde::{Deserialize, Serialize};

use super::{Acts, Error};
use crate::domain::{
    dataset::{AppendOnlySet, Dataset},
    identity::BackupId,
};

pub(super) const NAME: &str = "marker.json";
/// What [`Acts::write`] leaves when killed.
pub(super) const PARTIAL: &str = "marker.partial";
const VERSION: u32 = 1;

/// How far a restore is. Written before what it names begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The new dataset is being written beside; the old one is untouched.
    Staging,
    /// The new dataset lies beside, checked.
    Staged,
    /// The new dataset is being put in place.
    Swapping,
    /// The new dataset is in place, the old one is kept.
    Swapped,
    /// The old dataset is being put back.
    Undoing,
    /// The form that the server does not use is being removed.
    Finishing,
    /// The dataset in place is settled; what is left beside is being removed.
    Clearing,
}

/// A restore that was begun and neither finished nor undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    pub backup: BackupId,
    pub shard: u32,
    pub phase: Phase,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Marker {
    pub version: u32,
    pub backup: BackupId,
    pub shard: u32,
    pub phase: Phase,
    pub dataset: Dataset,
    /// From the phase `swapping` on.
    pub swap: Option<SwapRecord>,
    /// From the phase `undoing` on: the name under which what was written since is kept.
    pub kept: Option<String>,
}

/// What was found before the first change, written once, and what was put there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SwapRecord {
    pub dump_before: bool,
    pub single_file_before: bool,
    /// Names in the append-only folder; none if there was no folder.
    pub folder_before: Option<Vec<String>>,
    /// None where append-only files are restored, which put dump.rdb aside.
    pub dump: Option<FileIdentity>,
    /// Of the single append-only file, where the dataset has one.
    pub single_file: Option<FileIdentity>,
    /// Where the dataset has an append-only folder.
    pub set: Option<AppendOnlySet>,
}

/// Tells whether a file is still the one that was put there: a server replaces or appends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct FileIdentity {
    pub inode: u64,
    pub bytes: u64,
}

impl Marker {
    pub(super) fn new(backup: BackupId, shard: u32, dataset: Dataset) -> Self {
        Self {
            version: VERSION,
            backup,
            shard,
            phase: Phase::Staging,
            dataset,
            swap: None,
            kept: None,
        }
    }

    pub(super) fn read(work: &Path) -> Result<Option<Self>, Error> {
        let path = work.join(NAME);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(|source| Error::Act {
                attempt: format!("read {}", path.display()),
                source,
            })?,
        };
        let marker: Self = serde_json::from_slice(&bytes)
            .map_err(|source| Error::Marker { path: path.clone(), source })?;
        if marker.version != VERSION {
            let finding = "it was written by a newer redis-backup; use that one";
            return Err(Error::Unsuitable { path, finding });
        }
        // The names become paths again; nobody but us should have written them.
        if marker.dataset.names.check().is_err() || !marker.has_plain_names() {
            return Err(Error::Unsuitable { path, finding: "it holds names that are paths" });
        }
        Ok(Some(marker))
    }

    pub(super) fn write(&self, acts: &Acts, work: &Path) -> Result<(), Error> {
        let path = work.join(NAME);
        let bytes = serde_json::to_vec_pretty(self)
            .map_err(|source| Error::Marker { path: path.clone(), source })?;
        acts.write(&path, &bytes)
    }

    pub(super) fn enter(&mut self, phase: Phase, acts: &Acts, work: &Path) -> Result<(), Error> {
        self.phase = phase;
        self.write(acts, work)
    }

    pub(super) fn unfinished(&self) -> Unfinished {
        Unfinished { backup: self.backup.clone(), shard: self.shard, phase: self.phase }
    }

    fn has_plain_names(&self) -> bool {
        let is_plain =
            |name: &String| !name.contains('/') && !matches!(name.as_str(), "" | "." | "..");
        let of_swap = self.swap.iter().all(|swap| {
            swap.folder_before.iter().flatten().all(is_plain)
                && swap.set.iter().all(|set| {
                    [Some(&set.base), set.increment.as_ref(), Some(&set.manifest)]
                        .into_iter()
                        .flatten()
                        .all(is_plain)
                })
        });
        of_swap && self.kept.iter().all(is_plain)
    }
}

impl fmt::Display for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { backup, shard, phase } = self;
        let how_far = match phase {
            Phase::Staging => "is being staged; the old dataset is untouched",
            Phase::Staged => "is staged; the old dataset is untouched",
            Phase::Swapping => "is being put in place",
            Phase::Swapped => "is in place, and the previous dataset is kept",
            Phase::Undoing => "is being undone",
            Phase::Finishing | Phase::Clearing => "is settled, and what is left is being removed",
        };
        write!(f, "{backup}, shard {shard}, {how_far}")
    }
}
