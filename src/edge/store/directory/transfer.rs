//! Bytes into and out of a directory store, on threads that may block. Never has more than one part waiting.

use std::{fs::File, io, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::task::{JoinHandle, spawn_blocking};

use super::{blocking, failed, placing::Stage};
use crate::{
    domain::{catalog::Key, digest::Digests},
    edge::{
        direct,
        store::{Download, Error, Part, Stored, Upload, received::Received},
    },
};

/// Written back to disk while the stream goes on, so that the last fsync is short.
const WRITE_BACK_BYTES: usize = 32 << 20;
const READ_BYTES: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct DirectoryUpload {
    stage: Arc<Stage>,
    root: PathBuf,
    key: Key,
    received: Received,
    writing: Option<JoinHandle<io::Result<()>>>,
    /// Only this handle learns of a failed write-back; a later fsync would not tell it again.
    syncing: Option<JoinHandle<io::Result<()>>>,
    unsynced: usize,
}

impl DirectoryUpload {
    pub(super) fn new(stage: Stage, root: PathBuf, key: Key) -> Self {
        direct::prefer(&stage.file);
        Self {
            stage: Arc::new(stage),
            root,
            key,
            received: Received::new(),
            writing: None,
            syncing: None,
            unsynced: 0,
        }
    }

    fn attempt(&self) -> String {
        format!("write {}", self.root.join(self.key.as_str()).display())
    }

    fn failed(&self, source: io::Error) -> Error {
        failed(self.attempt(), self.stage.path(), source)
    }

    async fn written(&mut self) -> Result<(), Error> {
        let written = join(&mut self.writing).await;
        written.map_err(|source| self.failed(source))
    }

    async fn synced(&mut self) -> Result<(), Error> {
        let synced = join(&mut self.syncing).await;
        synced.map_err(|source| self.failed(source))
    }

    /// Wait for every byte, compare, make durable and place.
    async fn place(&mut self, digests: Digests) -> Result<(), Error> {
        self.written().await?;
        self.synced().await?;
        self.received.check(&digests, || self.attempt())?;
        let (stage, root, key) = (Arc::clone(&self.stage), self.root.clone(), self.key.clone());
        let attempt = self.attempt();
        blocking(move || {
            let failed = |source| failed(attempt.clone(), stage.path(), source);
            stage.file.sync_all().map_err(failed)?;
            let found = stage.file.metadata().map_err(failed)?.len();
            if found != digests.bytes {
                let finding =
                    format!("the file has {found} bytes after {} were written", digests.bytes);
                return Err(Error::Corrupt { attempt, finding });
            }
            stage.place(&root, &key).map_err(failed)
        })
        .await
    }
}

#[async_trait]
impl Upload for DirectoryUpload {
    async fn write(&mut self, part: Part) -> Result<(), Error> {
        self.received
            .take(&part, || format!("write {}", self.root.join(self.key.as_str()).display()))?;
        self.written().await?;
        if self.syncing.as_ref().is_some_and(JoinHandle::is_finished) {
            self.synced().await?;
        }
        if self.unsynced >= WRITE_BACK_BYTES && self.syncing.is_none() {
            let stage = Arc::clone(&self.stage);
            self.syncing = Some(spawn_blocking(move || stage.file.sync_data()));
            self.unsynced = 0;
        }
        self.unsynced += part.body.len();
        let stage = Arc::clone(&self.stage);
        self.writing = Some(spawn_blocking(move || {
            let Part { body, budget } = part;
            direct::write_all(&stage.file, &body)?;
            drop((body, budget));
            Ok(())
        }));
        Ok(())
    }

    async fn finish(mut self: Box<Self>, digests: Digests) -> Result<Stored, Error> {
        let placed = self.place(digests).await;
        if let Err(error) = placed {
            // The first error is the one to tell; what cannot be removed now is swept later.
            let _ = self.abort().await;
            return Err(error);
        }
        Ok(Stored { version_id: None })
    }

    async fn abort(mut self: Box<Self>) -> Result<(), Error> {
        // How they ended does not matter any more, only that they have.
        let _ = (self.written().await, self.synced().await);
        let stage = Arc::clone(&self.stage);
        blocking(move || stage.remove()).await
    }
}

/// Reads one piece ahead, so that its consumer and the disk work at the same time.
#[derive(Debug)]
pub(super) struct DirectoryDownload {
    file: Arc<File>,
    path: PathBuf,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

impl DirectoryDownload {
    pub(super) fn new(file: File, path: PathBuf) -> Self {
        direct::prefer(&file);
        let file = Arc::new(file);
        let reading = Some(read_ahead(&file));
        Self { file, path, reading }
    }
}

#[async_trait]
impl Download for DirectoryDownload {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let Some(reading) = self.reading.as_mut() else { return Ok(None) };
        let read = reading.await.unwrap_or_else(|source| Err(io::Error::other(source)));
        self.reading = None;
        let body = read.map_err(|source| {
            failed(format!("read {}", self.path.display()), &self.path, source)
        })?;
        if body.is_empty() {
            return Ok(None);
        }
        self.reading = Some(read_ahead(&self.file));
        Ok(Some(body))
    }
}

fn read_ahead(file: &Arc<File>) -> JoinHandle<io::Result<Bytes>> {
    let file = Arc::clone(file);
    spawn_blocking(move || {
        let mut body = direct::Buffer::new(READ_BYTES);
        body.read(&file)?;
        Ok(body.into())
    })
}

async fn join(handle: &mut Option<JoinHandle<io::Result<()>>>) -> io::Result<()> {
    let Some(running) = handle.as_mut() else { return Ok(()) };
    let ended = running.await.unwrap_or_else(|source| Err(io::Error::other(source)));
    *handle = None;
    ended
}
