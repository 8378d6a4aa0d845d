//! An RDB by BGSAVE from a data directory at hand: equal to the dataset, or refused with the reason; never another file.

use std::{fs, path::Path};

use serde_json::Value;

use super::{Tool, directory::Volume, listing, restore_and_compare};
use crate::servers::{
    Version,
    dataset::{Digest, Writer, fill},
    redis::{Options, Server},
    sentinel::SentinelGroup,
    wait_for,
};

const KEYS: usize = 600;

/// So slow that a test can act while it saves.
const SLOW: &str = "rdb-key-save-delay 2000";

fn config(server: &Server, folder: &Path, more: &str) -> String {
    let (url, folder) = (server.url(), folder.display());
    format!("sources:\n  journey:\n    nodes: ['{url}']\n    dataDir: '{folder}'\n{more}")
}

fn at_hand(version: &Version, server: &Server, more: &str) -> Tool {
    Tool::new(version).with_config(&config(server, &server.data_dir(), more))
}

const NOTHING: &[&str] = &[];
const BY_BGSAVE: &[&str] = &["--method", "bgsave"];

fn rdb(tool: &Tool) -> Value {
    tool.manifest()["shards"][0]["rdb"].clone()
}

fn wait_for_save(server: &Server) {
    wait_for("the save to begin", || {
        (server.info("rdb_bgsave_in_progress").as_deref() == Some("1")).then_some(())
    });
}

fn keys(tool: &Tool) -> u64 {
    rdb(tool)["content"]["read"]["databases"]
        .as_object()
        .unwrap()
        .values()
        .map(|it| it["keys"].as_u64().unwrap())
        .sum()
}

fn comes_back(name: &str) {
    let version = Version::named(name);
    let mut server = Server::start(&version, &["dbfilename 'My Dump.rdb'"]);
    fill(&mut server.connection(), 61, KEYS);
    let source = Digest::of(&mut server.connection());
    let tool = Tool::new(&version);
    let writer = Writer::start(vec![server.connection()]);
    let folder = server.data_dir().display().to_string();
    let call = ["--source-url", &server.url(), "--data-dir", &folder];
    let report = tool.done("backup", &[&call[..], &["--dry-run"]].concat());
    assert_eq!(report["shards"][0]["method"], "bgsave", "{report:#}");
    tool.done("backup", &call);
    assert!(writer.stop() > 0);
    assert_eq!(rdb(&tool)["method"], "bgsave");
    tool.verify_by_load();
    server.kill9();
    fs::remove_file(server.data_dir().join("My Dump.rdb")).unwrap();
    restore_and_compare(&tool, &mut server, &source);
}

#[test]
fn redis_6_2_comes_back_from_its_own_save() {
    comes_back("redis-6.2");
}

#[test]
fn redis_7_0_comes_back_from_its_own_save() {
    comes_back("redis-7.0");
}

#[test]
fn the_newest_redis_comes_back_from_its_own_save() {
    comes_back("redis-newest");
}

#[test]
fn the_newest_valkey_comes_back_from_its_own_save() {
    comes_back("valkey-newest");
}

#[test]
fn a_save_killed_by_flushall_looks_successful_and_is_done_again() {
    for name in ["redis-6.2", "redis-7.0", "redis-newest", "valkey-newest"] {
        let version = Version::named(name);
        let server = Server::start(&version, &[SLOW]);
        let () = server.command("DEBUG POPULATE 3000");
        let tool = at_hand(&version, &server, "    method: bgsave\n");
        let backup = tool.start("backup", NOTHING);
        wait_for_save(&server);
        // At once, or the next save could begin between the two.
        let mut flush = redis::pipe();
        flush.atomic().cmd("FLUSHALL").ignore().set("survivor", 1).ignore();
        let () = flush.query(&mut server.connection()).unwrap();
        let output = backup.wait_with_output().unwrap();
        assert!(output.status.success(), "{name}: {output:?}");
        assert_eq!(keys(&tool), 1, "{name}");
    }
}

