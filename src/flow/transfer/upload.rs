//! Stored bytes into the objects of one archive. Nothing of an object is visible before all of it is there.

use std::{pin::pin, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::{sync::watch, time::timeout};

use super::{Budget, OBJECT_BYTES_MAX, Pace};
use crate::{
    domain::{
        archive::{Codec, Encoder, Recipients},
        catalog::Key,
        digest::{Digester, Digests},
        manifest::Object,
    },
    edge::{
        spool,
        store::{Part, Store, Upload},
    },
    failure::Failure,
};

/// How long an upload may take back what it sent, once it is told to end.
pub(super) const TAKE_BACK_LIMIT: Duration = Duration::from_secs(8);

/// One of the stores that get the bytes of a capture.
pub(crate) struct Outlet<'a> {
    pub(crate) store: &'a dyn Store,
    pub(crate) budget: &'a Budget,
    pub(crate) pace: &'a Pace,
    /// Told at once why nothing more goes to this store.
    pub(crate) lose: Box<dyn Fn(Failure) + Send + Sync + 'a>,
}

/// The key of object 0, 1, … of an archive.
pub(crate) type KeyOf<'a> = &'a (dyn Fn(u32) -> Result<Key, Failure> + Sync);

/// What an upload reads, until it is told to stop.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) spool: spool::Reader,
    /// Of each object that is complete.
    pub(super) digests: watch::Receiver<Vec<Digests>>,
    pub(super) stop: watch::Receiver<bool>,
}

