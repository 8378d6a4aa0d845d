//! From which node each shard is captured, and why. Decides; never connects.

mod method;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::method::{Ways, ways};
use super::{
    bgsave::Room,
    manifest::{Method, NodeRole, Server, TopologyKind},
    observation::NodeObservation,
    rdb::SlotRange,
    source::NodeAddress,
    topology::{Shard, Topology},
};

/// Whether a primary may be burdened with the fork of a capture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PrimaryUse {
    Never,
    /// Where no replica will do.
    #[default]
    Fallback,
    Prefer,
}

/// How a node's RDB is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MethodChoice {
    /// BGSAVE where the node's data directory is at hand and has room, else replication.
    #[default]
    Auto,
    /// BGSAVE or nothing.
    Bgsave,
    Replication,
}

/// Which forms of a shard's dataset are captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Forms {
    pub rdb: bool,
    pub aof: bool,
}

impl Forms {
    pub const RDB: Self = Self { rdb: true, aof: false };
}

/// How the files of a data directory are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileAccess {
    Mounted,
    /// By commands in its container: every byte crosses the Kubernetes API server.
    Exec,
    /// By a worker that mounts its volume, and sees only there what room it has.
    Worker,
}

/// A data directory that is at hand, as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    pub access: FileAccess,
    /// What was seen of it, or why it cannot be read.
    pub room: Result<Room, String>,
}

/// The data directories at hand, by the addresses of their nodes.
pub type Directories = BTreeMap<NodeAddress, Directory>;

/// Unless the config says otherwise.
pub const EXEC_BYTES_MAX: u64 = 8 << 30;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preference {
    pub primary: PrimaryUse,
    pub method: MethodChoice,
    pub forms: Forms,
    /// How far a replica may lag behind its primary.
    pub lag_bytes_max: u64,
    /// What may be read out of a container at most, for all of it burdens the API server.
    pub exec_bytes_max: u64,
    /// How long a replica may not have heard of its primary, which pings every 10 s by default.
    pub last_io_seconds_max: u64,
}

impl Preference {
    /// Whether a data directory is of any use.
    pub fn needs_files(&self) -> bool {
        self.forms.aof || self.method != MethodChoice::Replication
    }
}

