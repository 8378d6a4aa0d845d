//! Reaching real nodes: access refused and granted, topology found, one RDB captured to its proven end.

use std::{fs, path::Path, process::Command, time::Duration};

use bytes::BytesMut;
use redis_backup::{
    domain::{
        capture::{self, Preference},
        manifest::{NodeRole, TopologyKind},
        rdb::SlotRange,
        secret::Secret,
        source::{NodeAddress, SourceUrl},
        topology::{self, Topology},
    },
    edge::redis_node::{
        self, Access, Credentials, Error, Snapshot, SourceAccess, Tls, replication::Limits, tls,
    },
};
use tempfile::TempDir;

use crate::servers::{
    Certificates, Version,
    redis::{Options, Server},
    wait_for,
};

/// What the documentation tells to allow, and nothing more.
const MINIMAL: &str =
    "user backup on >secret resetkeys resetchannels -@all +psync +replconf +ping +info +role +time";

fn address(server: &Server) -> NodeAddress {
    NodeAddress::new("127.0.0.1", server.port)
}

fn as_user(username: &str, password: &str) -> Access {
    let credentials =
        Credentials { username: Some(username.to_owned()), password: Some(Secret::new(password)) };
    Access { credentials, ..Access::default() }
}

fn by_default_user() -> SourceAccess {
    SourceAccess::default()
}

/// A megabyte, not to be compressed away.
fn fill(server: &Server) {
    let () = server.command("CONFIG SET rdbcompression no");
    let mut connection = server.connection();
    let () = redis::cmd("DEBUG")
        .arg(&["POPULATE", "2000", "key", "500"])
        .query(&mut connection)
        .unwrap();
}

/// Captures into a file and has the server's own tool look at it.
async fn capture(server: &Server, access: &Access, folder: &Path) -> Result<u64, Error> {
    let node = redis_node::observe_node(&address(server), access).await?;
    let mut snapshot =
        Snapshot::begin(&address(server), access, &node.server, Limits::default()).await?;
    assert!(snapshot.asked_at() >= node.clock);
    let (mut file, mut buffer) = (Vec::new(), BytesMut::with_capacity(1 << 20));
    while snapshot.read(&mut buffer).await? > 0 {
        file.extend_from_slice(&buffer);
        buffer.clear();
    }
    let path = folder.join("captured.rdb");
    fs::write(&path, &file).unwrap();
    let output =
        Command::new(server.version.program("redis-check-rdb")).arg(&path).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("RDB looks OK"), "{}: {text}", server.version);
    Ok(file.len() as u64)
}

#[tokio::test]
async fn a_minimal_user_captures_in_both_framings_on_every_version() {
    let folder = TempDir::new().unwrap();
    for version in Version::all() {
        for diskless in ["yes", "no"] {
            let diskless = format!("repl-diskless-sync {diskless}");
            let server = Server::start(&version, &[MINIMAL, &diskless]);
            fill(&server);
            let bytes = capture(&server, &as_user("backup", "secret"), folder.path())
                .await
                .unwrap_or_else(|error| panic!("{version}, {diskless}: {error}"));
            assert!(bytes > 2000 * 500, "{version}, {diskless}: {bytes}");
            let magic = if version.is_valkey([9, 0]) { "VALKEY" } else { "REDIS0" };
            let file = fs::read(folder.path().join("captured.rdb")).unwrap();
            assert!(file.starts_with(magic.as_bytes()), "{version}: not its own RDB version");
        }
    }
}

