//! A Cluster of three primaries with one replica each.

use super::{
    Version,
    dataset::Digest,
    redis::{Options, Server},
    replicated::wait_for_link,
    wait_for,
};

const SHARDS: u16 = 3;
const SLOTS: u16 = 16384;

/// `replicas[n]` follows `primaries[n]`, which owns [`ClusterGroup::slots`] of n. A failover does not move the fields.
#[derive(Debug)]
pub struct ClusterGroup {
    pub primaries: Vec<Server>,
    pub replicas: Vec<Server>,
}

impl ClusterGroup {
    /// Returns once every node calls the Cluster ok and every replica follows.
    pub fn start(version: &Version) -> Self {
        Self::of(&Options::new(version))
    }

    /// All nodes with these options.
    pub fn of(options: &Options<'_>) -> Self {
        let options =
            options.clone().config("cluster-enabled yes").config("cluster-node-timeout 3000");
        let start = || (0..SHARDS).map(|_| options.clone().start()).collect();
        let group = Self { primaries: start(), replicas: start() };
        group.give_slots();
        group.meet();
        group.replicate();
        group.wait_until_ok();
        group
    }

    /// First and last slot of that shard.
    pub fn slots(shard: u16) -> (u16, u16) {
        let first =
            |shard: u16| u16::try_from(u32::from(shard) * u32::from(SLOTS) / u32::from(SHARDS));
        (first(shard).unwrap(), first(shard + 1).unwrap() - 1)
    }

    pub fn nodes(&self) -> impl Iterator<Item = &Server> {
        self.primaries.iter().chain(&self.replicas)
    }

    /// All keys of all primaries, as they can be compared with those of replicas.
    pub fn digest(&self) -> Digest {
        let digests =
            self.primaries.iter().map(|primary| Digest::portable(&mut primary.connection()));
        digests.reduce(Digest::with).expect("a Cluster has primaries")
    }

    pub fn wait_until_ok(&self) {
        for node in self.nodes() {
            wait_for("the Cluster to be ok", || {
                let is_ok = node.command::<String>("CLUSTER INFO").contains("cluster_state:ok");
                let nodes: String = node.command("CLUSTER NODES");
                let replicas = nodes.lines().filter(|line| line.contains("slave"));
                (is_ok && replicas.count() == self.replicas.len()).then_some(())
            });
        }
        for replica in &self.replicas {
            wait_for_link(replica);
        }
    }

    fn give_slots(&self) {
        for (shard, primary) in (0..).zip(&self.primaries) {
            let (first, last) = Self::slots(shard);
            let mut command = redis::cmd("CLUSTER");
            command.arg("ADDSLOTS").arg((first..=last).collect::<Vec<_>>());
            let () = command.query(&mut primary.connection()).unwrap();
            let () = primary.command(&format!("CLUSTER SET-CONFIG-EPOCH {}", shard + 1));
        }
    }

    fn meet(&self) {
        let first = &self.primaries[0];
        for node in self.nodes().skip(1) {
            let () = first.command(&format!("CLUSTER MEET 127.0.0.1 {}", node.port));
        }
        let all = format!("cluster_known_nodes:{}\r", self.nodes().count());
        for node in self.nodes() {
            wait_for("the nodes to know each other", || {
                node.command::<String>("CLUSTER INFO").contains(&all).then_some(())
            });
        }
    }

    fn replicate(&self) {
        for (primary, replica) in self.primaries.iter().zip(&self.replicas) {
            let id: String = primary.command("CLUSTER MYID");
            let () = replica.command(&format!("CLUSTER REPLICATE {id}"));
        }
    }
}

#[test]
fn a_cluster_of_every_version_holds_the_dataset_once() {
    for version in Version::all() {
        let cluster = ClusterGroup::start(&version);
        for primary in &cluster.primaries {
            super::dataset::fill(&mut primary.connection(), 7, 600);
        }
        let keys: Vec<usize> =
            cluster.primaries.iter().map(|primary| primary.command("DBSIZE")).collect();
        assert!(keys.iter().all(|keys| *keys > 100), "{version}: {keys:?}");
        assert!(cluster.digest().len() > 500, "{version}");
    }
}
