//! From which node each shard is captured, and why. Decides; never connects.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    manifest::{NodeRole, Server, TopologyKind},
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preference {
    pub primary: PrimaryUse,
    /// How far a replica may lag behind its primary.
    pub lag_bytes_max: u64,
    /// How long a replica may not have heard of its primary, which pings every 10 s by default.
    pub last_io_seconds_max: u64,
}

impl Default for Preference {
    fn default() -> Self {
        Self { primary: PrimaryUse::default(), lag_bytes_max: 64 << 20, last_io_seconds_max: 30 }
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

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Candidate {
    pub address: NodeAddress,
    pub role: NodeRole,
    pub server: Server,
    /// Changes if the node restarts.
    pub run_id: String,
    /// For people: why it stands where it stands.
    pub reason: String,
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

pub fn plan(topology: &Topology, preference: &Preference) -> Result<Plan, Refusal> {
    let mut shards = Vec::with_capacity(topology.shards.len());
    let mut reasons = Vec::new();
    for (shard, index) in topology.shards.iter().zip(0..) {
        let plan = plan_shard(topology.kind, index, shard, preference);
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

fn plan_shard(kind: TopologyKind, index: u32, shard: &Shard, preference: &Preference) -> ShardPlan {
    let primary = shard.primary();
    let (mut replicas, mut primaries): (Vec<(Rank, Candidate)>, Vec<Candidate>) =
        Default::default();
    let mut passed_over = Vec::new();
    for seen in &shard.nodes {
        let judged = match &seen.outcome {
            Err(reason) => Err(reason.clone()),
            Ok(node) => match node.role {
                NodeRole::Primary => judge_primary(kind, node, preference)
                    .map(|reason| primaries.push(candidate(node, reason))),
                NodeRole::Replica => judge_replica(node, primary, preference)
                    .map(|(rank, reason)| replicas.push((rank, candidate(node, reason)))),
            },
        };
        if let Err(reason) = judged {
            passed_over.push(PassedOver { address: seen.address.clone(), reason });
        }
    }
    replicas.sort_by(|(a, _), (b, _)| a.cmp(b));
    let replicas = replicas.into_iter().map(|(_, candidate)| candidate);
    let candidates = match preference.primary {
        PrimaryUse::Prefer => primaries.into_iter().chain(replicas).collect(),
        PrimaryUse::Never | PrimaryUse::Fallback => replicas.chain(primaries).collect(),
    };
    ShardPlan { shard: index, slots: shard.slots.clone(), candidates, passed_over }
}

fn candidate(node: &NodeObservation, reason: String) -> Candidate {
    Candidate {
        address: node.address.clone(),
        role: node.role,
        server: node.server.clone(),
        run_id: node.run_id.clone(),
        reason,
    }
}

fn judge_primary(
    kind: TopologyKind,
    node: &NodeObservation,
    preference: &Preference,
) -> Result<String, String> {
    // Each sentinel would record us as a replica without a port, and keep it in its file for ever.
    if kind == TopologyKind::Sentinel || node.sentinel_watched == Some(true) {
        return Err(
            "it is a primary watched by sentinels, which replication would confuse".to_owned()
        );
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{observation::Seen, rdb::SlotRange};

    fn node(port: u16, change: impl FnOnce(&mut NodeObservation)) -> Seen {
        let role = if port == 1 { "master" } else { "slave" };
        let text = format!(
            "redis_version:7.0.15\r\nserver_time_usec:1\r\nrun_id:{port}\r\nrole:{role}\r\nmaster_link_status:up\r\n\
             master_replid:aa\r\nmaster_repl_offset:1000\r\nslave_repl_offset:1000\r\n\
             master_last_io_seconds_ago:1\r\n",
        );
        let address = NodeAddress::new("10.0.0.1", port);
        let mut node = NodeObservation::of_info(&address, &text).unwrap();
        change(&mut node);
        Seen { address, outcome: Ok(node) }
    }

    fn healthy(port: u16) -> Seen {
        node(port, |_| {})
    }

    fn topology(kind: TopologyKind, shards: Vec<Vec<Seen>>) -> Topology {
        let shard = |nodes| Shard { slots: vec![SlotRange::ALL], nodes };
        let shards = shards.into_iter().map(shard).collect();
        Topology { kind, shards, identities: Vec::new(), slot_map: None, sentinel: None }
    }

    fn ports(primary: PrimaryUse, nodes: Vec<Seen>) -> Vec<u16> {
        let preference = Preference { primary, ..Preference::default() };
        match plan(&topology(TopologyKind::Standalone, vec![nodes]), &preference) {
            Ok(plan) => plan.shards[0].candidates.iter().map(|c| c.address.port()).collect(),
            Err(_) => Vec::new(),
        }
    }

    #[test]
    fn the_healthiest_replica_comes_first_and_the_primary_as_the_policy_says() {
        let nodes = || {
            vec![
                healthy(1),
                node(2, |node| node.replication.offset = 900),
                node(3, |node| node.replication.last_io_seconds = Some(5)),
                healthy(4),
            ]
        };
        assert_eq!(ports(PrimaryUse::Fallback, nodes()), [4, 3, 2, 1]);
        assert_eq!(ports(PrimaryUse::Never, nodes()), [4, 3, 2]);
        assert_eq!(ports(PrimaryUse::Prefer, nodes()), [1, 4, 3, 2]);
    }

    #[test]
    fn a_sick_replica_is_passed_over_with_every_reason() {
        type Change = fn(&mut NodeObservation);
        let faults: [(Change, &str); 6] = [
            (|node| node.loading = true, "loading"),
            (|node| node.replication.link_up = false, "link to its primary is down"),
            (|node| node.replication.sync_in_progress = true, "full synchronisation"),
            (|node| node.replication.last_io_seconds = Some(31), "31 s ago"),
            (|node| node.replication.id = "bb".to_owned(), "another history"),
            (|node| (node.loading, node.replication.link_up) = (true, false), " and "),
        ];
        for (fault, expected) in faults {
            let nodes = vec![healthy(1), node(2, fault)];
            let plan =
                plan(&topology(TopologyKind::Standalone, vec![nodes]), &Preference::default());
            let shard = plan.unwrap().shards.remove(0);
            assert_eq!(shard.candidates[0].address.port(), 1);
            assert!(shard.passed_over[0].reason.contains(expected), "{:?}", shard.passed_over);
        }
        let lagging = |node: &mut NodeObservation| node.replication.offset = 1 << 40;
        let behind = vec![node(1, lagging), healthy(2)];
        assert_eq!(ports(PrimaryUse::Fallback, behind), [1]);
    }

    #[test]
    fn a_primary_watched_by_sentinels_is_never_captured_by_replication() {
        for primary in [PrimaryUse::Never, PrimaryUse::Fallback, PrimaryUse::Prefer] {
            let preference = Preference { primary, ..Preference::default() };
            let down = node(2, |node| node.replication.link_up = false);
            let nodes = vec![healthy(1), down.clone()];
            let refusal =
                plan(&topology(TopologyKind::Sentinel, vec![nodes]), &preference).unwrap_err();
            let text = refusal.to_string();
            assert!(text.contains("watched by sentinels") && text.contains("is down"), "{text}");
            let told = node(1, |node| node.sentinel_watched = Some(true));
            assert!(ports(primary, vec![told, down]).is_empty());
        }
    }

    #[test]
    fn a_refusal_names_every_shard() {
        let shards = vec![vec![healthy(1)], vec![healthy(2)], vec![]];
        let preference = Preference { primary: PrimaryUse::Never, ..Preference::default() };
        let refusal = plan(&topology(TopologyKind::Cluster, shards), &preference).unwrap_err();
        assert_eq!(refusal.reasons.len(), 2);
        assert!(refusal.reasons[0].starts_with("shard 0 (10.0.0.1:1: "), "{refusal}");
        assert!(refusal.reasons[1].starts_with("shard 2"), "{refusal}");
    }
}
