//! Which shards a source has and which nodes hold them, from what its nodes say. Never asks them.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    cluster::{Claim, ClusterNode, SlotMap, print_ranges},
    manifest::{NodeRole, TopologyKind},
    observation::{NodeObservation, Seen, SentinelObservation, SourceObservation},
    rdb::SlotRange,
    source::NodeAddress,
};

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Topology {
    pub kind: TopologyKind,
    /// In order of their first slots.
    pub shards: Vec<Shard>,
    /// By which the installation is known again: any in common means the same.
    pub identities: Vec<String>,
    /// Of a Cluster, claim `i` being that of shard `i`.
    pub slot_map: Option<SlotMap>,
    pub sentinel: Option<SentinelObservation>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shard {
    /// Empty where the topology has no slots.
    pub slots: Vec<SlotRange>,
    /// The primary first, as far as it was seen.
    pub nodes: Vec<Seen>,
}

impl Shard {
    pub fn observed(&self) -> impl Iterator<Item = &NodeObservation> {
        self.nodes.iter().filter_map(|node| node.outcome.as_ref().ok())
    }

    pub fn primary(&self) -> Option<&NodeObservation> {
        self.observed().find(|node| node.role == NodeRole::Primary)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("no node of the source can be reached: {}", reasons.join("; "))]
    NothingSeen { reasons: Vec<String> },
    #[error("{first} and {second} are both primaries: one source is one installation")]
    SeveralPrimaries { first: NodeAddress, second: NodeAddress },
    #[error("{first} and {second} do not belong to the same kind of installation")]
    Mixed { first: NodeAddress, second: NodeAddress },
    #[error(
        "the sentinels name {address} the primary of {name:?}, which is a replica: a failover is under way"
    )]
    FailoverUnderWay { name: String, address: NodeAddress },
    #[error("slot {slot} is claimed by node {first} and by node {second}")]
    ClaimedTwice { slot: u16, first: String, second: String },
    #[error("no primary that can be reached claims the slots {slots}{}", unreached(.primaries))]
    Uncovered {
        slots: String,
        /// Primaries that others name and that could not be asked, with the reason.
        primaries: Vec<String>,
    },
    #[error("slot {slot} is on its way from or to {address}: wait until the resharding is done")]
    Migrating { slot: u16, address: NodeAddress },
    #[error("{address} is in Cluster mode and does not tell its own place in it")]
    NoSelf { address: NodeAddress },
}

fn unreached(primaries: &[String]) -> String {
    if primaries.is_empty() { String::new() } else { format!(" ({})", primaries.join("; ")) }
}

impl Error {
    /// Whether another look a little later may be answered otherwise.
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::NothingSeen { .. }
            | Self::FailoverUnderWay { .. }
            | Self::ClaimedTwice { .. }
            | Self::Uncovered { .. }
            | Self::Migrating { .. } => true,
            Self::SeveralPrimaries { .. } | Self::Mixed { .. } | Self::NoSelf { .. } => false,
        }
    }
}

pub fn resolve(observation: &SourceObservation) -> Result<Topology, Error> {
    let SourceObservation { source, sentinel, nodes } = observation;
    let observed: Vec<&NodeObservation> =
        nodes.iter().filter_map(|node| node.outcome.as_ref().ok()).collect();
    let Some(first) = observed.first() else {
        return Err(Error::NothingSeen { reasons: nodes.iter().filter_map(reason).collect() });
    };
    let odd = |node: &&&NodeObservation| node.cluster_enabled != first.cluster_enabled;
    if let Some(second) = observed.iter().find(odd) {
        return Err(Error::Mixed { first: first.address.clone(), second: second.address.clone() });
    }
    if let Some(sentinel) = sentinel {
        watched(sentinel, nodes)
    } else if first.cluster_enabled {
        cluster(nodes)
    } else {
        let configured = source.addresses();
        standalone(configured, nodes)
    }
}

fn reason(node: &Seen) -> Option<String> {
    node.outcome.as_ref().err().cloned()
}

/// The primary first, then in the order of addresses.
fn sorted(mut nodes: Vec<Seen>) -> Vec<Seen> {
    let is_primary =
        |node: &Seen| node.outcome.as_ref().is_ok_and(|node| node.role == NodeRole::Primary);
    nodes.sort_by(|a, b| is_primary(b).cmp(&is_primary(a)).then_with(|| a.address.cmp(&b.address)));
    nodes
}

