//! The append-only files of a data directory, all opened at one moment. Never reads past what was there then.

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
};

use super::{Error, OpenFile, open, read_at};
use crate::domain::{
    aof::{
        gate::Sizes,
        list::{self, EXTENSION, FileList, Role},
    },
    capture::FileNames,
};

/// A server makes one file at each rewrite and at each restart, and deletes what a rewrite replaced.
const FILES_MAX: usize = 512;

pub(super) const SINGLE: &str = "appendonly.aof";

/// One file of a set: what replaces or removes it later does not change what is read from it.
#[derive(Debug)]
pub struct AofFile {
    pub file: OpenFile,
    pub listed: list::File,
    /// When all of them were open. Only the last one grows.
    pub bytes: u64,
}

/// All files of one moment, in the order in which a server loads them.
#[derive(Debug)]
pub struct AofSet {
    pub files: Vec<AofFile>,
}

impl AofSet {
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    pub fn sizes(&self) -> Sizes {
        let of = |is_base: bool| {
            let files = self.files.iter().filter(|it| (it.listed.role == Role::Base) == is_base);
            files.map(|file| file.bytes).sum()
        };
        Sizes { base: of(true), increments: of(false) }
    }

    /// Opens every file that the server's own list names. None when the list changed meanwhile or a
    /// file was gone: then it is to be tried again.
    pub(super) fn open(folder: &Path, names: &FileNames) -> Result<Option<Self>, Error> {
        let list_path = list_path(folder, names)?;
        let before = read_list(&list_path)?;
        let list = FileList::parse(&before)
            .map_err(|source| Error::List { path: list_path.clone(), source })?;
        let folder = list_path.parent().unwrap_or(folder);
        if list.load_order().count() > FILES_MAX {
            let finding = "names more files than a server makes";
            return Err(Error::Unsuitable { path: list_path, finding });
        }
        let mut opened = Vec::new();
        for listed in list.load_order() {
            // The list holds plain names only, so this never leaves the folder.
            match open(&folder.join(&listed.name)) {
                Ok(file) => opened.push((file, listed.clone())),
                Err(error) if is_gone(&error) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        let set = Self::of(folder, opened)?;
        let is_unchanged = match read_list(&list_path) {
            Ok(after) => after == before,
            Err(error) if is_gone(&error) => false,
            Err(error) => return Err(error),
        };
        Ok(is_unchanged.then_some(set))
    }

    /// The one file of servers before 7.0.
    pub(super) fn open_single(folder: &Path, names: &FileNames) -> Result<Option<Self>, Error> {
        let name = names.appendfilename.as_deref().unwrap_or(SINGLE);
        let file = match open(&folder.join(name)) {
            Ok(file) => file,
            Err(error) if is_gone(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let listed = list::File { name: name.to_owned(), sequence: 1, role: Role::Base };
        Self::of(folder, vec![(file, listed)]).map(Some)
    }

    fn of(folder: &Path, opened: Vec<(std::fs::File, list::File)>) -> Result<Self, Error> {
        let mut files = Vec::with_capacity(opened.len());
        for (file, listed) in opened {
            let path = || folder.join(&listed.name);
            let metadata = file.metadata();
            let metadata = metadata.map_err(|source| Error::Look {
                attempt: "look at",
                path: path(),
                source,
            })?;
            let (file, bytes) = (OpenFile::Local(file), metadata.len());
            files.push(AofFile { file, listed, bytes });
        }
        Ok(Self { files })
    }
}

fn is_gone(error: &Error) -> bool {
    matches!(error, Error::Look { source, .. } if source.kind() == io::ErrorKind::NotFound)
}

fn read_list(path: &Path) -> Result<Vec<u8>, Error> {
    let file = open(path)?;
    // One byte more than a list may have tells that it is none.
    let mut bytes = vec![0; list::BYTES_MAX + 1];
    let count = read_at(&file, &mut bytes, 0);
    let count =
        count.map_err(|source| Error::Look { attempt: "read", path: path.to_owned(), source })?;
    bytes.truncate(count);
    Ok(bytes)
}

/// As the server calls it, or else the only list in a folder of the data directory.
fn list_path(folder: &Path, names: &FileNames) -> Result<PathBuf, Error> {
    let folders = match &names.appenddirname {
        Some(name) => vec![OsString::from(name)],
        None => folders(folder)?,
    };
    let mut found = Vec::new();
    for name in folders {
        let inner = folder.join(name);
        let fail = |attempt| {
            let path = inner.clone();
            move |source| Error::Look { attempt, path, source }
        };
        if !inner.symlink_metadata().map_err(fail("look at"))?.is_dir() {
            let finding = "is no folder of append-only files";
            return Err(Error::Unsuitable { path: inner, finding });
        }
        match &names.appendfilename {
            Some(name) => found.push(inner.join(format!("{name}{EXTENSION}"))),
            None => found.extend(lists(&inner)?),
        }
    }
    found.retain(|path| names.appenddirname.is_some() || path.exists());
    match (found.pop(), found.pop()) {
        (Some(path), None) => Ok(path),
        (None, _) => Err(Error::Unsuitable {
            path: folder.to_owned(),
            finding: "holds no list of append-only files (`*.manifest` in a folder of it)",
        }),
        (Some(_), Some(_)) => Err(Error::Unsuitable {
            path: folder.to_owned(),
            finding: "holds several lists of append-only files; let the user CONFIG GET appendfilename",
        }),
    }
}

fn folders(folder: &Path) -> Result<Vec<OsString>, Error> {
    entries(folder, std::fs::FileType::is_dir)
}

fn lists(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let names = entries(folder, std::fs::FileType::is_file)?;
    let is_list = |name: &OsString| name.as_encoded_bytes().ends_with(EXTENSION.as_bytes());
    // A list that is being written has a name of its own until it is renamed.
    let is_temporary = |name: &OsString| name.as_encoded_bytes().starts_with(b"temp");
    let names = names.into_iter().filter(|name| is_list(name) && !is_temporary(name));
    Ok(names.map(|name| folder.join(name)).collect())
}

fn entries(
    folder: &Path,
    is_wanted: impl Fn(&std::fs::FileType) -> bool,
) -> Result<Vec<OsString>, Error> {
    let fail = |source| Error::Look { attempt: "list", path: folder.to_owned(), source };
    let mut names = Vec::new();
    for entry in folder.read_dir().map_err(fail)?.take(super::ENTRIES_MAX) {
        let entry = entry.map_err(fail)?;
        if is_wanted(&entry.file_type().map_err(fail)?) {
            names.push(entry.file_name());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    fn folder(list: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("my dir");
        fs::create_dir(&inner).unwrap();
        fs::write(inner.join("Append Only.aof.manifest"), list).unwrap();
        fs::write(inner.join("a base"), "0123").unwrap();
        fs::write(inner.join("b"), "45").unwrap();
        folder
    }

    const LIST: &str = "file \"a base\" seq 1 type b\nfile b seq 3 type i\n";

    #[test]
    fn a_set_is_opened_under_any_names_told_or_found() {
        let folder = folder(LIST);
        let told = FileNames {
            appenddirname: Some("my dir".to_owned()),
            appendfilename: Some("Append Only.aof".to_owned()),
            ..FileNames::default()
        };
        for names in [told, FileNames::default()] {
            let set = AofSet::open(folder.path(), &names).unwrap().unwrap();
            let sizes: Vec<u64> = set.files.iter().map(|file| file.bytes).collect();
            assert_eq!((sizes, set.bytes()), (vec![4, 2], 6));
        }
        fs::write(folder.path().join("my dir/other.manifest"), LIST).unwrap();
        assert!(AofSet::open(folder.path(), &FileNames::default()).is_err());
    }

    #[test]
    fn a_file_that_is_gone_means_again_and_a_link_or_a_path_means_never() {
        let gone = folder("file c seq 1 type b\n");
        assert!(AofSet::open(gone.path(), &FileNames::default()).unwrap().is_none());
        let linked = folder("file c seq 1 type b\n");
        symlink("/etc/hostname", linked.path().join("my dir/c")).unwrap();
        let error = AofSet::open(linked.path(), &FileNames::default()).unwrap_err();
        assert!(error.to_string().contains("is a link"), "{error}");
        let outside = folder("file ../c seq 1 type b\n");
        assert!(matches!(
            AofSet::open(outside.path(), &FileNames::default()),
            Err(Error::List { .. }),
        ));
        let empty = tempfile::tempdir().unwrap();
        assert!(AofSet::open(empty.path(), &FileNames::default()).is_err());
        assert!(AofSet::open_single(empty.path(), &FileNames::default()).unwrap().is_none());
    }
}
