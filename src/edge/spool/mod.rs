//! A bounded queue of bytes from a capture to its uploads: memory first, a file when one of them lags. Never makes the capture wait.
//!
//! The fork on a captured server lives as long as its bytes are read, so a slow store must not slow
//! the reading down. The file has no name: it is gone with the process, however that ends.

use std::{
    collections::VecDeque,
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use rustix::fs::{StatFs, statfs, statvfs};
use tokio::sync::Notify;

/// Bytes that wait in memory before the file is used.
const MEMORY_BYTES_MAX: usize = 2 << 20;

/// Bytes read back from the file at once.
const READ_BYTES_MAX: u64 = 512 << 10;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("look at the spool folder {}", path.display())]
    Look {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "the spool folder {} lies in memory (tmpfs); a spool there would take the memory that it is to save",
        path.display()
    )]
    InMemory { path: PathBuf },
    #[error(
        "the spool folder {} has {available} bytes free, and the spool may need {bytes_max}",
        path.display()
    )]
    TooSmall { path: PathBuf, available: u64, bytes_max: u64 },
    #[error("spool to a file in {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("read the spool back from {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the store takes bytes too slowly: {bytes_max} bytes of spool are full")]
    Full { bytes_max: u64 },
    #[error("the other end of the spool is gone")]
    Broken,
}

/// Where the file may lie and how long it may grow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    pub folder: PathBuf,
    pub bytes_max: u64,
}

/// Refuses a folder that lies in memory or is too small, before a capture begins.
pub fn preflight(limits: &Limits) -> Result<(), Error> {
    const TMPFS_MAGIC: i64 = 0x0102_1994;
    const RAMFS_MAGIC: i64 = 0x8584_58f6;

    let Limits { folder, bytes_max } = limits;
    let look =
        |source: rustix::io::Errno| Error::Look { path: folder.clone(), source: source.into() };
    let StatFs { f_type, .. } = statfs(folder).map_err(look)?;
    if matches!(f_type, TMPFS_MAGIC | RAMFS_MAGIC) {
        return Err(Error::InMemory { path: folder.clone() });
    }
    let available = available_bytes(folder).map_err(look)?;
    if available < *bytes_max {
        return Err(Error::TooSmall { path: folder.clone(), available, bytes_max: *bytes_max });
    }
    Ok(())
}

/// Bytes that an unprivileged process may still write below `folder`.
pub fn available_bytes(folder: &Path) -> rustix::io::Result<u64> {
    let facts = statvfs(folder)?;
    Ok(facts.f_bavail.saturating_mul(facts.f_frsize))
}

/// The writing end of a new spool, and so many reading ends that each get all of it.
pub fn open(limits: Limits, readers: usize) -> (Writer, Vec<Reader>) {
    let cursors = vec![Cursor::default(); readers];
    let state = Mutex::new(State { cursors, ..State::default() });
    let shared = Arc::new(Shared { limits, state, changed: Notify::new(), taken: Condvar::new() });
    let readers = (0..readers).map(|index| Reader { shared: Arc::clone(&shared), index }).collect();
    (Writer(shared), readers)
}

#[derive(Debug)]
pub struct Writer(Arc<Shared>);

#[derive(Debug)]
pub struct Reader {
    shared: Arc<Shared>,
    index: usize,
}

#[derive(Debug)]
struct Shared {
    limits: Limits,
    state: Mutex<State>,
    changed: Notify,
    /// The reader took bytes out of memory, or is gone.
    taken: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// What the slowest reader has not passed yet.
    segments: VecDeque<Segment>,
    /// The number of the first of them, counted from the beginning of all.
    first: u64,
    memory_bytes: usize,
    /// A ring of `bytes_max`.
    file: Option<Arc<File>>,
    /// Bytes ever written to it.
    spooled_bytes: u64,
    writer: End,
    cursors: Vec<Cursor>,
}

#[derive(Debug)]
enum Segment {
    Memory(Bytes),
    /// `begin` counts all bytes that were ever written to the file.
    File {
        begin: u64,
        bytes: u64,
    },
}

