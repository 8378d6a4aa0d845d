//! Append-only files from a data directory at hand, under a writer and under rewrites: what was acknowledged is in them.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use serde_json::Value;

use super::{Tool, rewrite};
use crate::servers::{
    Version,
    dataset::{Digest, Writer, assert_same, fill},
    redis::{Options, Server},
};

const KEYS: usize = 500;
const NOTHING: &[&str] = &[];

fn at_hand(version: &Version, server: &Server) -> Tool {
    let (url, folder) = (server.url(), server.data_dir());
    Tool::new(version).with_config(&format!(
        "sources:\n  journey:\n    nodes: ['{url}']\n    dataDir: '{}'\n",
        folder.display()
    ))
}

fn shard(tool: &Tool) -> Value {
    tool.manifest()["shards"][0].clone()
}

/// A new server of the same version that starts from the files of the newest backup, and minds every flaw of them.
fn start_from(tool: &Tool, version: &Version, name: &str) -> Server {
    let mut server = Options::new(version)
        .config("appendonly yes")
        .config(format!("appendfilename \"{name}\""))
        .config("aof-load-truncated no")
        .start();
    server.kill9();
    for entry in fs::read_dir(server.data_dir()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
    }
    let arguments = super::into(&server, &["--latest", "--from", "aof"]);
    assert_eq!(tool.done("restore", &arguments)["state"], "restored");
    super::start(&mut server);
    server
}

fn comes_back_from_them_alone(name: &str) {
    let version = Version::named(name);
    let appendfilename = "Append Only.aof";
    let server = Options::new(&version)
        .config("appendonly yes")
        .config(format!("appendfilename \"{appendfilename}\""))
        .start();
    fill(&mut server.connection(), 71, KEYS);
    // Commands do not tell a stream's groups to the last counter, an RDB at the beginning of the files does.
    rewrite(&server);
    let source = Digest::of(&mut server.connection());
    let tool = at_hand(&version, &server);
    let writer = Writer::start(vec![server.connection()]);
    tool.done("backup", &["--capture", "aof"]);
    assert!(writer.stop() > 0);
    let shard = shard(&tool);
    assert!(shard["rdb"].is_null());
    assert!(!shard["aof"]["files"].as_array().unwrap().is_empty());
    let report = tool.done("verify", &["--latest", "--level", "content"]);
    assert_eq!(report["backups"][0]["proven"], true, "{report:#}");
    let restored = start_from(&tool, &version, appendfilename);
    let found = Digest::of(&mut restored.connection()).without(super::WRITTEN_MEANWHILE);
    assert_same(&source, &found);
}

#[test]
fn redis_7_0_comes_back_from_append_only_files_alone() {
    comes_back_from_them_alone("redis-7.0");
}

#[test]
fn the_newest_valkey_comes_back_from_append_only_files_alone() {
    comes_back_from_them_alone("valkey-newest");
}

/// Counts in transactions, and notes each count once the server has acknowledged it.
struct Journal {
    acknowledged: Arc<AtomicU64>,
    stopped: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Journal {
    fn start(server: &Server) -> Self {
        let (acknowledged, stopped) =
            (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, ended) = (Arc::clone(&acknowledged), Arc::clone(&stopped));
        let mut connection = server.connection();
        let writing = thread::spawn(move || {
            let mut next = 0_u64;
            while !ended.load(Ordering::Relaxed) {
                next += 1;
                let () = redis::pipe()
                    .atomic()
                    .cmd("SET")
                    .arg(format!("journal:{}", next % 1000))
                    .arg(format!("{next}\r\n*1\r\n$4\r\n").repeat(20))
                    .cmd("RPUSH")
                    .arg("journal")
                    .arg(next)
                    .cmd("SET")
                    .arg("last")
                    .arg(next)
                    .query(&mut connection)
                    .unwrap();
                count.store(next, Ordering::SeqCst);
            }
        });
        let (ended, mut connection) = (Arc::clone(&stopped), server.connection());
        let rewriting = thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                // It refuses while one runs.
                let _ = redis::cmd("BGREWRITEAOF").query::<redis::Value>(&mut connection);
                thread::sleep(Duration::from_millis(250));
            }
        });
        Self { acknowledged, stopped, threads: vec![writing, rewriting] }
    }

    fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Copies while it is written and rewritten all the time; each must load and miss nothing.
