//! One shard's bytes on their way: socket or file, scan and digest, codec, spool, stores. All of it or nothing.

use std::{io, pin::pin};

use bytes::BytesMut;
use futures_util::{FutureExt as _, future::FusedFuture as _};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

use super::{
    Versions,
    sealing::{Pace, Sealing, Stored},
    upload::{Incoming, KeyOf, Outlet, TAKE_BACK_LIMIT, upload_to_all},
};
use crate::{
    domain::{
        aof,
        archive::{self, Codec, Encoder, Recipients},
        digest::Digests,
        identity::SourceName,
        manifest::Object,
        rdb::{self, Expectations, Scanned, Scanner},
        source::NodeAddress,
    },
    edge::{
        live_directory::{OpenFile, Serving},
        redis_node::Snapshot,
        spool,
    },
    failure::Failure,
    report::Bar,
};

/// Bytes read from the socket at once; small enough for the processor's cache to hold it from the
/// scan to the codec.
pub(super) const CHUNK_BYTES: usize = 256 << 10;

/// Chunks between socket and scan. They go round and round, so no memory is ever given back.
const CHUNKS: usize = 8;

/// How the bytes of a capture are treated.
#[derive(Clone, Copy)]
pub(crate) struct Pipeline<'a> {
    pub(crate) codec: Codec,
    pub(crate) level: i32,
    /// Who will be able to read the archive; nobody means everybody.
    pub(crate) recipients: &'a Recipients,
    pub(crate) spool: &'a spool::Limits,
    pub(crate) outlets: &'a [Outlet<'a>],
    pub(crate) key_of: KeyOf<'a>,
}

/// Whose bytes they are, for errors.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) source: SourceName,
    pub(crate) shard: u32,
    pub(crate) node: NodeAddress,
}

/// A captured, scanned and stored RDB.
#[derive(Debug)]
pub(crate) struct Captured {
    pub(crate) scanned: Scanned,
    pub(crate) plain: Digests,
    pub(crate) stored: StoredEverywhere,
}

/// The objects of an archive in all its stores.
#[derive(Debug)]
pub(crate) struct StoredEverywhere {
    /// Without the ids of their versions, which each store has of its own.
    pub(crate) objects: Vec<Object>,
    /// Of each outlet, in order; none of one that was lost.
    pub(crate) versions: Vec<Option<Versions>>,
}

/// Runs the pipeline until the framing has proven the end of the RDB and the stores have all of it, or
/// until `ended` tells why it shall end before. A store that fails is lost, and the others go on; when
/// all are lost, this fails, and each outlet has been told its reason. What comes with the snapshot is let
/// go of when its last byte is there, however slow the stores are.
pub(crate) async fn capture(
    origin: &Origin,
    (mut snapshot, turn): (Snapshot, impl Send),
    expectations: &Expectations,
    pipeline: Pipeline<'_>,
    bar: &Bar,
    ended: impl Future<Output = Failure>,
) -> Result<Captured, Failure> {
    let (filled, mut to_encode) = mpsc::channel::<BytesMut>(CHUNKS);
    let (emptied, mut to_fill) = mpsc::channel::<BytesMut>(CHUNKS);
    for _ in 0..CHUNKS {
        let _ = emptied.try_send(BytesMut::with_capacity(CHUNK_BYTES));
    }
    let (mut sealing, upload) = begin(pipeline, Pace::OfTheServer)?;
    let mut scanner = Scanner::new(expectations);

    let read = async {
        // The other side hangs up only after a failure of its own, which then ends all of this.
        while let Some(mut chunk) = to_fill.recv().await {
            chunk.clear();
            let count = snapshot.read(&mut chunk).await.map_err(|source| Failure::Capture {
                shard: origin.shard,
                node: origin.node.clone(),
                source,
            })?;
            bar.add(count as u64);
            if count == 0 {
                drop((filled, turn));
                return Ok(());
            }
            if filled.send(chunk).await.is_err() {
                break;
            }
        }
        std::future::pending().await
    };
    let encode = work(origin, move || {
        while let Some(chunk) = to_encode.blocking_recv() {
            scanner.feed(&chunk).map_err(Error::Scan)?;
            sealing.feed(&chunk)?;
            let _ = emptied.blocking_send(chunk);
        }
        let found = scanner.finish().map_err(Error::Scan)?;
        Ok((found, sealing.finish()?))
    });
    let both = async { tokio::try_join!(read, encode).map(|((), encoded)| encoded) };
    let ((found, plain), stored) = upload.beside(both, ended).await?;
    Ok(Captured { scanned: found, plain, stored })
}

/// The same for an RDB that lies in an open file. The store may slow it down.
pub(crate) async fn capture_file(
    origin: &Origin,
    file: OpenFile,
    expectations: &Expectations,
    pipeline: Pipeline<'_>,
    bar: &Bar,
    ended: impl Future<Output = Failure>,
) -> Result<Captured, Failure> {
    let (mut sealing, upload) = begin(pipeline, Pace::OfTheStore)?;
    let mut scanner = Scanner::new(expectations);
    let bar = bar.clone();
    let (mut file, serving) = file.begin();
    let encode = work(origin, move || {
        let (mut chunk, mut place) = (vec![0; CHUNK_BYTES], 0);
        loop {
            let count = file.read_at(&mut chunk, place).map_err(Error::Read)?;
            if count == 0 {
                break;
            }
            scanner.feed(&chunk[..count]).map_err(Error::Scan)?;
            sealing.feed(&chunk[..count])?;
            place += count as u64;
            bar.add(count as u64);
        }
        let found = scanner.finish().map_err(Error::Scan)?;
        Ok((found, sealing.finish()?))
    });
    let encode = served(origin, serving, encode);
    let ((found, plain), stored) = upload.beside(encode, ended).await?;
    Ok(Captured { scanned: found, plain, stored })
}

