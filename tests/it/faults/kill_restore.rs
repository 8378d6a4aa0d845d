//! `kill -9` of `restore --data-dir` at any moment: a server starts with the old dataset or the new one, never neither.

use std::{path::Path, process::Command};

use tempfile::TempDir;

use super::bench::{Bench, Place, digest, fill, moments, on_disk, run, run_and_kill};
use crate::servers::{Version, redis::Server};

const KILLS: usize = 16;
const VALUES: usize = 200;

#[test]
fn a_killed_restore_for_appendonly_no_leaves_the_old_or_the_new_dataset() {
    kill_again_and_again("no");
}

#[test]
fn a_killed_restore_for_appendonly_yes_leaves_the_old_or_the_new_dataset() {
    kill_again_and_again("yes");
}

fn kill_again_and_again(appendonly: &str) {
    let bench = Bench::new(Place::directory(), VALUES);
    let new = digest(&bench.source);
    let backup = bench.back_up();
    let (template, old) = old_dataset(appendonly);
    let line = |more: &str, dir: &Path| {
        let mut command = bench.verb(&format!("restore {more}"));
        command.args([
            "--redis-defaults",
            "--appendonly",
            appendonly,
            "--server-version",
            "7.0.15",
        ]);
        command.arg("--data-dir").arg(dir);
        command
    };
    let found = |dir: &Path| digest(&start(copy(dir).path(), appendonly));
    assert_eq!(found(template.path()), old);

    let took = {
        let dir = copy(template.path());
        let begun = tokio::time::Instant::now();
        run(&mut line(&backup, dir.path())).assert_code(0);
        begun.elapsed()
    };
    let (mut killed, mut were_new) = (0, 0);
    for (index, moment) in moments("kill -9 of restore", took, KILLS).into_iter().enumerate() {
        // The swap comes at the end: every other kill aims at it.
        let moment = if index % 2 == 0 { moment } else { took.mul_f64(0.8) + moment.mul_f64(0.2) };
        let dir = copy(template.path());
        let dir = dir.path();
        killed += usize::from(run_and_kill(&mut line(&backup, dir), moment));
        let after = found(dir);
        assert!(after == old || after == new, "neither: {after}, after {moment:?}");
        were_new += usize::from(after == new);
        run(&mut line(&backup, dir)).assert_code(0);
        assert_eq!(found(dir), new, "the same restore again does not complete, after {moment:?}");
        run(&mut line("--undo", dir)).assert_code(0);
        assert_eq!(found(dir), old, "undo does not bring the old back, after {moment:?}");
        assert!(!dir.join(".redis-backup").exists());
    }
    eprintln!("appendonly {appendonly}: {killed} kills, {were_new} times the new dataset");
    assert!(killed > KILLS / 4, "only {killed} of {KILLS} runs were still there to be killed");
}

/// A folder as a server left it that was ended in the middle of its life, and its digest.
fn old_dataset(appendonly: &str) -> (TempDir, String) {
    let folder = on_disk();
    let mut server = start(folder.path(), appendonly);
    fill(&server, 20, 7);
    if appendonly == "no" {
        let () = server.command("SAVE");
    }
    let digest = digest(&server);
    server.stop();
    (folder, digest)
}

fn start(dir: &Path, appendonly: &str) -> Server {
    let lines = [format!("dir {}", dir.display()), format!("appendonly {appendonly}")];
    Server::start(&Version::usual(), &lines.each_ref().map(String::as_str))
}

fn copy(dir: &Path) -> TempDir {
    let copy = on_disk();
    let all = dir.join(".");
    let copied = Command::new("cp").args(["-a", "--"]).arg(all).arg(copy.path()).status().unwrap();
    assert!(copied.success());
    copy
}
