//! A directory as a store. Objects appear whole, are never replaced, and survive a power failure.
//!
//! An object is written under `.staging/`, fsynced, and then given its name by a hard link, which
//! refuses to replace; the folders above it are fsynced before anybody is told that it is stored.
//! Files are readable by their owner only. Symbolic links and odd files are not objects.

mod placing;
mod transfer;

use std::{
    fs::{self, DirBuilder, File},
    io::{self, ErrorKind, Read as _},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};
use tokio::task::spawn_blocking;

use self::{
    placing::Stage,
    transfer::{DirectoryDownload, DirectoryUpload},
};
use super::{
    Attributes, Download, Error, LISTED_MAX, Listed, NO_LOCKS, NO_VERSIONS, Safeguards, Store,
    Stored, Unfinished, Upload, Version, write_whole,
};
use crate::domain::{catalog::Key, lock::Protection};

/// A folder below the root that no key can name: keys begin with the name of a source.
const STAGING: &str = ".staging";
const FOLDER_MODE: u32 = 0o700;

/// A store of plain files below one root, which is created by the first write.
#[derive(Clone, Debug)]
pub struct Directory {
    root: PathBuf,
}

impl Directory {
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.root.join(key.as_str())
    }
}

#[async_trait]
impl Store for Directory {
    fn address(&self) -> String {
        self.root.display().to_string()
    }

    async fn upload(&self, key: &Key) -> Result<Box<dyn Upload>, Error> {
        let (root, key) = (self.root.clone(), key.clone());
        blocking(move || {
            let stage = Stage::begin(&root, Some(&key))?;
            Ok(Box::new(DirectoryUpload::new(stage, root, key)) as Box<dyn Upload>)
        })
        .await
    }

    async fn create(&self, key: &Key, body: Bytes) -> Result<Stored, Error> {
        write_whole(self.upload(key).await?, body).await
    }

    async fn read(&self, key: &Key, bytes_max: usize) -> Result<Bytes, Error> {
        let path = self.path(key);
        blocking(move || {
            let attempt = || format!("read {}", path.display());
            let file = open(&path).map_err(|source| failed(attempt(), &path, source))?;
            let mut body = Vec::new();
            let limit = bytes_max as u64 + 1;
            let read = file.take(limit).read_to_end(&mut body);
            read.map_err(|source| failed(attempt(), &path, source))?;
            if body.len() > bytes_max {
                let finding = format!("it has more than {bytes_max} bytes");
                return Err(Error::Corrupt { attempt: attempt(), finding });
            }
            Ok(body.into())
        })
        .await
    }

    async fn download(&self, key: &Key, _: Option<&str>) -> Result<Box<dyn Download>, Error> {
        let path = self.path(key);
        blocking(move || {
            let file = open(&path)
                .map_err(|source| failed(format!("read {}", path.display()), &path, source))?;
            Ok(Box::new(DirectoryDownload::new(file, path)) as Box<dyn Download>)
        })
        .await
    }