fn one_shard(kind: TopologyKind, identities: Vec<String>, nodes: Vec<Seen>) -> Topology {
    let shard = Shard { slots: Vec::new(), nodes: sorted(nodes) };
    Topology { kind, shards: vec![shard], identities, slot_map: None, sentinel: None }
}

fn standalone(configured: &[NodeAddress], nodes: &[Seen]) -> Result<Topology, Error> {
    let mut primaries = nodes
        .iter()
        .filter_map(|node| node.outcome.as_ref().ok())
        .filter(|node| node.role == NodeRole::Primary);
    if let (Some(first), Some(second)) = (primaries.next(), primaries.next()) {
        return Err(Error::SeveralPrimaries {
            first: first.address.clone(),
            second: second.address.clone(),
        });
    }
    let mut identities: Vec<String> = configured.iter().map(ToString::to_string).collect();
    identities.extend(nodes.iter().map(|node| node.address.to_string()));
    identities.sort();
    identities.dedup();
    Ok(one_shard(TopologyKind::Standalone, identities, nodes.to_vec()))
}

fn watched(sentinel: &SentinelObservation, nodes: &[Seen]) -> Result<Topology, Error> {
    let name = &sentinel.primary_name;
    let mut members = Vec::new();
    for node in nodes {
        let named = node.address == sentinel.primary;
        let role = node.outcome.as_ref().ok().map(|node| node.role);
        match role {
            Some(NodeRole::Replica) if named => {
                return Err(Error::FailoverUnderWay {
                    name: name.clone(),
                    address: node.address.clone(),
                });
            }
            Some(NodeRole::Primary) if !named => members.push(Seen {
                address: node.address.clone(),
                outcome: Err(format!(
                    "it takes itself for a primary, the sentinels name {}",
                    sentinel.primary
                )),
            }),
            Some(NodeRole::Primary | NodeRole::Replica) | None => members.push(node.clone()),
        }
    }
    let mut topology = one_shard(TopologyKind::Sentinel, vec![format!("sentinel:{name}")], members);
    topology.sentinel = Some(sentinel.clone());
    Ok(topology)
}

fn cluster(nodes: &[Seen]) -> Result<Topology, Error> {
    let mut members: BTreeMap<&str, (&ClusterNode, &NodeObservation)> = BTreeMap::new();
    for observed in nodes.iter().filter_map(|node| node.outcome.as_ref().ok()) {
        let view = observed.cluster.iter().flatten();
        let Some(myself) = view.clone().find(|node| node.myself) else {
            return Err(Error::NoSelf { address: observed.address.clone() });
        };
        if let Some(slot) = myself.moving.first() {
            let address = observed.address.clone();
            return Err(Error::Migrating { slot: *slot, address });
        }
        members.insert(&myself.id, (myself, observed));
    }
    let slot_map = slot_map(&members, nodes)?;
    let shards = slot_map.0.iter().map(|claim| shard(claim, &members, nodes)).collect();
    let identities = members.keys().map(|id| (*id).to_owned()).collect();
    let kind = TopologyKind::Cluster;
    Ok(Topology { kind, shards, identities, slot_map: Some(slot_map), sentinel: None })
}

fn slot_map(
    members: &BTreeMap<&str, (&ClusterNode, &NodeObservation)>,
    nodes: &[Seen],
) -> Result<SlotMap, Error> {
    let mut claims: Vec<Claim> = members
        .values()
        .map(|(myself, _)| *myself)
        .filter(|myself| myself.role == NodeRole::Primary && !myself.slots.is_empty())
        .map(|ClusterNode { id, config_epoch, slots, .. }| Claim {
            id: id.clone(),
            config_epoch: *config_epoch,
            slots: slots.clone(),
        })
        .collect();
    claims.sort_by(|a, b| a.slots.cmp(&b.slots));
    let map = SlotMap(claims);
    if let Some((slot, first, second)) = map.claimed_twice() {
        let (first, second) = (first.id.clone(), second.id.clone());
        return Err(Error::ClaimedTwice { slot, first, second });
    }
    let uncovered = map.uncovered();
    if uncovered.is_empty() {
        return Ok(map);
    }
    let primaries = nodes.iter().filter_map(reason).collect();
    Err(Error::Uncovered { slots: print_ranges(&uncovered).to_string(), primaries })
}

