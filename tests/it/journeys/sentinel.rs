//! A primary, two replicas and three sentinels: captured from a replica, restored into all three, undone and finished.

use super::{Forms, Tool, WRITTEN_MEANWHILE, configure, into, listing, save, start};
use crate::servers::{
    Version,
    dataset::{Digest, Writer, assert_same, fill},
    redis::Server,
    sentinel::{MASTER_NAME, SentinelGroup},
    wait_for,
};

const KEYS: usize = 800;

/// Fills the primary and returns once both replicas have it all.
fn fill_all(group: &SentinelGroup, seed: u64) -> Digest {
    let mut connection = group.nodes.primary.connection();
    fill(&mut connection, seed, KEYS);
    let () = redis::cmd("SET").arg("seed").arg(seed).query(&mut connection).unwrap();
    let followed: u32 =
        redis::cmd("WAIT").arg(2).arg(60_000).query(&mut connection).expect("WAIT answers");
    assert_eq!(followed, 2);
    Digest::portable(&mut connection)
}

fn holds(server: &Server, expected: &Digest) {
    assert_same(expected, &Digest::portable(&mut server.connection()).without(WRITTEN_MEANWHILE));
}

fn nodes(group: &mut SentinelGroup) -> impl Iterator<Item = &mut Server> {
    [&mut group.nodes.primary].into_iter().chain(&mut group.nodes.replicas)
}

fn stop_all(group: &mut SentinelGroup) {
    group.sentinels.iter_mut().for_each(Server::kill9);
    nodes(group).for_each(Server::kill9);
}

/// No sentinel and no node took the capture for a replica that is gone.
fn no_phantom_is_left(group: &SentinelGroup) {
    for sentinel in &group.sentinels {
        let replicas: Vec<redis::Value> =
            sentinel.command(&format!("SENTINEL REPLICAS {MASTER_NAME}"));
        assert_eq!(replicas.len(), 2);
    }
    assert_eq!(group.nodes.primary.info("connected_slaves").as_deref(), Some("2"));
    for replica in &group.nodes.replicas {
        wait_for("the capture to be forgotten", || {
            (replica.info("connected_slaves").as_deref() == Some("0")).then_some(())
        });
    }
}

fn comes_back(name: &str, forms: Forms) {
    let version = Version::named(name);
    let mut group = SentinelGroup::of(&forms.options(&version));
    let source = fill_all(&group, 21);
    let tool = Tool::new(&version).with_config(&format!(
        "sources:\n  journey:\n    nodes: ['{}']\n{}",
        group.url(),
        forms.directories(&group.nodes.replicas)
    ));
    let writer = Writer::start(vec![group.nodes.primary.connection()]);
    tool.done("backup", forms.capture());
    assert!(writer.stop() > 0);
    assert_eq!(tool.manifest()["shards"][0]["rdb"]["capturedFrom"], "replica");
    assert_eq!(tool.manifest()["topology"], "sentinel");
    forms.assert_held_by(&tool);
    no_phantom_is_left(&group);
    tool.verify_by_load();

    // Something else is there when it is restored.
    let () = group.nodes.primary.command("FLUSHALL");
    if version.is_seven() {
        let () = group.nodes.primary.command("FUNCTION FLUSH");
    }
    let present = fill_all(&group, 22);
    nodes(&mut group).for_each(|node| save(node));
    stop_all(&mut group);
    let before = listing(&group.nodes.primary.data_dir());
    let restores: [&[&str]; 3] = match forms {
        Forms::Rdb => [&["--latest"]; 3],
        Forms::Both => {
            [&["--latest"], &["--latest", "--from", "rdb"], &["--latest", "--from", "aof"]]
        }
    };
    for (node, from) in nodes(&mut group).zip(restores) {
        let report = tool.done("restore", &into(node, from));
        assert_eq!(report["state"], "restored");
    }
    // The primary last: what a replica holds before is what it found in its own directory.
    for replica in &mut group.nodes.replicas {
        start(replica);
        holds(replica, &source);
    }
    start(&mut group.nodes.primary);
    holds(&group.nodes.primary, &source);
    group.nodes.wait_for_links();
    for sentinel in &mut group.sentinels {
        sentinel.restart();
    }
    holds(group.node(group.primary_port()), &source);

    let since = format!("SET {WRITTEN_MEANWHILE}since the-restore");
    let () = group.node(group.primary_port()).command(&since);

    undo_and_finish(&tool, &mut group, &source, &present);
    let mut after = listing(&group.nodes.primary.data_dir());
    let kept = group.nodes.primary.data_dir().join(".redis-backup");
    // What a server appended since the restore is not thrown away.
    assert_eq!(kept.exists(), forms == Forms::Both);
    after.retain(|path, _| !path.starts_with(&kept));
    assert_eq!(after, before);
}

fn undo_and_finish(tool: &Tool, group: &mut SentinelGroup, source: &Digest, present: &Digest) {
    stop_all(group);
    let primary = &mut group.nodes.primary;
    assert_eq!(tool.done("restore", &into(primary, &["--undo"]))["state"], "undone");
    // As the RDB of that dataset has it; its append-only files lie beside it and stay as they were.
    configure(primary, "appendonly no");
    start(primary);
    holds(primary, present);
    primary.kill9();
    let replica = &mut group.nodes.replicas[0];
    assert_eq!(tool.done("restore", &into(replica, &["--finish"]))["state"], "finished");
    assert!(!replica.data_dir().join(".redis-backup").exists());
    configure(replica, "replicaof no one");
    start(replica);
    holds(replica, source);
}

#[test]
fn a_sentinel_installation_comes_back_undone_and_finished() {
    comes_back("redis-7.0", Forms::Rdb);
}

#[test]
fn a_sentinel_installation_of_the_newest_valkey_comes_back_in_both_forms() {
    comes_back("valkey-newest", Forms::Both);
}
