//! One shard's bytes on their way: socket, scan and digest, codec, spool, stores. All of it or nothing.

use std::pin::pin;

use bytes::{Bytes, BytesMut};
use futures_util::{FutureExt as _, future::FusedFuture as _};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

use super::{
    OBJECT_BYTES_MAX, Outlet, Versions,
    upload::{Incoming, TAKE_BACK_LIMIT, upload_to_all},
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
    edge::{redis_node::Snapshot, spool},
    failure::Failure,
    report::Bar,
};

/// Bytes read from the socket at once; small enough for the processor's cache to hold it from the
/// scan to the codec.
const CHUNK_BYTES: usize = 256 << 10;

/// Chunks between socket and scan. They go round and round, so no memory is ever given back.
const CHUNKS: usize = 8;

/// How the bytes of a capture are treated.
#[derive(Clone, Copy)]
pub(crate) struct Pipeline<'a> {
    pub(crate) expectations: &'a Expectations,
    pub(crate) codec: Codec,
    pub(crate) level: i32,
    /// Who will be able to read the archive; nobody means everybody.
    pub(crate) recipients: &'a Recipients,
    pub(crate) spool: &'a spool::Limits,
    pub(crate) outlets: &'a [Outlet<'a>],
    pub(crate) key_of: &'a (dyn Fn(u32) -> Result<Key, Failure> + Sync),
}

/// A captured, scanned and stored RDB.
#[derive(Debug)]
pub(crate) struct Captured {
    pub(crate) scanned: Scanned,
    pub(crate) plain: Digests,
    /// Without the ids of their versions, which each store has of its own.
    pub(crate) objects: Vec<Object>,
    /// Of each outlet, in order; none of one that was lost.
    pub(crate) versions: Vec<Option<Versions>>,
}

/// Runs the pipeline until the framing has proven the end of the RDB and the stores have all of it, or
/// until `ended` tells why it shall end before. A store that fails is lost, and the others go on; when
/// all are lost, this fails, and each outlet has been told its reason.
pub(crate) async fn capture(
    shard: u32,
    node: &NodeAddress,
    mut snapshot: Snapshot,
    pipeline: Pipeline<'_>,
    bar: &Bar,
    ended: impl Future<Output = Failure>,
) -> Result<Captured, Failure> {
    let Pipeline { expectations, codec, level, recipients, spool, outlets, key_of } = pipeline;
    let (filled, mut to_encode) = mpsc::channel::<BytesMut>(CHUNKS);
    let (emptied, mut to_fill) = mpsc::channel::<BytesMut>(CHUNKS);
    for _ in 0..CHUNKS {
        let _ = emptied.try_send(BytesMut::with_capacity(CHUNK_BYTES));
    }
    let (spool_writer, spool_readers) = spool::open(spool.clone(), outlets.len());
    let (digests_sender, digests) = watch::channel(Vec::new());
    let output =
        Stored { spool: spool_writer, digester: Digester::default(), digests: digests_sender };
    let encoder = Encoder::new(codec, level, recipients).map_err(unbegun)?;
    let mut encoding = Encoding::new(expectations, encoder, output);

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
        match encoded.await.map_err(|_| Failure::Worker { attempt: "scan and encode a capture" })? {
            Ok(ended) => Ok(ended),
            // The stores are lost; their uploads say so.
            Err(Error::Spool(spool::Error::Broken)) => std::future::pending().await,
            Err(error) => Err(error.into_failure(shard, node)),
        }
    };
    let (stop, stopped) = watch::channel(false);
    let incoming = spool_readers.into_iter().map(|spool| Incoming {
        spool,
        digests: digests.clone(),
        stop: stopped.clone(),
    });
    let mut store = pin!(upload_to_all(outlets, key_of, incoming).fuse());
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
    let ((), (scanned, plain), everywhere) = done?;
    let (objects, versions) = split_versions(everywhere);
    Ok(Captured { scanned, plain, objects, versions })
}

/// What all stores hold alike, and what each has of its own.
fn split_versions(stored: Vec<Option<Vec<Object>>>) -> (Vec<Object>, Vec<Option<Versions>>) {
    let versions_of = |objects: &Vec<Object>| -> Versions {
        objects.iter().map(|object| (object.key.clone(), object.version_id.clone())).collect()
    };
    let versions = stored.iter().map(|objects| objects.as_ref().map(versions_of)).collect();
    let mut objects = stored.into_iter().flatten().next().unwrap_or_default();
    for object in &mut objects {
        object.version_id = None;
    }
    (objects, versions)
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
}

impl Error {
    fn into_failure(self, shard: u32, node: &NodeAddress) -> Failure {
        match self {
            Self::Scan(source) => Failure::CapturedRdb { shard, node: node.clone(), source },
            Self::Encode(source) => {
                Failure::Archive { attempt: format!("encode shard {shard}"), source }
            }
            Self::Spool(source) => Failure::Spool(source),
        }
    }
}

impl Encoding {
    fn new(expectations: &Expectations, encoder: Encoder, stored: Stored) -> Self {
        let (scanner, plain) = (Scanner::new(expectations), Digester::default());
        Self { scanner, plain, encoder, stored }
    }

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
        stored.finish();
        Ok((scanned, plain.finish()))
    }
}

/// Encoded bytes into the spool, cut into objects, each with its digests.
struct Stored {
    spool: spool::Writer,
    digester: Digester,
    /// Of every object that is complete, for those who upload it.
    digests: watch::Sender<Vec<Digests>>,
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
        // An encoder's end is never empty, so the last object is not either.
        if self.digester.bytes() > 0 {
            self.end_object();
        }
        self.spool.finish();
    }
}
