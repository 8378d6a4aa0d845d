//! What keeps a backup out of harm's way before it begins: host lock, clocks, origin, spool.

use std::{io, path::PathBuf};

use jiff::Timestamp;

use super::Task;
use crate::{
    domain::{
        catalog,
        clock::{self, Skew},
        digest::Sha256,
        identity::{COMPACT_TIME_BYTES, SourceName, parse_compact_time},
        manifest::{self, Manifest, Origin},
        record,
        source::{SourceAddress, SourceUrl},
        topology::Topology,
    },
    edge::{host_lock::HostLock, spool, store},
    failure::Failure,
    flow::{
        Context,
        catalog::{json, newest_manifest, origin},
        stores::Opened,
    },
    settings::Spool,
};

/// Two runs of one source on one host would fork its server twice.
pub(in crate::flow) fn lock(
    source: &SourceName,
    url: &SourceUrl,
    context: &Context,
) -> Result<HostLock, Failure> {
    let folders: Vec<PathBuf> = ["/run/lock".into()]
        .into_iter()
        .chain(context.environment()("TMPDIR").map(PathBuf::from))
        .chain(["/tmp".into()])
        .collect();
    let digest = Sha256::of(url.to_string().as_bytes()).to_string();
    let name = format!("{source}-{}", &digest[..16]);
    let lock = HostLock::take(&folders, &name)
        .map_err(|_| Failure::Locked { source_name: source.clone() })?;
    if !lock.is_effective() {
        tracing::warn!("no folder for a lock file: another run on this host would not be noticed");
    }
    Ok(lock)
}

/// The folder and size of the spool, refused before anything is captured if they do not do.
pub(in crate::flow) fn spool(configured: &Spool) -> Result<spool::Limits, Failure> {
    match configured {
        Spool::Configured(limits) => {
            spool::preflight(limits).map_err(Failure::Spool)?;
            Ok(limits.clone())
        }
        Spool::Default { folders, bytes_max } => {
            let fits = |folder: &PathBuf| {
                let available = spool::available_bytes(folder).ok()?;
                let limits = spool::Limits {
                    folder: folder.clone(),
                    bytes_max: (*bytes_max).min(available / 2).max(1),
                };
                spool::preflight(&limits).ok().map(|()| limits)
            };
            folders.iter().find_map(fits).ok_or_else(|| {
                Failure::Spool(spool::Error::Look {
                    path: folders.first().cloned().unwrap_or_default(),
                    source: io::Error::other("no usual folder lies on a disk with room"),
                })
            })
        }
    }
}

/// Warnings, or a refusal, about the clocks of Redis and the store.
pub(super) async fn clocks(
    topology: &Topology,
    opened: &Opened,
    observed_at: Timestamp,
    context: &Context,
) -> Result<Vec<String>, Failure> {
    let store = opened.store.clock().await.map_err(|source| Failure::Store {
        attempt: format!("ask {} for the time", opened.name),
        source,
    })?;
    let mut skews = vec![clock::compare(&format!("store {}", opened.name), store, context.now())];
    skews.extend(
        topology
            .shards
            .iter()
            .flat_map(crate::domain::topology::Shard::observed)
            .map(|node| clock::compare(&node.address.to_string(), node.clock, observed_at)),
    );
    let mut warnings = Vec::new();
    for skew in skews {
        match skew {
            Skew::Fine => {}
            Skew::Warn(text) => warnings.push(text),
            Skew::Refuse(finding) => {
                return Err(Failure::Refused {
                    finding,
                    hint: "set the clocks (NTP): backups are sorted and expired by time".into(),
                });
            }
        }
    }
    Ok(warnings)
}