/// Waits for what reads a file while its bytes are brought.
pub(super) async fn served<T>(
    origin: &Origin,
    serving: Serving,
    encode: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let bring = async {
        serving.run().await.map_err(|source| Failure::CapturedFile {
            shard: origin.shard,
            node: origin.node.clone(),
            source,
        })
    };
    tokio::try_join!(bring, encode).map(|((), encoded)| encoded)
}

/// Runs the processor's part on a thread of its own.
pub(super) async fn work<T: Send + 'static>(
    origin: &Origin,
    run: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Failure> {
    let worked = tokio::task::spawn_blocking(run).await;
    match worked.map_err(|_| Failure::Worker { attempt: "scan and encode a capture" })? {
        Ok(done) => Ok(done),
        // The stores are lost; their uploads say so.
        Err(Error::Spool(spool::Error::Broken)) => std::future::pending().await,
        Err(error) => Err(error.into_failure(origin)),
    }
}

/// The ends of what lies between plain bytes and the stores.
pub(super) fn begin(
    pipeline: Pipeline<'_>,
    pace: Pace,
) -> Result<(Sealing, Uploading<'_>), Failure> {
    let Pipeline { codec, level, recipients, spool, outlets, key_of } = pipeline;
    let (spool_writer, spools) = spool::open(spool.clone(), outlets.len());
    let (digests_sender, digests) = watch::channel(Vec::new());
    let encoder = Encoder::new(codec, level, recipients)
        .map_err(|source| Failure::Archive { attempt: "begin an archive".to_owned(), source })?;
    let sealing = Sealing::new(encoder, Stored::new(spool_writer, digests_sender), pace);
    Ok((sealing, Uploading { outlets, key_of, spools, digests }))
}

/// The stores' part of the pipeline.
pub(super) struct Uploading<'a> {
    outlets: &'a [Outlet<'a>],
    key_of: KeyOf<'a>,
    spools: Vec<spool::Reader>,
    digests: watch::Receiver<Vec<Digests>>,
}

impl Uploading<'_> {
    /// Uploads what `encode` makes, until both are done or `ended` tells why not.
    pub(super) async fn beside<T>(
        self,
        encode: impl Future<Output = Result<T, Failure>>,
        ended: impl Future<Output = Failure>,
    ) -> Result<(T, StoredEverywhere), Failure> {
        let Self { outlets, key_of, spools, digests } = self;
        let (stop, stopped) = watch::channel(false);
        let incoming = spools.into_iter().map(|spool| Incoming {
            spool,
            digests: digests.clone(),
            stop: stopped.clone(),
        });
        let mut store = pin!(upload_to_all(outlets, key_of, incoming).fuse());
        let done = tokio::select! {
            biased;
            failure = ended => Err(failure),
            done = async { tokio::try_join!(encode, &mut store) } => done,
        };
        if done.is_err() && !store.is_terminated() {
            // A request that is dropped half way may still arrive, after whoever cleans up has looked.
            stop.send_replace(true);
            let _ = timeout(TAKE_BACK_LIMIT, store).await;
        }
        done.map(|(encoded, stored)| (encoded, split_versions(stored)))
    }
}

/// What all stores hold alike, and what each has of its own.
fn split_versions(stored: Vec<Option<Vec<Object>>>) -> StoredEverywhere {
    let versions_of = |objects: &Vec<Object>| -> Versions {
        objects.iter().map(|object| (object.key.clone(), object.version_id.clone())).collect()
    };
    let versions = stored.iter().map(|objects| objects.as_ref().map(versions_of)).collect();
    let mut objects = stored.into_iter().flatten().next().unwrap_or_default();
    for object in &mut objects {
        object.version_id = None;
    }
    StoredEverywhere { objects, versions }
}

pub(super) enum Error {
    Scan(rdb::Error),
    Aof(aof::Error),
    /// A file that no longer grows does not end with a whole command.
    NotWhole {
        name: String,
        bytes: u64,
        whole_bytes: u64,
    },
    Read(io::Error),
    Encode(archive::Error),
    Spool(spool::Error),
}

impl Error {
    fn into_failure(self, origin: &Origin) -> Failure {
        let Origin { source: _, shard, node } = origin.clone();
        match self {
            Self::Scan(source) => Failure::CapturedRdb { shard, node, source },
            Self::Aof(source) => Failure::CapturedAof { shard, node, source },
            Self::NotWhole { name, bytes, whole_bytes } => Failure::Unsettled {
                source_name: origin.source.clone(),
                finding: format!(
                    "{name} of {node} ends in the middle of a command: {whole_bytes} of {bytes} bytes are whole"
                ),
            },
            Self::Read(source) => Failure::Local {
                attempt: format!("read a file of {node} for shard {shard}"),
                source,
            },
            Self::Encode(source) => {
                Failure::Archive { attempt: format!("encode shard {shard}"), source }
            }
            Self::Spool(source) => Failure::Spool(source),
        }
    }
}
