//! One stored object from a store into another, every byte digested on its way. Never replaces an object, and none becomes visible that is not the one of the manifest.

use bytes::Bytes;
use jiff::Timestamp;

use super::{Budget, Pace, upload::object};
use crate::{
    domain::{
        archive,
        digest::{Digester, Digests},
        identity::BackupId,
        manifest::{Archive, Object},
    },
    edge::store::{self, Download, Part, Store, Upload},
    failure::Failure,
    flow::Context,
    report::Bar,
};

/// Between which stores, and for which backup.
#[derive(Clone, Copy)]
pub(crate) struct Relay<'a> {
    pub(crate) from: &'a dyn Store,
    pub(crate) to: &'a dyn Store,
    pub(crate) backup: &'a BackupId,
    pub(crate) budget: &'a Budget,
    /// Of the other store.
    pub(crate) pace: &'a Pace,
    pub(crate) context: &'a Context,
}

/// An object as the other store holds it.
#[derive(Debug)]
pub(crate) struct Relayed {
    pub(crate) object: Object,
    /// When it came there, if it was there before: an interrupted copy is gone on with.
    pub(crate) there_since: Option<Timestamp>,
}

/// Brings one object to the other store, or proves that it is there.
pub(crate) async fn relay(
    relay: Relay<'_>,
    wanted: &Object,
    bar: &Bar,
) -> Result<Relayed, Failure> {
    if let Some(there) = relay.find(wanted).await? {
        bar.add(wanted.bytes);
        return Ok(there);
    }
    let attempt = |source| Failure::Store { attempt: format!("store {}", wanted.key), source };
    let mut upload = relay.to.upload(&wanted.key).await.map_err(attempt)?;
    let digests = match relay.send(wanted, &mut *upload, bar).await {
        Ok(digests) => digests,
        Err(failure) => {
            // The failure is what matters; what cannot be removed now is swept later.
            let _ = upload.abort().await;
            return Err(failure);
        }
    };
    match upload.finish(digests).await {
        Ok(stored) => {
            let object = object(wanted.key.clone(), stored.version_id, digests);
            Ok(Relayed { object, there_since: None })
        }
        Err(error @ store::Error::AlreadyExists { .. }) => {
            // Another copy of the same backup was quicker.
            relay.find(wanted).await?.ok_or_else(|| attempt(error))
        }
        Err(error) => Err(attempt(error)),
    }
}

