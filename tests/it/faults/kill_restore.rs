//! `kill -9` of `restore --data-dir` at any moment: a server starts with the old dataset or the new one, never neither.

use std::{path::Path, process::Command};

use tempfile::TempDir;

use super::{
    bench::{Bench, Moments, Place, digest, fill, on_disk, run},
    tally::Tally,
};
use crate::servers::{Version, redis::Server};

const KILLS: usize = 16;
const VALUES: usize = 200;

#[test]
fn a_killed_restore_for_appendonly_no_leaves_the_old_or_the_new_dataset() {
    let fault = "`kill -9` at a random moment, `appendonly no`";
    kill_again_and_again("no", Tally::of("restore into a data directory", fault));
}

#[test]
fn a_killed_restore_for_appendonly_yes_leaves_the_old_or_the_new_dataset() {
    let fault = "`kill -9` at a random moment, `appendonly yes`";
    kill_again_and_again("yes", Tally::of("restore into a data directory", fault));
}

fn kill_again_and_again(appendonly: &str, mut tally: Tally) {
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
    let mut killed = 0;
    let mut moments = Moments::new("kill -9 of restore", took);
    for index in 0..KILLS {
        // The swap comes at the end: every other kill aims at it.
        let moment = if index % 2 == 0 { moments.anywhere() } else { moments.late() };
        let dir = copy(template.path());
        let dir = dir.path();
        let is_killed = moments.run_and_kill(&mut line(&backup, dir), moment);
        killed += usize::from(is_killed);
        let after = found(dir);
        assert!(after == old || after == new, "neither: {after}, after {moment:?}");
        run(&mut line(&backup, dir)).assert_code(0);
        assert_eq!(found(dir), new, "the same restore again does not complete, after {moment:?}");
        run(&mut line("--undo", dir)).assert_code(0);
        assert_eq!(found(dir), old, "undo does not bring the old back, after {moment:?}");
        assert!(!dir.join(".redis-backup").exists());
        if is_killed {
            tally.add(after == new);
        }
    }
    assert!(killed > KILLS / 4, "only {killed} of {KILLS} runs were still there to be killed");
    assert_eq!(digest(&bench.source), new, "the source changed");
    tally.write();
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
