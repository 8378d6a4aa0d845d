//! The directory from which a Redis starts: puts another dataset in, back, or for good. Never
//! decides what a dataset is, and leaves everything else in the directory alone.
//!
//! All own files lie in `.redis-backup` in the directory, on the same volume: `stage` (the new
//! dataset), `previous` (the old one), `marker.json` (the truth about both) and a lock.
//!
//! There is no moment at which a start finds neither dataset. dump.rdb and the append-only manifest
//! are each replaced by one rename, and the manifest is what makes the files beside it a dataset:
//! the new base goes in under a name of its own, then the manifest over the old one, then the old
//! files leave. No exchange of folders is needed, so this holds on NFS too.
//!
//! Every change goes through [`Acts`]: killed before any of them, the same call goes on.
//! All functions block; async callers use `spawn_blocking`.

mod acts;
mod finish;
mod marker;
mod owner;
mod running;
mod stage;
mod swap;
mod undo;

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustix::fs::FlockOperation;

use self::marker::Marker;
pub use self::{
    acts::Acts,
    finish::Finished,
    marker::{Phase, Unfinished},
    running::{Process, Sight, look},
    stage::{Begun, Stage},
    swap::Swapped,
    undo::Undone,
};
use crate::domain::{
    dataset::{Dataset, Names, WORK_FOLDER},
    identity::BackupId,
};

/// Variants by what the caller can do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{} is no directory", dir.display())]
    NotADirectory { dir: PathBuf },
    #[error("another run works on {}", dir.display())]
    Locked { dir: PathBuf },
    #[error("a server runs on {}: {processes}; stop it first", dir.display())]
    ServerRuns { dir: PathBuf, processes: String },
    #[error("an unfinished restore is in {}: {unfinished}", dir.display())]
    Unfinished { dir: PathBuf, unfinished: Unfinished },
    #[error(
        "{} has {free} bytes free, but {needed} are needed: {why}",
        dir.display()
    )]
    NoSpace { dir: PathBuf, free: u64, needed: u64, why: String },
    /// The directory is not such that its dataset could be replaced.
    #[error("{}: {finding}", path.display())]
    Unsuitable { path: PathBuf, finding: &'static str },
    #[error("{attempt}")]
    Act {
        attempt: String,
        #[source]
        source: io::Error,
    },
    #[error("read {}", path.display())]
    Marker {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
}

impl Error {
    /// Whether the volume was full.
    pub fn is_full(&self) -> bool {
        match self {
            Self::NoSpace { .. } => true,
            Self::Act { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            Self::NotADirectory { .. }
            | Self::Locked { .. }
            | Self::ServerRuns { .. }
            | Self::Unfinished { .. }
            | Self::Unsuitable { .. }
            | Self::Marker { .. } => false,
        }
    }
}

/// Which restore this is. The same again goes on; another has to wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restore {
    pub backup: BackupId,
    pub shard: u32,
    pub dataset: Dataset,
    /// Length of what is staged.
    pub bytes: u64,
}

/// A data directory, locked against other runs for as long as this lives.
#[derive(Debug)]
pub struct DataDirectory {
    dir: PathBuf,
    acts: Acts,
    _lock: Lock,
}

/// What an earlier restore left in the directory. Changes nothing and waits for no lock.
pub fn state(dir: &Path) -> Result<Option<Unfinished>, Error> {
    Ok(Marker::read(&dir.join(WORK_FOLDER))?.map(|marker| marker.unfinished()))
}

/// Whether the directory's dataset could be replaced at all, without looking for servers or room.
/// Changes nothing and waits for no lock.
pub fn is_suitable(dir: &Path, names: &Names) -> Result<(), Error> {
    if !dir.is_dir() {
        return Err(Error::NotADirectory { dir: dir.to_owned() });
    }
    stage::refuse_what_cannot_be_replaced(dir, names)
}

impl DataDirectory {
    /// The directory must exist. Fails at once if another run holds it.
    pub fn open(dir: &Path, acts: Acts) -> Result<Self, Error> {
        let dir = fs::canonicalize(dir)
            .ok()
            .filter(|dir| dir.is_dir())
            .ok_or_else(|| Error::NotADirectory { dir: dir.to_owned() })?;
        let lock = lock(&dir)?;
        Ok(Self { dir, acts, _lock: lock })
    }

    /// As given, without symbolic links.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    fn work(&self) -> PathBuf {
        self.dir.join(WORK_FOLDER)
    }

    /// The new dataset, under the names it will have.
    fn stage(&self) -> PathBuf {
        self.work().join("stage")
    }

    /// The old dataset, under the names it had.
    fn previous(&self) -> PathBuf {
        self.work().join("previous")
    }

    /// What an undo took out.
    fn undone(&self) -> PathBuf {
        self.work().join("undone")
    }

    fn marker(&self) -> Result<Option<Marker>, Error> {
        Marker::read(&self.work())
    }

    fn refuse_while_a_server_runs(&self) -> Result<(), Error> {
        let sight = look(&self.dir)?;
        if sight.servers.is_empty() {
            return Ok(());
        }
        let processes: Vec<String> = sight.servers.iter().map(ToString::to_string).collect();
        Err(Error::ServerRuns { dir: self.dir.clone(), processes: processes.join(", ") })
    }

    fn refuse(&self, marker: &Marker) -> Error {
        Error::Unfinished { dir: self.dir.clone(), unfinished: marker.unfinished() }
    }

    /// The last phase of undo and finish: whatever is left belongs to nobody.
    fn clear(&self) -> Result<(), Error> {
        for folder in [self.stage(), self.previous(), self.undone(), self.work().join("unused")] {
            self.acts.remove_folder(&folder)?;
        }
        self.acts.remove_file(&self.work().join(marker::NAME))?;
        self.leave()
    }

    /// Leave no trace where no restore is under way, unless something is kept here. The previous
    /// dataset is not touched, not even if somebody removed the marker by hand.
    fn leave(&self) -> Result<(), Error> {
        self.acts.remove_folder(&self.stage())?;
        for name in [stage::PROBE, stage::PROBE_LINK, stage::RESERVE, marker::PARTIAL] {
            self.acts.remove_file(&self.work().join(name))?;
        }
        self.acts.remove_file(&self.work().join(LOCK))?;
        // Not empty if an undo kept what was written since the restore.
        let _ = fs::remove_dir(self.work());
        acts::sync_folder(&self.dir)
    }
}