    async fn attributes(&self, key: &Key, _: Option<&str>) -> Result<Attributes, Error> {
        let path = self.path(key);
        blocking(move || {
            let attributes = || {
                let metadata = open(&path)?.metadata()?;
                let modified = modified(&metadata)?;
                Ok(Attributes {
                    bytes: metadata.len(),
                    crc64nvme: None,
                    modified,
                    version_id: None,
                })
            };
            attributes()
                .map_err(|source| failed(format!("look at {}", path.display()), &path, source))
        })
        .await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, Error> {
        let (root, prefix) = (self.root.clone(), prefix.to_owned());
        blocking(move || {
            let mut listed = walk(&root, &prefix)?;
            listed.sort_by(|one, other| one.key.cmp(&other.key));
            Ok(listed)
        })
        .await
    }

    async fn folders(&self) -> Result<Vec<String>, Error> {
        let root = self.root.clone();
        blocking(move || folders(&root)).await
    }

    async fn delete(&self, key: &Key) -> Result<(), Error> {
        let (root, path) = (self.root.clone(), self.path(key));
        blocking(move || delete(&root, &path)).await
    }

    async fn purge(&self, key: &Key) -> Result<(), Error> {
        self.delete(key).await
    }

    async fn protection(&self, key: &Key, version_id: Option<&str>) -> Result<Protection, Error> {
        self.attributes(key, version_id).await.map(|_| Protection::default())
    }

    async fn hold(&self, key: &Key, _: Option<&str>, _: bool) -> Result<(), Error> {
        let attempt = format!("hold {}", self.path(key).display());
        Err(Error::Unsupported { attempt, finding: NO_LOCKS })
    }

    async fn versions(&self, prefix: &str) -> Result<Vec<Version>, Error> {
        let attempt = format!("list the versions of {}", self.root.join(prefix).display());
        Err(Error::Unsupported { attempt, finding: NO_VERSIONS })
    }

    async fn safeguards(&self) -> Result<Safeguards, Error> {
        Ok(Safeguards::default())
    }

    async fn unfinished(&self, prefix: &str) -> Result<Vec<Unfinished>, Error> {
        let (root, prefix) = (self.root.clone(), prefix.to_owned());
        blocking(move || placing::unfinished(&root, &prefix)).await
    }

    async fn forget(&self, unfinished: &Unfinished) -> Result<(), Error> {
        let (root, id) = (self.root.clone(), unfinished.id.clone());
        blocking(move || placing::forget(&root, &id)).await
    }

    /// The file system's clock, which on a network file system is the server's.
    async fn clock(&self) -> Result<Timestamp, Error> {
        let root = self.root.clone();
        blocking(move || {
            let stage = Stage::begin(&root, None)?;
            let now = stage.begun();
            stage.remove()?;
            now
        })
        .await
    }
}

/// File systems block, so nothing here runs on the threads that drive the network.
async fn blocking<T: Send + 'static>(
    action: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    spawn_blocking(action).await.unwrap_or_else(|source| {
        let attempt = "work on the file system".to_owned();
        Err(Error::Permanent { attempt, source: source.into() })
    })
}

/// Sort an I/O error by what the caller can do.
fn failed(attempt: String, path: &Path, source: io::Error) -> Error {
    let kind = source.kind();
    let transient = [Errno::TIMEDOUT, Errno::STALE, Errno::HOSTDOWN, Errno::NOTCONN, Errno::INTR];
    if kind == ErrorKind::NotFound {
        Error::NotFound { attempt }
    } else if kind == ErrorKind::AlreadyExists {
        Error::AlreadyExists { attempt }
    } else if kind == ErrorKind::PermissionDenied {
        let user = rustix::process::geteuid().as_raw();
        let advice = format!("give user {user} access to {}", path.display());
        Error::Denied { attempt, advice, source: Some(source.into()) }
    } else if kind == ErrorKind::ReadOnlyFilesystem {
        let advice = format!("{} needs a mount that is not read-only", path.display());
        Error::Denied { attempt, advice, source: Some(source.into()) }
    } else if matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded) {
        Error::Full { attempt, source: source.into() }
    } else if Errno::from_io_error(&source).is_some_and(|errno| transient.contains(&errno)) {
        Error::Unavailable { attempt, source: source.into() }
    } else {
        Error::Permanent { attempt, source: source.into() }
    }
}

/// Open a plain file; anything else is no object. Without `NONBLOCK` a named pipe would hang.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::LOOP | Errno::NXIO) => return Err(ErrorKind::NotFound.into()),
        Err(errno) => return Err(errno.into()),
    };
    if file.metadata()?.is_file() { Ok(file) } else { Err(ErrorKind::NotFound.into()) }
}

fn modified(metadata: &fs::Metadata) -> io::Result<Timestamp> {
    Timestamp::try_from(metadata.modified()?).map_err(io::Error::other)
}

/// Create the folder and those above it, as far as they are missing, and make their names durable.
fn create_folders(folder: &Path) -> io::Result<()> {
    let exists = |folder: &Path| folder.as_os_str().is_empty() || folder.exists();
    let missing: Vec<&Path> = folder.ancestors().take_while(|folder| !exists(folder)).collect();
    match DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder) {
        // Either something lies there that is no folder, or somebody has just removed the folder.
        Err(source) if source.kind() == ErrorKind::AlreadyExists => {
            let taken = |path: &Path| path.symlink_metadata().is_ok() && !path.is_dir();
            let errno = if folder.ancestors().any(taken) { Errno::NOTDIR } else { Errno::NOENT };
            Err(errno.into())
        }
        Err(source) => Err(source),
        Ok(()) => missing.into_iter().try_for_each(|folder| match folder.parent() {
            Some(parent) if parent.as_os_str().is_empty() => sync_folder(Path::new(".")),
            Some(parent) => sync_folder(parent),
            None => Ok(()),
        }),
    }
}

