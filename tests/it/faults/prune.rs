//! `prune` fails or is dropped at every call to the store. Every listed backup stays whole, the newest good one and the pinned one stay.

use std::{collections::BTreeSet, fmt::Debug, fs, sync::Arc};

use bytes::Bytes;
use clap::Parser as _;
use jiff::{SignedDuration, Timestamp};
use redis_backup::{
    cli::Cli,
    domain::catalog::Key,
    edge::store::{Fault, Flaky, Memory, Operation, Store},
    failure::{Exit, Failure, chain},
    flow,
    report::Outcome,
};
use tempfile::TempDir;

use super::{
    bench::{SOURCE, fill, next_second, renamed},
    matrix::{context, faults_of, json, now},
    promise::Promise,
    tally::Tally,
};
use crate::{
    crash::run_until,
    servers::{Version, redis::Server},
};

/// A store with five daily backups, of which the rule wants two, and one more is pinned.
struct Stage {
    promise: Promise,
    folder: TempDir,
    objects: Vec<(Key, Bytes)>,
    /// Of the daily backups, newest first.
    daily: Vec<String>,
}

impl Stage {
    async fn new() -> Self {
        let source = Server::start(&Version::usual(), &[]);
        fill(&source, 1, 1);
        let folder = TempDir::new().unwrap();
        let config = format!(
            "sources:\n  {SOURCE}: {{nodes: [\"{}\"], compression: {{codec: none}}}}\n\
             stores:\n  disk: {{directory: {{path: /nonexistent/store}}}}\n\
             schedules:\n  daily: {{source: {SOURCE}, cron: \"0 2 * * *\", capture: [rdb], \
             stores: [disk], keep: {{last: 2}}}}\n",
            source.url()
        );
        fs::write(folder.path().join("config.yaml"), config).unwrap();
        let promise = Promise::of(source);
        let mut stage = Self { promise, folder, objects: Vec::new(), daily: Vec::new() };
        let memory = Memory::new(now());
        let outcome = stage
            .run(&memory, &["backup", "--schedule", "daily"], Vec::new(), now())
            .await
            .0
            .unwrap();
        let id = json(&outcome)["backups"][0]["backup"].as_str().unwrap().to_owned();
        let original = objects(&memory).await;
        let is_common = |key: &Key| !key.as_str().contains(&id) && !key.as_str().contains("/runs/");
        stage.objects = original.iter().filter(|(key, _)| is_common(key)).cloned().collect();
        for days in 1..=5 {
            let at = now() - SignedDuration::from_hours(24 * days);
            let daily = at.strftime("%Y%m%dT%H%M%SZ-daily-aaaaaa").to_string();
            stage.copy(&original, &id, &daily);
            stage.daily.push(daily);
        }
        let pin =
            format!("{SOURCE}/records/{}/20260101T000000Z-0000000000-pinned.json", stage.daily[4]);
        stage.objects.push((pin.parse().unwrap(), Bytes::from_static(b"{}")));
        stage
    }

    /// The same backup under another id.
    fn copy(&mut self, original: &[(Key, Bytes)], id: &str, to: &str) {
        let of = |part: &str| {
            let mut found = original.iter().filter(|(key, _)| key.as_str().contains(part));
            found.next().unwrap().1.clone()
        };
        let (manifest, installation) =
            renamed(&of("/manifests/"), &of("/installation.json"), id, to);
        for (key, body) in original.iter().filter(|(key, _)| key.as_str().contains(id)) {
            let body = if key.as_str().contains("/manifests/") {
                manifest.clone().into()
            } else if key.as_str().contains("/installation.json") {
                installation.clone().into()
            } else {
                body.clone()
            };
            let key = key.as_str().replace(id, to).parse().unwrap();
            self.objects.push((key, body));
        }
    }

    /// A store as it was before the first prune, all of it old.
    async fn store(&self) -> Memory {
        let memory = Memory::new(now() - SignedDuration::from_hours(1));
        for (key, body) in &self.objects {
            memory.create(key, body.clone()).await.unwrap();
        }
        memory
    }

    fn cli(&self, words: &[&str]) -> Cli {
        let config = self.folder.path().join("config.yaml").display().to_string();
        let line = [&["redis-backup", "--config", &config], words].concat();
        Cli::try_parse_from(line).unwrap()
    }

    async fn run(
        &self,
        memory: &Memory,
        words: &[&str],
        faults: Vec<Fault>,
        at: Timestamp,
    ) -> (Result<Outcome, Failure>, Flaky) {
        memory.set_clock(at);
        let flaky = Flaky::new(Arc::new(memory.clone()), faults);
        let context = context(Arc::new(flaky.clone()), move || at);
        let outcome = flow::run(self.cli(words), &context).await;
        (outcome, flaky)
    }

    /// The promise, for what must never expire.
    async fn assert_promise(&self, memory: &Memory, what: &impl Debug) {
        let words = ["verify", "--all", "--level", "content", "--source-name", SOURCE];
        let verified = self.run(memory, &words, Vec::new(), now()).await.0;
        let kept: BTreeSet<String> = [0, 1, 4].map(|index| self.daily[index].clone()).into();
        self.promise.assert_kept(verified, &kept, what);
    }

