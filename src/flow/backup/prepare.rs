//! Observe and decide: everything about a backup before its first byte.

use std::{collections::BTreeMap, time::Duration};

use futures_util::{StreamExt as _, future::try_join_all, stream};

use super::{Task, guard};
use crate::{
    domain::{
        bgsave::Room,
        capture::{
            self, Directories, Directory, EXEC_BYTES_MAX, FileAccess, Forms, MethodChoice, Plan,
            Preference,
        },
        source::NodeAddress,
        topology::{self, Topology},
        worker::{Fault, MendedBy},
    },
    edge::{
        kubernetes,
        live_directory::{self, Container, Folder},
        redis_node::{self, SaveError},
        spool,
    },
    failure::{Failure, chain, of_kubernetes},
    flow::{
        Context,
        find::{self, Found, Pods},
        stores,
    },
    report::{Outcome, PlanReport, PlannedShard},
    settings,
};

/// A failover or a resharding is given so many looks to end.
const LOOKS_MAX: u32 = 5;
const BETWEEN_LOOKS: Duration = Duration::from_secs(3);

/// Data directories that are looked at by exec at the same time.
const LOOKS_AT_ONCE: usize = 4;

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
    let chosen = choose(task, &found, &topology).await?;
    Ok(Prepared { found, topology, chosen, spool, warnings })
}

/// `--dry-run`.
pub(super) async fn plan(task: &Task, context: &Context) -> Result<Outcome, Failure> {
    let source = &task.source;
    guard::spool(&source.spool)?;
    let found = find::find(source, context).await?;
    let topology = look(&found).await?;
    let Chosen { plan, folders: _ } = choose(task, &found, &topology).await?;
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
pub(super) async fn choose(
    task: &Task,
    found: &Found,
    topology: &Topology,
) -> Result<Chosen, Failure> {
    choose_forms(&task.source, task.method, task.forms, (found, topology)).await
}

pub(in crate::flow) async fn choose_forms(
    source: &settings::Source,
    method: MethodChoice,
    forms: Forms,
    (found, topology): (&Found, &Topology),
) -> Result<Chosen, Failure> {
    let preference = preference(source, method, forms, found);
    let at_hand = Box::pin(at_hand(source, &preference, (found, topology))).await;
    settle(source, &preference, topology, at_hand)
}

pub(in crate::flow) fn preference(
    source: &settings::Source,
    method: MethodChoice,
    forms: Forms,
    found: &Found,
) -> Preference {
    let exec_bytes_max = found.pods.as_ref().map(|pods| pods.cluster.exec_bytes_max);
    Preference {
        primary: source.primary,
        method,
        forms,
        exec_bytes_max: exec_bytes_max.unwrap_or(EXEC_BYTES_MAX),
        ..Preference::default()
    }
}

/// The plan by what was seen, or every reason against one.
pub(in crate::flow) fn settle(
    source: &settings::Source,
    preference: &Preference,
    topology: &Topology,
    at_hand: AtHand,
) -> Result<Chosen, Failure> {
    let AtHand { folders, directories, forbidden } = at_hand;
    let source_name = source.name.clone();
    match (capture::plan(topology, preference, &directories), forbidden) {
        (Ok(plan), _) => Ok(Chosen { plan, folders }),
        (Err(_), Some((node, source))) => Err(Failure::LiveDirectory { node, source }),
        (Err(source), None) => Err(Failure::Plan { source_name, source }),
    }
}

/// The data directories that can be used, and what was seen of each.
#[derive(Default)]
pub(in crate::flow) struct AtHand {
    folders: Folders,
    pub(in crate::flow) directories: Directories,
    /// The first that we may not look at.
    forbidden: Option<(NodeAddress, live_directory::Error)>,
}

/// Looks at each data directory: a mounted one, or by exec that of a pod. Workers look for themselves.
pub(in crate::flow) async fn at_hand(
    source: &settings::Source,
    preference: &Preference,
    (found, topology): (&Found, &Topology),
) -> AtHand {
    if let Some(pods) = found.pods.as_ref().filter(|pods| pods.has_workers()) {
        return of_workers(pods, topology);
    }
    let looks = topology.shards.iter().flat_map(topology::Shard::observed).map(|node| async move {
        let pods = found.pods.as_ref().filter(|_| preference.needs_files());
        let (access, looked) = match (source.data_dirs.get(&node.address), pods) {
            (Some(path), _) => {
                let folder = Folder::Local(path.clone());
                let room = folder.look(node).await;
                (FileAccess::Mounted, room.map(|room| (folder, room)))
            }
            (None, Some(pods)) => {
                let Some((shell, mounted)) = pods.shell(&node.address) else {
                    return (node, None);
                };
                let found = Container::find(shell, mounted.as_deref(), node).await;
                let found = found.map(|(container, room)| (Folder::Container(container), room));
                (FileAccess::Exec, found)
            }
            (None, None) => return (node, None),
        };
        (node, Some((access, looked)))
    });
    let looked: Vec<_> = stream::iter(looks).buffered(LOOKS_AT_ONCE).collect().await;
    let mut at_hand = AtHand::default();
    for (node, looked) in looked {
        let Some((access, looked)) = looked else { continue };
        let room = match looked {
            Ok((folder, room)) => {
                at_hand.folders.insert(node.address.clone(), folder);
                Ok(room)
            }
            Err(error) => {
                let told = format!("its data directory cannot be used: {}", chain(&error));
                if at_hand.forbidden.is_none() && is_forbidden(&error) {
                    at_hand.forbidden = Some((node.address.clone(), error));
                }
                Err(told)
            }
        };
        at_hand.directories.insert(node.address.clone(), Directory { access, room });
    }
    at_hand
}

fn is_forbidden(error: &live_directory::Error) -> bool {
    matches!(of_kubernetes(error), Some(kubernetes::Error::Forbidden { .. }))
}

/// The claims that a worker can mount.
fn of_workers(pods: &Pods, topology: &Topology) -> AtHand {
    let of_node = |address: &NodeAddress| {
        let claim = pods.reach.member(address)?.data.and_then(|data| data.claim);
        let missing = "it keeps its data in no PersistentVolumeClaim, and a worker runs no commands in its pod";
        let room = claim.map(|_| Room::UNSEEN).ok_or_else(|| missing.to_owned());
        Some((address.clone(), Directory { access: FileAccess::Worker, room }))
    };
    let nodes = topology.shards.iter().flat_map(topology::Shard::observed);
    let directories = nodes.filter_map(|node| of_node(&node.address)).collect();
    AtHand { folders: Folders::new(), directories, forbidden: None }
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
    if let Failure::OfWorker(Fault { mended_by, .. }) | Failure::WorkerLost { mended_by, .. } =
        failure
    {
        return !matches!(mended_by, MendedBy::Nothing);
    }
    matches!(
        failure,
        Failure::Capture { source, .. } if !matches!(source, redis_node::Error::AuthenticationRefused { .. })
    ) || matches!(failure, Failure::CapturedRdb { .. } | Failure::CapturedFile { .. })
}

/// Whether no other method would do better with the same node: above all, a server that could not
/// save must not be made to save again for the sake of a replica.
pub(in crate::flow) const fn is_of_any_method(failure: &Failure) -> bool {
    if let Failure::OfWorker(Fault { mended_by, .. }) | Failure::WorkerLost { mended_by, .. } =
        failure
    {
        return !matches!(mended_by, MendedBy::OtherMethod);
    }
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
        } | Failure::CapturedFile { .. }
    )
}