#[tokio::test]
async fn facts_that_a_minimal_user_may_not_ask_are_missing_and_said_so() {
    for version in Version::all() {
        let server = Server::start(&version, &[MINIMAL, "maxmemory 1gb", "databases 5"]);
        let minimal = as_user("backup", "secret");
        let minimal = redis_node::observe_node(&address(&server), &minimal).await.unwrap();
        assert_eq!(minimal.settings.dir, None, "{version}");
        assert!(minimal.settings.missing.unwrap().contains("CONFIG GET"), "{version}");
        assert_eq!(minimal.settings.maxmemory_bytes, Some(1 << 30), "{version}");
        assert_eq!(minimal.sentinel_watched, None, "{version}");

        let full = redis_node::observe_node(&address(&server), &Access::default()).await.unwrap();
        assert_eq!(full.server.flavour, version.flavour);
        let numbers = version.numbers.map(|number| number.to_string()).join(".");
        assert_eq!(full.server.version, numbers);
        assert_eq!(full.settings.dir, Some(server.data_dir().display().to_string()), "{version}");
        assert_eq!(full.settings.databases, Some(5), "{version}");
        assert_eq!(full.settings.appendonly, Some(false), "{version}");
        assert_eq!(full.settings.missing, None, "{version}");
        assert_eq!(full.sentinel_watched, Some(false), "{version}");
    }
}

#[tokio::test]
async fn a_refused_login_and_a_missing_permission_are_named() {
    let folder = TempDir::new().unwrap();
    for version in Version::all() {
        let without_psync = MINIMAL.replace("user backup", "user blind").replace("+psync ", "");
        let without_info = MINIMAL.replace("user backup", "user mute").replace("+info ", "");
        let without_time = MINIMAL.replace("user backup", "user late").replace("+time", "");
        let server = Options::new(&version)
            .config(MINIMAL)
            .config(without_psync)
            .config(without_info)
            .config(without_time)
            .password("other")
            .start();
        let failure =
            async |access: &Access| capture(&server, access, folder.path()).await.unwrap_err();
        let error = failure(&as_user("backup", "wrong")).await;
        assert!(matches!(error, Error::AuthenticationRefused { .. }), "{version}: {error}");
        assert!(error.to_string().contains("WRONGPASS"), "{version}: {error}");
        assert!(!error.to_string().contains("wrong\""), "{version}: {error}");
        let error = failure(&Access::default()).await;
        assert!(error.to_string().contains("give a password"), "{version}: {error}");
        for (username, rule) in [("blind", "+psync"), ("mute", "+info"), ("late", "+time")] {
            let error = failure(&as_user(username, "secret")).await;
            assert!(matches!(error, Error::PermissionDenied { .. }), "{version}: {error}");
            assert!(error.to_string().contains(rule), "{version}: {error}");
        }
    }
}

