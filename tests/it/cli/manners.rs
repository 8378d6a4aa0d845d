//! How the program behaves beside others on its machine: what it leaves to them, and in which form it logs.

use std::{fs, net::TcpListener, process::Stdio};

use serde_json::Value;

use super::{program, run};
use crate::servers::{Version, redis::Server, wait_for};

/// The field of `/proc/PID/stat` behind the name that holds the niceness, by proc(5).
const NICENESS: usize = 16;

/// Of a backup that waits for a server that never answers.
fn niceness_of(arguments: &[&str]) -> String {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", server.local_addr().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let mut backup = program();
    backup.args(["backup", "--source-url", &url, "--source-name", "x", "--store", "./store"]);
    backup.args(arguments).current_dir(&folder).stdout(Stdio::null()).stderr(Stdio::null());
    let mut backup = backup.spawn().unwrap();
    server.set_nonblocking(true).unwrap();
    wait_for("the backup to connect", || server.accept().ok());
    // Not only the first thread: those that do the work.
    let tasks = format!("/proc/{}/task", backup.id());
    let of = |task: fs::DirEntry| {
        let stat = fs::read_to_string(task.path().join("stat")).ok()?;
        Some(stat.rsplit_once(") ")?.1.split(' ').nth(NICENESS)?.to_owned())
    };
    let all: Vec<String> = wait_for("the threads", || {
        let all: Vec<_> = fs::read_dir(&tasks).unwrap().filter_map(|it| of(it.unwrap())).collect();
        (all.len() > 1).then_some(all)
    });
    backup.kill().unwrap();
    backup.wait().unwrap();
    assert!(all.iter().all(|niceness| *niceness == all[0]), "{all:?}");
    all[0].clone()
}

#[test]
fn a_backup_leaves_the_processor_to_redis() {
    assert_eq!(niceness_of(&[]), "10");
    assert_eq!(niceness_of(&["--niceness", "3"]), "3");
}

#[test]
fn each_form_of_the_log_is_one_object_a_line() {
    let server = Server::start(&Version::usual(), &[]);
    for (form, place) in [("json", "/fields/message"), ("otlp-json", "/resourceLogs/0")] {
        let folder = tempfile::tempdir().unwrap();
        let mut backup = program();
        backup.args(["backup", "--source-name", "x", "--store", "./store", "--log", form]);
        backup.args(["--source-url", &server.url()]).current_dir(&folder);
        let said = run(&mut backup);
        assert_eq!(said.exit, 0, "{}", said.stderr);
        assert!(!said.stderr.is_empty());
        for line in said.stderr.lines() {
            let object: Value = serde_json::from_str(line).unwrap();
            assert!(object.pointer(place).is_some(), "{line}");
        }
    }
}
