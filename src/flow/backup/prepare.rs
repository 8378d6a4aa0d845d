//! Observe and decide: everything about a backup before its first byte.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use futures_util::future::try_join_all;

use super::{Task, guard};
use crate::{
    domain::{
        capture::{self, Directories, Directory, Forms, MethodChoice, Plan, Preference},
        source::NodeAddress,
        topology::{self, Topology},
    },
    edge::{
        live_directory::Folder,
        redis_node::{self, SaveError},
        spool,
    },
    failure::{Failure, chain},
    flow::{
        Context,
        find::{self, Found},
        stores,
    },
    report::{Outcome, PlanReport, PlannedShard},
    settings,
};

/// A failover or a resharding is given so many looks to end.
const LOOKS_MAX: u32 = 5;
const BETWEEN_LOOKS: Duration = Duration::from_secs(3);

pub(super) struct Prepared {
    pub(super) found: Found,
    pub(super) topology: Topology,
    pub(super) chosen: Chosen,
    pub(super) spool: spool::Limits,
    pub(super) warnings: Vec<String>,
}

/// The nodes to capture, and the data directories at hand.
pub(in crate::flow) struct Chosen {
    pub(in crate::flow) plan: Plan,
    pub(in crate::flow) folders: Folders,
}

/// By the addresses of their nodes.
pub(in crate::flow) type Folders = BTreeMap<NodeAddress, Folder>;

pub(super) async fn prepare(task: &Task, context: &Context) -> Result<Prepared, Failure> {
    let source = &task.source;
    let spool = guard::spool(&source.spool)?;
    let found = find::find(source, context).await?;
    let topology = look(&found).await?;
    let mut warnings = guard::clocks(&topology, context.now())?;
    warnings.extend(found.notes(&topology));
    warnings.extend(unknown_directories(source, &topology));
    let chosen = choose(task, &topology).await?;
    Ok(Prepared { found, topology, chosen, spool, warnings })
}

/// `--dry-run`.
pub(super) async fn plan(task: &Task, context: &Context) -> Result<Outcome, Failure> {
    let source = &task.source;
    guard::spool(&source.spool)?;
    let found = find::find(source, context).await?;
    let topology = look(&found).await?;
    let Chosen { plan, folders: _ } = choose(task, &topology).await?;
    let opened = try_join_all(task.stores.iter().map(|store| stores::open(store, context))).await?;
    let shards = plan.shards.iter().map(planned).collect();
    let server = server(&plan);
    Ok(Outcome::done(PlanReport {
        kind: "backup-plan",
        version: 1,
        source: source.name.clone(),
        stores: opened.iter().map(|opened| opened.store.address()).collect(),
        flavour: server.flavour,
        server_version: server.version,
        shards,
    }))
}

fn planned(shard: &capture::ShardPlan) -> PlannedShard {
    let capture::ShardPlan { shard, slots, candidates, passed_over } = shard;
    let mut candidates = candidates.iter();
    let first = candidates.next();
    let described = |candidate: &capture::Candidate| match candidate.method {
        Some(method) => format!("{} by {method}", candidate.address),
        None => candidate.address.to_string(),
    };
    PlannedShard {
        shard: *shard,
        slots: slots.clone(),
        node: first.map(|candidate| candidate.address.to_string()).unwrap_or_default(),
        reason: first.map(|candidate| candidate.reason.clone()).unwrap_or_default(),
        method: first.and_then(|candidate| candidate.method),
        next: candidates.map(described).collect(),
        passed_over: passed_over.iter().map(ToString::to_string).collect(),
    }
}

/// The server of the first capture stands for all: a mixed installation is shown by `show`.
pub(super) fn server(plan: &Plan) -> crate::domain::manifest::Server {
    let first = plan.shards.first().and_then(|shard| shard.candidates.first());
    first.map_or_else(
        || crate::domain::manifest::Server {
            flavour: crate::domain::manifest::Flavour::Redis,
            version: String::new(),
        },
        |candidate| candidate.server.clone(),
    )
}

/// Looks until the source is settled, within a limit.
pub(in crate::flow) async fn look(found: &Found) -> Result<Topology, Failure> {
    let mut looks = 1;
    loop {
        match found.look_once().await? {
            Ok(topology) => return Ok(topology),
            Err(source) if source.is_transient() && looks < LOOKS_MAX => {
                tracing::info!("{source}; looking again");
                looks += 1;
                tokio::time::sleep(BETWEEN_LOOKS).await;
            }
            Err(source) => {
                return Err(Failure::Topology { source_name: found.name.clone(), source });
            }
        }
    }
}

/// The nodes to capture and how, by what was seen of them and of the data directories at hand.
pub(super) async fn choose(task: &Task, topology: &Topology) -> Result<Chosen, Failure> {
    choose_forms(&task.source, task.method, task.forms, topology).await
}

pub(in crate::flow) async fn choose_forms(
    source: &settings::Source,
    method: MethodChoice,
    forms: Forms,
    topology: &Topology,
) -> Result<Chosen, Failure> {
    let preference = Preference { primary: source.primary, method, forms, ..Preference::default() };
    let folders = folders(source);
    let directories = directories(&folders, topology).await;
    let plan = capture::plan(topology, &preference, &directories)
        .map_err(|refusal| Failure::Plan { source_name: source.name.clone(), source: refusal })?;
    Ok(Chosen { plan, folders })
}

fn folders(source: &settings::Source) -> Folders {
    let folder =
        |(address, path): (&NodeAddress, &PathBuf)| (address.clone(), Folder::Local(path.clone()));
    source.data_dirs.iter().map(folder).collect()
}

/// Looks at each data directory at hand.
async fn directories(folders: &Folders, topology: &Topology) -> Directories {
    let mut directories = Directories::new();
    for node in topology.shards.iter().flat_map(topology::Shard::observed) {
        let Some(folder) = folders.get(&node.address) else { continue };
        let room = folder.look(node).await;
        let room =
            room.map_err(|error| format!("its data directory cannot be used: {}", chain(&error)));
        directories.insert(node.address.clone(), Directory { room });
    }
    directories
}

/// Directories whose addresses are no node's, in sentences for people.
pub(in crate::flow) fn unknown_directories(
    source: &settings::Source,
    topology: &Topology,
) -> Vec<String> {
    let known: Vec<_> =
        topology.shards.iter().flat_map(|shard| &shard.nodes).map(|node| &node.address).collect();
    source
        .data_dirs
        .keys()
        .filter(|address| !known.contains(address))
        .map(|address| {
            let nodes: Vec<String> = known.iter().map(ToString::to_string).collect();
            format!(
                "the data directory of {address} is not used: the nodes of the source are {}",
                nodes.join(", ")
            )
        })
        .collect()
}

/// Whether another node, or another method, may do better.
pub(super) const fn is_of_the_node(failure: &Failure) -> bool {
    matches!(
        failure,
        Failure::Capture { source, .. } if !matches!(source, redis_node::Error::AuthenticationRefused { .. })
    ) || matches!(failure, Failure::CapturedRdb { .. } | Failure::CapturedFile { .. })
}

/// Whether no other method would do better with the same node: above all, a server that could not
/// save must not be made to save again for the sake of a replica.
pub(in crate::flow) const fn is_of_any_method(failure: &Failure) -> bool {
    !matches!(
        failure,
        Failure::Capture {
            source: redis_node::Error::PermissionDenied { .. }
                | redis_node::Error::Save {
                    source: SaveError::Directory(_)
                        | SaveError::OtherDirectory { .. }
                        | SaveError::Foreign(_)
                        | SaveError::Killed { .. },
                    ..
                },
            ..
        }
    )
}
