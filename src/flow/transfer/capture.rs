//! One shard's bytes on their way: socket, scan and digest, codec, spool, store. All of it or nothing.

use std::{pin::pin, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::{FutureExt as _, future::FusedFuture as _};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

use super::{
    Budget, OBJECT_BYTES_MAX,
    upload::{Destination, Incoming, upload},
};
use crate::{
    domain::{
        archive::{self, Codec, Encoder, Recipients},
        catalog::Key,
        digest::{Digester, Digests},
        manifest::Object,
        rdb::{self, Expectations, Scanned, Scanner},
        source::NodeAddress,
    },
    edge::{redis_node::Snapshot, spool, store::Store},
    failure::Failure,
    report::Bar,
};

/// Bytes read from the socket at once; small enough for the processor's cache to hold it from the
/// scan to the codec.
const CHUNK_BYTES: usize = 256 << 10;

/// Chunks between socket and scan. They go round and round, so no memory is ever given back.
const CHUNKS: usize = 8;

/// How long an upload may take back what it sent, once its capture has failed.
const TAKE_BACK_LIMIT: Duration = Duration::from_secs(8);

/// How the bytes of a capture are treated.
#[derive(Clone, Copy)]
pub(crate) struct Pipeline<'a> {
    pub(crate) expectations: &'a Expectations,
    pub(crate) codec: Codec,
    pub(crate) level: i32,
    /// Who will be able to read the archive; nobody means everybody.
    pub(crate) recipients: &'a Recipients,
    pub(crate) spool: &'a spool::Limits,
    pub(crate) store: &'a dyn Store,
    pub(crate) budget: &'a Budget,
    pub(crate) key_of: &'a (dyn Fn(u32) -> Result<Key, Failure> + Sync),
}

/// A captured, scanned and stored RDB.
#[derive(Debug)]
pub(crate) struct Captured {
    pub(crate) scanned: Scanned,
    pub(crate) plain: Digests,
    pub(crate) objects: Vec<Object>,
}

/// Runs the pipeline until the framing has proven the end of the RDB and the store has all of it, or
/// until `ended` tells why it shall end before.
pub(crate) async fn capture(
    shard: u32,
    node: &NodeAddress,
    mut snapshot: Snapshot,
    pipeline: Pipeline<'_>,
    bar: &Bar,
    ended: impl Future<Output = Failure>,
) -> Result<Captured, Failure> {
    let Pipeline { expectations, codec, level, recipients, spool, store, budget, key_of } =
        pipeline;
    let (filled, mut to_encode) = mpsc::channel::<BytesMut>(CHUNKS);
    let (emptied, mut to_fill) = mpsc::channel::<BytesMut>(CHUNKS);
    for _ in 0..CHUNKS {
        let _ = emptied.try_send(BytesMut::with_capacity(CHUNK_BYTES));
    }
    let (spool_writer, spool_reader) = spool::open(spool.clone());
    let (digests_sender, digests) = mpsc::channel(1);
    let mut encoding = Encoding {
        scanner: Scanner::new(expectations),
        plain: Digester::default(),
        encoder: Encoder::new(codec, level, recipients).map_err(unbegun)?,
        stored: Stored {
            spool: spool_writer,
            digester: Digester::default(),
            digests: digests_sender,
        },
    };

    let read = async {
        // The other side hangs up only after a failure of its own, which then ends all of this.
        while let Some(mut chunk) = to_fill.recv().await {
            chunk.clear();
            let count = snapshot.read(&mut chunk).await.map_err(|source| Failure::Capture {
                shard,
                node: node.clone(),
                source,
            })?;
            bar.add(count as u64);
            if count == 0 {
                drop(filled);
                return Ok(());
            }
            if filled.send(chunk).await.is_err() {
                break;
            }
        }
        std::future::pending().await
    };
    let encode = async {
        let encoded = tokio::task::spawn_blocking(move || {
            while let Some(chunk) = to_encode.blocking_recv() {
                encoding.feed(&chunk)?;
                let _ = emptied.blocking_send(chunk);
            }
            encoding.finish()
        });
        encoded
            .await
            .map_err(|_| Failure::Worker { attempt: "scan and encode a capture" })?
            .map_err(|error| error.into_failure(shard, node))
    };
    let (stop, stopped) = watch::channel(false);
    let incoming = Incoming { spool: spool_reader, stop: stopped };
    let destination = Destination { store, key_of, budget };
    let mut store = pin!(upload(destination, incoming, digests).fuse());
    let done = tokio::select! {
        biased;
        failure = ended => Err(failure),
        done = async { tokio::try_join!(read, encode, &mut store) } => done,
    };
    if done.is_err() && !store.is_terminated() {
        // A request that is dropped half way may still arrive, after whoever cleans up has looked.
        stop.send_replace(true);
        let _ = timeout(TAKE_BACK_LIMIT, store).await;
    }
    let ((), (scanned, plain), objects) = done?;
    Ok(Captured { scanned, plain, objects })
}

