//! The single changes to a data directory, each durable when it returns. Never decides which.

use std::{
    fmt,
    fs::{self, File, Permissions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use super::Error;

type Watch = Box<dyn Fn(&str) -> io::Result<()> + Send + Sync>;

/// The one way to change a data directory. A watcher is asked before each act: what it refuses is
/// as if the process had been killed there.
pub struct Acts {
    watch: Watch,
}

impl fmt::Debug for Acts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acts").finish_non_exhaustive()
    }
}

impl Default for Acts {
    fn default() -> Self {
        Self::watched(|_| Ok(()))
    }
}

impl Acts {
    pub fn watched(watch: impl Fn(&str) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self { watch: Box::new(watch) }
    }

    pub(super) fn act<T>(
        &self,
        attempt: String,
        act: impl FnOnce() -> io::Result<T>,
    ) -> Result<T, Error> {
        match (self.watch)(&attempt).and_then(|()| act()) {
            Ok(done) => Ok(done),
            Err(source) => Err(Error::Act { attempt, source }),
        }
    }

    pub(super) fn create_folder(&self, path: &Path) -> Result<(), Error> {
        self.act(format!("create {}", path.display()), || match fs::create_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            done => done.and_then(|()| sync_parent(path)),
        })
    }

    /// Replaces what bears the new name.
    pub(super) fn rename(&self, from: &Path, to: &Path) -> Result<(), Error> {
        self.act(format!("rename {} to {}", from.display(), to.display()), || {
            fs::rename(from, to)?;
            sync_parent(to)?;
            sync_parent(from)
        })
    }

    /// Give a file a second name that outlives the first; a copy where the volume has no hard links.
    /// What bears the new name from an interrupted attempt stays if it is the same.
    pub(super) fn keep(&self, from: &Path, to: &Path) -> Result<(), Error> {
        if exists(to)? {
            if is_same(from, to)? {
                return Ok(());
            }
            self.remove_file(to)?;
        }
        let linked =
            self.act(
                format!("link {} to {}", from.display(), to.display()),
                || match fs::hard_link(from, to) {
                    Ok(()) => sync_parent(to).map(|()| true),
                    Err(error) if has_no_links(&error) => Ok(false),
                    Err(error) => Err(error),
                },
            )?;
        if linked {
            return Ok(());
        }
        let mut partial = to.as_os_str().to_owned();
        partial.push(".partial");
        let partial = Path::new(&partial);
        self.copy(from, partial)?;
        self.rename(partial, to)
    }

    /// A copy with its owner, as far as we may, mode and time of modification.
    pub(super) fn copy(&self, from: &Path, to: &Path) -> Result<(), Error> {
        self.act(format!("copy {} to {}", from.display(), to.display()), || {
            let mut source = File::open(from)?;
            let metadata = source.metadata()?;
            let mut copy = File::create(to)?;
            io::copy(&mut source, &mut copy)?;
            let _ = std::os::unix::fs::fchown(&copy, Some(metadata.uid()), Some(metadata.gid()));
            copy.set_permissions(Permissions::from_mode(metadata.mode() & 0o7777))?;
            copy.set_modified(metadata.modified()?)?;
            copy.sync_all()?;
            sync_parent(to)
        })
    }

    /// Readers see the old content or the new.
    pub(super) fn write(&self, path: &Path, content: &[u8]) -> Result<(), Error> {
        self.act(format!("write {}", path.display()), || {
            let partial = path.with_extension("partial");
            let mut file = File::create(&partial)?;
            file.write_all(content)?;
            file.sync_all()?;
            fs::rename(&partial, path)?;
            sync_parent(path)
        })
    }

    /// Removing what is already gone is a success.
    pub(super) fn remove_file(&self, path: &Path) -> Result<(), Error> {
        self.act(format!("remove {}", path.display()), || match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done.and_then(|()| sync_parent(path)),
        })
    }

    /// Removing what is already gone is a success.
    pub(super) fn remove_folder(&self, path: &Path) -> Result<(), Error> {
        self.act(format!("remove {}", path.display()), || match fs::remove_dir_all(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done.and_then(|()| sync_parent(path)),
        })
    }
}

/// Whether anything bears that name, a dangling link included.
pub(super) fn exists(path: &Path) -> Result<bool, Error> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(Error::Act { attempt: format!("look at {}", path.display()), source }),
    }
}

/// Whether one is a link to the other or a copy made by [`Acts::copy`].
fn is_same(one: &Path, other: &Path) -> Result<bool, Error> {
    let look = |path: &Path| {
        fs::symlink_metadata(path)
            .map_err(|source| Error::Act { attempt: format!("look at {}", path.display()), source })
    };
    let (one, other) = (look(one)?, look(other)?);
    let modified = |file: &fs::Metadata| (file.len(), file.mtime(), file.mtime_nsec());
    Ok(one.ino() == other.ino() || modified(&one) == modified(&other))
}

/// Names in a folder, sorted; none where there is no folder.
pub(super) fn names(folder: &Path) -> Result<Option<Vec<String>>, Error> {
    let fail = |source| Error::Act { attempt: format!("list {}", folder.display()), source };
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries.map_err(fail)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(fail)?.file_name();
        let name = name.into_string().map_err(|name| Error::Unsuitable {
            path: folder.join(name),
            finding: "its name is not UTF-8; move it away",
        })?;
        names.push(name);
    }
    names.sort();
    Ok(Some(names))
}

pub(super) fn sync_folder(folder: &Path) -> Result<(), Error> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|source| Error::Act { attempt: format!("sync {}", folder.display()), source })
}

/// Whether this error says that the volume, not this file, cannot be linked on.
pub(super) fn has_no_links(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Unsupported | io::ErrorKind::TooManyLinks | io::ErrorKind::PermissionDenied
    )
}

fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}