/// Make the names in a folder durable. Some network file systems know no such thing.
fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder)?.sync_all() {
        Err(source)
            if matches!(source.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) =>
        {
            Ok(())
        }
        synced => synced,
    }
}

/// Folders right below the root, sorted.
fn folders(root: &Path) -> Result<Vec<String>, Error> {
    let attempt = || format!("list {}", root.display());
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(source) if source.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(failed(attempt(), root, source)),
    };
    let mut folders = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|source| failed(attempt(), root, source))?;
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if let (true, Ok(name)) = (is_folder, entry.file_name().into_string())
            && name != STAGING
        {
            folders.push(name);
        }
    }
    folders.sort_unstable();
    Ok(folders)
}

/// Objects below the prefix in no order. What vanishes meanwhile is not there.
fn walk(root: &Path, prefix: &str) -> Result<Vec<Listed>, Error> {
    let mut listed = Vec::new();
    // No need to look at other folders than the one that the prefix names.
    let folder = prefix.rsplit_once('/').and_then(|(folder, _)| folder.parse::<Key>().ok());
    let mut folders = vec![folder.map_or(root.to_owned(), |folder| root.join(folder.as_str()))];
    while let Some(folder) = folders.pop() {
        let attempt = || format!("list {}", folder.display());
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(source) if source.kind() == ErrorKind::NotFound => continue,
            // The prefix names an object, not a folder.
            Err(source) if source.kind() == ErrorKind::NotADirectory && root.is_dir() => continue,
            Err(source) => return Err(failed(attempt(), &folder, source)),
        };
        for entry in entries {
            let entry = entry.map_err(|source| failed(attempt(), &folder, source))?;
            let kind =
                entry.file_type().map_err(|source| failed(attempt(), &entry.path(), source))?;
            if kind.is_dir() && !(folder == root && entry.file_name() == STAGING) {
                folders.push(entry.path());
            } else if kind.is_file()
                && let Some(key) = key_of(root, &entry.path())
                && key.as_str().starts_with(prefix)
                && let Some(object) = object(key, &entry)
                    .map_err(|source| failed(attempt(), &entry.path(), source))?
            {
                listed.push(object);
            }
        }
        if listed.len() > LISTED_MAX {
            let source = format!("more than {LISTED_MAX} objects").into();
            return Err(Error::Permanent { attempt: attempt(), source });
        }
    }
    Ok(listed)
}

fn object(key: Key, entry: &fs::DirEntry) -> io::Result<Option<Listed>> {
    match entry.metadata() {
        Ok(metadata) => {
            Ok(Some(Listed { key, bytes: metadata.len(), modified: modified(&metadata)? }))
        }
        Err(source) if source.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(source),
    }
}

/// Keys are plain ASCII; a file with another name is not ours.
fn key_of(root: &Path, path: &Path) -> Option<Key> {
    let path = path.strip_prefix(root).ok()?;
    if path.starts_with(STAGING) { None } else { path.to_str()?.parse().ok() }
}

fn delete(root: &Path, path: &Path) -> Result<(), Error> {
    let failed = |source| failed(format!("delete {}", path.display()), path, source);
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(source) if source.kind() == ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(failed(source)),
    }
    let folders = path.ancestors().skip(1).take_while(|folder| *folder != root);
    for folder in folders {
        // Not empty, or somebody else was faster: either way the object is gone.
        if fs::remove_dir(folder).is_err() {
            break;
        }
    }
    // A manifest must be gone for good before its archives are touched.
    for folder in path.ancestors().skip(1) {
        match sync_folder(folder) {
            // Removed by us or by somebody else: then the folder above it has to be synced.
            Err(source) if source.kind() == ErrorKind::NotFound => {}
            synced => return synced.map_err(failed),
        }
    }
    Ok(())
}
