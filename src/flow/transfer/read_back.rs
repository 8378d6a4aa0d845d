//! An archive from a store back to plain bytes, every digest on the way compared.

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::{
    domain::{
        aof,
        archive::{self, Decoder, Identities},
        catalog,
        digest::{Digester, Digests},
        identity::BackupId,
        manifest::{Archive, Object},
        rdb::{self, Expectations},
    },
    edge::store::{self, Store},
    failure::Failure,
    report::Bar,
};

/// Downloads and plain pieces that may wait for the next stage.
const WAITING_MAX: usize = 4;

/// Plain bytes are handed on in pieces of about this size.
const PIECE_BYTES: usize = 256 << 10;

/// Where plain bytes go. Called on a thread that may block.
pub(crate) type Sink = Box<dyn FnMut(&[u8]) -> Result<(), Failure> + Send>;

/// What a scan of plain bytes told.
#[derive(Debug)]
pub(crate) enum Scanned {
    Rdb(Box<rdb::Scanned>),
    Aof(Box<aof::Scanned>),
}

/// Proves plain bytes while they pass by.
pub(crate) enum Scanner {
    Rdb(Box<rdb::Scanner>),
    Aof(Box<aof::Scanner>),
}

#[derive(Debug)]
pub(crate) enum ScanError {
    Rdb(rdb::Error),
    Aof(aof::Error),
}

impl Scanner {
    /// For what an archive of that name holds.
    pub(crate) fn of(archive: &str, expectations: &Expectations) -> Self {
        if catalog::is_aof_archive(archive) {
            Self::Aof(Box::new(aof::Scanner::new(expectations)))
        } else {
            Self::Rdb(Box::new(rdb::Scanner::new(expectations)))
        }
    }

    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<(), ScanError> {
        match self {
            Self::Rdb(scanner) => scanner.feed(bytes).map_err(ScanError::Rdb),
            Self::Aof(scanner) => scanner.feed(bytes).map_err(ScanError::Aof),
        }
    }

    pub(crate) fn finish(self) -> Result<Scanned, ScanError> {
        match self {
            Self::Rdb(scanner) => {
                scanner.finish().map(|found| Scanned::Rdb(Box::new(found))).map_err(ScanError::Rdb)
            }
            Self::Aof(scanner) => {
                scanner.finish().map(|found| Scanned::Aof(Box::new(found))).map_err(ScanError::Aof)
            }
        }
    }
}

impl ScanError {
    pub(crate) fn into_failure(self, what: String) -> Failure {
        match self {
            Self::Rdb(source) => Failure::Scan { what, source },
            Self::Aof(source) => Failure::ScanAof { what, source },
        }
    }
}

/// What came out of an archive.
#[derive(Debug)]
pub(crate) struct Plain {
    pub(crate) digests: Digests,
    /// When a scan was asked for.
    pub(crate) scanned: Option<Scanned>,
}

/// Reads all objects of `archive`. The stored digests must match, the codec must end where the
/// archive does, and the RDB or append-only file must be sound when `scan` asks for it.
pub(crate) async fn read_back(
    store: &dyn Store,
    identities: &Identities,
    backup: &BackupId,
    archive: &Archive,
    scan: Option<Expectations>,
    sink: Sink,
    bar: &Bar,
) -> Result<Plain, Failure> {
    let scanner = scan.map(|expectations| Scanner::of(&archive.name, &expectations));
    let consume = move |plain| consume(plain, scanner, sink);
    unpack_into(store, identities, backup, archive, consume, bar).await
}

/// Reads all objects of `archive` for a sink whose bytes are checked where they end up: here only
/// the stored digests must match, and the codec must end where the archive does.
pub(crate) async fn unpack(
    store: &dyn Store,
    identities: &Identities,
    backup: &BackupId,
    archive: &Archive,
    mut sink: Sink,
    bar: &Bar,
) -> Result<(), Failure> {
    let consume = move |mut plain: mpsc::Receiver<Vec<u8>>| {
        while let Some(piece) = plain.blocking_recv() {
            sink(&piece).map_err(Error::Sink)?;
        }
        Ok(())
    };
    unpack_into(store, identities, backup, archive, consume, bar).await
}