#[test]
fn a_save_that_runs_already_is_waited_for_and_never_taken_for_ours() {
    let version = Version::usual();
    let server = Server::start(&version, &[SLOW]);
    let () = server.command("DEBUG POPULATE 500");
    let tool = at_hand(&version, &server, "    method: bgsave\n");
    let () = server.command("BGSAVE");
    wait_for_save(&server);
    let () = server.command("SET later 1");
    tool.done("backup", NOTHING);
    assert_eq!(keys(&tool), 501);
}

#[test]
fn a_full_disk_is_seen_before_and_a_disk_that_fills_meanwhile_is_told_with_what_to_do() {
    let version = Version::usual();
    let volume = Volume::mount(2048);
    let folder = volume.path().to_owned();
    let server = Options::new(&version)
        .config(format!("dir {}", folder.display()))
        .config("save 3600 1")
        .config("rdbcompression no")
        .config(SLOW)
        .start();
    let () = server.command("DEBUG POPULATE 1000 key 1000");
    let tool = Tool::new(&version).with_config(&config(&server, &folder, ""));
    let before = listing(&folder);
    // 1 MB of values and what is added to it do not fit beside the filler.
    fs::write(folder.join("filler"), vec![0; 1500 << 10]).unwrap();
    let said = tool.fails("backup", BY_BGSAVE, 10);
    assert!(said.contains("free, and a save may need"), "{said}");
    // Diskless as it is, this server needs no room for a replica.
    let plan = tool.done("backup", &["--dry-run"]);
    assert_eq!(plan["shards"][0]["method"], "replication", "{plan:#}");
    let () = server.command("CONFIG SET repl-diskless-sync no");
    let said = tool.fails("backup", NOTHING, 10);
    assert!(said.contains("may write its RDB there"), "{said}");
    let () = server.command("SET still taken");
    fs::remove_file(folder.join("filler")).unwrap();
    assert_eq!(listing(&folder), before);

    let backup = tool.start("backup", BY_BGSAVE);
    wait_for_save(&server);
    fs::write(folder.join("filler"), vec![0; 1500 << 10]).unwrap();
    let output = backup.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(10), "{said}");
    assert!(said.contains("REFUSES ALL WRITES (MISCONF)"), "{said}");
    assert!(said.contains("let one BGSAVE succeed"), "{said}");
    fs::remove_file(folder.join("filler")).unwrap();
    // It heals what it complained of.
    tool.done("backup", BY_BGSAVE);
    let () = server.command("SET taken again");
}

#[test]
fn another_servers_directory_or_one_that_cannot_be_read_is_no_data_directory() {
    let version = Version::usual();
    let (server, other) = (Server::start(&version, &[]), Server::start(&version, &[]));
    let () = server.command("SET key value");
    let () = other.command("SAVE");
    for folder in [other.data_dir(), other.data_dir().join("nowhere"), other.config_file()] {
        let tool = Tool::new(&version).with_config(&config(&server, &folder, ""));
        let said = tool.fails("backup", BY_BGSAVE, 10);
        let expected = if folder == other.data_dir() {
            "that is not its data directory"
        } else {
            "its data directory cannot be used"
        };
        assert!(said.contains(expected), "{said}");
        // There is still the way without a directory.
        tool.done("backup", NOTHING);
        assert_eq!(rdb(&tool)["method"], "replication");
        let check = tool.run("check", NOTHING);
        assert_eq!(check.exit, Some(0), "{check:#?}");
    }
}

#[test]
fn a_user_who_may_not_save_captures_by_replication() {
    let version = Version::usual();
    let rule = "user backup on nopass resetkeys resetchannels -@all +psync +replconf +ping +info +role +time";
    let server = Options::new(&version).config(rule).config("user default off").try_start();
    let server = server.unwrap();
    let url = format!("redis://backup@{}", server.address());
    let folder = server.data_dir();
    let text = format!(
        "sources:\n  journey:\n    nodes: ['{url}']\n    dataDir: '{}'\n    auth: {{username: backup, passwordFrom: {{env: PASSWORD}}}}\n",
        folder.display()
    );
    let tool = Tool::new(&version).with_config(&text).with_environment("PASSWORD", "any");
    tool.done("backup", NOTHING);
    assert_eq!(rdb(&tool)["method"], "replication");
    let said = tool.fails("backup", BY_BGSAVE, 10);
    assert!(said.contains("BGSAVE is not permitted"), "{said}");
}

