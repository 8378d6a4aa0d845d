//! A bounded queue of bytes from a capture to an upload: memory first, a file when the upload lags. Never makes the capture wait.
//!
//! The fork on a captured server lives as long as its bytes are read, so a slow store must not slow
//! the reading down. The file has no name: it is gone with the process, however that ends.

use std::{
    collections::VecDeque,
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
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

/// The two ends of a new spool.
pub fn open(limits: Limits) -> (Writer, Reader) {
    let shared =
        Arc::new(Shared { limits, state: Mutex::new(State::default()), changed: Notify::new() });
    (Writer(Arc::clone(&shared)), Reader(shared))
}

#[derive(Debug)]
pub struct Writer(Arc<Shared>);

#[derive(Debug)]
pub struct Reader(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limits: Limits,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    segments: VecDeque<Segment>,
    memory_bytes: usize,
    file: Option<Arc<File>>,
    /// The file is a ring of `bytes_max`: unread bytes begin here …
    file_first: u64,
    /// … and are this many.
    file_bytes: u64,
    spooled_bytes: u64,
    writer: End,
    reader_gone: bool,
}

#[derive(Debug)]
enum Segment {
    Memory(Bytes),
    File { bytes: u64 },
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
}

impl Writer {
    /// Takes the bytes at once, or says that the spool is full. Blocks for a file write at most.
    pub fn push(&mut self, bytes: Bytes) -> Result<(), Error> {
        let mut state = self.0.state();
        if state.reader_gone {
            return Err(Error::Broken);
        }
        if state.memory_bytes + bytes.len() <= MEMORY_BYTES_MAX {
            state.memory_bytes += bytes.len();
            state.segments.push_back(Segment::Memory(bytes));
        } else {
            self.push_to_file(&mut state, &bytes)?;
        }
        drop(state);
        self.0.changed.notify_one();
        Ok(())
    }

    fn push_to_file(&self, state: &mut State, bytes: &[u8]) -> Result<(), Error> {
        let Limits { folder, bytes_max } = &self.0.limits;
        let length = bytes.len() as u64;
        if state.file_bytes + length > *bytes_max {
            return Err(Error::Full { bytes_max: *bytes_max });
        }
        let file = match &state.file {
            Some(file) => Arc::clone(file),
            None => {
                Arc::new(tempfile::tempfile_in(folder).map_err(|error| self.0.write_error(error))?)
            }
        };
        let place = (state.file_first + state.file_bytes) % bytes_max;
        let to_the_end = usize::try_from(bytes_max - place).unwrap_or(usize::MAX).min(bytes.len());
        let (first, second) = bytes.split_at(to_the_end);
        file.write_all_at(first, place)
            .and_then(|()| file.write_all_at(second, 0))
            .map_err(|error| self.0.write_error(error))?;
        state.file = Some(file);
        state.file_bytes += length;
        state.spooled_bytes += length;
        match state.segments.back_mut() {
            Some(Segment::File { bytes }) => *bytes += length,
            Some(Segment::Memory(_)) | None => {
                state.segments.push_back(Segment::File { bytes: length });
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
        self.0.changed.notify_one();
    }
}

impl Reader {
    /// The next bytes, at most half a MiB or one push; none at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let changed = self.0.changed.notified();
            match self.take()? {
                Taken::Bytes(bytes) => return Ok(Some(bytes)),
                Taken::InFile { file, place, length } => {
                    return self.read_file(file, place, length).await.map(Some);
                }
                Taken::End => return Ok(None),
                Taken::Nothing => changed.await,
            }
        }
    }

    /// Bytes that went through the file so far.
    pub fn spooled_bytes(&self) -> u64 {
        self.0.state().spooled_bytes
    }

    fn take(&self) -> Result<Taken, Error> {
        let mut state = self.0.state();
        match state.segments.pop_front() {
            Some(Segment::Memory(bytes)) => {
                state.memory_bytes -= bytes.len();
                Ok(Taken::Bytes(bytes))
            }
            Some(Segment::File { bytes }) => {
                let place = state.file_first;
                let length = bytes.min(READ_BYTES_MAX).min(self.0.limits.bytes_max - place);
                if bytes > length {
                    state.segments.push_front(Segment::File { bytes: bytes - length });
                }
                let file = state.file.as_ref().map(Arc::clone).ok_or(Error::Broken)?;
                Ok(Taken::InFile { file, place, length })
            }
            None => match state.writer {
                End::Open => Ok(Taken::Nothing),
                End::Finished => Ok(Taken::End),
                End::Broken => Err(Error::Broken),
            },
        }
    }

    async fn read_file(&self, file: Arc<File>, place: u64, length: u64) -> Result<Bytes, Error> {
        let size = usize::try_from(length).map_err(|_| Error::Broken)?;
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = vec![0; size];
            file.read_exact_at(&mut bytes, place).map(|()| Bytes::from(bytes))
        });
        let bytes = read
            .await
            .map_err(|error| self.0.read_error(error.into()))?
            .map_err(|error| self.0.read_error(error))?;
        let mut state = self.0.state();
        state.file_first = (place + length) % self.0.limits.bytes_max;
        state.file_bytes -= length;
        Ok(bytes)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.state().reader_gone = true;
    }
}

