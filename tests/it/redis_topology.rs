//! Which topology real nodes and sentinels show, and where a capture then goes.

use std::{collections::BTreeMap, process::Command};

use redis_backup::{
    domain::{
        capture::{self, Directories, Preference},
        manifest::{NodeRole, TopologyKind},
        rdb::SlotRange,
        topology::{self, Topology},
    },
    edge::redis_node::{self, Access, Error, Snapshot, SourceAccess, replication::Limits},
};
use tempfile::TempDir;

use crate::{
    redis_node::{MINIMAL, address, as_user, by_default_user, capture, fill_much, source},
    servers::{
        Version,
        redis::{Options, Server},
        wait_for,
    },
};

async fn resolve(url: &str) -> Result<Topology, topology::Error> {
    let observation = redis_node::observe(&source(url), &by_default_user()).await.unwrap();
    topology::resolve(&observation)
}

fn replica_of(primary: &Server) -> Server {
    let line = format!("replicaof 127.0.0.1 {}", primary.port);
    let replica = Server::start(&primary.version, &[&line]);
    wait_for("a replica to be in step", || {
        let in_step = replica.info("master_link_status")? == "up"
            && replica.info("slave_repl_offset") == primary.info("master_repl_offset");
        in_step.then_some(())
    });
    replica
}

#[tokio::test]
async fn a_replica_is_found_from_its_primary_and_captured_first() {
    for version in Version::all() {
        let mut primary = Server::start(&version, &[]);
        let replica = replica_of(&primary);
        for seed in [&primary, &replica] {
            let topology = resolve(&seed.url()).await.unwrap();
            assert_eq!(topology.kind, TopologyKind::Standalone);
            let plan =
                capture::plan(&topology, &Preference::default(), &Directories::new()).unwrap();
            let ports: Vec<u16> =
                plan.shards[0].candidates.iter().map(|node| node.address.port()).collect();
            assert_eq!(ports, [replica.port, primary.port], "{version}: {plan:?}");
        }
        primary.kill9();
        wait_for("the link to be down", || {
            (replica.info("master_link_status")? == "down").then_some(())
        });
        let topology = resolve(&replica.url()).await.unwrap();
        let refusal = capture::plan(&topology, &Preference::default(), &Directories::new())
            .unwrap_err()
            .to_string();
        assert!(refusal.contains("is down") && refusal.contains("not reachable"), "{refusal}");
        let folder = TempDir::new().unwrap();
        let error = capture(&replica, &Access::default(), folder.path()).await.unwrap_err();
        assert!(matches!(error, Error::NoPrimaryLink { .. }), "{version}: {error}");
    }
}

fn sentinel_of(primary: &Server) -> Server {
    let monitor = format!("sentinel monitor sessions 127.0.0.1 {} 2", primary.port);
    let mut options = Options::new(&primary.version).config(monitor);
    options.is_sentinel = true;
    options.start()
}

fn known_replicas(sentinel: &Server) -> Vec<String> {
    let replicas: Vec<BTreeMap<String, String>> = sentinel.command("SENTINEL REPLICAS sessions");
    replicas.iter().map(|replica| replica["port"].clone()).collect()
}

/// Until the sentinels have asked this node often enough to have seen whoever is attached to it.
fn until_polled(server: &Server) {
    let calls = || -> u64 {
        let text: String = server.command("INFO commandstats");
        let line = text.lines().find(|line| line.starts_with("cmdstat_info:")).unwrap();
        line.split_once("calls=").unwrap().1.split(',').next().unwrap().parse().unwrap()
    };
    let begin = calls();
    let mut asked = 0;
    wait_for("the sentinels to ask", || {
        asked += 1;
        (calls() > begin + asked + 12).then_some(())
    });
}

