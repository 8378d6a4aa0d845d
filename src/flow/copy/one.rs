//! One backup into another store: archives, confirmation, records, and last the manifest. Never deletes what a manifest may name.

use std::collections::BTreeSet;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

use super::{
    Job,
    catalog::{self, Located},
    names, record,
};
use crate::{
    domain::{manifest::Manifest, record::Record},
    edge::store,
    failure::Failure,
    flow::{
        backup::commit::{self, COMMIT_WITHIN, Written},
        origin::{self, Claim},
        transfer::{Relay, Relayed, Versions, relay},
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
    let is_there = context.unless_ended(is_there(&to, &manifest)).await?;
    if job.dry_run {
        let state = if is_there { CopyState::There } else { CopyState::Missing };
        return Ok(copied(from, &manifest, state, 0.0));
    }
    let state = if is_there {
        // What was noted since the last copy.
        context.unless_ended(copy_records(from, &to)).await?;
        CopyState::There
    } else {
        let archives = copy_archives(from, &to, &manifest, begun, job);
        let manifest = context.unless_ended_long_ago(archives).await?;
        context.unless_ended(copy_records(from, &to)).await?;
        context.check_not_ended()?;
        commit(&to, &manifest, job).await?;
        CopyState::Copied
    };
    let seconds = context.now().duration_since(begun).as_secs_f64();
    Ok(copied(from, &manifest, state, seconds))
}

fn copied(from: &Located, manifest: &Manifest, state: CopyState, seconds: f64) -> CopiedBackup {
    let Located { opened, source, backup } = from.clone();
    let objects = manifest.archives().map(|archive| archive.objects.len()).sum();
    let stored_bytes = manifest.stored_bytes();
    CopiedBackup { source, backup, from: opened.name, state, objects, stored_bytes, seconds }
}

/// Whether the other store holds this very backup.
async fn is_there(to: &Located, manifest: &Manifest) -> Result<bool, Failure> {
    match catalog::read_manifest(to).await {
        Ok(found) if found.is_same_as(manifest) => Ok(true),
        Ok(_) => Err(Failure::Refused {
            finding: format!("{} holds another backup with the id {}", to.opened.name, to.backup),
            hint: "verify both; nothing was changed".to_owned(),
        }),
        Err(Failure::Store { source: store::Error::NotFound { .. }, .. }) => Ok(false),
        Err(failure) => Err(failure),
    }
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
    let previous = catalog::newest_manifest(&to.opened, &to.source).await;
    let claim = Claim {
        name: &to.source,
        ours: &manifest.origin,
        adopt: job.adopt,
        previous: previous.as_ref(),
    };
    origin::claim(&to.opened, claim, context).await?;

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
    let clock = to_store.clock().await.map_err(|source| Failure::Store {
        attempt: format!("ask {} for the time", to.opened.name),
        source,
    })?;
    let is_late = context.now().duration_since(begun) > COMMIT_WITHIN
        || oldest.is_some_and(|since| clock.duration_since(since) > GO_ON_WITHIN);
    if is_late {
        return Err(Failure::Refused {
            finding: format!("the copy of {} took too long: its archives may be swept", to.backup),
            hint: "copy again; what an interrupted copy left is swept after two days".to_owned(),
        });
    }
    Ok(manifest)
}

async fn commit(to: &Located, manifest: &Manifest, job: &Job<'_>) -> Result<(), Failure> {
    let write = async { Ok(commit::write(to, manifest).await) };
    match job.context.unless_ended_long_ago(write).await.unwrap_or_else(Written::Unknown) {
        Written::Committed => Ok(()),
        Written::Refused(failure) | Written::Unknown(failure) => Err(failure),
    }
}

/// Adds the records that the other store lacks: what was said of a backup holds for each copy of its bytes.
async fn copy_records(from: &Located, to: &Located) -> Result<(), Failure> {
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
        let read = serde_json::from_slice::<Record>(&bytes);
        if read.is_ok_and(|record| record.event.is_of_one_store()) {
            continue;
        }
        match to.opened.store.create(&listed.key, bytes).await {
            Ok(_) | Err(store::Error::AlreadyExists { .. }) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(())
}
