//! Makes a restore final: removes the previous dataset and the form that the server never reads.

use super::{
    DataDirectory, Error, Phase,
    acts::exists,
    marker::{Marker, SwapRecord},
    stage,
    swap::identity,
};
use crate::domain::dataset::AppendOnly;

/// What a finish did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finished {
    /// No restore was there to finish.
    Nothing,
    Settled {
        /// The name of the unused form that was removed.
        removed: Option<String>,
        /// The name of the unused form that a server has written since, and that was left.
        left: Option<String>,
    },
}

impl DataDirectory {
    /// Delete the previous dataset. A server may run: what it uses is not touched.
    ///
    /// The form that the start-time config does not use would come back as a stale dataset when
    /// `appendonly` is switched, so it is removed, unless a server wrote it meanwhile.
    pub fn finish(&self) -> Result<Finished, Error> {
        let Some(mut marker) = self.marker()? else {
            self.leave()?;
            return Ok(Finished::Nothing);
        };
        self.acts.remove_file(&self.work().join(stage::RESERVE))?;
        match marker.phase {
            Phase::Swapped => marker.enter(Phase::Finishing, &self.acts, &self.work())?,
            Phase::Finishing => {}
            Phase::Clearing => {
                self.clear()?;
                return Ok(Finished::Settled { removed: None, left: None });
            }
            Phase::Staging | Phase::Staged | Phase::Swapping | Phase::Undoing => {
                return Err(self.refuse(&marker));
            }
        }
        let finished = self.settle(&marker)?;
        marker.enter(Phase::Clearing, &self.acts, &self.work())?;
        self.clear()?;
        Ok(finished)
    }

    fn settle(&self, marker: &Marker) -> Result<Finished, Error> {
        let Some(record) = &marker.swap else {
            return Err(self.refuse(marker));
        };
        let names = &marker.dataset.names;
        let (name, is_ours) = match (marker.dataset.append_only, names.appendonly) {
            (AppendOnly::Folder | AppendOnly::SingleFile, true) => {
                // Where append-only files were restored, one that is there is a server's own and newer.
                let Some(placed) = record.dump else {
                    return Ok(Finished::Settled { removed: None, left: None });
                };
                let dump = identity(&self.dir.join(&names.dbfilename))?;
                (&names.dbfilename, dump == Some(placed))
            }
            (AppendOnly::Folder, false) => {
                (&names.appenddirname, self.set_is_ours(marker, record)?)
            }
            (AppendOnly::SingleFile | AppendOnly::None, false) | (AppendOnly::None, true) => {
                return Ok(Finished::Settled { removed: None, left: None });
            }
        };
        let place = self.dir.join(name);
        if !exists(&place)? {
            return Ok(Finished::Settled { removed: None, left: None });
        }
        if !is_ours {
            return Ok(Finished::Settled { removed: None, left: Some(name.clone()) });
        }
        // Renamed first, so that a kill never leaves half a folder under its name.
        self.acts.create_folder(&self.work().join("unused"))?;
        self.acts.rename(&place, &self.work().join("unused").join(name))?;
        Ok(Finished::Settled { removed: Some(name.clone()), left: None })
    }

    fn set_is_ours(&self, marker: &Marker, record: &SwapRecord) -> Result<bool, Error> {
        match &record.set {
            Some(set) => self.set_is_untouched(&marker.dataset.names, set, &[]),
            None => Ok(false),
        }
    }
}