impl Relay<'_> {
    /// The object, where the other store holds it and every byte of it is right.
    async fn find(self, wanted: &Object) -> Result<Option<Relayed>, Failure> {
        let key = &wanted.key;
        let failed =
            |source| Failure::Store { attempt: format!("look whether {key} is there"), source };
        let attributes = match self.to.attributes(key, None).await {
            Ok(attributes) => attributes,
            Err(store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let store::Attributes { bytes, crc64nvme, modified, version_id } = attributes;
        let is_same = wanted.difference(bytes, crc64nvme).is_none() && {
            let mut download =
                self.to.download(key, version_id.as_deref()).await.map_err(failed)?;
            let mut digester = Digester::default();
            while let Some(bytes) = self.next(&mut *download).await?.map_err(failed)? {
                digester = digest(digester, bytes).await?;
            }
            difference(wanted, digester.finish()).is_none()
        };
        if is_same {
            let object = Object { version_id, ..wanted.clone() };
            return Ok(Some(Relayed { object, there_since: Some(modified) }));
        }
        // No manifest can name it: this one is of a capture that was given up.
        tracing::warn!(%key, "what a failed run left there is not this object; it is deleted");
        let attempt = || format!("delete {key}, which a failed run left");
        let deleted = self.to.delete(key).await;
        deleted.map_err(|source| Failure::Store { attempt: attempt(), source })?;
        Ok(None)
    }

    /// Sends all parts; fails before the last word if they are not what the manifest says.
    async fn send(
        self,
        wanted: &Object,
        upload: &mut dyn Upload,
        bar: &Bar,
    ) -> Result<Digests, Failure> {
        let mut download = self.open(wanted).await?;
        let (mut digester, mut rest) = (Digester::default(), Bytes::new());
        loop {
            let share = self.budget.part().await;
            let mut body = self.budget.buffer();
            while body.room() > 0 {
                if rest.is_empty() {
                    match self.next_of(wanted, &mut *download).await? {
                        Some(bytes) => {
                            self.wait_for(bytes.len()).await?;
                            rest = bytes;
                        }
                        None => break,
                    }
                }
                let left = body.take(&rest).len();
                rest = rest.split_off(rest.len() - left);
            }
            if body.is_empty() {
                break;
            }
            let body = self.budget.bytes(body);
            bar.add(body.len() as u64);
            digester = digest(digester, body.clone()).await?;
            if digester.bytes() > wanted.bytes {
                break;
            }
            let written = upload.write(Part { body, budget: share }).await;
            let attempt = || format!("store a part of {}", wanted.key);
            written.map_err(|source| Failure::Store { attempt: attempt(), source })?;
        }
        let found = digester.finish();
        match difference(wanted, found) {
            Some(finding) => Err(self.corrupt(finding)),
            None => Ok(found),
        }
    }

    /// Until so many bytes may leave, unless a signal comes.
    pub(super) async fn wait_for(self, bytes: usize) -> Result<(), Failure> {
        let wait = async {
            self.pace.wait_for(bytes).await;
            Ok(())
        };
        self.context.unless_ended(wait).await
    }

    pub(super) async fn open(self, wanted: &Object) -> Result<Box<dyn Download>, Failure> {
        let version_id = wanted.version_id.as_deref();
        let download = self.from.download(&wanted.key, version_id).await;
        download.map_err(|source| self.unread(wanted, source))
    }

    /// The next bytes of the object in the store that is copied from.
    pub(super) async fn next_of(
        self,
        wanted: &Object,
        download: &mut dyn Download,
    ) -> Result<Option<Bytes>, Failure> {
        self.next(download).await?.map_err(|source| self.unread(wanted, source))
    }

    fn unread(self, wanted: &Object, source: store::Error) -> Failure {
        if matches!(source, store::Error::NotFound { .. }) {
            // The store answers; it is the backup that is incomplete.
            return self.corrupt(format!("{} is gone", wanted.key));
        }
        Failure::Store { attempt: format!("read {}", wanted.key), source }
    }

    pub(super) fn corrupt(self, finding: String) -> Failure {
        Failure::Corrupt { backup: self.backup.clone(), finding }
    }

    pub(super) fn failed_archive(self, archive: &Archive, source: archive::Error) -> Failure {
        let attempt = format!("encrypt {} of {} anew", archive.name, self.backup);
        Failure::Archive { attempt, source }
    }

    /// The next bytes, unless a signal comes.
    async fn next(
        self,
        download: &mut dyn Download,
    ) -> Result<Result<Option<Bytes>, store::Error>, Failure> {
        self.context.unless_ended(async { Ok(download.next().await) }).await
    }
}

/// On a thread that may be busy for long.
pub(super) async fn digest(mut digester: Digester, bytes: Bytes) -> Result<Digester, Failure> {
    let work = tokio::task::spawn_blocking(move || {
        digester.update(&bytes);
        digester
    });
    work.await.map_err(|_| Failure::Worker { attempt: "digest an object" })
}

pub(super) fn difference(wanted: &Object, found: Digests) -> Option<String> {
    let Digests { bytes, sha256, crc64nvme } = found;
    let key = &wanted.key;
    wanted.difference(bytes, Some(crc64nvme)).or_else(|| {
        (sha256 != wanted.sha256).then(|| {
            format!("{key} has SHA-256 {sha256}, not {} as in the manifest", wanted.sha256)
        })
    })
}
