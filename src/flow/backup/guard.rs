//! What keeps a backup out of harm's way before it begins: host lock, clocks, origin, spool.

use std::{io, path::PathBuf};

use jiff::Timestamp;

use super::{Task, lanes::Lane};
use crate::{
    domain::{
        clock::{self, Skew},
        digest::Sha256,
        identity::SourceName,
        manifest::Origin,
        observation::NodeObservation,
        topology::{Shard, Topology},
    },
    edge::{host_lock::HostLock, spool},
    failure::Failure,
    flow::{
        Context,
        catalog::{Located, newest_manifest},
        origin::{self, Claim},
    },
    settings::{Location, Spool},
};

/// Two runs of one source on one host would fork its server twice.
pub(in crate::flow) fn lock(
    source: &SourceName,
    location: &Location,
    context: &Context,
) -> Result<HostLock, Failure> {
    let folders: Vec<PathBuf> = ["/run/lock".into()]
        .into_iter()
        .chain(context.environment()("TMPDIR").map(PathBuf::from))
        .chain(["/tmp".into()])
        .collect();
    let digest = Sha256::of(location.to_string().as_bytes()).to_string();
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

/// Warnings, or a refusal, about the clocks of the nodes.
pub(super) fn clocks(topology: &Topology, observed_at: Timestamp) -> Result<Vec<String>, Failure> {
    let nodes = topology.shards.iter().flat_map(Shard::observed);
    let compare =
        |node: &NodeObservation| clock::compare(&node.address.to_string(), node.clock, observed_at);
    let warnings: Vec<Option<String>> =
        nodes.map(compare).map(warning).collect::<Result<_, _>>()?;
    Ok(warnings.into_iter().flatten().collect())
}

fn warning(skew: Skew) -> Result<Option<String>, Failure> {
    match skew {
        Skew::Fine => Ok(None),
        Skew::Warn(text) => Ok(Some(text)),
        Skew::Refuse(finding) => Err(Failure::Refused {
            finding,
            hint: "set the clocks (NTP): backups are sorted and expired by time".into(),
        }),
    }
}

/// A store whose clock is right, and whose prefix is ours. Returns a warning about its clock.
pub(super) async fn admit(
    task: &Task,
    lane: &Lane,
    ours: &Origin,
    context: &Context,
) -> Result<Option<String>, Failure> {
    let Located { opened, source, backup: _ } = &lane.located;
    let look = async {
        let clock = opened.store.clock().await.map_err(|source| Failure::Store {
            attempt: format!("ask {} for the time", opened.name),
            source,
        })?;
        let name = format!("store {}", opened.name);
        let told = warning(clock::compare(&name, clock, context.now()))?;
        Ok((told, newest_manifest(opened, source).await))
    };
    let (told, previous) = context.unless_ended(look).await?;
    let claim = Claim { name: source, ours, adopt: task.adopt, previous: previous.as_ref() };
    origin::claim(opened, claim, context).await?;
    lane.remember_previous(previous);
    Ok(told)
}
