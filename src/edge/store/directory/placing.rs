//! How a staged file gets its name in a directory store. Never replaces a file, never shows half of one.
//!
//! What a crash leaves, by the way of placing:
//! * [`Placing::Link`]: before the link only the staged file; after it the whole object under its
//!   name and, until it is swept, the staged name of the same file.
//! * [`Placing::RenameExclusive`] (file systems without hard links): one or the other.
//! * [`Placing::RenameLocked`] (file systems that have neither): one or the other. Writers exclude
//!   each other by a file lock, which ends with its process. Where locks do not reach other
//!   hosts, two hosts that place the same key in the same instant may replace one another; keys of
//!   backups are random enough that none does.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use rustix::{
    fs::{CWD, RenameFlags},
    io::Errno,
};

use super::{STAGING, create_folders, failed, modified, sync_folder};
use crate::{
    domain::catalog::Key,
    edge::store::{Error, Unfinished},
};

const FILE_MODE: u32 = 0o600;
const LOCK: &str = "lock";
/// A concurrent delete may remove the folder that was just made for an object, again and again.
const PLACE_ATTEMPTS_MAX: usize = 16;
/// File systems allow no longer name.
const NAME_BYTES_MAX: usize = 255;
/// Stands for `/` in the name of a staged file; no key holds one.
const SEPARATOR: &str = "+";
const CHANCE_LENGTH: usize = 16;

/// A file that is being written and has no name as an object yet.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) file: File,
    path: PathBuf,
}

#[derive(Clone, Copy, Debug)]
enum Placing {
    Link,
    RenameExclusive,
    RenameLocked,
}

impl Stage {
    pub(super) fn begin(root: &Path, key: Option<&Key>) -> Result<Self, Error> {
        let folder = root.join(STAGING);
        create_folders(&folder)
            .map_err(|source| failed(format!("open the store {}", root.display()), root, source))?;
        let path = folder.join(name_of(rand::random(), key));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(FILE_MODE)
            .open(&path)
            .map_err(|source| failed(format!("create {}", path.display()), &folder, source))?;
        Ok(Self { file, path })
    }

    /// When the file system says that the file was begun.
    pub(super) fn begun(&self) -> Result<Timestamp, Error> {
        let begun = self.file.metadata().and_then(|metadata| modified(&metadata));
        begun.map_err(|source| {
            failed(format!("look at {}", self.path.display()), &self.path, source)
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Give the synced file its name, durably.
    pub(super) fn place(&self, root: &Path, key: &Key) -> io::Result<()> {
        let path = root.join(key.as_str());
        let folder = path.parent().unwrap_or(root);
        let mut attempts = 0;
        let placing = loop {
            attempts += 1;
            match create_folders(folder).and_then(|()| self.place_by_any(root, &path)) {
                Err(source)
                    if source.kind() == ErrorKind::NotFound && attempts < PLACE_ATTEMPTS_MAX => {}
                placed => break placed?,
            }
        };
        // Also the folders above: another process may have made them and not synced them yet.
        for folder in folder.ancestors().take_while(|folder| folder.starts_with(root)) {
            match sync_folder(folder) {
                // Somebody has deleted the object already, and the folder with it.
                Err(source) if source.kind() == ErrorKind::NotFound => {}
                synced => synced?,
            }
        }
        match placing {
            // Left behind, it is swept like any other leftover.
            Placing::Link => fs::remove_file(&self.path).or(Ok(())),
            Placing::RenameExclusive | Placing::RenameLocked => Ok(()),
        }
    }

    pub(super) fn remove(&self) -> Result<(), Error> {
        remove(&self.path)
    }

    fn place_by_any(&self, root: &Path, path: &Path) -> io::Result<Placing> {
        for placing in [Placing::Link, Placing::RenameExclusive] {
            match placing.place(&self.path, root, path) {
                Err(source) if is_unsupported(&source) => {}
                placed => return placed.map(|()| placing),
            }
        }
        Placing::RenameLocked.place(&self.path, root, path).map(|()| Placing::RenameLocked)
    }
}

impl Placing {
    fn place(self, stage: &Path, root: &Path, path: &Path) -> io::Result<()> {
        match self {
            Self::Link => match fs::hard_link(stage, path) {
                // A network file system may have lost its own reply.
                Err(source)
                    if source.kind() == ErrorKind::AlreadyExists && is_same(stage, path) =>
                {
                    Ok(())
                }
                linked => linked,
            },
            Self::RenameExclusive => {
                Ok(rustix::fs::renameat_with(CWD, stage, CWD, path, RenameFlags::NOREPLACE)?)
            }
            Self::RenameLocked => {
                let lock = root.join(STAGING).join(LOCK);
                let lock = OpenOptions::new()
                    .write(true)
                    .create(true)
                    .truncate(false)
                    .mode(FILE_MODE)
                    .open(lock)?;
                lock.lock()?;
                match path.symlink_metadata() {
                    Ok(_) => Err(ErrorKind::AlreadyExists.into()),
                    Err(source) if source.kind() == ErrorKind::NotFound => fs::rename(stage, path),
                    Err(source) => Err(source),
                }
            }
        }
    }
}

/// Staged files of keys below the prefix, and those that do not tell their key.
pub(super) fn unfinished(root: &Path, prefix: &str) -> Result<Vec<Unfinished>, Error> {
    let folder = root.join(STAGING);
    let attempt = || format!("list {}", folder.display());
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(source) if source.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(failed(attempt(), &folder, source)),
    };
    let mut unfinished = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|source| failed(attempt(), &folder, source))?;
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
        let Some(key) = key_of(&name) else { continue };
        let begun = match entry.metadata() {
            Ok(metadata) if metadata.is_file() => modified(&metadata),
            Ok(_) => continue,
            Err(source) if source.kind() == ErrorKind::NotFound => continue,
            Err(source) => Err(source),
        };
        let begun = begun.map_err(|source| failed(attempt(), &entry.path(), source))?;
        if key.as_ref().is_none_or(|key| key.as_str().starts_with(prefix)) {
            unfinished.push(Unfinished { id: name, key, begun });
        }
    }
    unfinished.sort_by(|one, other| one.id.cmp(&other.id));
    Ok(unfinished)
}

