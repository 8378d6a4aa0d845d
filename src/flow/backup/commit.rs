//! From stored archives to a backup: the installation, the store's own confirmation, and last the manifest.

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};

use super::shards::{Job, ShardCapture, skew_seconds};
use crate::{
    domain::{
        catalog,
        identity::BackupId,
        installation::{self, Installation, InstallationShard},
        manifest::{self, Archive, Manifest, Object, Origin},
        shrink_guard::ShrinkGuard,
        topology::Topology,
    },
    edge::store::{self, Store},
    failure::Failure,
    flow::{TOOL, catalog::Located, transfer::upload_bytes},
    settings,
};

/// Later than this a sweep may take the archives for leftovers.
const COMMIT_WITHIN: SignedDuration = SignedDuration::from_hours(24);

/// Objects confirmed at the same time.
const CONFIRMATIONS_AT_ONCE: usize = 8;

pub(super) struct Parts<'a> {
    pub(super) origin: Origin,
    pub(super) topology: &'a Topology,
    pub(super) shards: &'a [ShardCapture],
    pub(super) installation: Archive,
    pub(super) begun: Timestamp,
}

pub(super) async fn store_installation(
    job: &Job<'_>,
    topology: &Topology,
    shards: &[ShardCapture],
) -> Result<Archive, Failure> {
    let Located { opened, source, backup } = job.located;
    let shards: Vec<InstallationShard> =
        shards.iter().map(|shard| shard.installation.clone()).collect();
    let installation =
        Installation { version: installation::VERSION, backup, source, topology, shards: &shards };
    let plain = crate::flow::catalog::json(&installation)?;
    let settings::Source { codec, level, recipients, .. } = &job.task.source;
    let (codec, level, encryption) = (*codec, *level, recipients.encryption());
    let key = catalog::installation_key(source, backup, (codec, encryption), 0);
    let object = upload_bytes(&*opened.store, key, codec, level, recipients, &plain).await?;
    let name = catalog::INSTALLATION.to_owned();
    Ok(Archive { name, codec, encryption, objects: vec![object] })
}

/// The manifest, once the store has confirmed every object that it names.
pub(super) async fn confirmed(job: &Job<'_>, parts: Parts<'_>) -> Result<Manifest, Failure> {
    let Located { opened, source, backup } = job.located;
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
    confirm(&*opened.store, &manifest).await?;
    if ended.duration_since(begun) > COMMIT_WITHIN {
        return Err(Failure::Refused {
            finding: format!("{backup} took more than {} h", COMMIT_WITHIN.as_hours()),
            hint: "capture more shards at once, or use a faster store".to_owned(),
        });
    }
    Ok(manifest)
}

/// What became of the manifest.
pub(super) enum Written {
    Committed,
    /// It is surely not there: the archives may go.
    Refused(Failure),
    /// It may be there, or arrive yet: the archives must stay.
    Unknown(Failure),
}

/// The commit itself.
pub(super) async fn write(located: &Located, manifest: &Manifest) -> Written {
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

async fn confirm(store: &dyn Store, manifest: &Manifest) -> Result<(), Failure> {
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
