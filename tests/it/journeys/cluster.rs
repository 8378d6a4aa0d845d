//! Cluster of three shards with a replica each: backed up from any node, every shard restored, with its own nodes.conf
//! and with one of a line.

use std::fs;

use serde_json::Value;

use super::{
    Forms, Tool, WRITTEN_MEANWHILE,
    encrypted::{key, public},
    into, start, wipe,
};
use crate::servers::{
    Version,
    cluster::ClusterGroup,
    dataset::{Digest, Writer, assert_same, fill},
    redis::Server,
    wait_for,
};

const KEYS: usize = 800;

/// Who can open the archives.
#[derive(Clone, Copy)]
enum Seal {
    None,
    Encrypted,
}

impl Seal {
    /// As the manifest says it.
    const fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Encrypted => "age",
        }
    }
}

fn fill_all(cluster: &ClusterGroup) -> Digest {
    for primary in &cluster.primaries {
        let mut connection = primary.connection();
        fill(&mut connection, 31, KEYS);
        let followed: u32 =
            redis::cmd("WAIT").arg(1).arg(60_000).query(&mut connection).expect("WAIT answers");
        assert_eq!(followed, 1);
    }
    cluster.digest()
}

/// Backed up from a replica's address while all shards are written to.
fn back_up(version: &Version, cluster: &ClusterGroup, forms: Forms, seal: Seal) -> Tool {
    let [identity, recipients] = match seal {
        Seal::None => [String::new(), String::new()],
        Seal::Encrypted => [
            format!("encryption: {{identityFrom: {{file: '{}'}}}}\n", key("x25519").display()),
            format!("    encryption: {{recipients: ['{}']}}\n", public("x25519")),
        ],
    };
    let tool = Tool::new(version).with_config(&format!(
        "{identity}sources:\n  journey:\n    nodes: ['{}']\n{recipients}{}",
        cluster.replicas[1].url(),
        forms.directories(cluster.nodes())
    ));
    let connections = cluster.primaries.iter().map(Server::connection).collect();
    let writer = Writer::start(connections);
    let report = tool.done("backup", forms.capture());
    assert!(writer.stop() > 0);
    assert_eq!(report["backups"][0]["shards"], 3, "{report:#}");
    forms.assert_held_by(&tool);
    let manifest = tool.manifest();
    for shard in manifest["shards"].as_array().unwrap() {
        assert_eq!(shard["rdb"]["capturedFrom"], "replica", "{shard:#}");
        assert_eq!(shard["rdb"]["content"]["read"]["keysOutsideSlots"], 0, "{shard:#}");
        for archive in shard["archives"].as_array().unwrap() {
            assert_eq!(archive["encryption"], seal.word(), "{archive:#}");
        }
    }
    tool.done("verify", &["--latest", "--level", "content"]);
    tool.verify_by_load();
    tool
}

/// The number in the backup of the shard that owns this slot.
fn shard_with(manifest: &Value, slot: u16) -> String {
    let shards = manifest["shards"].as_array().unwrap();
    let shard = shards.iter().find(|shard| shard["slots"][0]["first"] == slot);
    shard.unwrap_or_else(|| panic!("no shard begins at {slot}: {manifest:#}"))["shard"].to_string()
}

fn restore(tool: &Tool, manifest: &Value, shard: u16, node: &Server, form: &str) {
    let number = shard_with(manifest, ClusterGroup::slots(shard).0);
    let report =
        tool.done("restore", &into(node, &["--latest", "--shard", &number, "--from", form]));
    assert_eq!(report["state"], "restored");
}

fn comes_back_in_place(name: &str, forms: Forms, seal: Seal) {
    let version = Version::named(name);
    let mut cluster = ClusterGroup::of(&forms.options(&version));
    let source = fill_all(&cluster);
    let tool = back_up(&version, &cluster, forms, seal);

    let ClusterGroup { primaries, replicas } = &mut cluster;
    primaries.iter_mut().chain(replicas).for_each(Server::kill9);
    let manifest = tool.manifest();
    for (shard, (primary, replica)) in (0..).zip(cluster.primaries.iter().zip(&cluster.replicas)) {
        let form = if forms == Forms::Both { "aof" } else { "rdb" };
        for (node, form) in [(primary, form), (replica, "rdb")] {
            wipe(node);
            restore(&tool, &manifest, shard, node, form);
        }
    }
    // Without a number there is no telling which of three.
    tool.fails("restore", &into(&cluster.primaries[0], &["--latest"]), 2);
    let ClusterGroup { primaries, replicas } = &mut cluster;
    for node in primaries.iter_mut().chain(replicas) {
        start(node);
    }
    cluster.wait_until_ok();
    assert_same(&source, &cluster.digest().without(WRITTEN_MEANWHILE));
}

/// As redis-internals tell it: the slots and an epoch of its own, and nobody else.
fn one_line(shard: u16) -> String {
    let (first, last) = ClusterGroup::slots(shard);
    let epoch = shard + 1;
    let id = format!("{epoch:040x}");
    format!(
        "{id} :0@0 myself,master - 0 0 {epoch} connected {first}-{last}\n\
         vars currentEpoch 3 lastVoteEpoch 0\n"
    )
}

fn comes_back_elsewhere(name: &str) {
    let version = Version::named(name);
    let cluster = ClusterGroup::start(&version);
    let source = fill_all(&cluster);
    let tool = back_up(&version, &cluster, Forms::Rdb, Seal::None);
    drop(cluster);

    let manifest = tool.manifest();
    let nodes: Vec<Server> = (0..3)
        .map(|shard| {
            let mut node = Server::start(&version, &["cluster-enabled yes", "appendonly yes"]);
            node.kill9();
            wipe(&node);
            fs::write(node.data_dir().join("nodes.conf"), one_line(shard)).unwrap();
            restore(&tool, &manifest, shard, &node, "rdb");
            start(&mut node);
            node
        })
        .collect();
    for other in &nodes[1..] {
        let () = nodes[0].command(&format!("CLUSTER MEET 127.0.0.1 {}", other.port));
    }
    for node in &nodes {
        wait_for("the new Cluster to be ok", || {
            let info: String = node.command("CLUSTER INFO");
            let is_ok = info.contains("cluster_state:ok")
                && info.contains("cluster_slots_ok:16384")
                && info.contains("cluster_known_nodes:3");
            is_ok.then_some(())
        });
    }
    let digests = nodes.iter().map(|node| Digest::portable(&mut node.connection()));
    let restored = digests.reduce(Digest::with).unwrap();
    assert_same(&source, &restored.without(WRITTEN_MEANWHILE));
}

#[test]
fn a_cluster_comes_back_in_place() {
    comes_back_in_place("redis-7.0", Forms::Rdb, Seal::None);
}

#[test]
fn a_cluster_of_the_newest_redis_comes_back_in_place_in_both_forms() {
    comes_back_in_place("redis-newest", Forms::Both, Seal::None);
}

#[test]
fn an_encrypted_cluster_comes_back_in_place_from_its_encrypted_append_only_files() {
    comes_back_in_place("redis-7.0", Forms::Both, Seal::Encrypted);
}

#[test]
fn a_cluster_of_the_newest_valkey_comes_back_on_new_nodes() {
    comes_back_elsewhere("valkey-newest");
}
