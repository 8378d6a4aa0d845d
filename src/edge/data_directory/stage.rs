//! Writes the new dataset beside the old one. Never touches the old one.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use super::{
    DataDirectory, Error, Phase, Restore, acts,
    marker::{self, Marker},
    owner,
};
use crate::{
    domain::dataset::{AppendOnly, Names},
    edge::direct,
};

/// Room for folders, manifests and the marker.
const MARGIN_BYTES: u64 = 1 << 20;

/// Bytes that are written to the stage at once.
const WRITE_BYTES: usize = 1 << 20;

pub(super) const PROBE: &str = "probe";
pub(super) const PROBE_LINK: &str = "probe.link";

/// Room for what an undo must write on a volume that a server has filled up since.
pub(super) const RESERVE: &str = "reserve";
const RESERVE_BYTES: usize = 64 << 10;

/// What [`DataDirectory::begin`] found to be next.
#[derive(Debug)]
pub enum Begun {
    /// Write what is restored; an interrupted earlier attempt was removed.
    Stage(Stage),
    /// This restore was staged and checked before, or even half put in place: swap.
    Swap,
    /// This restore is in place already; it waits for finish or undo.
    InPlace,
}

/// What is restored on its way to the volume.
#[derive(Debug)]
pub struct Stage {
    path: PathBuf,
    file: File,
    /// Not yet in the file.
    waiting: direct::Buffer,
}

impl DataDirectory {
    /// Look whether the restore can be, and begin it or go on with it. Refused while a server runs
    /// here, while another restore is unfinished, and where the volume has not room enough.
    pub fn begin(&self, restore: &Restore) -> Result<Begun, Error> {
        let found = match self.marker()? {
            Some(marker) if marker.phase == Phase::Clearing => {
                self.acts.remove_folder(&self.stage())?;
                self.acts.remove_folder(&self.previous())?;
                self.acts.remove_folder(&self.undone())?;
                self.acts.remove_folder(&self.work().join("unused"))?;
                None
            }
            found => found,
        };
        if let Some(marker) = &found {
            let is_same = marker.backup == restore.backup && marker.shard == restore.shard;
            let same_files = marker.dataset == restore.dataset;
            match marker.phase {
                Phase::Staged | Phase::Swapping if is_same && same_files => return Ok(Begun::Swap),
                Phase::Swapped if is_same && same_files => return Ok(Begun::InPlace),
                Phase::Staging | Phase::Staged if is_same => {}
                Phase::Staging
                | Phase::Staged
                | Phase::Swapping
                | Phase::Swapped
                | Phase::Undoing
                | Phase::Finishing
                | Phase::Clearing => return Err(self.refuse(marker)),
            }
        }
        self.refuse_while_a_server_runs()?;
        refuse_what_cannot_be_replaced(&self.dir, &restore.dataset.names)?;
        let marker = Marker::new(restore.backup.clone(), restore.shard, restore.dataset.clone());
        if found.is_some() {
            // Before its files go, the marker must no longer say that they are staged.
            marker.write(&self.acts, &self.work())?;
        }
        self.acts.remove_folder(&self.stage())?;
        if let Err(error) = self.refuse_without_room(restore) {
            self.acts.remove_file(&self.work().join(marker::NAME))?;
            return Err(error);
        }
        marker.write(&self.acts, &self.work())?;
        self.acts.write(&self.work().join(RESERVE), &vec![b'.'; RESERVE_BYTES])?;
        self.acts.create_folder(&self.stage())?;
        let path = self.stage().join(restore.dataset.staged_name());
        let file =
            self.acts.act(format!("create {}", path.display()), || File::create_new(&path))?;
        direct::prefer(&file);
        Ok(Begun::Stage(Stage { path, file, waiting: direct::Buffer::new(WRITE_BYTES) }))
    }

    /// Tell that what [`Stage::seal`] left was read back and is right. From here on the restore can
    /// go on without the store.
    pub fn confirm_staged(&self) -> Result<(), Error> {
        match self.marker()? {
            Some(mut marker) if marker.phase == Phase::Staging => {
                marker.enter(Phase::Staged, &self.acts, &self.work())
            }
            Some(marker) => Err(self.refuse(&marker)),
            None => {
                Err(Error::Unsuitable { path: self.work(), finding: "no restore was begun here" })
            }
        }
    }