/// The prefix must be new, ours, or taken over on purpose.
pub(super) async fn claim_origin(
    task: &Task,
    opened: &Opened,
    topology: &Topology,
    previous: Option<&Manifest>,
    context: &Context,
) -> Result<Origin, Failure> {
    let name = &task.source.name;
    let ours = Origin {
        identities: topology.identities.clone(),
        addresses: task.source.url.address.identities(),
    };
    let first = match origin(opened, name).await? {
        Some(first) => first,
        None => match create_origin(task, opened, &ours).await? {
            Created::Now => return Ok(ours),
            // Another run was quicker; what it wrote counts.
            Created::ByAnother => origin(opened, name).await?.unwrap_or_else(|| ours.clone()),
        },
    };
    // Who took the prefix over last owns it, and who was there before no more.
    let (owner, since) = last_adoption(opened, name).await?.unwrap_or((first, Timestamp::MIN));
    // The nodes of a Cluster may all be replaced over the years, a few between two backups.
    let moved_on = previous
        .filter(|manifest| manifest.begun >= since)
        .is_some_and(|manifest| ours.overlaps(&manifest.origin));
    if ours.overlaps(&owner) || moved_on {
        return Ok(ours);
    }
    if task.adopt {
        adopt(opened, name, &ours, context).await?;
        return Ok(ours);
    }
    Err(Failure::OtherOrigin {
        store: opened.name.clone(),
        prefix: name.clone(),
        owner: owner.identities.join(", "),
        ours: ours.identities.join(", "),
    })
}

/// The same for who cannot ask the source: its config must name an address by which the owner of the
/// prefix is known, or was when its newest backup was taken.
pub(in crate::flow) async fn check_origin_unasked(
    opened: &Opened,
    name: &SourceName,
    address: &SourceAddress,
) -> Result<(), Failure> {
    let Some(first) = origin(opened, name).await? else { return Ok(()) };
    let (owner, since) = last_adoption(opened, name).await?.unwrap_or((first, Timestamp::MIN));
    let ours = address.identities();
    let previous = newest_manifest(opened, name).await;
    let moved_on = previous
        .filter(|manifest| manifest.begun >= since)
        .is_some_and(|manifest| manifest.origin.is_reached_at(&ours));
    if owner.is_reached_at(&ours) || moved_on {
        return Ok(());
    }
    Err(Failure::OtherOrigin {
        store: opened.name.clone(),
        prefix: name.clone(),
        owner: owner.identities.join(", "),
        ours: ours.join(", "),
    })
}

enum Created {
    Now,
    ByAnother,
}

async fn create_origin(task: &Task, opened: &Opened, ours: &Origin) -> Result<Created, Failure> {
    let key = catalog::origin_key(&task.source.name);
    match opened.store.create(&key, json(ours)?.into()).await {
        Ok(_) => Ok(Created::Now),
        Err(store::Error::AlreadyExists { .. }) => Ok(Created::ByAnother),
        Err(source) => Err(Failure::Store { attempt: format!("claim {key}"), source }),
    }
}

/// An origin is never overwritten: who takes a prefix over adds an origin beside the first.
async fn adopt(
    opened: &Opened,
    name: &crate::domain::identity::SourceName,
    ours: &Origin,
    context: &Context,
) -> Result<(), Failure> {
    let key = catalog::adopted_origin_key(name, context.now(), context.chance());
    opened.store.create(&key, json(ours)?.into()).await.map_err(|source| Failure::Store {
        attempt: format!("adopt the prefix by {key}"),
        source,
    })?;
    Ok(())
}

/// The origin that was added last, and when.
async fn last_adoption(
    opened: &Opened,
    name: &SourceName,
) -> Result<Option<(Origin, Timestamp)>, Failure> {
    let prefix = catalog::adopted_origins_prefix(name);
    let failed = |source| Failure::Store { attempt: format!("read {prefix}"), source };
    let listed = opened.store.list(&prefix).await.map_err(failed)?;
    // Keys begin with their time, and listings are sorted.
    let Some(last) = listed.last() else { return Ok(None) };
    let bytes = opened.store.read(&last.key, record::BYTES_MAX).await.map_err(failed)?;
    let origin = serde_json::from_slice(&bytes).map_err(|error| Failure::Manifest {
        attempt: format!("read {}", last.key),
        source: manifest::Error::Decode(error),
    })?;
    let at = last.key.name().get(..COMPACT_TIME_BYTES).and_then(parse_compact_time);
    Ok(Some((origin, at.unwrap_or(Timestamp::MIN))))
}