fn unbegun(source: archive::Error) -> Failure {
    Failure::Archive { attempt: "begin an archive".to_owned(), source }
}

/// The processor's part of the pipeline.
struct Encoding {
    scanner: Scanner,
    plain: Digester,
    encoder: Encoder,
    stored: Stored,
}

enum Error {
    Scan(rdb::Error),
    Encode(archive::Error),
    Spool(spool::Error),
    Uploader,
}

impl Error {
    fn into_failure(self, shard: u32, node: &NodeAddress) -> Failure {
        match self {
            Self::Scan(source) => Failure::CapturedRdb { shard, node: node.clone(), source },
            Self::Encode(source) => {
                Failure::Archive { attempt: format!("encode shard {shard}"), source }
            }
            Self::Spool(source) => Failure::Spool(source),
            Self::Uploader => Failure::Worker { attempt: "upload a capture" },
        }
    }
}

impl Encoding {
    fn feed(&mut self, chunk: &[u8]) -> Result<(), Error> {
        let Self { scanner, plain, encoder, stored } = self;
        scanner.feed(chunk).map_err(Error::Scan)?;
        plain.update(chunk);
        let mut bytes = Vec::new();
        encoder.feed(chunk, &mut bytes).map_err(Error::Encode)?;
        stored.push(bytes.into())
    }

    fn finish(self) -> Result<(Scanned, Digests), Error> {
        let Self { scanner, plain, encoder, mut stored } = self;
        let scanned = scanner.finish().map_err(Error::Scan)?;
        let mut bytes = Vec::new();
        encoder.finish(&mut bytes).map_err(Error::Encode)?;
        stored.push(bytes.into())?;
        stored.finish()?;
        Ok((scanned, plain.finish()))
    }
}

/// Encoded bytes into the spool, cut into objects, each with its digests.
struct Stored {
    spool: spool::Writer,
    digester: Digester,
    digests: mpsc::Sender<Digests>,
}

impl Stored {
    fn push(&mut self, mut bytes: Bytes) -> Result<(), Error> {
        while !bytes.is_empty() {
            let room = OBJECT_BYTES_MAX - self.digester.bytes();
            let length = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
            let piece = bytes.split_to(length);
            self.digester.update(&piece);
            self.spool.push(piece).map_err(Error::Spool)?;
            if self.digester.bytes() == OBJECT_BYTES_MAX {
                self.end_object()?;
            }
        }
        Ok(())
    }

    fn end_object(&mut self) -> Result<(), Error> {
        let digests = std::mem::take(&mut self.digester).finish();
        self.digests.blocking_send(digests).map_err(|_| Error::Uploader)
    }

    fn finish(mut self) -> Result<(), Error> {
        // An encoder's end is never empty, so the last object is not either.
        let digests = std::mem::take(&mut self.digester).finish();
        self.spool.finish();
        if digests.bytes > 0 {
            self.digests.blocking_send(digests).map_err(|_| Error::Uploader)?;
        }
        Ok(())
    }
}
