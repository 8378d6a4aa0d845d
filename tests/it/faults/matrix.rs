//! Every call to a store fails once before and once after it acted, or for ever, or is where the run is dropped. One promise holds after all of them.

use std::{collections::BTreeSet, fmt::Debug, sync::Arc};

use bytes::Bytes;
use clap::Parser as _;
use jiff::{SignedDuration, Timestamp};
use redis_backup::{
    cli::{Cli, OutputForm},
    domain::archive::Identities,
    edge::store::{Fault, Flaky, Memory, Operation, Store},
    failure::{Exit, Failure, chain},
    flow::{self, Context},
    report::{self, Outcome, Progress},
};
use tokio::sync::watch;

use super::{
    bench::{LONG_AGO, SOURCE, fill},
    promise::Promise,
    tally::Tally,
};
use crate::{
    crash::run_until,
    servers::{Version, redis::Server},
};

/// A source, and a store in memory that is reached through faults.
pub(super) struct Stage {
    promise: Promise,
    pub(super) memory: Memory,
    /// What was listed, and so must stay.
    listed: BTreeSet<String>,
}

impl Stage {
    pub(super) fn new() -> Self {
        let source = Server::start(&Version::usual(), &[]);
        fill(&source, 1, 1);
        let promise = Promise::of(source);
        Self { promise, memory: Memory::new(now()), listed: BTreeSet::new() }
    }

    pub(super) fn backup_arguments(&self) -> Vec<String> {
        let url = self.promise.source().url();
        ["backup", "--source-url", &url].map(String::from).to_vec()
    }

