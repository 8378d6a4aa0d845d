//! Plain bytes on their way into the spool: digested, packer, cut into objects. Waits for a store only where that holds no fork.

use std::{panic::resume_unwind, sync::mpsc, thread};

use bytes::Bytes;
use tokio::sync::watch;

use super::{
    OBJECT_BYTES_MAX,
    capture::{CHUNK_BYTES, Error},
};
use crate::{
    domain::{
        archive::Encoder,
        digest::{Digester, Digests},
    },
    edge::spool,
};

/// Chunks between the scan and the codec, where each has a thread. They go round and round.
const CHUNKS: usize = 4;

/// Who may slow the pipeline down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// A fork lives on it: what the store does not take is spooled.
    OfTheServer,
    OfTheStore,
}

/// The way of plain bytes from the scan to the spool.
pub(super) struct Sealing {
    plain: Digester,
    encoding: Encoding,
}

/// Where the codec works.
enum Encoding {
    /// On the thread of the scan: beside a server that saves, both processors have enough to do.
    Here(Box<Packer>),
    /// On a thread of its own: what is read from a file comes faster than one processor takes it.
    Aside(Aside),
}

impl Sealing {
    pub(super) fn new(encoder: Encoder, stored: Stored, pace: Pace) -> Self {
        let packer = Packer { encoder, stored, pace };
        let encoding = match pace {
            Pace::OfTheServer => Encoding::Here(Box::new(packer)),
            Pace::OfTheStore => Encoding::Aside(Aside::begin(packer)),
        };
        Self { plain: Digester::default(), encoding }
    }

    pub(super) fn feed(&mut self, plain: &[u8]) -> Result<(), Error> {
        self.plain.update(plain);
        match &mut self.encoding {
            Encoding::Here(packer) => packer.feed(plain),
            Encoding::Aside(aside) => aside.feed(plain),
        }
    }

    pub(super) fn finish(self) -> Result<Digests, Error> {
        match self.encoding {
            Encoding::Here(packer) => packer.finish()?,
            Encoding::Aside(aside) => aside.finish()?,
        }
        Ok(self.plain.finish())
    }
}

struct Packer {
    encoder: Encoder,
    stored: Stored,
    pace: Pace,
}

impl Packer {
    fn feed(&mut self, plain: &[u8]) -> Result<(), Error> {
        let mut bytes = Vec::new();
        self.encoder.feed(plain, &mut bytes).map_err(Error::Encode)?;
        self.stored.push(bytes.into(), self.pace)
    }

    fn finish(self) -> Result<(), Error> {
        let Self { encoder, mut stored, pace } = self;
        let mut bytes = Vec::new();
        encoder.finish(&mut bytes).map_err(Error::Encode)?;
        stored.push(bytes.into(), pace)?;
        stored.finish();
        Ok(())
    }
}

/// The codec on a thread of its own, which ends with the last chunk, or when none will come.
struct Aside {
    filled: mpsc::SyncSender<Option<Vec<u8>>>,
    emptied: mpsc::Receiver<Vec<u8>>,
    /// None once it was asked how it ended.
    thread: Option<thread::JoinHandle<Result<(), Error>>>,
}

impl Aside {
    fn begin(mut packer: Packer) -> Self {
        let (filled, to_encode) = mpsc::sync_channel::<Option<Vec<u8>>>(CHUNKS);
        let (to_fill, emptied) = mpsc::sync_channel(CHUNKS);
        let thread = thread::spawn(move || {
            // Without a last word the scan has failed, and what was encoded so far is nothing.
            while let Ok(given) = to_encode.recv() {
                let Some(chunk) = given else { return packer.finish() };
                packer.feed(&chunk)?;
                let _ = to_fill.try_send(chunk);
            }
            Ok(())
        });
        Self { filled, emptied, thread: Some(thread) }
    }

    fn feed(&mut self, plain: &[u8]) -> Result<(), Error> {
        let idle = self.emptied.try_recv();
        let mut chunk = idle.unwrap_or_else(|_| Vec::with_capacity(CHUNK_BYTES));
        chunk.clear();
        chunk.extend_from_slice(plain);
        // It hears the end only after a failure of its own.
        if self.filled.send(Some(chunk)).is_err() { self.end() } else { Ok(()) }
    }

    fn finish(mut self) -> Result<(), Error> {
        let _ = self.filled.send(None);
        self.end()
    }

    fn end(&mut self) -> Result<(), Error> {
        let Some(thread) = self.thread.take() else {
            return Err(Error::Spool(spool::Error::Broken));
        };
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    }
}

/// Encoded bytes into the spool, cut into objects, each with its digests.
pub(super) struct Stored {
    spool: spool::Writer,
    digester: Digester,
    /// Of every object that is complete, for those who upload it.
    digests: watch::Sender<Vec<Digests>>,
}

impl Stored {
    pub(super) fn new(spool: spool::Writer, digests: watch::Sender<Vec<Digests>>) -> Self {
        Self { spool, digester: Digester::default(), digests }
    }

    fn push(&mut self, mut bytes: Bytes, pace: Pace) -> Result<(), Error> {
        while !bytes.is_empty() {
            let room = OBJECT_BYTES_MAX - self.digester.bytes();
            let length = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
            let piece = bytes.split_to(length);
            self.digester.update(&piece);
            match pace {
                Pace::OfTheServer => self.spool.push(piece),
                Pace::OfTheStore => self.spool.push_when_taken(piece),
            }
            .map_err(Error::Spool)?;
            if self.digester.bytes() == OBJECT_BYTES_MAX {
                self.end_object();
            }
        }
        Ok(())
    }

    fn end_object(&mut self) {
        let digests = std::mem::take(&mut self.digester).finish();
        self.digests.send_modify(|all| all.push(digests));
    }

    fn finish(mut self) {
        // An empty file without a codec is an empty object, and the only one.
        if self.digester.bytes() > 0 || self.digests.borrow().is_empty() {
            self.end_object();
        }
        self.spool.finish();
    }
}
