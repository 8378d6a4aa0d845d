//! Puts the staged dataset in place, each form by one rename. Never removes a byte of the old one.

use std::path::Path;

use super::{
    DataDirectory, Error, Phase,
    acts::{self, exists},
    marker::{FileIdentity, Marker, SwapRecord},
    owner::{self, Owner},
};
use crate::domain::dataset::{AppendOnly, AppendOnlySet, Dataset, Form, Names};

/// The new dataset is in place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swapped {
    /// What a person should know, in sentences.
    pub remarks: Vec<String>,
}

impl DataDirectory {
    /// Put the staged dataset in place, or go on with that. A start of the server at any moment
    /// finds the old dataset or the new one.
    pub fn swap(&self) -> Result<Swapped, Error> {
        let Some(mut marker) = self.marker()? else {
            return Err(Error::Unsuitable { path: self.work(), finding: "nothing is staged here" });
        };
        let mut swapped = Swapped::default();
        match marker.phase {
            Phase::Swapped => return Ok(swapped),
            Phase::Staged => {
                self.refuse_while_a_server_runs()?;
                swapped.remarks = self.prepare(&mut marker)?;
            }
            Phase::Swapping => self.refuse_while_a_server_runs()?,
            Phase::Staging | Phase::Undoing | Phase::Finishing | Phase::Clearing => {
                return Err(self.refuse(&marker));
            }
        }
        let Some(record) = marker.swap.clone() else {
            return Err(self.refuse(&marker));
        };
        self.acts.create_folder(&self.previous())?;
        let names = &marker.dataset.names;
        if marker.dataset.form == Form::Rdb {
            self.place_file(&names.dbfilename)?;
        }
        match marker.dataset.append_only {
            AppendOnly::Folder => {
                self.place_set(names, &record)?;
                self.put_aside(&names.appendfilename, record.single_file_before)?;
            }
            AppendOnly::SingleFile => {
                self.place_file(&names.appendfilename)?;
                self.put_aside(&names.appenddirname, record.folder_before.is_some())?;
            }
            AppendOnly::None => {
                self.put_aside(&names.appendfilename, record.single_file_before)?;
                self.put_aside(&names.appenddirname, record.folder_before.is_some())?;
            }
        }
        if marker.dataset.form == Form::Aof {
            // The server does not read it, and a later `appendonly no` must not bring it back.
            self.put_aside(&names.dbfilename, record.dump_before)?;
        }
        marker.enter(Phase::Swapped, &self.acts, &self.work())?;
        Ok(swapped)
    }

    /// Complete the stage: owner, mode, the append-only form; and write down what was found before.
    /// Done anew if interrupted, as the old server may have run meanwhile.
    fn prepare(&self, marker: &mut Marker) -> Result<Vec<String>, Error> {
        let names = &marker.dataset.names;
        let owner = Owner::of(self, names)?;
        let mut remarks: Vec<String> = owner.remark().into_iter().collect();
        let staged = self.stage().join(marker.dataset.staged_name());
        remarks.extend(owner.give_file(&self.acts, &staged)?);
        let folder_before = acts::names(&self.dir.join(&names.appenddirname))?;
        let single = self.stage().join(&names.appendfilename);
        let staged_identity = identity(&staged)?.ok_or_else(|| self.refuse(marker))?;
        let (dump, mut single_file) = match marker.dataset.form {
            Form::Rdb => (Some(staged_identity), None),
            Form::Aof => (None, Some(staged_identity)),
        };
        let mut set = None;
        match marker.dataset.append_only {
            AppendOnly::Folder => {
                let existing = folder_before.iter().flatten().map(String::as_str);
                let new = marker.dataset.append_only_set(existing);
                self.prepare_set(&marker.dataset, &new, owner)?;
                set = Some(new);
                single_file = None;
            }
            AppendOnly::SingleFile if marker.dataset.form == Form::Aof => {}
            AppendOnly::SingleFile => {
                self.acts.remove_file(&single)?;
                self.acts.copy(&staged, &single)?;
                owner.give_file(&self.acts, &single)?;
                single_file = identity(&single)?;
            }
            AppendOnly::None => {}
        }
        marker.swap = Some(SwapRecord {
            dump_before: exists(&self.dir.join(&names.dbfilename))?,
            single_file_before: exists(&self.dir.join(&names.appendfilename))?,
            folder_before,
            dump,
            single_file,
            set,
        });
        marker.enter(Phase::Swapping, &self.acts, &self.work())?;
        Ok(remarks)
    }