    /// Backups in clear, and encrypted ones.
    fn backups(&self) -> [(&'static str, Vec<String>); 2] {
        let clear = self.backup_arguments();
        let recipients = ["--recipients-file", "tests/fixtures/keys/x25519.pub"];
        let sealed = [&clear[..], &recipients.map(String::from)].concat();
        [("backup", clear), ("encrypted backup", sealed)]
    }

    /// Runs a verb on a store that fails so; and which calls came.
    pub(super) async fn run(
        &self,
        words: &[String],
        faults: Vec<Fault>,
    ) -> (Result<Outcome, Failure>, Flaky) {
        self.memory.set_clock(now());
        let flaky = Flaky::new(Arc::new(self.memory.clone()), faults);
        let outcome = flow::run(cli(words), &context(Arc::new(flaky.clone()), now)).await;
        (outcome, flaky)
    }

    /// How many backups are listed.
    pub(super) async fn assert_promise(&mut self, what: &impl Debug) -> usize {
        let identity = ["--identity-from", "file:tests/fixtures/keys/x25519"];
        let words = ["verify", "--all", "--level", "content"];
        let words = [&words[..], &identity[..]].concat().into_iter().map(String::from);
        let words: Vec<String> = words.collect();
        let (verified, _) = self.run(&words, Vec::new()).await;
        self.listed = self.promise.assert_kept(verified, &self.listed, what);
        self.listed.len()
    }

    async fn runs(&self) -> usize {
        self.memory.list(&format!("{SOURCE}/runs/")).await.unwrap().len()
    }
}

pub(super) fn cli(words: &[String]) -> Cli {
    let mut line = vec!["redis-backup".to_owned()];
    line.extend_from_slice(words);
    line.extend(["--source-name", SOURCE, "--store", "/nonexistent/store"].map(String::from));
    Cli::try_parse_from(line).unwrap()
}

pub(super) fn context(
    store: Arc<dyn Store>,
    clock: impl Fn() -> Timestamp + Send + Sync + 'static,
) -> Context {
    let (sender, signal) = watch::channel(None);
    // Nobody sends a signal; a closed channel says the same.
    drop(sender);
    Context {
        clock: Arc::new(clock),
        chance: Arc::new(rand::random),
        environment: Arc::new(|_| None),
        signal,
        progress: Progress::quiet(),
        over_store: Arc::new(move |_| Arc::clone(&store)),
        identities: Identities::default(),
    }
}

#[expect(clippy::disallowed_methods, reason = "a real Redis lives in real time")]
pub(super) fn now() -> Timestamp {
    Timestamp::now()
}

pub(super) fn json(outcome: &Outcome) -> serde_json::Value {
    let mut bytes = Vec::new();
    report::print(&mut bytes, OutputForm::Json, &*outcome.report).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

/// Every call that an undisturbed run made fails once, before and after it acted; every operation fails for ever.
pub(super) fn faults_of(calls: &[(Operation, String)]) -> Vec<Fault> {
    let mut faults = Vec::new();
    for operation in Operation::ALL {
        let count = calls.iter().filter(|(called, _)| *called == operation).count();
        if count == 0 {
            continue;
        }
        for calls_before in 0..count {
            for after_acting in [false, true] {
                faults.push(Fault { calls_before, after_acting, ..Fault::once(operation) });
            }
        }
        faults.push(Fault { failures: usize::MAX, ..Fault::once(operation) });
        faults.push(Fault { failures: usize::MAX, after_acting: true, ..Fault::once(operation) });
    }
    faults
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_call_fails_in_a_backup_what_is_listed_is_whole() {
    let mut stage = Stage::new();
    let [(work, words), _] = stage.backups();
    fail_each_call_of(&mut stage, work, &words).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_call_fails_in_an_encrypted_backup_what_is_listed_is_whole() {
    let mut stage = Stage::new();
    let [_, (work, words)] = stage.backups();
    fail_each_call_of(&mut stage, work, &words).await;
}

async fn fail_each_call_of(stage: &mut Stage, work: &'static str, words: &[String]) {
    let mut tally =
        Tally::of(work, "each call to the store fails, before or after it acted, once or for ever");
    // The first run of a prefix claims it; those after it do not.
    let (outcome, first) = stage.run(words, Vec::new()).await;
    outcome.unwrap();
    let (outcome, flaky) = stage.run(words, Vec::new()).await;
    outcome.unwrap();
    let mut calls = flaky.calls();
    calls.extend(first.calls());
    let faults = faults_of(&calls);
    let mut listed = stage.assert_promise(&"nothing").await;
    let mut failed = 0;
    for fault in &faults {
        let noted = stage.runs().await;
        let (outcome, flaky) = stage.run(words, vec![fault.clone()]).await;
        let now_listed = stage.assert_promise(fault).await;
        match outcome {
            Ok(outcome) => {
                assert_eq!(outcome.exit, Exit::Done, "{fault:?}");
                assert_eq!(now_listed, listed + 1, "{fault:?}");
            }
            Err(failure) => {
                failed += 1;
                assert_eq!(
                    failure.exit(),
                    Exit::StoreUnavailable,
                    "{fault:?}: {}",
                    chain(&failure)
                );
            }
        }
        if flaky.has_failed() {
            tally.add(now_listed > listed);
        }
        listed = now_listed;
        if fault.operation != Operation::Create && fault.failures == 1 {
            assert_eq!(stage.runs().await, noted + 1, "{fault:?}: no note of the run");
        }
    }
    assert_eq!(stage.promise.source().info("connected_slaves").as_deref(), Some("0"));
    assert!(failed > faults.len() / 4, "only {failed} of {} faults were met", faults.len());
    tally.write();
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_call_fails_in_a_verification_nothing_is_called_proven_that_is_not() {
    let mut stage = Stage::new();
    let mut tally = Tally::of(
        "verify",
        "each call to the store fails, before or after it acted, once or for ever",
    );
    let (outcome, _) = stage.run(&stage.backup_arguments(), Vec::new()).await;
    outcome.unwrap();
    for level in ["stored", "content"] {
        let words = ["verify", "--all", "--level", level].map(String::from);
        let (outcome, flaky) = stage.run(&words, Vec::new()).await;
        assert_eq!(outcome.unwrap().exit, Exit::Done);
        for fault in faults_of(&flaky.calls()) {
            let (outcome, met) = stage.run(&words, vec![fault.clone()]).await;
            if met.has_failed() {
                tally.add(outcome.as_ref().is_ok_and(|outcome| outcome.exit == Exit::Done));
            }
            match outcome {
                // One that could not be judged is neither proven nor called broken.
                Ok(outcome) if outcome.exit == Exit::StoreUnavailable => {
                    let report = json(&outcome);
                    assert_eq!(report["backups"][0]["proven"], false, "{fault:?}: {report}");
                    let findings = &report["backups"][0]["findings"];
                    assert_eq!(findings, &serde_json::json!([]), "{fault:?}: {report}");
                }
                Ok(outcome) => {
                    assert_eq!(outcome.exit, Exit::Done, "{fault:?}: {}", json(&outcome));
                    let reads = [
                        Operation::Read,
                        Operation::Attributes,
                        Operation::Download,
                        Operation::Next,
                    ];
                    assert!(
                        !(reads.contains(&fault.operation)
                            && flaky.calls().iter().any(|(called, _)| *called == fault.operation)),
                        "proven, though it could not be read: {fault:?}"
                    );
                }
                Err(failure) => assert_eq!(failure.exit(), Exit::StoreUnavailable, "{fault:?}"),
            }
            assert_eq!(stage.assert_promise(&fault).await, 1);
        }
    }
    tally.write();
}

/// A crash at every call: the task is dropped where it stands.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_dropped_at_any_call_is_whole_or_absent() {
    let mut stage = Stage::new();
    let [(work, words), _] = stage.backups();
    drop_at_each_call_of(&mut stage, work, &words).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_backup_dropped_at_any_call_is_whole_or_absent() {
    let mut stage = Stage::new();
    let [_, (work, words)] = stage.backups();
    drop_at_each_call_of(&mut stage, work, &words).await;
}

async fn drop_at_each_call_of(stage: &mut Stage, work: &'static str, words: &[String]) {
    let mut tally = Tally::of(work, "dropped at each call to the store, before and after it acted");
    let (outcome, flaky) = stage.run(words, Vec::new()).await;
    outcome.unwrap();
    let calls = flaky.calls().len();
    let mut listed = stage.assert_promise(&"nothing").await;
    let mut dropped = 0;
    for (at, more_polls) in (0..=calls).flat_map(|at| [(at, 0), (at, 1)]) {
        let flaky = Flaky::new(Arc::new(stage.memory.clone()), Vec::new());
        stage.memory.set_clock(now());
        let context = context(Arc::new(flaky.clone()), now);
        // The store yields before and after it acts: one poll more is the other side of the act.
        let is_reached = || flaky.calls().len() >= at;
        let ended =
            run_until(is_reached, more_polls, flow::run(cli(words), &context)).await.is_some();
        dropped += usize::from(!ended);
        let now_listed = stage.assert_promise(&format!("dropped at call {at}")).await;
        if !ended {
            tally.add(now_listed > listed);
        }
        listed = now_listed;
    }
    assert!(dropped > calls, "only {dropped} were dropped");
    let (outcome, _) = stage.run(words, Vec::new()).await;
    outcome.unwrap();
    tally.write();
}

#[tokio::test]
async fn leftovers_are_swept_after_two_days_by_the_clock_of_the_store_and_not_before() {
    let stage = Stage::new();
    let hours_ago = |hours| now() - SignedDuration::from_hours(hours);
    let archive = |backup: &str| {
        format!("{SOURCE}/archives/{backup}/shard-0000/dump.rdb.zst.000").parse().unwrap()
    };
    let committed = LONG_AGO.replace("aaaaaa", "cccccc");
    let young = hours_ago(47).strftime("%Y%m%dT%H%M%SZ-manual-dddddd").to_string();
    for (backup, hours) in [(LONG_AGO, 49), (&*committed, 49), (&*young, 47)] {
        stage.memory.set_clock(hours_ago(hours));
        stage.memory.create(&archive(backup), Bytes::from_static(b"x")).await.unwrap();
        drop(stage.memory.upload(&archive(&backup.replace("manual", "other"))).await.unwrap());
    }
    // Of a version that nobody knows yet: it protects its archives all the same.
    let manifest = format!("{SOURCE}/manifests/{committed}.json").parse().unwrap();
    stage.memory.create(&manifest, Bytes::from_static(b"{}")).await.unwrap();
    let (outcome, _) = stage.run(&stage.backup_arguments(), Vec::new()).await;
    outcome.unwrap();
    let kept = stage.memory.list(&format!("{SOURCE}/archives/")).await.unwrap();
    let is_kept = |backup: &str| kept.iter().any(|listed| listed.key == archive(backup));
    assert!(!is_kept(LONG_AGO), "old archives stay");
    assert!(is_kept(&committed), "archives of a committed backup were swept");
    assert!(is_kept(&young), "young archives were swept");
    assert_eq!(stage.memory.unfinished("").await.unwrap().len(), 1, "uploads: the young one stays");
}

#[tokio::test]
async fn a_clock_two_minutes_off_is_told_and_twenty_refused() {
    let stage = Stage::new();
    stage.memory.set_clock(now());
    for (minutes, refused) in [(2, false), (-2, false), (20, true), (-20, true)] {
        let clock = move || now() + SignedDuration::from_mins(minutes);
        let context = context(Arc::new(stage.memory.clone()), clock);
        match flow::run(cli(&stage.backup_arguments()), &context).await {
            Ok(outcome) => {
                assert!(!refused, "{minutes} min are taken");
                let warnings = json(&outcome)["backups"][0]["warnings"].to_string();
                assert!(warnings.contains("the clock of"), "{minutes} min: {warnings}");
            }
            Err(failure) => {
                assert!(refused, "{minutes} min: {}", chain(&failure));
                assert_eq!(failure.exit(), Exit::Refused);
                assert!(chain(&failure).contains("clock") && failure.hint().contains("NTP"));
            }
        }
    }
}
