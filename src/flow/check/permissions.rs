//! Whether each node lets the user run every command of a backup, and the ACL rule that is missing where it does not. Starts nothing.

use futures_util::{StreamExt as _, stream};

use super::Findings;
use crate::{
    domain::{
        capture::MethodChoice,
        manifest::TopologyKind,
        source::{NodeAddress, SourceAddress},
        topology::Topology,
    },
    edge::redis_node::permission::{self, Permission},
    flow::find::Found,
    settings,
};

/// Each node has users of its own: what was granted at the primary is not there at a replica.
const NODES_AT_ONCE: usize = 16;

pub(super) async fn check(
    subject: &str,
    source: &settings::Source,
    (found, topology): (&Found, Option<&Topology>),
    findings: &mut Findings,
) {
    let nodes: Vec<NodeAddress> = match (topology, &found.address) {
        (Some(topology), _) => {
            let nodes = topology.shards.iter().flat_map(|shard| &shard.nodes);
            nodes.filter(|node| node.outcome.is_ok()).map(|node| node.address.clone()).collect()
        }
        (None, SourceAddress::Nodes(nodes)) => nodes.clone(),
        (None, SourceAddress::Sentinel { .. }) => Vec::new(),
    };
    let needed = needed(source, found.pods.is_some(), topology);
    let access = &found.access.nodes;
    let looks = nodes.into_iter().map(|node| {
        let needed = &needed;
        async move { (permission::refused(&node, access, needed).await, node) }
    });
    let looks: Vec<_> = stream::iter(looks).buffered(NODES_AT_ONCE).collect().await;
    let (mut granted, user) = (0, source.access.username.as_deref().unwrap_or("default"));
    for (refused, node) in looks {
        // Who does not answer is told by the looks after this.
        let Ok(refused) = refused else { continue };
        let subject = format!("{subject}: {node}");
        if let Some((finding, fix)) = lacking(user, &refused) {
            findings.warning(&subject, finding, &fix);
        } else {
            granted += 1;
        }
    }
    if granted > 0 {
        let text = format!("user {user} may run all commands of a backup at {granted} nodes");
        findings.good(&format!("{subject}: acl"), text);
    }
}

/// By what the config asks for: which method a node is captured by may change from run to run.
fn needed(
    source: &settings::Source,
    is_in_pods: bool,
    topology: Option<&Topology>,
) -> Vec<Permission> {
    let mut needed = vec![Permission::Ping, Permission::Info, Permission::Time];
    let has_files = is_in_pods || !source.data_dirs.is_empty();
    let (by_bgsave, by_replication) = match source.method {
        MethodChoice::Auto => (has_files, true),
        MethodChoice::Bgsave => (true, false),
        MethodChoice::Replication => (false, true),
    };
    if by_bgsave {
        needed.push(Permission::Bgsave);
    }
    if by_replication {
        needed.push(Permission::Replconf);
    }
    if topology.is_some_and(|topology| topology.kind == TopologyKind::Cluster) {
        needed.push(Permission::ClusterNodes);
    }
    needed
}

/// What is missing, and the line that grants it.
fn lacking(user: &str, refused: &[Permission]) -> Option<(String, String)> {
    if refused.is_empty() {
        return None;
    }
    let rules: Vec<&str> = refused.iter().map(|permission| permission.rule()).collect();
    let rules = rules.join(" ");
    let finding = format!("user {user} lacks {rules}");
    Some((finding, format!("there, and in its ACL file or config: ACL SETUSER {user} {rules}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_missing_is_granted_by_one_line() {
        assert_eq!(lacking("backup", &[]), None);
        let (finding, fix) =
            lacking("backup", &[Permission::Bgsave, Permission::ClusterNodes]).unwrap();
        assert_eq!(finding, "user backup lacks +bgsave +cluster|nodes");
        assert!(fix.ends_with("ACL SETUSER backup +bgsave +cluster|nodes"), "{fix}");
    }
}