fn copies_load(name: &str, copies: usize) {
    let version = Version::named(name);
    let server = Options::new(&version).config("appendonly yes").start();
    fill(&mut server.connection(), 72, KEYS);
    let tool = at_hand(&version, &server);
    let journal = Journal::start(&server);
    let mut expected = Vec::new();
    for _ in 0..copies {
        let before = journal.acknowledged();
        let report = tool.done("backup", &["--capture", "aof"]);
        let backup = report["backups"][0]["backup"].as_str().unwrap().to_owned();
        expected.push((backup, before));
    }
    assert!(journal.acknowledged() > 0);
    drop(journal);
    for (backup, before) in expected {
        let mut restored =
            Options::new(&version).config("appendonly yes").config("aof-load-truncated no").start();
        restored.kill9();
        for entry in fs::read_dir(restored.data_dir()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
        }
        let arguments = super::into(&restored, &[&backup, "--from", "aof"]);
        assert_eq!(tool.done("restore", &arguments)["state"], "restored");
        super::start(&mut restored);
        let last: u64 = restored.command::<Option<u64>>("GET last").unwrap_or(0);
        let length: u64 = restored.command("LLEN journal");
        assert!(last >= before, "{backup} misses what was acknowledged: {last} of {before}");
        assert_eq!(length, last, "{backup} holds half a transaction");
        restored.kill9();
    }
}

#[test]
fn sixty_copies_under_rewrites_of_redis_7_0_load_and_miss_nothing() {
    copies_load("redis-7.0", 60);
}

#[test]
fn copies_under_rewrites_of_redis_6_2_load_and_miss_nothing() {
    copies_load("redis-6.2", 5);
}

#[test]
fn copies_under_rewrites_of_the_newest_redis_load_and_miss_nothing() {
    copies_load("redis-newest", 5);
}

#[test]
fn copies_under_rewrites_of_the_newest_valkey_load_and_miss_nothing() {
    copies_load("valkey-newest", 5);
}

#[test]
fn files_that_are_not_the_servers_own_are_refused() {
    let version = Version::usual();
    let start = || Options::new(&version).config("appendonly yes").start();
    let (server, other) = (start(), start());
    let () = server.command("SET key value");
    let () = other.command("SET key another-value-of-another-length");
    let text = |folder: &std::path::Path| {
        format!(
            "sources:\n  journey:\n    nodes: ['{}']\n    dataDir: '{}'\n",
            server.url(),
            folder.display()
        )
    };
    let tool = Tool::new(&version).with_config(&text(&other.data_dir()));
    let said = tool.fails("backup", &["--capture", "aof"], 10);
    assert!(said.contains("that is not its data directory"), "{said}");
    assert!(tool.backups().is_empty());
    let tool = Tool::new(&version).with_config(&text(&server.data_dir()));
    tool.done("backup", &["--capture", "aof"]);
    let () = server.command("CONFIG SET appendonly no");
    let said = tool.fails("backup", &["--capture", "aof"], 10);
    assert!(said.contains("aof_enabled:0"), "{said}");
}

#[test]
fn append_only_files_without_a_data_directory_are_an_error_of_the_config() {
    let version = Version::usual();
    let server = Server::start(&version, &[]);
    let tool = Tool::new(&version).with_config(&format!(
        "sources:\n  journey:\n    nodes: ['{}']\nstores:\n  disk: {{directory: {{path: store}}}}\nschedules:\n  \
         daily: {{source: journey, cron: '@daily', capture: [rdb, aof], stores: [disk]}}\n",
        server.url()
    ));
    let check = tool.run("check", NOTHING);
    assert_eq!(check.exit, Some(2), "{check:#?}");
    assert!(format!("{check:?}").contains("needs `dataDir`"), "{check:#?}");
    let plain = Tool::new(&version);
    let call = ["--source-url", &server.url(), "--capture", "aof"];
    let said = plain.fails("backup", &call, 10);
    assert!(said.contains("dataDir"), "{said}");
}
