//! One archive from a store into another, encrypted to others on its way. Never unpacks it, and never takes bytes that are not those of the manifest.

use bytes::Bytes;

use super::{
    OBJECT_BYTES_MAX, Relay,
    relay::{difference, digest},
    upload::{KeyOf, object},
};
use crate::{
    domain::{
        archive::{self, Identities, Recipients, Resealer},
        catalog::Key,
        digest::Digester,
        manifest::{Archive, Object},
    },
    edge::{
        direct,
        store::{Part, Share, Upload},
    },
    failure::Failure,
    report::Bar,
};

/// Who could open an archive so far, and who can from now on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keys<'a> {
    pub(crate) identities: &'a Identities,
    /// At least one.
    pub(crate) recipients: &'a Recipients,
}

/// Brings one archive to the other store under other keys, cut as a capture cuts it.
pub(crate) async fn reseal(
    relay: Relay<'_>,
    archive: &Archive,
    keys: Keys<'_>,
    key_of: KeyOf<'_>,
    bar: &Bar,
) -> Result<Archive, Failure> {
    let Keys { identities, recipients } = keys;
    let resealer = Resealer::new(archive.encryption, identities, recipients)
        .map_err(|source| relay.failed_archive(archive, source))?;
    let mut outgoing = Outgoing::new(relay, key_of, OBJECT_BYTES_MAX);
    let sent = match send(relay, archive, resealer, &mut outgoing, bar).await {
        Ok(()) => outgoing.end().await,
        Err(failure) => Err(failure),
    };
    if let Err(failure) = sent {
        outgoing.abort().await;
        return Err(failure);
    }
    let Outgoing { objects, .. } = outgoing;
    let encryption = recipients.encryption();
    Ok(Archive { name: archive.name.clone(), codec: archive.codec, encryption, objects })
}

async fn send(
    relay: Relay<'_>,
    archive: &Archive,
    resealer: Resealer,
    outgoing: &mut Outgoing<'_>,
    bar: &Bar,
) -> Result<(), Failure> {
    let mut work = Work { resealer, digester: Digester::default(), error: None };
    for object in &archive.objects {
        let mut download = relay.open(object).await?;
        while let Some(bytes) = relay.next_of(object, &mut *download).await? {
            bar.add(bytes.len() as u64);
            let sealed;
            (work, sealed) = work.feed(bytes).await?;
            if work.digester.bytes() > object.bytes {
                break;
            }
            relay.wait_for(sealed.len()).await?;
            outgoing.take(&sealed).await?;
        }
        if let Some(finding) = difference(object, std::mem::take(&mut work.digester).finish()) {
            return Err(relay.corrupt(finding));
        }
        if let Some(error) = work.error.take() {
            return Err(relay.failed_archive(archive, error));
        }
    }
    let mut rest = Vec::new();
    let finished = work.resealer.finish(&mut rest);
    finished.map_err(|source| relay.failed_archive(archive, source))?;
    relay.wait_for(rest.len()).await?;
    outgoing.take(&rest).await
}

/// What a thread does that may be busy for long.
struct Work {
    resealer: Resealer,
    /// Of the object that comes.
    digester: Digester,
    /// Bytes that the store changed may look as if another identity were needed: the digest decides.
    error: Option<archive::Error>,
}

impl Work {
    async fn feed(mut self, stored: Bytes) -> Result<(Self, Vec<u8>), Failure> {
        let work = tokio::task::spawn_blocking(move || {
            let mut sealed = Vec::with_capacity(stored.len());
            self.digester.update(&stored);
            if self.error.is_none() {
                self.error = self.resealer.feed(&stored, &mut sealed).err();
            }
            (self, sealed)
        });
        work.await.map_err(|_| Failure::Worker { attempt: "encrypt an archive anew" })
    }
}

/// The objects of the archive that comes into being.
struct Outgoing<'a> {
    relay: Relay<'a>,
    key_of: KeyOf<'a>,
    object_bytes_max: u64,
    objects: Vec<Object>,
    current: Option<Current>,
}

/// The object that is written.
struct Current {
    key: Key,
    upload: Box<dyn Upload>,
    digester: Digester,
    part: Option<(Option<Share>, direct::Buffer)>,
}

impl<'a> Outgoing<'a> {
    fn new(relay: Relay<'a>, key_of: KeyOf<'a>, object_bytes_max: u64) -> Self {
        Self { relay, key_of, object_bytes_max, objects: Vec::new(), current: None }
    }

