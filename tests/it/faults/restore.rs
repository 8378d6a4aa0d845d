//! `restore --data-dir` fails at every call to the store, or is dropped at every poll: the old dataset or the new one is there, the same command completes, and undo brings the old back.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use redis_backup::{
    edge::store::{Fault, Flaky},
    failure::{Exit, Failure},
    flow,
    report::Outcome,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::{
    bench::{files, on_disk},
    matrix::{Stage, cli, context, faults_of, now},
    tally::Tally,
};
use crate::crash::run_until;

/// More than a restore of so little needs.
const POLLS_MAX: usize = 2000;

const OLD: &[u8] = b"the old dataset";

fn words(more: &[&str], dir: &Path) -> Vec<String> {
    let target = ["--redis-defaults", "--server-version", "7.0.15", "--data-dir"];
    let words = [&["restore"], more, &target].concat();
    words.into_iter().map(String::from).chain([dir.display().to_string()]).collect()
}

fn old_dataset() -> TempDir {
    let dir = on_disk();
    fs::write(dir.path().join("dump.rdb"), OLD).unwrap();
    dir
}

fn dataset(dir: &Path) -> Vec<u8> {
    fs::read(dir.join("dump.rdb")).expect("neither the old dataset nor the new one")
}

async fn restore(
    stage: &Stage,
    more: &[&str],
    dir: &Path,
    faults: Vec<Fault>,
) -> (Result<Outcome, Failure>, Flaky) {
    stage.run(&words(more, dir), faults).await
}

/// What a backup of the stage restores to.
async fn new_dataset(stage: &mut Stage) -> (Vec<u8>, Flaky) {
    stage.run(&stage.backup_arguments(), Vec::new()).await.0.unwrap();
    assert_eq!(stage.assert_promise(&"nothing").await, 1);
    let dir = old_dataset();
    let (outcome, flaky) = restore(stage, &["--latest"], dir.path(), Vec::new()).await;
    assert_eq!(outcome.unwrap().exit, Exit::Done);
    let new = dataset(dir.path());
    assert!(new.starts_with(b"REDIS"));
    (new, flaky)
}

/// After a restore that failed or was dropped. Whether the new dataset was there already.
async fn assert_goes_on(stage: &Stage, dir: &Path, new: &[u8], what: &str) -> bool {
    let found = dataset(dir);
    assert!(found == OLD || found == new, "neither after {what}");
    restore(stage, &["--latest"], dir, Vec::new()).await.0.unwrap();
    assert!(dataset(dir) == new, "the same command does not complete after {what}");
    restore(stage, &["--undo"], dir, Vec::new()).await.0.unwrap();
    assert_eq!(files(dir), [dir.join("dump.rdb")] as [PathBuf; 1], "after {what}");
    assert!(dataset(dir) == OLD, "undo does not bring the old back after {what}");
    found == new
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_call_fails_in_a_restore_the_old_dataset_stays_or_the_new_one_is_whole() {
    let mut tally = Tally::of(
        "restore into a data directory",
        "each call to the store fails, before or after it acted, once or for ever",
    );
    let mut stage = Stage::new();
    let (new, flaky) = new_dataset(&mut stage).await;
    let mut failed = 0;
    for fault in faults_of(&flaky.calls()) {
        let dir = old_dataset();
        let faults = vec![fault.clone()];
        let (outcome, flaky) = restore(&stage, &["--latest"], dir.path(), faults).await;
        match outcome {
            Ok(outcome) => {
                assert_eq!(outcome.exit, Exit::Done, "{fault:?}");
                assert!(dataset(dir.path()) == new, "{fault:?}");
            }
            Err(failure) => {
                failed += 1;
                assert_eq!(failure.exit(), Exit::StoreUnavailable, "{fault:?}");
                assert_eq!(dataset(dir.path()), OLD, "{fault:?}");
                assert_eq!(files(dir.path()).len(), 1, "{fault:?}: something is left");
            }
        }
        let is_new = assert_goes_on(&stage, dir.path(), &new, &format!("{fault:?}")).await;
        if flaky.has_failed() {
            tally.add(is_new);
        }
    }
    assert_eq!(stage.assert_promise(&"restores").await, 1);
    assert!(failed > 4, "only {failed} faults were met");
    tally.write();
}

/// In a runtime of its own each time, whose end waits for what runs outside the task: a lock, a write.
#[test]
fn a_restore_dropped_at_any_poll_leaves_the_old_or_the_new_dataset_and_goes_on() {
    let fault = "dropped at each poll of its task";
    let mut tally = Tally::of("restore into a data directory", fault);
    let quiet = Runtime::new().unwrap();
    let mut stage = Stage::new();
    let (new, _) = quiet.block_on(new_dataset(&mut stage));
    for polls in 0..POLLS_MAX {
        let dir = old_dataset();
        if run_for(&stage, polls, dir.path()) {
            assert!(dataset(dir.path()) == new);
            assert!(polls > 16, "only {polls} were dropped");
            assert_eq!(quiet.block_on(stage.assert_promise(&"restores")), 1);
            return tally.write();
        }
        let what = format!("a drop after {polls} polls");
        tally.add(quiet.block_on(assert_goes_on(&stage, dir.path(), &new, &what)));
    }
    panic!("it never completes");
}

/// Whether it completed within so many polls.
fn run_for(stage: &Stage, polls: usize, dir: &Path) -> bool {
    let crashing = Runtime::new().unwrap();
    crashing.block_on(async {
        // It yields before and after each act of the store.
        let store = Flaky::new(Arc::new(stage.memory.clone()), []);
        let context = context(Arc::new(store), now);
        let run = flow::run(cli(&words(&["--latest"], dir)), &context);
        match run_until(|| true, polls, run).await {
            Some(outcome) => {
                assert_eq!(outcome.unwrap().exit, Exit::Done);
                true
            }
            None => false,
        }
    })
}