fn shard(
    claim: &Claim,
    members: &BTreeMap<&str, (&ClusterNode, &NodeObservation)>,
    nodes: &[Seen],
) -> Shard {
    let belongs = |node: &ClusterNode| {
        node.id == claim.id || node.primary_id.as_deref() == Some(claim.id.as_str())
    };
    let observed = members
        .values()
        .filter(|(myself, _)| belongs(myself))
        .map(|(_, node)| Seen { address: node.address.clone(), outcome: Ok((*node).clone()) });
    // Who did not answer belongs where its primary says.
    let view = members.get(claim.id.as_str()).and_then(|(_, node)| node.cluster.as_ref());
    let unseen = nodes.iter().filter(|node| {
        let is_node = |told: &&ClusterNode| {
            [&told.address, &told.named].into_iter().flatten().any(|told| *told == node.address)
        };
        let told = view.and_then(|view| view.iter().find(is_node));
        node.outcome.is_err() && told.is_some_and(belongs)
    });
    let members = observed.chain(unseen.cloned()).collect();
    Shard { slots: claim.slots.clone(), nodes: sorted(members) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{cluster, source::SourceAddress};

    fn address(port: u16) -> NodeAddress {
        NodeAddress::new("10.0.0.1", port)
    }

    fn node(port: u16, info: &str) -> NodeObservation {
        let text = format!("redis_version:7.0.15\r\nserver_time_usec:1\r\nrun_id:{port}\r\n{info}");
        NodeObservation::of_info(&address(port), &text).unwrap()
    }

    fn seen(node: NodeObservation) -> Seen {
        Seen { address: node.address.clone(), outcome: Ok(node) }
    }

    fn unseen(port: u16) -> Seen {
        Seen { address: address(port), outcome: Err(format!("{port} is not reachable")) }
    }

    fn source(nodes: Vec<Seen>) -> SourceObservation {
        let source = SourceAddress::Nodes(vec![nodes[0].address.clone()]);
        SourceObservation { source, sentinel: None, nodes }
    }

    fn id(port: u16) -> String {
        format!("{port:040}")
    }

    /// Each node's view is the whole table with itself marked.
    fn in_cluster(lines: &[(u16, &str, &str)]) -> Vec<Seen> {
        let view = |me: u16| {
            let line = |(port, flags, rest): &(u16, &str, &str)| {
                let myself = if *port == me { "myself," } else { "" };
                format!("{} 10.0.0.1:{port}@1{port} {myself}{flags} {rest}\n", id(*port))
            };
            cluster::parse_nodes(&lines.iter().map(line).collect::<String>()).unwrap()
        };
        let member = |(port, flags, _): &(u16, &str, &str)| {
            let role = if *flags == "master" { "master" } else { "slave" };
            let mut node = node(*port, &format!("role:{role}\r\ncluster_enabled:1\r\n"));
            node.cluster = Some(view(*port));
            seen(node)
        };
        lines.iter().map(member).collect()
    }

    fn two_shards() -> Vec<Seen> {
        let replica_of = |port| format!("{} 0 0 1 connected", id(port));
        let (first, second) = (replica_of(1), replica_of(2));
        in_cluster(&[
            (2, "master", "- 0 0 2 connected 8192-16383"),
            (3, "slave", &first),
            (1, "master", "- 0 0 1 connected 0-8191"),
            (4, "slave", &second),
        ])
    }

    #[test]
    fn a_cluster_is_its_shards_in_order_of_slots() {
        let topology = resolve(&source(two_shards())).unwrap();
        assert_eq!(topology.kind, TopologyKind::Cluster);
        let shards: Vec<_> = topology
            .shards
            .iter()
            .map(|shard| (shard.slots[0], shard.nodes.iter().map(|node| node.address.port())))
            .map(|(slots, ports)| (slots, ports.collect::<Vec<_>>()))
            .collect();
        assert_eq!(
            shards,
            [
                (SlotRange { first: 0, last: 8191 }, vec![1, 3]),
                (SlotRange { first: 8192, last: 16383 }, vec![2, 4]),
            ],
        );
        assert_eq!(topology.identities, [id(1), id(2), id(3), id(4)]);
        assert_eq!(topology.slot_map.unwrap().0[1].id, id(2));
    }

    #[test]
    fn a_silent_replica_stays_in_its_shard_and_a_silent_primary_leaves_a_hole() {
        let mut nodes = two_shards();
        nodes[1] = unseen(3);
        let topology = resolve(&source(nodes.clone())).unwrap();
        assert_eq!(topology.shards[0].nodes[1], unseen(3));
        nodes[2] = unseen(1);
        let error = resolve(&source(nodes)).unwrap_err();
        assert!(error.is_transient());
        let text = error.to_string();
        assert!(text.contains("0-8191") && text.contains("1 is not reachable"), "{text}");
    }

    #[test]
    fn slots_claimed_twice_by_nobody_or_on_their_way_are_named() {
        let nodes = in_cluster(&[
            (1, "master", "- 0 0 1 connected 0-8192"),
            (2, "master", "- 0 0 2 connected 8192-16383"),
        ]);
        let error = resolve(&source(nodes)).unwrap_err();
        assert_eq!(error, Error::ClaimedTwice { slot: 8192, first: id(1), second: id(2) });

        let nodes = in_cluster(&[(1, "master", "- 0 0 1 connected 0-8192 9000-16383")]);
        let error = resolve(&source(nodes)).unwrap_err();
        assert!(error.to_string().contains("claims the slots 8193-8999"), "{error}");

        let nodes = in_cluster(&[(1, "master", "- 0 0 1 connected 0-16383 [7->-abc]")]);
        let error = resolve(&source(nodes)).unwrap_err();
        assert_eq!(error, Error::Migrating { slot: 7, address: address(1) });
    }

    #[test]
    fn a_primary_and_its_replicas_are_one_shard() {
        let nodes =
            vec![seen(node(2, "role:slave\r\n")), unseen(3), seen(node(1, "role:master\r\n"))];
        let topology = resolve(&source(nodes)).unwrap();
        assert_eq!(topology.kind, TopologyKind::Standalone);
        let ports = topology.shards[0].nodes.iter().map(|node| node.address.port());
        assert_eq!(ports.collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(topology.identities, ["10.0.0.1:1", "10.0.0.1:2", "10.0.0.1:3"]);
    }

    #[test]
    fn what_is_not_one_installation_is_refused() {
        let primary = |port| seen(node(port, "role:master\r\n"));
        let error = resolve(&source(vec![primary(1), primary(2)])).unwrap_err();
        assert_eq!(error, Error::SeveralPrimaries { first: address(1), second: address(2) });
        assert!(!error.is_transient());

        let mut nodes = two_shards();
        nodes.push(primary(9));
        assert!(matches!(resolve(&source(nodes)), Err(Error::Mixed { .. })));

        let error = resolve(&source(vec![unseen(1)])).unwrap_err();
        assert!(error.to_string().contains("1 is not reachable"), "{error}");
    }

    #[test]
    fn the_sentinels_decide_who_is_the_primary() {
        let sentinel = SentinelObservation {
            primary_name: "sessions".to_owned(),
            primary: address(1),
            config_epoch: 3,
            options: BTreeMap::new(),
            sentinels: vec![address(26379)],
        };
        let look = |first: &str, second: &str| {
            let nodes = vec![seen(node(1, first)), seen(node(2, second))];
            resolve(&SourceObservation { sentinel: Some(sentinel.clone()), ..source(nodes) })
        };
        let topology = look("role:master\r\n", "role:slave\r\n").unwrap();
        assert_eq!(topology.identities, ["sentinel:sessions"]);
        let error = look("role:slave\r\n", "role:master\r\n").unwrap_err();
        assert!(matches!(error, Error::FailoverUnderWay { .. }) && error.is_transient());
        let topology = look("role:master\r\n", "role:master\r\n").unwrap();
        let outcome = topology.shards[0].nodes[1].outcome.as_ref();
        assert!(outcome.unwrap_err().contains("takes itself for a primary"));
    }
}