    async fn take(&mut self, mut bytes: &[u8]) -> Result<(), Failure> {
        while !bytes.is_empty() {
            let mut current = match self.current.take() {
                Some(current) => current,
                None => self.begin().await?,
            };
            let (share, mut buffer) = match current.part.take() {
                Some(part) => part,
                None => (self.relay.budget.part().await, self.relay.budget.buffer()),
            };
            bytes = buffer.take(bytes);
            let is_full = buffer.room() == 0;
            current.part = Some((share, buffer));
            let current = self.current.insert(current);
            if is_full {
                current.send(self.relay).await?;
                if current.digester.bytes() >= self.object_bytes_max {
                    self.end().await?;
                }
            }
        }
        Ok(())
    }

    async fn begin(&self) -> Result<Current, Failure> {
        let key = (self.key_of)(u32::try_from(self.objects.len()).unwrap_or(u32::MAX))?;
        let upload = self.relay.to.upload(&key).await;
        let upload =
            upload.map_err(|source| Failure::Store { attempt: format!("store {key}"), source })?;
        Ok(Current { key, upload, digester: Digester::default(), part: None })
    }

    /// Ends the object that was begun.
    async fn end(&mut self) -> Result<(), Failure> {
        if let Some(current) = &mut self.current {
            current.send(self.relay).await?;
        }
        let Some(Current { key, upload, digester, part: _ }) = self.current.take() else {
            return Ok(());
        };
        let digests = digester.finish();
        let stored = upload.finish(digests).await;
        let stored =
            stored.map_err(|source| Failure::Store { attempt: format!("store {key}"), source })?;
        self.objects.push(object(key, stored.version_id, digests));
        Ok(())
    }

    async fn abort(&mut self) {
        if let Some(current) = self.current.take() {
            // The failure is what matters; what cannot be removed now is swept later.
            let _ = current.upload.abort().await;
        }
    }
}

impl Current {
    /// Sends the part that was begun.
    async fn send(&mut self, relay: Relay<'_>) -> Result<(), Failure> {
        let Some((budget, buffer)) = self.part.take() else { return Ok(()) };
        let body = relay.budget.bytes(buffer);
        self.digester = digest(std::mem::take(&mut self.digester), body.clone()).await?;
        let written = self.upload.write(Part { body, budget }).await;
        let attempt = || format!("store a part of {}", self.key);
        written.map_err(|source| Failure::Store { attempt: attempt(), source })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;
    use tokio::sync::watch;

    use super::*;
    use crate::{
        domain::identity::BackupId,
        edge::store::{Memory, PART_BYTES, Store as _},
        flow::{
            Context,
            transfer::{Budget, Pace},
        },
        report::Progress,
    };

    #[tokio::test]
    async fn a_long_archive_is_cut_into_objects_that_join_to_the_same_bytes() {
        let store = Memory::new(Timestamp::UNIX_EPOCH);
        let backup: BackupId = "20261120T020000Z-daily-k3x9q2".parse().unwrap();
        let budget = Budget::shared_by(1).remove(0);
        let (_sender, signal) = watch::channel(None);
        let context = Context {
            clock: Arc::new(|| Timestamp::UNIX_EPOCH),
            chance: Arc::new(|| 0),
            environment: Arc::new(|_| None),
            signal,
            progress: Progress::quiet(),
            over_store: Arc::new(|store| store),
            identities: Identities::default(),
        };
        let relay = Relay {
            from: &store,
            to: &store,
            backup: &backup,
            budget: &budget,
            pace: &Pace::default(),
            context: &context,
        };
        let key_of = |index: u32| Ok(format!("archive.{index:03}").parse().unwrap());
        let bytes: Vec<u8> = (0..=250).cycle().take(2 * PART_BYTES + 100).collect();
        for length in [1, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES, bytes.len()] {
            for listed in store.list("").await.unwrap() {
                store.delete(&listed.key).await.unwrap();
            }
            let mut outgoing = Outgoing::new(relay, &key_of, PART_BYTES as u64);
            for piece in bytes[..length].chunks(300_007) {
                outgoing.take(piece).await.unwrap();
            }
            outgoing.end().await.unwrap();
            assert_eq!(outgoing.objects.len(), length.div_ceil(PART_BYTES), "{length}");
            let mut joined = Vec::new();
            for object in &outgoing.objects {
                let stored = store.read(&object.key, usize::MAX).await.unwrap();
                assert_eq!(object.bytes, stored.len() as u64);
                joined.extend_from_slice(&stored);
            }
            assert!(joined == bytes[..length], "{length}");
        }
    }
}
