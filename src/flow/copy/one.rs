//! One backup into another store: archives, confirmation, records, and last the manifest. Never deletes what a manifest may name.

use std::collections::BTreeSet;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

use super::{
    Job,
    catalog::{self, Located},
    names, record,
    reseal::{check_there, reseal_archives},
};
use crate::{
    domain::{
        manifest::Manifest,
        record::{Event, Record},
    },
    edge::store,
    failure::Failure,
    flow::{
        backup::commit::{self, COMMIT_WITHIN, Written},
        origin::{self, Claim},
        sweep,
        transfer::{Keys, Relay, Relayed, Versions, relay},
        verify,
    },
    report::{CopiedBackup, CopyState},
};

/// What an interrupted copy left may be taken by a sweep when it is older than two days. A copy that
/// goes on with it commits before.
const GO_ON_WITHIN: SignedDuration = SignedDuration::from_hours(47);

/// The table of contents of a copy.
pub(super) async fn copy(
    from: &Located,
    begun: Timestamp,
    job: &Job<'_>,
) -> Result<CopiedBackup, Failure> {
    let context = job.context;
    let to = Located { opened: job.to.clone(), ..from.clone() };
    let manifest = context.unless_ended(catalog::read_manifest(from)).await?;
    if let Some(there) = context.unless_ended(there(&to, &manifest, job)).await? {
        if !job.dry_run {
            // What was noted since the last copy.
            let notes = Notes::between(&manifest, &there);
            context.unless_ended(copy_records(from, &to, notes)).await?;
        }
        return Ok(copied(from, &there, CopyState::There, begun, job));
    }
    let identities = match job.reseal {
        Some(reseal) => {
            let identities = reseal.identities(from, &manifest, job);
            Some((reseal, context.unless_ended(identities).await?))
        }
        None => None,
    };
    if job.dry_run {
        return Ok(copied(from, &manifest, CopyState::Missing, begun, job));
    }
    let (copy, prefix) = if let Some((reseal, identities)) = &identities {
        let keys = Keys { identities, recipients: reseal.recipients };
        let archives = reseal_archives(from, &to, &manifest, keys, begun, job);
        let (copy, prefix) = context.unless_ended_long_ago(archives).await?;
        (copy, Some(prefix))
    } else {
        let archives = copy_archives(from, &to, &manifest, begun, job);
        (context.unless_ended_long_ago(archives).await?, None)
    };
    let notes = Notes::between(&manifest, &copy);
    conclude(from, &to, &copy, notes, prefix.as_deref(), job).await?;
    Ok(copied(from, &copy, CopyState::Copied, begun, job))
}

/// Records, and last the manifest. What no other try can use is removed where it surely did not come there.
async fn conclude(
    from: &Located,
    to: &Located,
    manifest: &Manifest,
    notes: Notes,
    resealed_prefix: Option<&str>,
    job: &Job<'_>,
) -> Result<(), Failure> {
    let records = async {
        job.context.unless_ended(copy_records(from, to, notes)).await?;
        job.context.check_not_ended()
    };
    let written = match records.await {
        Ok(()) => {
            let write = async { Ok(commit::write(to, manifest).await) };
            job.context.unless_ended_long_ago(write).await.unwrap_or_else(Written::Unknown)
        }
        Err(failure) => Written::Refused(failure),
    };
    match written {
        Written::Committed => Ok(()),
        Written::Refused(failure) => {
            if let Some(prefix) = resealed_prefix {
                sweep::discard_resealed(&to.opened, prefix).await;
            }
            Err(failure)
        }
        Written::Unknown(failure) => Err(failure),
    }
}

fn copied(
    from: &Located,
    manifest: &Manifest,
    state: CopyState,
    begun: Timestamp,
    job: &Job<'_>,
) -> CopiedBackup {
    let Located { opened, source, backup } = from.clone();
    let objects = manifest.archives().map(|archive| archive.objects.len()).sum();
    let stored_bytes = manifest.stored_bytes();
    let resealed = job.reseal.is_some();
    let seconds = job.context.now().duration_since(begun).as_secs_f64();
    CopiedBackup {
        source,
        backup,
        from: opened.name,
        state,
        objects,
        stored_bytes,
        resealed,
        seconds,
    }
}