const LOCK: &str = "lock";

/// An exclusive flock, which the kernel drops with the process at the latest.
#[derive(Debug)]
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing would not do: a child that was just forked holds the same open file.
        let _ = rustix::fs::flock(&self.0, FlockOperation::Unlock);
    }
}

fn lock(dir: &Path) -> Result<Lock, Error> {
    let work = dir.join(WORK_FOLDER);
    let path = work.join(LOCK);
    let fail = |source| Error::Act { attempt: format!("lock {}", path.display()), source };
    // A run that ends removes the lock file; a lock on a removed file would hold nobody off.
    for _ in 0..100 {
        if let Err(error) = fs::create_dir(&work)
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            return Err(fail(error));
        }
        // Whoever owns the directory could lead us, who may be root, into any folder to clear it.
        match fs::symlink_metadata(&work) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => {
                let finding = "is no folder of its own; move it away";
                return Err(Error::Unsuitable { path: work, finding });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(fail(error)),
        }
        let opened =
            File::options().create(true).truncate(false).read(true).write(true).open(&path);
        let file = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            opened => opened.map_err(fail)?,
        };
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(Error::Locked { dir: dir.to_owned() });
            }
            Err(error) => return Err(fail(error.into())),
        }
        let lock = Lock(file);
        let held = lock.0.metadata().map_err(fail)?;
        match fs::metadata(&path) {
            Ok(named) if (named.dev(), named.ino()) == (held.dev(), held.ino()) => return Ok(lock),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(fail(error)),
        }
    }
    Err(Error::Locked { dir: dir.to_owned() })
}