    /// The next prune ends what this one began, and two days later nothing is left of it.
    async fn assert_ends(&self, memory: &Memory, what: &impl Debug) {
        let later = now() + SignedDuration::from_hours(49);
        let outcome = self.run(memory, &["prune"], Vec::new(), later).await.0.unwrap();
        assert_eq!(outcome.exit, Exit::Done, "{what:?}: {}", json(&outcome));
        let expected = [&self.daily[0], &self.daily[1], &self.daily[4]];
        let mut found = listed(memory).await;
        found.sort_by(|left, right| right.cmp(left));
        assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{what:?}");
        for (key, _) in objects(memory).await {
            let is_of = |backup: &&&String| key.as_str().contains(backup.as_str());
            let is_common = !key.as_str().contains("-daily-");
            assert!(is_common || expected.iter().any(|id| is_of(&id)), "{what:?}: {key} stays");
        }
    }
}

async fn objects(memory: &Memory) -> Vec<(Key, Bytes)> {
    let mut objects = Vec::new();
    for listed in memory.list("").await.unwrap() {
        let body = memory.read(&listed.key, usize::MAX).await.unwrap();
        objects.push((listed.key, body));
    }
    objects
}

async fn listed(memory: &Memory) -> Vec<String> {
    let manifests = memory.list(&format!("{SOURCE}/manifests/")).await.unwrap();
    let id = |key: &Key| key.name().trim_end_matches(".json").to_owned();
    manifests.iter().map(|listed| id(&listed.key)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_call_fails_in_a_prune_what_is_listed_is_whole_and_what_must_stay_stays() {
    let stage = Stage::new().await;
    let memory = stage.store().await;
    let (outcome, flaky) = stage.run(&memory, &["prune"], Vec::new(), now()).await;
    assert_eq!(outcome.unwrap().exit, Exit::Done);
    stage.assert_promise(&memory, &"nothing").await;
    let faults = faults_of(&flaky.calls());
    let mut tally = Tally::of(
        "prune",
        "each call to the store fails, before or after it acted, once or for ever",
    );
    let mut failed = 0;
    for fault in &faults {
        let memory = stage.store().await;
        let (outcome, flaky) = stage.run(&memory, &["prune"], vec![fault.clone()], now()).await;
        if flaky.has_failed() {
            tally.add(outcome.as_ref().is_ok_and(|outcome| outcome.exit == Exit::Done));
        }
        match outcome {
            Ok(outcome) if outcome.exit == Exit::Done => {}
            Ok(outcome) => {
                failed += 1;
                assert_eq!(outcome.exit, Exit::StoreUnavailable, "{fault:?}");
                assert!(json(&outcome).to_string().contains("\"failed\""), "{fault:?}");
            }
            Err(failure) => {
                failed += 1;
                assert_eq!(failure.exit(), Exit::StoreUnavailable, "{fault:?}");
            }
        }
        stage.assert_promise(&memory, fault).await;
        stage.assert_ends(&memory, fault).await;
    }
    assert!(failed > faults.len() / 3, "only {failed} of {} faults were met", faults.len());
    tally.write();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prune_dropped_at_any_call_leaves_only_whole_backups() {
    let stage = Stage::new().await;
    let memory = stage.store().await;
    let (outcome, flaky) = stage.run(&memory, &["prune"], Vec::new(), now()).await;
    outcome.unwrap();
    let calls = flaky.calls().len();
    let mut tally =
        Tally::of("prune", "dropped at each call to the store, before and after it acted");
    let mut dropped = 0;
    for (at, more_polls) in (0..=calls).flat_map(|at| [(at, 0), (at, 1)]) {
        let memory = stage.store().await;
        let flaky = Flaky::new(Arc::new(memory.clone()), Vec::new());
        memory.set_clock(now());
        let context = context(Arc::new(flaky.clone()), now);
        let is_reached = || flaky.calls().len() >= at;
        let ended = run_until(is_reached, more_polls, flow::run(stage.cli(&["prune"]), &context))
            .await
            .is_some();
        dropped += usize::from(!ended);
        let what = format!("dropped at call {at}");
        stage.assert_promise(&memory, &what).await;
        stage.assert_ends(&memory, &what).await;
        if !ended {
            tally.ended();
        }
    }
    assert!(dropped > calls, "only {dropped} were dropped");
    tally.write();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_runs_ahead_deletes_nothing() {
    let stage = Stage::new().await;
    let memory = stage.store().await;
    memory.set_clock(now());
    let ahead = move || now() + SignedDuration::from_mins(20);
    let context = context(Arc::new(memory.clone()), ahead);
    let failure = flow::run(stage.cli(&["prune"]), &context).await.unwrap_err();
    assert_eq!(failure.exit(), Exit::Refused, "{}", chain(&failure));
    assert_eq!(listed(&memory).await.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retention_that_fails_after_a_backup_leaves_the_backup_and_is_told() {
    let stage = Stage::new().await;
    let memory = stage.store().await;
    let fault = Fault { failures: usize::MAX, ..Fault::once(Operation::Delete) };
    let words = ["backup", "--schedule", "daily"];
    let outcome = stage.run(&memory, &words, vec![fault], now()).await.0.unwrap();
    assert_eq!(outcome.exit, Exit::Partial);
    let report = json(&outcome);
    assert!(report["backups"][0]["retention"][0]["error"].is_string(), "{report}");
    assert_eq!(listed(&memory).await.len(), 6);
    next_second();
    stage.assert_promise(&memory, &"no delete").await;
    let outcome = stage.run(&memory, &words, Vec::new(), now()).await.0.unwrap();
    assert_eq!(outcome.exit, Exit::Done);
    // Two by the rule, one by its pin.
    assert_eq!(listed(&memory).await.len(), 3);
}