impl Default for Preference {
    fn default() -> Self {
        Self {
            primary: PrimaryUse::default(),
            method: MethodChoice::default(),
            forms: Forms::RDB,
            lag_bytes_max: 64 << 20,
            exec_bytes_max: EXEC_BYTES_MAX,
            last_io_seconds_max: 30,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    pub shards: Vec<ShardPlan>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ShardPlan {
    pub shard: u32,
    pub slots: Vec<SlotRange>,
    /// To be tried in this order; never empty.
    pub candidates: Vec<Candidate>,
    pub passed_over: Vec<PassedOver>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Candidate {
    pub address: NodeAddress,
    pub role: NodeRole,
    /// None where no RDB is wanted.
    pub method: Option<Method>,
    /// Whether the node's files are at hand.
    pub has_files: bool,
    pub names: FileNames,
    pub server: Server,
    /// Changes if the node restarts.
    pub run_id: String,
    /// For people: why it stands where it stands.
    pub reason: String,
}

/// How the node calls its files, as far as it tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FileNames {
    pub dbfilename: Option<String>,
    pub appendfilename: Option<String>,
    pub appenddirname: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PassedOver {
    pub address: NodeAddress,
    pub reason: String,
}

impl fmt::Display for PassedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.address, self.reason)
    }
}

/// Every shard that cannot be captured, with every reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no node to capture from: {}", reasons.join("; "))]
pub struct Refusal {
    pub reasons: Vec<String>,
}

/// `directories` are those that are at hand, with what was seen of them.
pub fn plan(
    topology: &Topology,
    preference: &Preference,
    directories: &Directories,
) -> Result<Plan, Refusal> {
    let mut shards = Vec::with_capacity(topology.shards.len());
    let mut reasons = Vec::new();
    for (shard, index) in topology.shards.iter().zip(0..) {
        let plan = plan_shard(topology.kind, index, shard, preference, directories);
        if plan.candidates.is_empty() {
            let nodes = plan.passed_over.iter().map(ToString::to_string);
            let nodes = nodes.collect::<Vec<_>>().join(", ");
            reasons.push(match topology.kind {
                TopologyKind::Cluster => format!("shard {index} ({nodes})"),
                TopologyKind::Standalone | TopologyKind::Sentinel => nodes,
            });
        }
        shards.push(plan);
    }
    if reasons.is_empty() { Ok(Plan { shards }) } else { Err(Refusal { reasons }) }
}

/// Best first: small is good.
type Rank = (u64, u64, NodeAddress);

fn plan_shard(
    kind: TopologyKind,
    index: u32,
    shard: &Shard,
    preference: &Preference,
    directories: &Directories,
) -> ShardPlan {
    let primary = shard.primary();
    let (mut replicas, mut primaries): (Vec<(Rank, Vec<Candidate>)>, Vec<Candidate>) =
        Default::default();
    let mut passed_over = Vec::new();
    for seen in &shard.nodes {
        let passed = |reason| PassedOver { address: seen.address.clone(), reason };
        let node = match &seen.outcome {
            Ok(node) => node,
            Err(reason) => {
                passed_over.push(passed(reason.clone()));
                continue;
            }
        };
        let judged = match node.role {
            NodeRole::Primary => judge_primary(node, preference).map(|reason| (None, reason)),
            NodeRole::Replica => {
                judge_replica(node, primary, preference).map(|(rank, reason)| (Some(rank), reason))
            }
        };
        let (rank, reason) = match judged {
            Ok(judged) => judged,
            Err(reason) => {
                passed_over.push(passed(reason));
                continue;
            }
        };
        let Ways { candidates, refused } =
            ways(kind, node, preference, directories.get(&node.address), &reason);
        passed_over.extend(refused.into_iter().map(passed));
        match rank {
            Some(rank) if !candidates.is_empty() => replicas.push((rank, candidates)),
            Some(_) => {}
            None => primaries.extend(candidates),
        }
    }
    replicas.sort_by(|(a, _), (b, _)| a.cmp(b));
    let replicas = replicas.into_iter().flat_map(|(_, candidates)| candidates);
    let candidates = match preference.primary {
        PrimaryUse::Prefer => primaries.into_iter().chain(replicas).collect(),
        PrimaryUse::Never | PrimaryUse::Fallback => replicas.chain(primaries).collect(),
    };
    ShardPlan { shard: index, slots: shard.slots.clone(), candidates, passed_over }
}

fn judge_primary(node: &NodeObservation, preference: &Preference) -> Result<String, String> {
    if node.loading {
        return Err("it is loading its dataset".to_owned());
    }
    match preference.primary {
        PrimaryUse::Never => Err("it is the primary, which the policy never captures".to_owned()),
        PrimaryUse::Fallback => Ok("the primary, where no replica will do".to_owned()),
        PrimaryUse::Prefer => Ok("the primary, as the policy prefers".to_owned()),
    }
}

fn judge_replica(
    node: &NodeObservation,
    primary: Option<&NodeObservation>,
    preference: &Preference,
) -> Result<(Rank, String), String> {
    let replication = &node.replication;
    let mut faults = Vec::new();
    if node.loading {
        faults.push("it is loading its dataset".to_owned());
    }
    if replication.sync_in_progress {
        faults.push("it is in the middle of a full synchronisation".to_owned());
    } else if !replication.link_up {
        faults.push("its link to its primary is down".to_owned());
    }
    let silent = replication.last_io_seconds.unwrap_or(0);
    if silent > preference.last_io_seconds_max {
        faults.push(format!("it last heard of its primary {silent} s ago"));
    }
    let mut lag = None;
    if let Some(primary) = primary {
        if replication.id == primary.replication.id {
            let bytes = primary.replication.offset.saturating_sub(replication.offset);
            if bytes > preference.lag_bytes_max {
                faults.push(format!("it lags {bytes} bytes behind {}", primary.address));
            }
            lag = Some(bytes);
        } else if replication.link_up {
            faults.push(format!("it holds another history than {}", primary.address));
        }
    }
    if !faults.is_empty() {
        return Err(faults.join(" and "));
    }
    let lag_text = lag.map_or("unknown lag".to_owned(), |bytes| format!("{bytes} bytes behind"));
    let reason = format!("a replica, {lag_text}, heard of its primary {silent} s ago");
    Ok(((lag.unwrap_or(u64::MAX), silent, node.address.clone()), reason))
}