#[test]
fn a_user_who_may_save_and_not_replicate_needs_no_more_than_that() {
    let version = Version::usual();
    let rule = "user backup on nopass resetkeys resetchannels -@all +bgsave +ping +info +time";
    let mut server =
        Options::new(&version).config(rule).config("dbfilename any-name-at-all").start();
    fill(&mut server.connection(), 62, KEYS);
    let source = Digest::of(&mut server.connection());
    let text = config(
        &server,
        &server.data_dir(),
        "    auth: {username: backup, passwordFrom: {env: PASSWORD}}\n",
    );
    let tool = Tool::new(&version).with_config(&text).with_environment("PASSWORD", "any");
    let check = tool.run("check", NOTHING);
    assert_eq!(check.exit, Some(0), "{check:#?}");
    tool.done("backup", NOTHING);
    assert_eq!(rdb(&tool)["method"], "bgsave");
    server.kill9();
    fs::remove_file(server.data_dir().join("any-name-at-all")).unwrap();
    restore_and_compare(&tool, &mut server, &source);
}

#[test]
fn a_primary_watched_by_sentinels_is_captured_by_its_own_save() {
    let version = Version::usual();
    let group = SentinelGroup::start(&version);
    let () = group.nodes.primary.command("SET key value");
    let address = group.nodes.primary.address();
    let folder = group.nodes.primary.data_dir();
    let tool = Tool::new(&version).with_config(&format!(
        "sources:\n  journey:\n    nodes: ['{}']\n    primary: prefer\n    dataDirs: {{'{address}': '{}'}}\n",
        group.url(),
        folder.display()
    ));
    tool.done("backup", NOTHING);
    let rdb = rdb(&tool);
    assert_eq!((&rdb["method"], &rdb["capturedFrom"]), (&"bgsave".into(), &"primary".into()));
    assert_eq!(rdb["replication"]["id"], group.nodes.primary.info("master_replid").unwrap());
}

#[test]
fn a_program_killed_in_mid_capture_leaves_nothing_in_the_data_directory() {
    let version = Version::usual();
    let server = Server::start(&version, &[SLOW]);
    let () = server.command("DEBUG POPULATE 300");
    let () = server.command("SAVE");
    let before: Vec<_> = listing(&server.data_dir()).into_keys().collect();
    let tool = at_hand(&version, &server, "");
    let mut backup = tool.start("backup", NOTHING);
    wait_for_save(&server);
    backup.kill().unwrap();
    backup.wait().unwrap();
    wait_for("the server to end its save", || {
        (server.info("rdb_bgsave_in_progress").as_deref() == Some("0")).then_some(())
    });
    let after: Vec<_> = listing(&server.data_dir()).into_keys().collect();
    assert_eq!(after, before);
    assert!(tool.backups().is_empty());
    let () = server.command("CONFIG SET rdb-key-save-delay 0");
    tool.done("backup", NOTHING);
}

#[test]
fn a_server_that_restarts_in_mid_save_is_no_source_of_that_save() {
    let version = Version::usual();
    let mut server = Server::start(&version, &[SLOW]);
    let () = server.command("DEBUG POPULATE 500");
    let tool = at_hand(&version, &server, "");
    let backup = tool.start("backup", BY_BGSAVE);
    wait_for_save(&server);
    server.kill9();
    server.try_start_again().unwrap();
    let output = backup.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(10), "{output:?}");
    assert!(tool.backups().is_empty());
    tool.done("backup", BY_BGSAVE);
    assert_eq!(keys(&tool), 0);
}
