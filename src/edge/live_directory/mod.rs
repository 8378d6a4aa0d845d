//! The files of a server that runs: looked at, opened, read. Never written to, never locked, never changed.

mod aof;
mod container;
mod dump;
mod folder;
mod memory;
mod open_file;

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

pub use self::{
    aof::{AofFile, AofSet},
    container::{Container, ContainerError, Ended, Running, Shell},
    dump::Dump,
    folder::{Folder, SavesBefore},
    open_file::{OpenFile, Reader, Serving},
};
use crate::domain::aof::list;

/// A data directory holds a handful of files; one with more is none.
const ENTRIES_MAX: usize = 4096;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{attempt} {}", path.display())]
    Look {
        attempt: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("read the list {}", path.display())]
    List {
        path: PathBuf,
        #[source]
        source: list::Error,
    },
    #[error("{} {finding}", path.display())]
    Unsuitable { path: PathBuf, finding: &'static str },
    #[error(transparent)]
    Container(#[from] ContainerError),
}

/// A file or folder, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    fn of(metadata: &std::fs::Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// Says why a folder is no data directory that this process can use.
fn check_readable(folder: &Path) -> Result<(), Error> {
    let fail = |source| Error::Look { attempt: "look into", path: folder.to_owned(), source };
    if !folder.metadata().map_err(fail)?.is_dir() {
        let finding = "is no directory";
        return Err(Error::Unsuitable { path: folder.to_owned(), finding });
    }
    folder.read_dir().map_err(fail)?;
    Ok(())
}

/// Opens a regular file: no link is followed and no pipe waited for.
fn open(path: &Path) -> Result<File, Error> {
    let fail = |source: io::Error| {
        if source.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) {
            let finding = "is a link, which may lead anywhere";
            return Error::Unsuitable { path: path.to_owned(), finding };
        }
        Error::Look { attempt: "open", path: path.to_owned(), source }
    };
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC).bits();
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(flags.cast_signed());
    let file = options.open(path).map_err(fail)?;
    if file.metadata().map_err(fail)?.is_file() {
        Ok(file)
    } else {
        Err(Error::Unsuitable { path: path.to_owned(), finding: "is no regular file" })
    }
}

/// As many bytes as `buffer` holds from `place` on, fewer at the end; through the descriptor, whatever the name
/// leads to by now.
fn read_at(file: &File, buffer: &mut [u8], place: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], place + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_regular_files_are_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("file"), "x").unwrap();
        symlink(path("file"), path("link")).unwrap();
        std::fs::create_dir(path("folder")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            path("pipe"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        assert!(open(&path("file")).is_ok());
        for (name, expected) in
            [("link", "is a link"), ("folder", "no regular"), ("pipe", "no regular")]
        {
            let error = open(&path(name)).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
