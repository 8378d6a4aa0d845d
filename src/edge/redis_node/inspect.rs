//! What a source is made of, asked of its nodes and sentinels. Reads only, and judges nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
};

use futures_util::{StreamExt as _, stream};

use super::{Access, Connection, Error, sentinel};
use crate::domain::{
    cluster::{self, ClusterNode},
    manifest::NodeRole,
    observation::{NodeObservation, NodeSettings, Seen, SourceObservation},
    source::{ADDRESSES_MAX, NodeAddress, SourceAddress},
};

const ATTEMPT: &str = "observe";

/// Nodes asked at the same time.
const NODES_AT_ONCE: usize = 16;

/// A chain of replicas of replicas is followed so far.
const ROUNDS_MAX: usize = 4;

/// Sentinels have users of their own.
#[derive(Clone, Debug, Default)]
pub struct SourceAccess {
    pub nodes: Access,
    pub sentinels: Access,
}

/// Look at every node of a source that can be found from its addresses. A node that does not answer
/// is a part of the answer; an error means that none did, or that the sentinels could not be asked.
pub async fn observe(
    source: &SourceAddress,
    access: &SourceAccess,
) -> Result<SourceObservation, Error> {
    let (sentinel, seeds) = match source {
        SourceAddress::Nodes(nodes) => (None, nodes.clone()),
        SourceAddress::Sentinel { sentinels, primary_name } => {
            let (found, nodes) =
                sentinel::observe(sentinels, primary_name, &access.sentinels).await?;
            (Some(found), nodes)
        }
    };
    let by_name = access.nodes.tls.as_ref().is_some_and(|tls| !tls.names_server());
    let mut asked: BTreeSet<NodeAddress> = BTreeSet::new();
    let mut nodes: Vec<Seen> = Vec::new();
    let mut next = seeds;
    for round in 0..ROUNDS_MAX {
        next.retain(|address| asked.insert(address.clone()));
        next.truncate(ADDRESSES_MAX.saturating_sub(nodes.len()));
        if next.is_empty() {
            break;
        }
        let Look { seen, others, failed } =
            look(std::mem::take(&mut next), &access.nodes, by_name).await;
        nodes.extend(seen);
        let answered = nodes.iter().any(|node| node.outcome.is_ok());
        if let (0, false, Some(error)) = (round, answered, failed) {
            return Err(error);
        }
        next = others.into_iter().collect();
    }
    Ok(SourceObservation { source: source.clone(), sentinel, nodes: distinct(nodes) })
}

/// Nodes that were looked at.
#[derive(Default)]
struct Look {
    seen: Vec<Seen>,
    /// Nodes that they tell of.
    others: BTreeSet<NodeAddress>,
    /// The first error, as it was.
    failed: Option<Error>,
}

/// Each node of a Cluster tells of all nodes: what it says of other shards is dropped as soon as it is read, or a large
/// Cluster would be held once for each of its nodes.
async fn look(addresses: Vec<NodeAddress>, access: &Access, by_name: bool) -> Look {
    let looks = addresses.into_iter().map(|address| async move {
        let outcome = observe_node(&address, access).await;
        (address, outcome)
    });
    let mut looks = pin!(stream::iter(looks).buffered(NODES_AT_ONCE));
    let mut look = Look::default();
    while let Some((address, outcome)) = looks.next().await {
        let outcome = match outcome {
            Ok(mut node) => {
                look.others.extend(others(&node, by_name));
                node.cluster = node.cluster.map(cluster::own_shard);
                Ok(node)
            }
            Err(error) => {
                let text = one_line(&error);
                look.failed.get_or_insert(error);
                Err(text)
            }
        };
        look.seen.push(Seen { address, outcome });
    }
    look
}

/// An error and its cause, for a person who asks why a node was passed over.
fn one_line(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// The addresses of other nodes that a node tells: by name where a certificate has to agree.
fn others(node: &NodeObservation, by_name: bool) -> Vec<NodeAddress> {
    match &node.cluster {
        Some(nodes) => nodes
            .iter()
            .filter(|node| !node.gone && !node.myself)
            .filter_map(|node| {
                let named = node.named.as_ref().filter(|_| by_name);
                named.or(node.address.as_ref()).cloned()
            })
            .collect(),
        None => {
            node.replication.primary.iter().chain(&node.replication.replicas).cloned().collect()
        }
    }
}

/// A node seen at two addresses counts once, at the first.
fn distinct(nodes: Vec<Seen>) -> Vec<Seen> {
    let mut known = BTreeSet::new();
    let is_new = |node: &Seen| match &node.outcome {
        Ok(node) => known.insert(node.run_id.clone()),
        Err(_) => true,
    };
    let mut nodes = nodes;
    nodes.retain(is_new);
    nodes
}

/// Look at one node.
pub async fn observe_node(
    address: &NodeAddress,
    access: &Access,
) -> Result<NodeObservation, Error> {
    let mut node = Connection::open(address, access).await?;
    let info: String = node.ask(ATTEMPT, &["INFO"], 1).await?;
    let mut observation = NodeObservation::of_info(address, &info).map_err(|error| {
        Error::Protocol { attempt: ATTEMPT, address: address.clone(), finding: error.to_string() }
    })?;
    if observation.cluster_enabled {
        observation.cluster = Some(cluster_nodes(&mut node).await?);
    } else if observation.role == NodeRole::Primary {
        observation.sentinel_watched = sentinel_watched(&mut node).await;
    }
    read_settings(&mut node, &mut observation.settings).await;
    Ok(observation)
}

async fn cluster_nodes(node: &mut Connection) -> Result<Vec<ClusterNode>, Error> {
    let text: String = node.ask(ATTEMPT, &["CLUSTER", "NODES"], 2).await?;
    cluster::parse_nodes(&text).map_err(|error| Error::Protocol {
        attempt: ATTEMPT,
        address: node.address().clone(),
        finding: error.to_string(),
    })
}

/// Sentinels subscribe under a name of their own (`sentinelSendHello`, `sentinelReconnectInstance`).
/// None where a minimal user may not look.
async fn sentinel_watched(node: &mut Connection) -> Option<bool> {
    let words = ["CLIENT", "LIST", "TYPE", "pubsub"];
    let clients: String = node.ask(ATTEMPT, &words, 2).await.ok()?;
    Some(clients.contains("name=sentinel-"))
}

/// One parameter at a time: 6.2 takes no more, and `*` would tell passwords.
async fn read_settings(node: &mut Connection, settings: &mut NodeSettings) {
    let mut found = BTreeMap::new();
    for name in [
        "dir",
        "dbfilename",
        "appendonly",
        "appendfilename",
        "appenddirname",
        "databases",
        "maxmemory",
        "repl-diskless-sync",
    ] {
        match node.ask::<BTreeMap<String, String>>(ATTEMPT, &["CONFIG", "GET", name], 2).await {
            Ok(answer) => found.extend(answer),
            Err(error) => {
                settings.missing = Some(error.to_string());
                break;
            }
        }
    }
    let mut take = |name| found.remove(name);
    settings.dir = take("dir");
    settings.dbfilename = take("dbfilename");
    settings.appendfilename = take("appendfilename");
    settings.appenddirname = take("appenddirname");
    settings.appendonly = take("appendonly").map(|value| value == "yes").or(settings.appendonly);
    settings.repl_diskless_sync = take("repl-diskless-sync").map(|value| value == "yes");
    settings.databases = take("databases").and_then(|value| value.parse().ok());
    settings.maxmemory_bytes =
        take("maxmemory").and_then(|value| value.parse().ok()).or(settings.maxmemory_bytes);
}