/// This very backup as the other store holds it, if it does.
async fn there(
    to: &Located,
    manifest: &Manifest,
    job: &Job<'_>,
) -> Result<Option<Manifest>, Failure> {
    match catalog::read_manifest(to).await {
        Ok(found) if found.is_same_as(manifest) => {
            if job.reseal.is_some() {
                check_there(&found, manifest, to)?;
            }
            Ok(Some(found))
        }
        Ok(_) => Err(Failure::Refused {
            finding: format!("{} holds another backup with the id {}", to.opened.name, to.backup),
            hint: "verify both; nothing was changed".to_owned(),
        }),
        Err(Failure::Store { source: store::Error::NotFound { .. }, .. }) => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// The other store's prefix must be that of the same installation.
pub(super) async fn claim(to: &Located, manifest: &Manifest, job: &Job<'_>) -> Result<(), Failure> {
    let previous = catalog::newest_manifest(&to.opened, &to.source).await;
    let claim = Claim {
        name: &to.source,
        ours: &manifest.origin,
        adopt: job.adopt,
        previous: previous.as_ref(),
    };
    origin::claim(&to.opened, claim, job.context).await
}

/// What is stored must not be taken for leftovers by a sweep. `oldest` is of what an earlier try left.
pub(super) async fn check_in_time(
    to: &Located,
    begun: Timestamp,
    oldest: Option<Timestamp>,
    job: &Job<'_>,
) -> Result<(), Failure> {
    let clock = to.opened.store.clock().await.map_err(|source| Failure::Store {
        attempt: format!("ask {} for the time", to.opened.name),
        source,
    })?;
    let is_late = job.context.now().duration_since(begun) > COMMIT_WITHIN
        || oldest.is_some_and(|since| clock.duration_since(since) > GO_ON_WITHIN);
    if is_late {
        return Err(Failure::Refused {
            finding: format!("the copy of {} took too long: its archives may be swept", to.backup),
            hint: "copy again; what an interrupted copy left is swept after two days".to_owned(),
        });
    }
    Ok(())
}

/// Brings every object over and has the other store confirm it. Returns the manifest of the copy. What an
/// earlier try left is gone on with, and what this one leaves is for the next, or for a sweep.
async fn copy_archives(
    from: &Located,
    to: &Located,
    manifest: &Manifest,
    begun: Timestamp,
    job: &Job<'_>,
) -> Result<Manifest, Failure> {
    let context = job.context;
    claim(to, manifest, job).await?;
    let (from_store, to_store) = (&*from.opened.store, &*to.opened.store);
    let step = Relay {
        from: from_store,
        to: to_store,
        backup: &from.backup,
        budget: &job.budget,
        pace: &to.opened.pace,
        context,
    };
    let (mut versions, mut oldest) = (Versions::new(), None);
    for archive in manifest.archives() {
        let bar = context.progress.bar(archive.name.clone(), Some(archive.stored_bytes()));
        for wanted in &archive.objects {
            let Relayed { object, there_since } = relay(step, wanted, &bar).await?;
            versions.insert(object.key, object.version_id);
            oldest = [oldest, there_since].into_iter().flatten().min();
        }
        bar.finish();
    }
    let manifest = manifest.clone().with_versions(&versions);
    commit::confirm(to_store, &manifest).await?;
    check_in_time(to, begun, oldest, job).await?;
    Ok(manifest)
}

/// How records come to stand in the other store.
#[derive(Clone, Copy)]
enum Notes {
    AsTheyAre,
    /// Beside what is encrypted there and is not where it comes from: nothing may tell of the content.
    WithoutContent,
}

impl Notes {
    fn between(from: &Manifest, to: &Manifest) -> Self {
        let is_sealed = to.is_encrypted() && !from.is_encrypted();
        if is_sealed { Self::WithoutContent } else { Self::AsTheyAre }
    }

    /// None where the record speaks of one store only.
    fn body(self, stored: Bytes) -> Result<Option<Bytes>, Failure> {
        let Ok(mut record) = serde_json::from_slice::<Record>(&stored) else {
            // Of a newer program, which alone knows what it tells.
            return Ok(matches!(self, Self::AsTheyAre).then_some(stored));
        };
        if record.event.is_of_one_store() {
            return Ok(None);
        }
        match (self, &mut record.event) {
            (Self::WithoutContent, Event::Verified(proof)) => {
                proof.findings = verify::noted(&proof.findings, proof.level, true);
                catalog::json(&record).map(|body| Some(body.into()))
            }
            (
                Self::WithoutContent,
                Event::Pinned | Event::Unpinned | Event::Suspect(_) | Event::Accepted,
            )
            | (Self::AsTheyAre, _) => Ok(Some(stored)),
        }
    }
}

/// Adds the records that the other store lacks: what was said of a backup holds for each copy of its bytes.
async fn copy_records(from: &Located, to: &Located, notes: Notes) -> Result<(), Failure> {
    let prefix = names::records_prefix(&from.source, &from.backup);
    let failed = |source| Failure::Store { attempt: format!("copy {prefix}"), source };
    let there = to.opened.store.list(&prefix).await.map_err(failed)?;
    let there: BTreeSet<_> = there.into_iter().map(|listed| listed.key).collect();
    for listed in from.opened.store.list(&prefix).await.map_err(failed)? {
        if there.contains(&listed.key) {
            continue;
        }
        let bytes: Bytes =
            from.opened.store.read(&listed.key, record::BYTES_MAX).await.map_err(failed)?;
        let Some(body) = notes.body(bytes)? else { continue };
        match to.opened.store.create(&listed.key, body).await {
            Ok(_) | Err(store::Error::AlreadyExists { .. }) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(())
}