async fn unpack_into<T: Send + 'static>(
    store: &dyn Store,
    identities: &Identities,
    backup: &BackupId,
    archive: &Archive,
    consume: impl FnOnce(mpsc::Receiver<Vec<u8>>) -> Result<T, Error> + Send + 'static,
    bar: &Bar,
) -> Result<T, Failure> {
    let (stored_sender, stored) = mpsc::channel(WAITING_MAX);
    let (plain_sender, plain) = mpsc::channel(WAITING_MAX);
    let decoding = Decoding::new(archive, identities, plain_sender).map_err(|source| {
        Failure::Archive { attempt: format!("decode {} of {backup}", archive.name), source }
    })?;

    let download = download(store, backup, archive, stored_sender, bar);
    let decode = stage(backup, archive, move || decoding.run(stored));
    let consume = stage(backup, archive, move || consume(plain));
    let ((), (), consumed) = tokio::try_join!(download, decode, consume)?;
    Ok(consumed)
}

/// Runs a stage on a thread of its own. One that ended because its neighbour did never answers:
/// the neighbour says why.
async fn stage<T: Send + 'static>(
    backup: &BackupId,
    archive: &Archive,
    run: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Failure> {
    let ended = tokio::task::spawn_blocking(run)
        .await
        .map_err(|_| Failure::Worker { attempt: "read an archive back" })?;
    match ended {
        Ok(result) => Ok(result),
        Err(error) => match error.into_failure(backup, archive) {
            Some(failure) => Err(failure),
            None => std::future::pending().await,
        },
    }
}

/// One step of an archive on its way to the decoder.
enum Piece {
    Bytes(Bytes),
    EndOfObject,
}

async fn download(
    store: &dyn Store,
    backup: &BackupId,
    archive: &Archive,
    stored: mpsc::Sender<Piece>,
    bar: &Bar,
) -> Result<(), Failure> {
    for object in &archive.objects {
        let failed = |source: store::Error| {
            if matches!(source, store::Error::NotFound { .. }) {
                // The store answers; it is the backup that is incomplete.
                let finding = format!("{} is gone", object.key);
                return Failure::Corrupt { backup: backup.clone(), finding };
            }
            Failure::Store { attempt: format!("read {}", object.key), source }
        };
        let mut download =
            store.download(&object.key, object.version_id.as_deref()).await.map_err(failed)?;
        while let Some(bytes) = download.next().await.map_err(failed)? {
            bar.add(bytes.len() as u64);
            if stored.send(Piece::Bytes(bytes)).await.is_err() {
                return std::future::pending().await;
            }
        }
        if stored.send(Piece::EndOfObject).await.is_err() {
            return std::future::pending().await;
        }
    }
    Ok(())
}

enum Error {
    Object {
        object: Box<Object>,
        finding: String,
    },
    Decode(archive::Error),
    Scan(ScanError),
    Sink(Failure),
    /// The stage before or behind this one hung up, and says why itself.
    Neighbour,
}

impl From<archive::Error> for Error {
    fn from(error: archive::Error) -> Self {
        Self::Decode(error)
    }
}

impl Error {
    fn into_failure(self, backup: &BackupId, archive: &Archive) -> Option<Failure> {
        Some(match self {
            Self::Object { object, finding } => Failure::Corrupt {
                backup: backup.clone(),
                finding: format!("{} {finding}", object.key),
            },
            Self::Decode(source) => {
                Failure::Archive { attempt: format!("decode {} of {backup}", archive.name), source }
            }
            Self::Scan(error) => error.into_failure(format!("{} of {backup}", archive.name)),
            Self::Sink(failure) => failure,
            Self::Neighbour => return None,
        })
    }
}