    /// End without a trace, before anything was begun or when a preflight refused. Keeps what an
    /// unfinished restore needs.
    pub fn close(self) -> Result<(), Error> {
        if self.marker()?.is_none() { self.leave() } else { Ok(()) }
    }

    fn refuse_without_room(&self, restore: &Restore) -> Result<(), Error> {
        let attempt = || format!("look how much room {} has", self.dir.display());
        let fail =
            |source: rustix::io::Errno| Error::Act { attempt: attempt(), source: source.into() };
        let volume = rustix::fs::statvfs(&self.dir).map_err(fail)?;
        let free = volume.f_bavail.saturating_mul(volume.f_frsize);
        let hard_links = self.has_hard_links()?;
        let copies = restore.dataset.copies(hard_links);
        let mut needed = restore.bytes.saturating_mul(copies).saturating_add(MARGIN_BYTES);
        let mut why = match copies {
            1 => format!("the dataset of {} bytes beside the old one", restore.bytes),
            _ => format!(
                "the dataset of {} bytes twice, as dump and as append-only file, beside the old one",
                restore.bytes
            ),
        };
        if !hard_links {
            let names = &restore.dataset.names;
            let mut files = vec![&names.dbfilename];
            if restore.dataset.append_only == AppendOnly::SingleFile {
                files.push(&names.appendfilename);
            }
            for name in files {
                let old = owner::metadata(&self.dir.join(name))?.map_or(0, |old| old.len());
                needed = needed.saturating_add(old);
            }
            why += ", and a copy of the old files, as this volume has no hard links";
        }
        if free < needed {
            return Err(Error::NoSpace { dir: self.dir.clone(), free, needed, why });
        }
        Ok(())
    }

    fn has_hard_links(&self) -> Result<bool, Error> {
        let (probe, link) = (self.work().join(PROBE), self.work().join(PROBE_LINK));
        self.acts.remove_file(&link)?;
        let has = self.acts.act(format!("try a hard link in {}", self.work().display()), || {
            File::create(&probe)?;
            match fs::hard_link(&probe, &link) {
                Ok(()) => Ok(true),
                Err(error) if acts::has_no_links(&error) => Ok(false),
                Err(error) => Err(error),
            }
        })?;
        self.acts.remove_file(&link)?;
        self.acts.remove_file(&probe)?;
        Ok(has)
    }
}

impl Stage {
    pub fn write(&mut self, mut chunk: &[u8]) -> Result<(), Error> {
        while !chunk.is_empty() {
            chunk = self.waiting.take(chunk);
            if self.waiting.room() == 0 {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Error> {
        direct::write_all(&self.file, self.waiting.as_slice())
            .map_err(|source| self.fail(source))?;
        self.waiting.clear();
        Ok(())
    }

    /// Make it durable and say where it lies, to be read back and checked. Nothing is confirmed yet.
    pub fn seal(mut self) -> Result<PathBuf, Error> {
        self.flush()?;
        self.file.sync_all().map_err(|source| self.fail(source))?;
        if let Some(folder) = self.path.parent() {
            acts::sync_folder(folder)?;
        }
        Ok(self.path)
    }

    fn fail(&self, source: std::io::Error) -> Error {
        Error::Act { attempt: format!("write {}", self.path.display()), source }
    }
}

pub(super) fn refuse_what_cannot_be_replaced(dir: &Path, names: &Names) -> Result<(), Error> {
    use std::os::unix::fs::MetadataExt as _;
    let refuse = |path: &Path, finding| Error::Unsuitable { path: path.to_owned(), finding };
    let volume = owner::metadata(dir)?.map(|found| found.dev());
    for name in [&names.dbfilename, &names.appendfilename] {
        let path = dir.join(name);
        if owner::metadata(&path)?.is_some_and(|found| !found.is_file()) {
            return Err(refuse(&path, "is no plain file; a restore cannot replace it"));
        }
    }
    let folder = dir.join(&names.appenddirname);
    if let Some(found) = owner::metadata(&folder)? {
        if !found.is_dir() {
            return Err(refuse(&folder, "is no folder; a restore cannot replace it"));
        }
        if Some(found.dev()) != volume {
            return Err(refuse(&folder, "is a volume of its own; files cannot be moved there"));
        }
    }
    Ok(())
}
