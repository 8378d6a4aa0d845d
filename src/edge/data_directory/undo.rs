//! Puts the previous dataset back, in the reverse order of the swap. Never loses what was written since.

use std::{fs, path::PathBuf};

use super::{
    DataDirectory, Error, Phase,
    acts::{self, exists},
    marker::{self, Marker, SwapRecord},
    stage,
    swap::identity,
};
use crate::domain::dataset::{AppendOnly, AppendOnlySet, Names};

/// What an undo left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Undone {
    /// No restore was there to undo.
    Nothing,
    /// The dataset from before is in place again.
    Back {
        /// Where the restored dataset is kept, if a server wrote to it.
        kept: Option<PathBuf>,
    },
}

impl DataDirectory {
    /// Undo what [`Self::begin`] and [`Self::swap`] did, or go on with that. A start of the server
    /// at any moment finds the restored dataset or the previous one.
    pub fn undo(&self) -> Result<Undone, Error> {
        let Some(mut marker) = self.marker()? else {
            self.leave()?;
            return Ok(Undone::Nothing);
        };
        self.acts.remove_file(&self.work().join(stage::RESERVE))?;
        match marker.phase {
            Phase::Staging | Phase::Staged => {
                // Nothing is to be put back; and a full volume would take no other marker.
                self.acts.remove_file(&self.work().join(marker::NAME))?;
                self.leave()?;
                return Ok(Undone::Back { kept: None });
            }
            Phase::Swapping | Phase::Swapped => {
                self.refuse_while_a_server_runs()?;
                marker.kept = self.name_to_keep(&marker)?;
                marker.enter(Phase::Undoing, &self.acts, &self.work())?;
                self.put_back(&marker)?;
            }
            Phase::Undoing => {
                self.refuse_while_a_server_runs()?;
                self.put_back(&marker)?;
            }
            Phase::Finishing => return Err(self.refuse(&marker)),
            Phase::Clearing => {
                self.clear()?;
                return Ok(Undone::Back { kept: self.kept(&marker) });
            }
        }
        marker.enter(Phase::Clearing, &self.acts, &self.work())?;
        self.clear()?;
        Ok(Undone::Back { kept: self.kept(&marker) })
    }

    fn kept(&self, marker: &Marker) -> Option<PathBuf> {
        marker.kept.as_ref().map(|name| self.work().join(name))
    }

    fn put_back(&self, marker: &Marker) -> Result<(), Error> {
        let Some(record) = &marker.swap else {
            return Err(self.refuse(marker));
        };
        let names = &marker.dataset.names;
        self.acts.create_folder(&self.undone())?;
        match marker.dataset.append_only {
            AppendOnly::Folder => {
                self.take_back(&names.appendfilename)?;
                self.put_set_back(names, record)?;
            }
            AppendOnly::SingleFile => {
                self.take_back(&names.appenddirname)?;
                self.put_file_back(&names.appendfilename, record.single_file_before)?;
            }
            AppendOnly::None => {
                self.take_back(&names.appenddirname)?;
                self.take_back(&names.appendfilename)?;
            }
        }
        self.put_file_back(&names.dbfilename, record.dump_before)?;
        match self.kept(marker) {
            Some(kept) if exists(&self.undone())? => self.acts.rename(&self.undone(), &kept),
            Some(_) | None => Ok(()),
        }
    }

    /// The previous file replaces the restored one, which gets a second name before.
    fn put_file_back(&self, name: &str, was_there: bool) -> Result<(), Error> {
        let (place, previous) = (self.dir.join(name), self.previous().join(name));
        let undone = self.undone().join(name);
        if exists(&self.stage().join(name))? {
            // The restored file never came: what is in place is the previous one.
            return Ok(());
        }
        if !was_there {
            return self.move_out(&place, &undone);
        }
        if !exists(&previous)? {
            return Ok(());
        }
        if exists(&place)? {
            self.acts.keep(&place, &undone)?;
        }
        self.acts.rename(&previous, &place)
    }

