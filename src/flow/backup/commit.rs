//! From stored archives to a backup: the installation, the store's own confirmation, and last the manifest.

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};

use super::{
    lanes::{Lane, Lanes},
    shards::{Job, skew_seconds},
};
use crate::{
    domain::{
        catalog,
        identity::BackupId,
        installation::{self, Installation, InstallationShard},
        manifest::{self, Archive, Manifest, Object, Origin},
        shrink_guard::ShrinkGuard,
        topology::Topology,
        worker::ShardCapture,
    },
    edge::store::{self, Store},
    failure::Failure,
    flow::{Context, TOOL, catalog::Located, transfer::pack},
    settings,
};

/// Later than this a sweep may take the archives for leftovers.
pub(in crate::flow) const COMMIT_WITHIN: SignedDuration = SignedDuration::from_hours(24);

/// Objects confirmed at the same time.
const CONFIRMATIONS_AT_ONCE: usize = 8;

pub(super) struct Parts<'a> {
    pub(super) origin: Origin,
    pub(super) topology: &'a Topology,
    pub(super) shards: &'a [ShardCapture],
    pub(super) installation: Archive,
    pub(super) begun: Timestamp,
}

/// In every store, and the same in each.
pub(super) async fn store_installation(
    job: &Job<'_>,
    topology: &Topology,
    shards: &[ShardCapture],
) -> Result<Archive, Failure> {
    let (source, backup) = (&job.task.source.name, job.backup);
    let shards: Vec<InstallationShard> =
        shards.iter().map(|shard| shard.installation.clone()).collect();
    let installation =
        Installation { version: installation::VERSION, backup, source, topology, shards: &shards };
    let plain = crate::flow::catalog::json(&installation)?;
    let settings::Source { codec, level, recipients, .. } = &job.task.source;
    let (codec, level, encryption) = (*codec, *level, recipients.encryption());
    let key = catalog::installation_key(source, backup, (codec, encryption), 0);
    let packed = pack(&key, codec, level, recipients, &plain)?;
    job.lanes.store(&key, &packed).await?;
    let objects = vec![packed.object(key, None)];
    Ok(Archive { name: catalog::INSTALLATION.to_owned(), codec, encryption, objects })
}

/// The manifest, without the ids of versions, once each store has confirmed every object that it names.
pub(super) async fn confirmed(job: &Job<'_>, parts: Parts<'_>) -> Result<Manifest, Failure> {
    let (source, backup) = (&job.task.source.name, job.backup);
    let Parts { origin, topology, shards, installation, begun } = parts;
    let ended = job.context.now();
    let server = shards.first().map(|shard| shard.server.clone());
    let manifest = Manifest {
        version: manifest::VERSION,
        backup: backup.clone(),
        source: source.clone(),
        origin,
        schedule: job.task.schedule.clone(),
        scheduled_for: job.task.scheduled_for,
        tool: TOOL.to_owned(),
        begun,
        ended,
        server: server.ok_or_else(|| Failure::Unsettled {
            source_name: source.clone(),
            finding: "it has no shard".to_owned(),
        })?,
        topology: topology.kind,
        skew_seconds: skew_seconds(shards),
        shards: shards.iter().map(|shard| shard.manifest.clone()).collect(),
        installation,
        shrink_guard: ShrinkGuard::NotChecked,
    };
    let attempt = format!("commit {backup}");
    manifest.check().map_err(|source| Failure::Manifest { attempt, source })?;
    let confirm_lane = |lane: &Lane| {
        let (store, manifest) = (lane.located.opened.store.clone(), lane.manifest(&manifest));
        async move { confirm(&*store, &manifest).await }
    };
    job.lanes.each(confirm_lane).await?;
    if ended.duration_since(begun) > COMMIT_WITHIN {
        return Err(Failure::Refused {
            finding: format!("{backup} took more than {} h", COMMIT_WITHIN.as_hours()),
            hint: "capture more shards at once, or use a faster store".to_owned(),
        });
    }
    Ok(manifest)
}

/// Commits in every store at once. Fails when no store has the backup for sure.
pub(super) async fn commit(
    lanes: &Lanes,
    manifest: &Manifest,
    context: &Context,
) -> Result<(), Failure> {
    lanes.each(|lane| commit_one(lane, lane.manifest(manifest), context)).await
}

async fn commit_one(lane: &Lane, manifest: Manifest, context: &Context) -> Result<(), Failure> {
    let write = async { Ok(write(&lane.located, &manifest).await) };
    match context.unless_ended_long_ago(write).await.unwrap_or_else(Written::Unknown) {
        Written::Committed => {
            lane.set_committed();
            Ok(())
        }
        Written::Refused(failure) => {
            lane.discard().await;
            Err(failure)
        }
        Written::Unknown(failure) => {
            // With a manifest that arrived all the same, this is a backup.
            let (backup, store) = (&manifest.backup, lane.name());
            tracing::warn!(
                "whether {backup} was committed in {store} is not known; its archives stay"
            );
            Err(failure)
        }
    }
}

/// What became of the manifest.
pub(in crate::flow) enum Written {
    Committed,
    /// It is surely not there: the archives may go.
    Refused(Failure),
    /// It may be there, or arrive yet: the archives must stay.
    Unknown(Failure),
}

/// The commit itself.
pub(in crate::flow) async fn write(located: &Located, manifest: &Manifest) -> Written {
    let Located { opened, source, backup } = located;
    let attempt = || format!("commit {backup}");
    let body = match manifest.encode() {
        Ok(body) => Bytes::from(body),
        Err(source) => return Written::Refused(Failure::Manifest { attempt: attempt(), source }),
    };
    let key = catalog::manifest_key(source, backup);
    let Err(error) = opened.store.create(&key, body.clone()).await else {
        return Written::Committed;
    };
    // A lost reply looks like a failure.
    let found = opened.store.read(&key, manifest::BYTES_MAX).await;
    let is_final = !matches!(error, store::Error::Unavailable { .. });
    let failure = Failure::Store { attempt: attempt(), source: error };
    match found {
        Ok(found) if found == body => Written::Committed,
        Err(store::Error::NotFound { .. }) if is_final => Written::Refused(failure),
        Ok(_) | Err(_) => Written::Unknown(failure),
    }
}

pub(in crate::flow) async fn confirm(
    store: &dyn Store,
    manifest: &Manifest,
) -> Result<(), Failure> {
    let objects = manifest.archives().flat_map(|archive| &archive.objects);
    stream::iter(objects)
        .map(|object| confirm_object(store, &manifest.backup, object))
        .buffer_unordered(CONFIRMATIONS_AT_ONCE)
        .try_collect()
        .await
}

async fn confirm_object(
    store: &dyn Store,
    backup: &BackupId,
    object: &Object,
) -> Result<(), Failure> {
    let attributes = store
        .attributes(&object.key, object.version_id.as_deref())
        .await
        .map_err(|source| Failure::Store { attempt: format!("confirm {}", object.key), source })?;
    match object.difference(attributes.bytes, attributes.crc64nvme) {
        Some(finding) => Err(Failure::Corrupt { backup: backup.clone(), finding }),
        None => Ok(()),
    }
}