enum Taken {
    Bytes(Bytes),
    InFile { file: Arc<File>, place: u64, length: u64 },
    End,
    Nothing,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limits(bytes_max: u64) -> (tempfile::TempDir, Limits) {
        let folder = tempfile::tempdir().unwrap();
        let limits = Limits { folder: folder.path().to_owned(), bytes_max };
        (folder, limits)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        /// Pushes and reads in any order: the bytes come out as they went in, memory or file.
        #[test]
        fn bytes_keep_their_order(
            steps in proptest::collection::vec((1_usize..1_500_000, any::<bool>()), 1..40),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (_folder, limits) = limits(70 << 20);
            let (mut writer, mut reader) = open(limits);
            let (mut pushed, mut read) = (Vec::new(), Vec::new());
            runtime.block_on(async {
                for (index, (length, then_read)) in steps.into_iter().enumerate() {
                    let bytes = u32::try_from(index).unwrap().to_le_bytes().repeat(length.div_ceil(4));
                    pushed.extend_from_slice(&bytes);
                    writer.push(bytes.into()).unwrap();
                    if then_read {
                        read.extend_from_slice(&reader.next().await.unwrap().unwrap());
                    }
                }
                writer.finish();
                while let Some(bytes) = reader.next().await.unwrap() {
                    read.extend_from_slice(&bytes);
                }
            });
            prop_assert!(pushed == read);
        }
    }

    #[tokio::test]
    async fn the_ring_wraps_and_a_full_ring_says_so() {
        let (_folder, limits) = limits(3 << 20);
        let (mut writer, mut reader) = open(limits);
        let piece = |fill: u8| Bytes::from(vec![fill; 1 << 20]);
        // Two go to memory, three fill the file.
        (0..5).for_each(|fill| writer.push(piece(fill)).unwrap());
        assert!(matches!(writer.push(piece(9)), Err(Error::Full { .. })));
        let mut read = Vec::new();
        while read.len() < 4 << 20 {
            read.extend_from_slice(&reader.next().await.unwrap().unwrap());
        }
        (5..7).for_each(|fill| writer.push(piece(fill)).unwrap());
        writer.finish();
        while let Some(bytes) = reader.next().await.unwrap() {
            read.extend_from_slice(&bytes);
        }
        let expected: Vec<u8> = (0..7).flat_map(|fill| vec![fill; 1 << 20]).collect();
        assert!(read == expected);
    }

    #[tokio::test]
    async fn a_writer_that_dies_breaks_the_spool() {
        let (_folder, limits) = limits(1 << 20);
        let (mut writer, mut reader) = open(limits);
        writer.push(Bytes::from_static(b"half")).unwrap();
        drop(writer);
        assert_eq!(reader.next().await.unwrap().unwrap(), "half");
        assert!(matches!(reader.next().await, Err(Error::Broken)));
    }

    #[tokio::test]
    async fn a_reader_that_dies_stops_the_writer() {
        let (_folder, limits) = limits(1 << 20);
        let (mut writer, reader) = open(limits);
        drop(reader);
        assert!(matches!(writer.push(Bytes::from_static(b"x")), Err(Error::Broken)));
    }

    #[test]
    fn a_folder_in_memory_is_refused() {
        let limits = Limits { folder: "/dev/shm".into(), bytes_max: 1 };
        assert!(matches!(preflight(&limits), Err(Error::InMemory { .. })));
        let (_folder, limits) = limits_of_everything();
        assert!(matches!(preflight(&limits), Err(Error::TooSmall { .. })));
    }

    fn limits_of_everything() -> (tempfile::TempDir, Limits) {
        // A folder in the checkout, for the system's temporary folder may lie in memory.
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let limits = Limits { folder: folder.path().to_owned(), bytes_max: u64::MAX };
        (folder, limits)
    }
}