/// How far a reader has come.
#[derive(Clone, Copy, Debug, Default)]
struct Cursor {
    reading: Reading,
    segment: u64,
    /// Within that segment, when it is in the file.
    offset: u64,
    /// Of the bytes that were ever written to the file.
    file_read: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Reading {
    #[default]
    Open,
    Gone,
    /// Given up, so that the others get what the source sends.
    TooSlow,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum End {
    #[default]
    Open,
    Finished,
    Broken,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_error(&self, source: io::Error) -> Error {
        Error::Write { path: self.limits.folder.clone(), source }
    }

    fn read_error(&self, source: io::Error) -> Error {
        Error::Read { path: self.limits.folder.clone(), source }
    }

    const fn full(&self) -> Error {
        Error::Full { bytes_max: self.limits.bytes_max }
    }
}

impl State {
    fn open_cursors(&self) -> impl Iterator<Item = &Cursor> {
        self.cursors.iter().filter(|cursor| cursor.reading == Reading::Open)
    }

    /// Lets go of what every reader has passed.
    fn trim(&mut self) {
        let passed = self.open_cursors().map(|cursor| cursor.segment).min().unwrap_or(u64::MAX);
        while self.first < passed
            && let Some(segment) = self.segments.pop_front()
        {
            self.first += 1;
            if let Segment::Memory(bytes) = segment {
                self.memory_bytes -= bytes.len();
            }
        }
    }

    /// Gives up the slowest readers until the file has room, but never the last one. Whether it has.
    fn make_room(&mut self, length: u64, bytes_max: u64) -> bool {
        loop {
            let unread = |cursor: &Cursor| self.spooled_bytes - cursor.file_read;
            if self.open_cursors().all(|cursor| unread(cursor) + length <= bytes_max) {
                return true;
            }
            if self.open_cursors().count() < 2 {
                return false;
            }
            let open = self.cursors.iter_mut().filter(|cursor| cursor.reading == Reading::Open);
            // Of several that are as slow, the first one stays.
            if let Some(slowest) = open.rev().min_by_key(|cursor| cursor.file_read) {
                slowest.reading = Reading::TooSlow;
            }
            self.trim();
        }
    }
}

impl Writer {
    /// Takes the bytes at once. When the file is full, the slowest readers are given up for the others;
    /// an error when the last one is too slow. Blocks for a file write at most.
    pub fn push(&mut self, bytes: Bytes) -> Result<(), Error> {
        let mut state = self.0.state();
        if state.open_cursors().next().is_none() {
            return Err(Error::Broken);
        }
        if state.memory_bytes + bytes.len() <= MEMORY_BYTES_MAX {
            state.memory_bytes += bytes.len();
            state.segments.push_back(Segment::Memory(bytes));
        } else {
            self.push_to_file(&mut state, &bytes)?;
        }
        drop(state);
        self.0.changed.notify_waiters();
        Ok(())
    }

    /// Waits until the bytes fit into memory: for a capture that a store may slow down. Blocks.
    pub fn push_when_taken(&mut self, bytes: Bytes) -> Result<(), Error> {
        let mut state = self.0.state();
        while state.open_cursors().next().is_some()
            && state.memory_bytes > 0
            && state.memory_bytes + bytes.len() > MEMORY_BYTES_MAX
        {
            state = self.0.taken.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        self.push(bytes)
    }

    fn push_to_file(&self, state: &mut State, bytes: &[u8]) -> Result<(), Error> {
        let Limits { folder, bytes_max } = &self.0.limits;
        let length = bytes.len() as u64;
        if !state.make_room(length, *bytes_max) {
            return Err(self.0.full());
        }
        let file = match &state.file {
            Some(file) => Arc::clone(file),
            None => {
                Arc::new(tempfile::tempfile_in(folder).map_err(|error| self.0.write_error(error))?)
            }
        };
        let begin = state.spooled_bytes;
        let place = begin % bytes_max;
        let to_the_end = usize::try_from(bytes_max - place).unwrap_or(usize::MAX).min(bytes.len());
        let (first, second) = bytes.split_at(to_the_end);
        file.write_all_at(first, place)
            .and_then(|()| file.write_all_at(second, 0))
            .map_err(|error| self.0.write_error(error))?;
        state.file = Some(file);
        state.spooled_bytes += length;
        match state.segments.back_mut() {
            Some(Segment::File { begin: _, bytes }) => *bytes += length,
            Some(Segment::Memory(_)) | None => {
                state.segments.push_back(Segment::File { begin, bytes: length });
            }
        }
        Ok(())
    }

    /// Says that everything was pushed. A writer dropped before that breaks the spool.
    pub fn finish(self) {
        self.0.state().writer = End::Finished;
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut state = self.0.state();
        if state.writer == End::Open {
            state.writer = End::Broken;
        }
        drop(state);
        self.0.changed.notify_waiters();
    }
}

impl Reader {
    /// The next bytes, at most half a MiB or one push; none at the end. [`Error::Full`] when this reader
    /// was too slow and the others were not.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let changed = self.shared.changed.notified();
            match self.take()? {
                Taken::Bytes(bytes) => return Ok(Some(bytes)),
                Taken::InFile { file, begin, length } => {
                    return self.read_file(file, begin, length).await.map(Some);
                }
                Taken::End => return Ok(None),
                Taken::Nothing => changed.await,
            }
        }
    }

    /// Returns once this reader was given up as too slow, also while its owner waits for something else.
    pub fn given_up(&self) -> impl Future<Output = Error> + use<> {
        let (shared, index) = (Arc::clone(&self.shared), self.index);
        async move {
            loop {
                let changed = shared.changed.notified();
                let reading = shared.state().cursors.get(index).map(|cursor| cursor.reading);
                if reading == Some(Reading::TooSlow) {
                    return shared.full();
                }
                changed.await;
            }
        }
    }

    fn take(&self) -> Result<Taken, Error> {
        let mut state = self.shared.state();
        let State { segments, first, file, writer, cursors, .. } = &mut *state;
        let cursor = cursors.get_mut(self.index).ok_or(Error::Broken)?;
        if cursor.reading == Reading::TooSlow {
            return Err(self.shared.full());
        }
        loop {
            let at = usize::try_from(cursor.segment - *first).map_err(|_| Error::Broken)?;
            match segments.get(at) {
                Some(Segment::Memory(bytes)) => {
                    let bytes = bytes.clone();
                    (cursor.segment, cursor.offset) = (cursor.segment + 1, 0);
                    state.trim();
                    self.shared.taken.notify_one();
                    return Ok(Taken::Bytes(bytes));
                }
                Some(Segment::File { begin, bytes }) if cursor.offset < *bytes => {
                    let begin = begin + cursor.offset;
                    let to_the_end =
                        self.shared.limits.bytes_max - begin % self.shared.limits.bytes_max;
                    let length = (bytes - cursor.offset).min(READ_BYTES_MAX).min(to_the_end);
                    cursor.offset += length;
                    let file = file.as_ref().map(Arc::clone).ok_or(Error::Broken)?;
                    return Ok(Taken::InFile { file, begin, length });
                }
                // The last segment may still grow.
                Some(Segment::File { .. }) if at + 1 < segments.len() => {
                    (cursor.segment, cursor.offset) = (cursor.segment + 1, 0);
                }
                Some(Segment::File { .. }) | None => {
                    let end = *writer;
                    state.trim();
                    return match end {
                        End::Open => Ok(Taken::Nothing),
                        End::Finished => Ok(Taken::End),
                        End::Broken => Err(Error::Broken),
                    };
                }
            }
        }
    }

    async fn read_file(&self, file: Arc<File>, begin: u64, length: u64) -> Result<Bytes, Error> {
        let place = begin % self.shared.limits.bytes_max;
        let size = usize::try_from(length).map_err(|_| Error::Broken)?;
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = vec![0; size];
            file.read_exact_at(&mut bytes, place).map(|()| Bytes::from(bytes))
        });
        let bytes = read
            .await
            .map_err(|error| self.shared.read_error(error.into()))?
            .map_err(|error| self.shared.read_error(error))?;
        let mut state = self.shared.state();
        let cursor = state.cursors.get_mut(self.index).ok_or(Error::Broken)?;
        // What was given up may be overwritten by now.
        if cursor.reading == Reading::TooSlow {
            return Err(self.shared.full());
        }
        cursor.file_read = begin + length;
        Ok(bytes)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        if let Some(cursor) = state.cursors.get_mut(self.index)
            && cursor.reading == Reading::Open
        {
            cursor.reading = Reading::Gone;
        }
        state.trim();
        self.shared.taken.notify_one();
    }
}

enum Taken {
    Bytes(Bytes),
    InFile { file: Arc<File>, begin: u64, length: u64 },
    End,
    Nothing,
}

#[cfg(test)]
mod tests;