    fn put_set_back(&self, names: &Names, record: &SwapRecord) -> Result<(), Error> {
        let Some(set) = &record.set else { return Ok(()) };
        let (staged, place) =
            (self.stage().join(&names.appenddirname), self.dir.join(&names.appenddirname));
        let (aside, undone) =
            (self.previous().join(&names.appenddirname), self.undone().join(&names.appenddirname));
        let Some(before) = &record.folder_before else {
            return if exists(&staged)? { Ok(()) } else { self.move_out(&place, &undone) };
        };
        self.acts.create_folder(&undone)?;
        for name in before.iter().filter(|&name| *name != set.manifest) {
            if exists(&aside.join(name))? {
                self.acts.rename(&aside.join(name), &place.join(name))?;
            }
        }
        let came = !exists(&staged.join(&set.manifest))?;
        let (manifest, previous) = (place.join(&set.manifest), aside.join(&set.manifest));
        if came && !before.contains(&set.manifest) {
            self.move_out(&manifest, &undone.join(&set.manifest))?;
        } else if came && exists(&previous)? {
            if exists(&manifest)? {
                self.acts.keep(&manifest, &undone.join(&set.manifest))?;
            }
            self.acts.rename(&previous, &manifest)?;
        }
        let ours = |name: &String| name == &set.base || Some(name) == set.increment.as_ref();
        for name in acts::names(&place)?.unwrap_or_default() {
            // Where the manifest never came, a file that is not ours is the old server's.
            if !before.contains(&name) && (came || ours(&name)) {
                self.move_out(&place.join(&name), &undone.join(&name))?;
            }
        }
        Ok(())
    }

    fn move_out(&self, place: &std::path::Path, undone: &std::path::Path) -> Result<(), Error> {
        if exists(place)? && !exists(undone)? { self.acts.rename(place, undone) } else { Ok(()) }
    }

    fn take_back(&self, name: &str) -> Result<(), Error> {
        let (place, previous) = (self.dir.join(name), self.previous().join(name));
        if exists(&previous)? && !exists(&place)? {
            self.acts.rename(&previous, &place)?;
        }
        Ok(())
    }

    /// Whether what was put in place is still exactly that; a server that wrote changed it.
    fn name_to_keep(&self, marker: &Marker) -> Result<Option<String>, Error> {
        let Some(record) = &marker.swap else { return Ok(None) };
        let names = &marker.dataset.names;
        if self.is_untouched(names, record)? {
            return Ok(None);
        }
        let first = format!("undone-{}", marker.backup);
        let mut name = first.clone();
        let mut count = 1;
        while exists(&self.work().join(&name))? {
            count += 1;
            name = format!("{first}.{count}");
        }
        Ok(Some(name))
    }

    fn is_untouched(&self, names: &Names, record: &SwapRecord) -> Result<bool, Error> {
        let is_same = |name: &str, placed| -> Result<bool, Error> {
            let never_came = exists(&self.stage().join(name))?;
            Ok(never_came || identity(&self.dir.join(name))? == placed)
        };
        let dump_is_same = if record.dump.is_some() {
            is_same(&names.dbfilename, record.dump)?
        } else {
            // A kill may have come before the old one was put aside.
            let is_old = record.dump_before && !exists(&self.previous().join(&names.dbfilename))?;
            is_old || !exists(&self.dir.join(&names.dbfilename))?
        };
        if !dump_is_same {
            return Ok(false);
        }
        if record.single_file.is_some() && !is_same(&names.appendfilename, record.single_file)? {
            return Ok(false);
        }
        let Some(set) = &record.set else { return Ok(true) };
        if exists(&self.stage().join(&names.appenddirname).join(&set.manifest))? {
            return Ok(true);
        }
        self.set_is_untouched(names, set, record.folder_before.as_deref().unwrap_or_default())
    }

    /// A server that ran with these files named a file more, or wrote to the increment.
    pub(super) fn set_is_untouched(
        &self,
        names: &Names,
        set: &AppendOnlySet,
        before: &[String],
    ) -> Result<bool, Error> {
        let folder = self.dir.join(&names.appenddirname);
        let manifest = fs::read(folder.join(&set.manifest)).unwrap_or_default();
        if manifest != set.manifest_text.as_bytes() {
            return Ok(false);
        }
        if let Some(increment) = &set.increment
            && identity(&folder.join(increment))?.is_none_or(|found| found.bytes > 0)
        {
            return Ok(false);
        }
        let ours = |name: &String| {
            name == &set.base || name == &set.manifest || Some(name) == set.increment.as_ref()
        };
        let found = acts::names(&folder)?.unwrap_or_default();
        Ok(found.iter().all(|name| ours(name) || before.contains(name)))
    }
}