#[tokio::test]
async fn who_does_not_listen_is_unreachable() {
    let mut server = Server::start(&Version::usual(), &[]);
    server.kill9();
    let error = redis_node::observe_node(&address(&server), &Access::default()).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    let error = redis_node::observe(&source(&server.url()), &by_default_user()).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn a_frozen_server_is_a_timeout() {
    let mut server = Server::start(&Version::usual(), &[]);
    server.freeze();
    let access = Access { response_timeout: Duration::from_millis(300), ..Access::default() };
    let error = redis_node::observe_node(&address(&server), &access).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
}

fn over_tls(certificates: &Certificates, server_name: Option<&str>) -> Access {
    let files = tls::Files {
        ca: Some(certificates.authority()),
        certificate: Some(certificates.file("client.crt")),
        key: Some(certificates.file("client.key")),
    };
    Access { tls: Some(Tls::load(&files, server_name).unwrap()), ..Access::default() }
}

#[tokio::test]
async fn tls_captures_with_the_right_certificates_and_names_what_is_wrong_with_others() {
    let (ours, theirs) = (Certificates::new(), Certificates::new());
    let folder = TempDir::new().unwrap();
    for version in Version::all_with_tls() {
        let server = Options::new(&version).tls(&ours).start();
        fill(&server);
        for name in [None, Some("localhost")] {
            let access = over_tls(&ours, name);
            assert!(capture(&server, &access, folder.path()).await.unwrap() > 1_000_000);
        }
        let anonymous = tls::Files { ca: Some(ours.authority()), ..tls::Files::default() };
        let anonymous = Tls::load(&anonymous, None).unwrap();
        let anonymous = Access { tls: Some(anonymous), ..Access::default() };
        for (access, expected) in [
            (over_tls(&theirs, None), "set tls.caFile"),
            (over_tls(&ours, Some("redis.example")), "set tls.serverName"),
            (anonymous, "set tls.certFile and tls.keyFile"),
        ] {
            let error = capture(&server, &access, folder.path()).await.unwrap_err();
            assert!(matches!(error, Error::Tls { .. }), "{version}: {error:?}");
            assert!(error.to_string().contains(expected), "{version}: {error}");
        }
        let error = capture(&server, &Access::default(), folder.path()).await.unwrap_err();
        assert!(matches!(error, Error::Cut { .. } | Error::Protocol { .. }), "{version}: {error}");

        let plain = Server::start(&version, &[]);
        let hasty = Access { connect_timeout: Duration::from_secs(1), ..over_tls(&ours, None) };
        let error = capture(&plain, &hasty, folder.path()).await.unwrap_err();
        assert!(error.to_string().contains("TLS port"), "{version}: {error}");
    }
}

/// More than all socket buffers hold.
fn fill_much(server: &Server) {
    let () = server.command("CONFIG SET rdbcompression no");
    let () = server.command("DEBUG POPULATE 60000 key 1000");
}

#[tokio::test]
async fn a_server_killed_in_mid_transfer_is_an_error() {
    for version in Version::all() {
        for (diskless, expected) in [("yes", "without the mark"), ("no", " of ")] {
            let diskless = format!("repl-diskless-sync {diskless}");
            let mut server = Server::start(&version, &[&diskless]);
            fill_much(&server);
            let access = Access::default();
            let node = redis_node::observe_node(&address(&server), &access).await.unwrap();
            let limits = Limits::default();
            let mut snapshot =
                Snapshot::begin(&address(&server), &access, &node.server, limits).await.unwrap();
            let mut buffer = BytesMut::with_capacity(1 << 20);
            assert!(snapshot.read(&mut buffer).await.unwrap() > 0);
            let child: Vec<String> = children(server.pid());
            server.kill9();
            // A child that writes to the socket by itself outlives its parent.
            for child in child {
                let _ = Command::new("kill").args(["-9", &child]).status();
            }
            let error = loop {
                buffer.clear();
                match snapshot.read(&mut buffer).await {
                    Ok(0) => panic!("{version}, {diskless}: a cut passes for an end"),
                    Ok(_) => {}
                    Err(error) => break error,
                }
            };
            assert!(matches!(error, Error::Cut { .. }), "{version}: {error}");
            assert!(error.to_string().contains(expected), "{version}, {diskless}: {error}");
        }
    }
}

fn children(pid: u32) -> Vec<String> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

fn source(url: &str) -> redis_backup::domain::source::SourceAddress {
    url.parse::<SourceUrl>().unwrap().address
}

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
            let plan = capture::plan(&topology, &Preference::default()).unwrap();
            let ports: Vec<u16> =
                plan.shards[0].candidates.iter().map(|node| node.address.port()).collect();
            assert_eq!(ports, [replica.port, primary.port], "{version}: {plan:?}");
        }
        primary.kill9();
        wait_for("the link to be down", || {
            (replica.info("master_link_status")? == "down").then_some(())
        });
        let topology = resolve(&replica.url()).await.unwrap();
        let refusal = capture::plan(&topology, &Preference::default()).unwrap_err().to_string();
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
    let replicas: Vec<std::collections::BTreeMap<String, String>> =
        sentinel.command("SENTINEL REPLICAS sessions");
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
            let others: Vec<std::collections::BTreeMap<String, String>> =
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
    let plan = capture::plan(&topology, &Preference::default()).unwrap();
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
        let refusal = capture::plan(&topology, &Preference::default()).unwrap_err().to_string();
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
            let plan = capture::plan(&topology, &Preference::default()).unwrap();
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