pub(super) fn forget(root: &Path, id: &str) -> Result<(), Error> {
    // Only what `unfinished` could have named, so that an id cannot lead out of the folder.
    if key_of(id).is_none() {
        return Err(Error::NotFound { attempt: format!("forget upload {id:?}") });
    }
    remove(&root.join(STAGING).join(id))
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != ErrorKind::NotFound => {
            Err(failed(format!("delete {}", path.display()), path, source))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// `<16 hexadecimal digits>+<key>`, or the digits alone where the name would be too long.
fn name_of(chance: u64, key: Option<&Key>) -> String {
    let key = key.map_or(String::new(), |key| format!("/{key}").replace('/', SEPARATOR));
    let key = Some(key).filter(|key| key.len() <= NAME_BYTES_MAX - CHANCE_LENGTH);
    format!("{chance:016x}{}", key.unwrap_or_default())
}

/// Outer `None`: the name is not that of a staged file.
#[expect(clippy::option_option, reason = "a staged file may or may not tell its key")]
fn key_of(name: &str) -> Option<Option<Key>> {
    let (chance, key) = name.split_at_checked(CHANCE_LENGTH)?;
    let is_chance = chance.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    match key.strip_prefix(SEPARATOR) {
        _ if !is_chance => None,
        Some(key) => key.replace(SEPARATOR, "/").parse().ok().map(Some),
        None => key.is_empty().then_some(None),
    }
}

/// The file system, or this kind of file on it, does not know how.
fn is_unsupported(source: &io::Error) -> bool {
    let unsupported = [
        Errno::PERM,
        Errno::NOTSUP,
        Errno::OPNOTSUPP,
        Errno::NOSYS,
        Errno::INVAL,
        Errno::MLINK,
        Errno::XDEV,
    ];
    Errno::from_io_error(source).is_some_and(|errno| unsupported.contains(&errno))
}

fn is_same(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| path.symlink_metadata().map(|found| (found.dev(), found.ino()));
    matches!((identity(one), identity(other)), (Ok(one), Ok(other)) if one == other)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAYS: [Placing; 3] = [Placing::Link, Placing::RenameExclusive, Placing::RenameLocked];

    #[test]
    fn no_way_of_placing_replaces_what_is_there() {
        for placing in WAYS {
            let root = tempfile::tempdir().unwrap();
            let (root, path) = (root.path(), root.path().join("object"));
            let first = Stage::begin(root, None).unwrap();
            let second = Stage::begin(root, None).unwrap();
            fs::write(&first.path, "first").unwrap();
            fs::write(&second.path, "second").unwrap();
            placing.place(&first.path, root, &path).unwrap();
            let refused = placing.place(&second.path, root, &path).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::AlreadyExists, "{placing:?}");
            assert_eq!(fs::read(&path).unwrap(), b"first", "{placing:?}");
        }
    }

    #[test]
    fn of_many_that_place_at_once_exactly_one_wins_whatever_the_way() {
        for placing in WAYS {
            let root = tempfile::tempdir().unwrap();
            let (root, path) = (root.path(), root.path().join("object"));
            let winners: usize = std::thread::scope(|scope| {
                let race = || {
                    let stage = Stage::begin(root, None).unwrap();
                    usize::from(placing.place(&stage.path, root, &path).is_ok())
                };
                let racers: Vec<_> = (0..8).map(|_| scope.spawn(race)).collect();
                racers.into_iter().map(|racer| racer.join().unwrap()).sum()
            });
            assert_eq!(winners, 1, "{placing:?}");
        }
    }

    #[test]
    fn a_link_whose_reply_was_lost_is_a_success() {
        let root = tempfile::tempdir().unwrap();
        let (root, path) = (root.path(), root.path().join("object"));
        let stage = Stage::begin(root, None).unwrap();
        fs::hard_link(&stage.path, &path).unwrap();
        Placing::Link.place(&stage.path, root, &path).unwrap();
    }

    #[test]
    fn a_file_that_takes_no_more_links_is_placed_by_rename() {
        for errno in [Errno::PERM, Errno::NOTSUP, Errno::MLINK, Errno::INVAL] {
            assert!(is_unsupported(&errno.into()), "{errno}");
        }
        for errno in [Errno::EXIST, Errno::ACCESS, Errno::NOENT, Errno::NOSPC, Errno::ROFS] {
            assert!(!is_unsupported(&errno.into()), "{errno}");
        }
    }

    #[test]
    fn a_staged_name_tells_its_key_unless_it_would_be_too_long() {
        let key: Key = "sessions/archives/x/dump.rdb.zst.000".parse().unwrap();
        assert_eq!(key_of(&name_of(7, Some(&key))), Some(Some(key)));
        assert_eq!(key_of(&name_of(7, None)), Some(None));
        let long: Key = "a".repeat(240).parse().unwrap();
        assert_eq!(name_of(7, Some(&long)), "0000000000000007");
        for odd in ["lock", "", "0000000000000007x", "../../../../../../x", "000000000000000G"] {
            assert_eq!(key_of(odd), None, "{odd:?}");
        }
    }
}
