//! Stored bytes into the objects of one archive. Nothing of an object is visible before all of it is there.

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use super::{Budget, OBJECT_BYTES_MAX};
use crate::{
    domain::{
        archive::{Codec, Encoder, Recipients},
        catalog::Key,
        digest::{Digester, Digests},
        manifest::Object,
    },
    edge::{
        direct, spool,
        store::{PART_BYTES, Part, Store, Upload},
    },
    failure::Failure,
};

/// Where the objects of an archive go.
#[derive(Clone, Copy)]
pub(super) struct Destination<'a> {
    pub(super) store: &'a dyn Store,
    /// The key of object 0, 1, …
    pub(super) key_of: &'a (dyn Fn(u32) -> Result<Key, Failure> + Sync),
    pub(super) budget: &'a Budget,
}

/// What an upload reads, until it is told to stop.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) spool: spool::Reader,
    pub(super) stop: watch::Receiver<bool>,
}

/// Uploads what comes until it ends. `digests` tells of each object as it is complete. One that is
/// told to stop takes back the object that it had begun.
pub(super) async fn upload(
    destination: Destination<'_>,
    mut incoming: Incoming,
    mut digests: mpsc::Receiver<Digests>,
) -> Result<Vec<Object>, Failure> {
    let mut objects = Vec::new();
    let mut rest = Bytes::new();
    loop {
        if rest.is_empty() {
            match next(&mut incoming).await? {
                Some(bytes) => rest = bytes,
                None if !objects.is_empty() => return Ok(objects),
                None => {}
            }
        }
        let index = u32::try_from(objects.len()).unwrap_or(u32::MAX);
        let key = (destination.key_of)(index)?;
        let attempt = |source| Failure::Store { attempt: format!("store {key}"), source };
        let mut upload = destination.store.upload(&key).await.map_err(attempt)?;
        let sent = send_object(destination, &mut *upload, &mut incoming, &mut rest).await;
        let finished = match sent {
            Ok(()) => finish(upload, &key, &mut digests).await,
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
    destination: Destination<'_>,
    upload: &mut dyn Upload,
    incoming: &mut Incoming,
    rest: &mut Bytes,
) -> Result<(), Failure> {
    let mut left = OBJECT_BYTES_MAX;
    while left > 0 && !rest.is_empty() {
        let budget = destination.budget.part().await;
        let size = PART_BYTES.min(usize::try_from(left).unwrap_or(usize::MAX));
        let mut body = direct::Buffer::new(size);
        while body.room() > 0 {
            if rest.is_empty() {
                match next(incoming).await? {
                    Some(bytes) => *rest = bytes,
                    None => break,
                }
            }
            let left = body.take(rest).len();
            *rest = rest.split_off(rest.len() - left);
        }
        left -= body.len() as u64;
        upload
            .write(Part { body: body.into(), budget })
            .await
            .map_err(|source| Failure::Store { attempt: "store a part".to_owned(), source })?;
        if rest.is_empty() && left > 0 {
            match next(incoming).await? {
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
    digests: &mut mpsc::Receiver<Digests>,
) -> Result<Object, Failure> {
    let Some(digests) = digests.recv().await else {
        let _ = upload.abort().await;
        return Err(Failure::Worker { attempt: "digest an object" });
    };
    let stored = upload
        .finish(digests)
        .await
        .map_err(|source| Failure::Store { attempt: format!("store {key}"), source })?;
    Ok(object(key.clone(), stored.version_id, digests))
}

/// The next bytes of the spool. A spool broken by the encoder never answers: the encoder's own
/// failure says why, and stops this.
async fn next(incoming: &mut Incoming) -> Result<Option<Bytes>, Failure> {
    let Incoming { spool, stop } = incoming;
    let bytes = async {
        match spool.next().await {
            Err(spool::Error::Broken) => std::future::pending().await,
            other => other.map_err(Failure::Spool),
        }
    };
    tokio::select! {
        biased;
        // Whoever stopped it knows why.
        _ = stop.wait_for(|stop| *stop) => Err(Failure::Worker { attempt: "upload a capture" }),
        bytes = bytes => bytes,
    }
}

/// One small archive: encoded in memory, stored as one object.
pub(crate) async fn upload_bytes(
    store: &dyn Store,
    key: Key,
    codec: Codec,
    level: i32,
    recipients: &Recipients,
    plain: &[u8],
) -> Result<Object, Failure> {
    let failed = |source| Failure::Archive { attempt: format!("encode {key}"), source };
    let mut stored = Vec::new();
    let mut encoder = Encoder::new(codec, level, recipients).map_err(failed)?;
    encoder.feed(plain, &mut stored).map_err(failed)?;
    encoder.finish(&mut stored).map_err(failed)?;
    let mut digester = Digester::default();
    digester.update(&stored);
    let confirmed = store
        .create(&key, stored.into())
        .await
        .map_err(|source| Failure::Store { attempt: format!("store {key}"), source })?;
    Ok(object(key, confirmed.version_id, digester.finish()))
}

fn object(key: Key, version_id: Option<String>, digests: Digests) -> Object {
    let Digests { bytes, sha256, crc64nvme } = digests;
    Object { key, version_id, bytes, sha256, crc64nvme }
}
