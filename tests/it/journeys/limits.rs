//! What a backup may cost the source: one fork a host, bytes a second, time for each phase. Each limit is met, and told where it ends the run.

use std::{collections::BTreeMap, thread, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

use super::{Tool, encrypted::public, tool::Run};
use crate::servers::{
    Version,
    cluster::ClusterGroup,
    redis::{Options, Server},
    wait_for,
};

const NOTHING: &[&str] = &[];
const MEBIBYTE: u64 = 1 << 20;

/// Not to be compressed away.
fn fill(server: &Server, keys: u32) {
    let () = server.command(&format!("DEBUG POPULATE {keys} key 1000"));
}

fn config(url: &str, source: &str, store: &str) -> String {
    format!(
        "sources:\n  journey:\n    nodes: ['{url}']\n    compression: {{codec: none}}\n    {source}\n\
         stores:\n  disk: {{directory: {{path: ./store{store}}}}}\n"
    )
}

fn tool(server: &Server, source: &str, store: &str) -> Tool {
    let tool = Tool::new(&server.version).without_store();
    tool.with_config(&config(&server.url(), source, store))
}

#[test]
fn nodes_of_one_host_never_fork_at_the_same_time() {
    let version = Version::usual();
    let options = Options::new(&version)
        .config("rdb-key-save-delay 300")
        .config("repl-diskless-sync-delay 0");
    let cluster = ClusterGroup::of(&options);
    for primary in &cluster.primaries {
        fill(primary, 3000);
    }
    let tool = Tool::new(&version).without_store();
    let url = cluster.primaries[0].url();
    let tool = tool.with_config(&config(&url, "primary: prefer\n    capturesAtOnce: 3", ""));
    wait_for("the forks of the replicas to end", || (forks(&cluster).is_empty()).then_some(()));
    let before = all_forks(&cluster);

    let mut child = tool.start("backup", NOTHING);
    let mut is_seen = false;
    while child.try_wait().unwrap().is_none() {
        // Nodes are asked one after the other: who forked before and after a look did so all the while.
        let (first, second) = (forks(&cluster), forks(&cluster));
        let both: Vec<_> = first.iter().filter(|fork| second.contains(fork)).collect();
        assert!(both.len() < 2, "these fork at the same time: {both:?}");
        is_seen |= !both.is_empty();
    }
    let run = Run::of(&child.wait_with_output().unwrap());
    assert_eq!(run.exit, Some(0), "{run:#?}");
    assert_eq!((is_seen, all_forks(&cluster) - before), (true, 3));
}

/// The ports of the nodes that have a saving child just now, and which of their forks it is.
fn forks(cluster: &ClusterGroup) -> Vec<(u16, String)> {
    let saves = |node: &&Server| node.info("rdb_bgsave_in_progress").as_deref() == Some("1");
    let fork = |node: &Server| (node.port, node.info("total_forks").unwrap());
    cluster.nodes().filter(saves).map(fork).collect()
}

fn all_forks(cluster: &ClusterGroup) -> u64 {
    let forks = |node: &Server| node.info("total_forks").unwrap().parse::<u64>().unwrap();
    cluster.nodes().map(forks).sum()
}

#[test]
fn a_store_with_a_limit_gets_no_more_bytes_a_second_and_the_fork_does_not_wait_for_it() {
    let server =
        Server::start(&Version::usual(), &["repl-diskless-sync-delay 0", "rdbcompression no"]);
    fill(&server, 5000);
    let tool = tool(&server, "", ", uploadMaxPerSecond: 1MiB");
    let began = Instant::now();
    let mut child = tool.start("backup", NOTHING);
    wait_for("the fork to begin and end", || {
        let counted = |field, wanted: &str| server.info(field).as_deref() == Some(wanted);
        (counted("total_forks", "1") && counted("rdb_bgsave_in_progress", "0")).then_some(())
    });
    assert!(child.try_wait().unwrap().is_none(), "the backup did not outlive the fork");
    let run = Run::of(&child.wait_with_output().unwrap());
    assert_eq!(run.exit, Some(0), "{run:#?}");
    assert_took(began, &run);
}

#[test]
fn a_copy_into_a_store_and_a_read_data_directory_obey_the_limit_too() {
    let server = Server::start(&Version::usual(), &["rdbcompression no"]);
    fill(&server, 5000);
    let folder = server.data_dir();
    let data_dir = format!("dataDir: '{}'", folder.display());
    let slow = |name: &str| {
        format!("}}}}\n  {name}: {{directory: {{path: ./{name}, uploadMaxPerSecond: 1MiB")
    };
    let tool = tool(&server, &data_dir, &[slow("slow"), slow("sealed")].concat());
    let began = Instant::now();
    let saved = tool.run("backup", &["--method", "bgsave", "--store", "slow"]);
    assert_took(began, &saved);
    tool.done("backup", &["--method", "bgsave", "--store", "disk"]);
    let recipient = ["--recipient".to_owned(), public("x25519")];
    for (to, more) in [("slow", &[][..]), ("sealed", &recipient[..])] {
        let began = Instant::now();
        let arguments = ["--all", "--from", "disk", "--to", to].map(str::to_owned);
        let copied = tool.run_anywhere("copy", &[&arguments[..], more].concat());
        assert_eq!(copied.report["copies"][0]["state"], "copied", "{copied:#?}");
        let seconds = began.elapsed().as_secs();
        assert!(seconds >= 4, "the copy to {to} took {seconds} s");
    }
}

/// As long at least as the limit of a MiB a second demands.
#[track_caller]
fn assert_took(began: Instant, run: &Run) {
    let bytes = run.report["backups"][0]["storedBytes"].as_u64().unwrap();
    let (seconds, least) = (began.elapsed().as_secs(), bytes / MEBIBYTE - 1);
    assert!(least >= 3 && seconds >= least, "{bytes} bytes in {seconds} s");
}

#[test]
fn each_phase_that_takes_too_long_is_named_with_its_limit() {
    let version = Version::usual();
    let lines: BTreeMap<&str, [&str; 2]> = BTreeMap::from([
        ("begin", ["repl-diskless-sync-delay 600", "rdb-key-save-delay 0"]),
        ("silence", ["repl-diskless-sync-delay 0", "rdb-key-save-delay 3000"]),
        ("capture", ["repl-diskless-sync-delay 0", "rdb-key-save-delay 3000"]),
    ]);
    for (phase, lines) in lines {
        let mut server = Server::start(&version, &lines);
        fill(&server, 20_000);
        let tool = tool(&server, &format!("timeouts: {{{phase}: 2s}}"), "");
        let child = tool.start("backup", NOTHING);
        if phase == "silence" {
            wait_for("a transfer", || {
                (server.info("rdb_bgsave_in_progress")? == "1").then_some(())
            });
            server.freeze();
        }
        let run = Run::of(&child.wait_with_output().unwrap());
        if phase == "silence" {
            server.thaw();
        }
        assert_eq!(run.exit, Some(10), "{phase}: {run:#?}");
        let error = run.report["error"].as_str().unwrap();
        let expected = match phase {
            "silence" => "no answer within 2 s".to_owned(),
            phase => format!("`timeouts.{phase}`"),
        };
        assert!(error.contains(&expected), "{phase}: {error}");
        assert_ne!(run.report["hint"], "", "{run:#?}");
        assert!(tool.backups().is_empty());
    }
}

#[test]
fn a_signal_ends_a_backup_that_waits_for_its_limit() {
    let server =
        Server::start(&Version::usual(), &["repl-diskless-sync-delay 0", "rdbcompression no"]);
    fill(&server, 5000);
    let tool = tool(&server, "", ", uploadMaxPerSecond: 64KiB");
    let mut child = tool.start("backup", NOTHING);
    wait_for("the fork to end", || {
        let counted = |field, wanted: &str| server.info(field).as_deref() == Some(wanted);
        (counted("total_forks", "1") && counted("rdb_bgsave_in_progress", "0")).then_some(())
    });
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() {
        // At that pace it would take 80 seconds.
        assert!(began.elapsed() < Duration::from_secs(20), "it does not end");
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(child.wait().unwrap().code(), Some(143));
    assert!(tool.backups().is_empty());
}