    fn prepare_set(
        &self,
        dataset: &Dataset,
        set: &AppendOnlySet,
        owner: Owner,
    ) -> Result<(), Error> {
        let folder = self.stage().join(&dataset.names.appenddirname);
        self.acts.remove_folder(&folder)?;
        self.acts.create_folder(&folder)?;
        self.acts.keep(&self.stage().join(dataset.staged_name()), &folder.join(&set.base))?;
        self.acts.write(&folder.join(&set.manifest), set.manifest_text.as_bytes())?;
        owner.give_file(&self.acts, &folder.join(&set.manifest))?;
        if let Some(increment) = &set.increment {
            self.acts.write(&folder.join(increment), b"")?;
            owner.give_file(&self.acts, &folder.join(increment))?;
        }
        owner.give_folder(&self.acts, &folder).map(drop)
    }

    /// The old file gets a second name, then the new one takes its place.
    fn place_file(&self, name: &str) -> Result<(), Error> {
        let (staged, place) = (self.stage().join(name), self.dir.join(name));
        if !exists(&staged)? {
            return Ok(());
        }
        if exists(&place)? {
            self.acts.keep(&place, &self.previous().join(name))?;
        }
        self.acts.rename(&staged, &place)
    }

    /// Where there was no folder, the staged one comes whole. Otherwise its files come in, the
    /// manifest last, and the old ones leave.
    fn place_set(&self, names: &Names, record: &SwapRecord) -> Result<(), Error> {
        let (Some(set), place) = (&record.set, self.dir.join(&names.appenddirname)) else {
            return Ok(());
        };
        let staged = self.stage().join(&names.appenddirname);
        let Some(before) = &record.folder_before else {
            return if exists(&staged)? { self.acts.rename(&staged, &place) } else { Ok(()) };
        };
        let aside = self.previous().join(&names.appenddirname);
        self.acts.create_folder(&aside)?;
        if exists(&staged.join(&set.manifest))? {
            refuse_if_it_changed(&place, before, set)?;
        }
        for name in [Some(&set.base), set.increment.as_ref()].into_iter().flatten() {
            if exists(&staged.join(name))? {
                self.acts.rename(&staged.join(name), &place.join(name))?;
            }
        }
        if exists(&staged.join(&set.manifest))? {
            if before.contains(&set.manifest) {
                self.acts.keep(&place.join(&set.manifest), &aside.join(&set.manifest))?;
            }
            self.acts.rename(&staged.join(&set.manifest), &place.join(&set.manifest))?;
        }
        for name in before.iter().filter(|&name| *name != set.manifest) {
            if exists(&place.join(name))? && !exists(&aside.join(name))? {
                self.acts.rename(&place.join(name), &aside.join(name))?;
            }
        }
        Ok(())
    }

    fn put_aside(&self, name: &str, was_there: bool) -> Result<(), Error> {
        let (place, aside) = (self.dir.join(name), self.previous().join(name));
        if was_there && exists(&place)? && !exists(&aside)? {
            self.acts.rename(&place, &aside)?;
        }
        Ok(())
    }
}

/// A server that ran between a kill and now may have given the old dataset new files.
fn refuse_if_it_changed(
    folder: &Path,
    before: &[String],
    set: &AppendOnlySet,
) -> Result<(), Error> {
    let ours = |name: &String| name == &set.base || Some(name) == set.increment.as_ref();
    let mut found = acts::names(folder)?.unwrap_or_default();
    found.retain(|name| !ours(name) || before.contains(name));
    if found == before {
        return Ok(());
    }
    let finding = "a server has written here since the swap was begun; undo, then restore again";
    Err(Error::Unsuitable { path: folder.to_owned(), finding })
}

pub(super) fn identity(path: &Path) -> Result<Option<FileIdentity>, Error> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = owner::metadata(path)?;
    Ok(metadata.map(|found| FileIdentity { inode: found.ino(), bytes: found.len() }))
}
