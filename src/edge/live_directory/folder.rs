//! Where a server keeps its files, and what can be asked of that place, wherever it lies. Judges nothing.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use super::{AofSet, Container, Dump, Error, check_readable, dump::Dumps, memory};
use crate::{
    domain::{bgsave::Room, capture::FileNames, frames::FileState, observation::NodeObservation},
    edge::spool,
};

/// A data directory at hand.
#[derive(Clone, Debug)]
pub enum Folder {
    /// On this machine.
    Local(PathBuf),
    Container(Container),
}

/// What lies there before a save, so that its file can be told from what was there.
#[derive(Debug)]
pub struct SavesBefore {
    /// Bytes that may still be written to its filesystem.
    pub disk_bytes: u64,
    /// Of the largest RDB file.
    pub last_dump_bytes: u64,
    found: Found,
}

#[derive(Debug)]
enum Found {
    /// Held open.
    Local(Dumps),
    Container {
        dbfilename: Option<String>,
        states: Vec<FileState>,
    },
}

impl Folder {
    /// What a save would find: room on the disk, the size of what it replaces, memory as far as it shows.
    pub async fn look(&self, node: &NodeObservation) -> Result<Room, Error> {
        match self {
            Self::Local(path) => {
                check_readable(path)?;
                let dumps = Dumps::open(path, node.settings.dbfilename.as_deref())?;
                Ok(Room {
                    disk_bytes: available_bytes(path)?,
                    last_dump_bytes: dumps.bytes_max(),
                    memory_bytes: memory::left(path, &node.persistence),
                })
            }
            Self::Container(container) => container.room(node).await,
        }
    }

    /// `dbfilename` as the server calls its RDB; any where it does not tell.
    pub async fn before_save(&self, dbfilename: Option<&str>) -> Result<SavesBefore, Error> {
        match self {
            Self::Local(path) => {
                let found = Dumps::open(path, dbfilename)?;
                Ok(SavesBefore {
                    disk_bytes: available_bytes(path)?,
                    last_dump_bytes: found.bytes_max(),
                    found: Found::Local(found),
                })
            }
            Self::Container(container) => {
                let (room, states) = container.before_save(dbfilename).await?;
                let dbfilename = dbfilename.map(str::to_owned);
                Ok(SavesBefore {
                    disk_bytes: room.disk_bytes,
                    last_dump_bytes: room.last_dump_bytes,
                    found: Found::Container { dbfilename, states },
                })
            }
        }
    }

    /// Opens the RDB file that was not there before.
    pub async fn fresh_dump(&self, before: &SavesBefore) -> Result<Option<Dump>, Error> {
        match (self, &before.found) {
            (Self::Local(path), Found::Local(found)) => found.fresh(path),
            (Self::Container(container), Found::Container { dbfilename, states }) => {
                container.fresh_dump(dbfilename.as_deref(), states).await
            }
            // It was looked at elsewhere.
            (Self::Local(_), Found::Container { .. }) | (Self::Container(_), Found::Local(_)) => {
                Ok(None)
            }
        }
    }

    /// Opens all append-only files at one moment. None when they were replaced meanwhile: then it is to
    /// be tried again.
    pub async fn open_aof(
        &self,
        names: &FileNames,
        has_many_parts: bool,
    ) -> Result<Option<AofSet>, Error> {
        match self {
            Self::Local(path) if has_many_parts => AofSet::open(path, names),
            Self::Local(path) => AofSet::open_single(path, names),
            Self::Container(container) => container.open_aof(names, has_many_parts).await,
        }
    }
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(path) => write!(f, "{}", path.display()),
            Self::Container(container) => write!(f, "{container}"),
        }
    }
}

fn available_bytes(path: &Path) -> Result<u64, Error> {
    spool::available_bytes(path).map_err(|source| Error::Look {
        attempt: "ask for the free space of",
        path: path.to_owned(),
        source: source.into(),
    })
}