#[tokio::test]
async fn under_sentinels_a_replica_is_captured_and_no_sentinel_takes_us_for_one() {
    let primary = Server::start(&Version::usual(), &["repl-diskless-sync yes"]);
    fill_much(&primary);
    let replicas = [replica_of(&primary), replica_of(&primary)];
    let sentinels: Vec<Server> = (0..3).map(|_| sentinel_of(&primary)).collect();
    for sentinel in &sentinels {
        wait_for("the sentinels to know all", || {
            let others: Vec<BTreeMap<String, String>> =
                sentinel.command("SENTINEL SENTINELS sessions");
            (known_replicas(sentinel).len() == 2 && others.len() == 2).then_some(())
        });
        let () = sentinel.command("SENTINEL DEBUG info-period 100");
    }

    let url = format!("sentinel://{}/sessions", sentinels[1].address());
    let observation = redis_node::observe(&source(&url), &by_default_user()).await.unwrap();
    assert_eq!(observation.sentinel.as_ref().unwrap().sentinels.len(), 3);
    let topology = topology::resolve(&observation).unwrap();
    assert_eq!(topology.kind, TopologyKind::Sentinel);
    assert_eq!(topology.identities, ["sentinel:sessions"]);
    assert_eq!(topology.shards[0].primary().unwrap().address, address(&primary));
    let plan = capture::plan(&topology, &Preference::default(), &Directories::new()).unwrap();
    let shard = &plan.shards[0];
    assert_eq!(shard.candidates.len(), 2);
    assert!(shard.candidates.iter().all(|node| node.role == NodeRole::Replica));
    assert!(shard.passed_over[0].reason.contains("watched by sentinels"), "{shard:?}");

    let chosen = &shard.candidates[0];
    let access = Access::default();
    let limits = Limits::default();
    let attached = Snapshot::begin(&chosen.address, &access, &chosen.server, limits).await.unwrap();
    let server = replicas.iter().find(|replica| replica.port == chosen.address.port()).unwrap();
    until_polled(server);
    for sentinel in &sentinels {
        assert!(!known_replicas(sentinel).contains(&"0".to_owned()));
    }
    drop(attached);

    // The same on the primary shows that the sentinels would have seen it.
    let node = redis_node::observe_node(&address(&primary), &access).await.unwrap();
    assert_eq!(node.sentinel_watched, Some(true));
    let attached =
        Snapshot::begin(&address(&primary), &access, &node.server, limits).await.unwrap();
    wait_for("a phantom", || known_replicas(&sentinels[0]).contains(&"0".to_owned()).then_some(()));
    let topology = resolve(&url).await.unwrap();
    assert_eq!(topology.shards[0].nodes.len(), 3, "a phantom is no node");
    drop(attached);
}

#[tokio::test]
async fn a_sentinel_is_told_from_a_node_and_names_what_it_watches() {
    let primary = Server::start(&Version::usual(), &[]);
    let sentinel = sentinel_of(&primary);
    let url = format!("sentinel://{}/other", sentinel.address());
    let error = redis_node::observe(&source(&url), &by_default_user()).await.unwrap_err();
    assert!(error.to_string().contains("it watches: sessions"), "{error}");
    let error =
        redis_node::observe(&source(&sentinel.url()), &by_default_user()).await.unwrap_err();
    assert!(error.to_string().contains("this is a sentinel"), "{error}");
}

#[tokio::test]
async fn the_password_of_the_servers_does_not_keep_out_of_open_sentinels() {
    for version in Version::all() {
        let primary = Options::new(&version).config(MINIMAL).password("data").start();
        let mut options = Options::new(&version)
            .config(format!("sentinel monitor sessions 127.0.0.1 {} 1", primary.port))
            .config("sentinel auth-pass sessions data");
        options.is_sentinel = true;
        let sentinel = options.start();
        let source = source(&format!("sentinel://{}/sessions", sentinel.address()));
        let nodes = as_user("backup", "secret");
        let access = SourceAccess { sentinels: nodes.clone(), nodes };
        let observation = redis_node::observe(&source, &access).await.unwrap();
        let topology = topology::resolve(&observation).unwrap();
        assert_eq!(topology.shards[0].primary().unwrap().address, address(&primary), "{version}");
    }
}

#[tokio::test]
async fn sentinels_have_users_of_their_own_who_need_little() {
    let watcher = "user watcher on >watch resetkeys resetchannels -@all \
                   +ping +sentinel|masters +sentinel|replicas +sentinel|sentinels";
    for version in Version::all() {
        let primary = Options::new(&version).config(MINIMAL).password("data").start();
        let mut options = Options::new(&version)
            .config(format!("sentinel monitor sessions 127.0.0.1 {} 1", primary.port))
            .config("sentinel auth-pass sessions data")
            .config("user default off")
            .config(watcher)
            .config(watcher.replace("user watcher", "user blind").replace("+sentinel|masters", ""));
        options.is_sentinel = true;
        let sentinel = options.start();
        let source = source(&format!("sentinel://{}/sessions", sentinel.address()));
        let nodes = as_user("backup", "secret");
        let access =
            |username| SourceAccess { nodes: nodes.clone(), sentinels: as_user(username, "watch") };
        let observation = redis_node::observe(&source, &access("watcher")).await.unwrap();
        let topology = topology::resolve(&observation).unwrap();
        assert_eq!(topology.shards[0].primary().unwrap().address, address(&primary), "{version}");
        let refusal = capture::plan(&topology, &Preference::default(), &Directories::new())
            .unwrap_err()
            .to_string();
        assert!(refusal.contains("watched by sentinels"), "{version}: {refusal}");

        let error = redis_node::observe(&source, &access("blind")).await.unwrap_err();
        assert!(error.to_string().contains("+sentinel|masters"), "{version}: {error}");
        let swapped = SourceAccess { nodes: as_user("watcher", "watch"), ..access("watcher") };
        let error = redis_node::observe(&source, &swapped).await.unwrap_err();
        assert!(matches!(error, Error::AuthenticationRefused { .. }), "{version}: {error}");
    }
}