/// The first processor's part: stored digests and codec.
struct Decoding {
    objects: Vec<Object>,
    decoder: Decoder,
    plain: mpsc::Sender<Vec<u8>>,
    piece: Vec<u8>,
}

impl Decoding {
    fn new(
        archive: &Archive,
        identities: &Identities,
        plain: mpsc::Sender<Vec<u8>>,
    ) -> Result<Self, archive::Error> {
        Ok(Self {
            objects: archive.objects.clone(),
            decoder: Decoder::new(archive.codec, archive.encryption, identities)?,
            plain,
            piece: Vec::with_capacity(PIECE_BYTES),
        })
    }

    fn run(mut self, mut stored: mpsc::Receiver<Piece>) -> Result<(), Error> {
        // Bytes that the store changed look as if another identity were needed: the digest decides.
        let mut unopened = None;
        for object in std::mem::take(&mut self.objects) {
            let mut digester = Digester::default();
            loop {
                match stored.blocking_recv() {
                    Some(Piece::Bytes(bytes)) => {
                        digester.update(&bytes);
                        if digester.bytes() > object.bytes {
                            let finding = format!("is longer than its {} bytes", object.bytes);
                            return Err(Error::Object { object: Box::new(object), finding });
                        }
                        if unopened.is_some() {
                            continue;
                        }
                        match self.decode(&bytes) {
                            Err(Error::Decode(error)) if error.is_of_the_identity() => {
                                unopened = Some(error);
                            }
                            decoded => decoded?,
                        }
                    }
                    Some(Piece::EndOfObject) => break,
                    None => return Err(Error::Neighbour),
                }
            }
            compare(object, digester.finish())?;
            if let Some(error) = unopened.take() {
                return Err(error.into());
            }
        }
        let Self { objects: _, decoder, plain, mut piece } = self;
        decoder.finish(|bytes| collect(&plain, &mut piece, bytes))?;
        hand_on(&plain, &mut piece)
    }

    fn decode(&mut self, stored: &[u8]) -> Result<(), Error> {
        let Self { objects: _, decoder, plain, piece } = self;
        decoder.feed(stored, |bytes| collect(plain, piece, bytes))
    }
}

fn collect(plain: &mpsc::Sender<Vec<u8>>, piece: &mut Vec<u8>, bytes: &[u8]) -> Result<(), Error> {
    if piece.len() + bytes.len() > PIECE_BYTES {
        hand_on(plain, piece)?;
    }
    piece.extend_from_slice(bytes);
    Ok(())
}

fn hand_on(plain: &mpsc::Sender<Vec<u8>>, piece: &mut Vec<u8>) -> Result<(), Error> {
    let full = std::mem::replace(piece, Vec::with_capacity(PIECE_BYTES));
    plain.blocking_send(full).map_err(|_| Error::Neighbour)
}

fn compare(object: Object, found: Digests) -> Result<(), Error> {
    let finding = if found.bytes != object.bytes {
        format!("has {} bytes, not the {} of the manifest", found.bytes, object.bytes)
    } else if found.sha256 != object.sha256 {
        format!("has SHA-256 {}, not {} as in the manifest", found.sha256, object.sha256)
    } else {
        return Ok(());
    };
    Err(Error::Object { object: Box::new(object), finding })
}

/// The second processor's part: plain digest, scan and sink.
fn consume(
    mut plain: mpsc::Receiver<Vec<u8>>,
    mut scanner: Option<Scanner>,
    mut sink: Sink,
) -> Result<Plain, Error> {
    let mut digester = Digester::default();
    while let Some(piece) = plain.blocking_recv() {
        digester.update(&piece);
        if let Some(scanner) = &mut scanner {
            scanner.feed(&piece).map_err(Error::Scan)?;
        }
        sink(&piece).map_err(Error::Sink)?;
    }
    let result = scanner.map(Scanner::finish).transpose().map_err(Error::Scan)?;
    Ok(Plain { digests: digester.finish(), scanned: result })
}