/// Uploads to every outlet at once, each from its own reader. Fails when all outlets are lost.
pub(super) async fn upload_to_all(
    outlets: &[Outlet<'_>],
    key_of: KeyOf<'_>,
    incoming: impl Iterator<Item = Incoming>,
) -> Result<Vec<Option<Vec<Object>>>, Failure> {
    let uploads = outlets.iter().zip(incoming);
    let uploads = uploads.map(|(outlet, incoming)| upload_or_lose(outlet, key_of, incoming));
    let stored = join_all(uploads).await;
    if stored.iter().all(Option::is_none) {
        return Err(Failure::Worker { attempt: "upload a capture" });
    }
    Ok(stored)
}

/// Uploads what comes until it ends. None, and the outlet is lost, where that cannot be done; none also
/// when it was told to stop.
async fn upload_or_lose(
    outlet: &Outlet<'_>,
    key_of: KeyOf<'_>,
    incoming: Incoming,
) -> Option<Vec<Object>> {
    let (stop, given_up) = (incoming.stop.clone(), incoming.spool.given_up());
    let mut uploading = pin!(upload(outlet, key_of, incoming));
    let uploaded = tokio::select! {
        biased;
        uploaded = &mut uploading => uploaded,
        error = given_up => {
            // It waits for the store, and may do so for long.
            let _ = timeout(TAKE_BACK_LIMIT, uploading).await;
            Err(Failure::Spool(error))
        }
    };
    match uploaded {
        Ok(objects) => Some(objects),
        Err(failure) => {
            if !*stop.borrow() {
                (outlet.lose)(failure);
            }
            None
        }
    }
}

/// One that fails or is told to stop takes back the object that it had begun.
async fn upload(
    outlet: &Outlet<'_>,
    key_of: KeyOf<'_>,
    mut incoming: Incoming,
) -> Result<Vec<Object>, Failure> {
    let mut objects = Vec::new();
    let mut rest = Bytes::new();
    loop {
        if rest.is_empty() {
            match next(outlet.pace, &mut incoming).await? {
                Some(bytes) => rest = bytes,
                None if !objects.is_empty() => return Ok(objects),
                None => {}
            }
        }
        let index = objects.len();
        let key = key_of(u32::try_from(index).unwrap_or(u32::MAX))?;
        let attempt = |source| Failure::Store { attempt: format!("store {key}"), source };
        let mut upload = outlet.store.upload(&key).await.map_err(attempt)?;
        let sent = send_object(outlet, &mut *upload, &mut incoming, &mut rest).await;
        let finished = match sent {
            Ok(()) => finish(upload, &key, index, &mut incoming.digests).await,
            Err(failure) => {
                // The failure is what matters; what cannot be removed now is swept later.
                let _ = upload.abort().await;
                Err(failure)
            }
        };
        objects.push(finished?);
    }
}

/// Sends parts until the object is as long as it may be or the spool ends.
async fn send_object(
    outlet: &Outlet<'_>,
    upload: &mut dyn Upload,
    incoming: &mut Incoming,
    rest: &mut Bytes,
) -> Result<(), Failure> {
    let Outlet { store: _, budget, pace, lose: _ } = outlet;
    let mut left = OBJECT_BYTES_MAX;
    while left > 0 && !rest.is_empty() {
        let share = budget.part().await;
        let mut body = budget.buffer();
        while body.room() > 0 {
            if rest.is_empty() {
                match next(pace, incoming).await? {
                    Some(bytes) => *rest = bytes,
                    None => break,
                }
            }
            let left = body.take(rest).len();
            *rest = rest.split_off(rest.len() - left);
        }
        left -= body.len() as u64;
        upload
            .write(Part { body: budget.bytes(body), budget: share })
            .await
            .map_err(|source| Failure::Store { attempt: "store a part".to_owned(), source })?;
        if rest.is_empty() && left > 0 {
            match next(pace, incoming).await? {
                Some(bytes) => *rest = bytes,
                None => break,
            }
        }
    }
    Ok(())
}

async fn finish(
    upload: Box<dyn Upload>,
    key: &Key,
    index: usize,
    digests: &mut watch::Receiver<Vec<Digests>>,
) -> Result<Object, Failure> {
    let told = digests.wait_for(|all| all.len() > index).await.ok();
    let Some(digests) = told.and_then(|all| all.get(index).copied()) else {
        let _ = upload.abort().await;
        return Err(Failure::Worker { attempt: "digest an object" });
    };
    let stored = upload
        .finish(digests)
        .await
        .map_err(|source| Failure::Store { attempt: format!("store {key}"), source })?;
    Ok(object(key.clone(), stored.version_id, digests))
}

/// The next bytes of the spool, as soon as they may leave. A spool broken by the encoder never answers: the encoder's own
/// failure says why, and stops this.
async fn next(pace: &Pace, incoming: &mut Incoming) -> Result<Option<Bytes>, Failure> {
    let Incoming { spool, digests: _, stop } = incoming;
    let bytes = async {
        let bytes = match spool.next().await {
            Err(spool::Error::Broken) => std::future::pending().await,
            other => other.map_err(Failure::Spool)?,
        };
        // What waits here is held back from the spool, which then slows down whoever reads a file.
        pace.wait_for(bytes.as_ref().map_or(0, Bytes::len)).await;
        Ok(bytes)
    };
    tokio::select! {
        biased;
        // Whoever stopped it knows why.
        _ = stop.wait_for(|stop| *stop) => Err(Failure::Worker { attempt: "upload a capture" }),
        bytes = bytes => bytes,
    }
}

/// One small archive, encoded in memory.
#[derive(Clone, Debug)]
pub(crate) struct Packed {
    pub(crate) stored: Bytes,
    pub(crate) digests: Digests,
}

impl Packed {
    pub(crate) fn object(&self, key: Key, version_id: Option<String>) -> Object {
        object(key, version_id, self.digests)
    }
}

/// Encodes the whole of a small archive.
pub(crate) fn pack(
    key: &Key,
    codec: Codec,
    level: i32,
    recipients: &Recipients,
    plain: &[u8],
) -> Result<Packed, Failure> {
    let failed = |source| Failure::Archive { attempt: format!("encode {key}"), source };
    let mut stored = Vec::new();
    let mut encoder = Encoder::new(codec, level, recipients).map_err(failed)?;
    encoder.feed(plain, &mut stored).map_err(failed)?;
    encoder.finish(&mut stored).map_err(failed)?;
    let mut digester = Digester::default();
    digester.update(&stored);
    Ok(Packed { stored: stored.into(), digests: digester.finish() })
}

/// Stores a small archive as one object.
pub(crate) async fn upload_packed(
    store: &dyn Store,
    key: Key,
    packed: &Packed,
) -> Result<Object, Failure> {
    let confirmed = store
        .create(&key, packed.stored.clone())
        .await
        .map_err(|source| Failure::Store { attempt: format!("store {key}"), source })?;
    Ok(packed.object(key, confirmed.version_id))
}

pub(super) fn object(key: Key, version_id: Option<String>, digests: Digests) -> Object {
    let Digests { bytes, sha256, crc64nvme } = digests;
    Object { key, version_id, bytes, sha256, crc64nvme }
}