struct Cluster {
    nodes: Vec<Server>,
}

impl Cluster {
    /// Three primaries, each with one replica.
    fn start(version: &Version) -> Self {
        let lines = ["cluster-enabled yes", "cluster-node-timeout 5000"];
        let nodes: Vec<Server> = (0..6).map(|_| Server::start(version, &lines)).collect();
        let mut command = Command::new(version.program("redis-cli"));
        command.args(["--cluster", "create"]).args(nodes.iter().map(Server::address));
        let output = command.args(["--cluster-replicas", "1", "--cluster-yes"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        let cluster = Self { nodes };
        cluster.settle();
        cluster
    }

    /// Until every node tells the same of every other.
    fn settle(&self) {
        for node in &self.nodes {
            wait_for("the cluster to settle", || {
                let table: String = node.command("CLUSTER NODES");
                let is_up = node.command::<String>("CLUSTER INFO").contains("cluster_state:ok");
                let replicas = table.lines().filter(|line| line.contains("slave")).count();
                let has_link = node.info("master_link_status").is_none_or(|link| link == "up");
                (is_up && replicas == 3 && has_link).then_some(())
            });
        }
    }

    fn primaries(&self) -> Vec<&Server> {
        let is_primary = |node: &&Server| node.info("role").unwrap() == "master";
        self.nodes.iter().filter(is_primary).collect()
    }
}

#[tokio::test]
async fn a_cluster_is_resolved_from_any_of_its_nodes_and_each_can_be_captured() {
    for version in Version::all() {
        let cluster = Cluster::start(&version);
        let mut maps = Vec::new();
        for seed in &cluster.nodes {
            let topology = resolve(&seed.url()).await.unwrap();
            assert_eq!(topology.kind, TopologyKind::Cluster);
            assert_eq!(topology.identities.len(), 6, "{version}");
            let plan =
                capture::plan(&topology, &Preference::default(), &Directories::new()).unwrap();
            assert_eq!(plan.shards.len(), 3);
            assert_eq!(plan.shards[0].slots, [SlotRange { first: 0, last: 5460 }]);
            for shard in &plan.shards {
                let roles: Vec<_> = shard.candidates.iter().map(|node| node.role).collect();
                assert_eq!(roles, [NodeRole::Replica, NodeRole::Primary], "{version}: {shard:?}");
            }
            maps.push(topology.slot_map.unwrap());
        }
        let folder = TempDir::new().unwrap();
        for node in &cluster.nodes {
            capture(node, &Access::default(), folder.path()).await.unwrap();
        }
        assert!(maps.iter().all(|map| *map == maps[0]), "{version}");

        let first = cluster.primaries()[0];
        let id: String = cluster.primaries()[1].command("CLUSTER MYID");
        let slots: String = first.command("CLUSTER NODES");
        let slot = slots.lines().find(|line| line.contains("myself")).unwrap();
        let slot = slot.split(' ').next_back().unwrap().split('-').next().unwrap().to_owned();
        let () = first.command(&format!("CLUSTER SETSLOT {slot} MIGRATING {id}"));
        let error = resolve(&cluster.nodes[5].url()).await.unwrap_err();
        assert!(error.is_transient() && error.to_string().contains(&slot), "{version}: {error}");
        let () = first.command(&format!("CLUSTER SETSLOT {slot} STABLE"));

        let replica = cluster.nodes.iter().find(|node| node.info("role").unwrap() == "slave");
        let () = replica.unwrap().command("CLUSTER FAILOVER");
        wait_for("the failover", || {
            (replica.unwrap().info("role").unwrap() == "master").then_some(())
        });
        cluster.settle();
        let topology = resolve(&cluster.nodes[0].url()).await.unwrap();
        let changed = topology.slot_map.unwrap().changed_since(&maps[0]);
        assert_eq!(changed.len(), 1, "{version}: a failover in mid-capture is noticed");
    }
}

#[tokio::test]
async fn a_minimal_user_of_a_cluster_needs_cluster_nodes_and_nothing_more() {
    for version in [Version::named("redis-6.2"), Version::named("valkey-newest")] {
        let allowed = format!("{MINIMAL} +cluster|nodes");
        let denied = MINIMAL.replace("user backup", "user blind");
        let lines = ["cluster-enabled yes", &allowed, &denied];
        let server = Server::start(&version, &lines);
        let node = redis_node::observe_node(&address(&server), &as_user("backup", "secret")).await;
        assert_eq!(node.unwrap().cluster.unwrap().len(), 1);
        let node = redis_node::observe_node(&address(&server), &as_user("blind", "secret")).await;
        let error = node.unwrap_err().to_string();
        assert!(error.contains("ACL SETUSER <user> +cluster|nodes"), "{version}: {error}");
    }
}
