//! Two stores, of which every call to one fails in every way: the other has its backup, what is listed is whole, and `copy` completes what is missing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    sync::Arc,
};

use clap::Parser as _;
use jiff::SignedDuration;
use redis_backup::{
    cli::Cli,
    domain::{archive::Identities, catalog::Key},
    edge::store::{Fault, Flaky, Memory, Operation, Store},
    failure::{Exit, Failure, chain},
    flow::{self, Context},
    report::{Outcome, Progress},
};
use tokio::sync::watch;

use super::{
    bench::{SOURCE, fill},
    matrix::{faults_of, json, now},
    promise::Promise,
    tally::Tally,
};
use crate::{
    crash::run_until,
    servers::{Version, redis::Server},
};

const FIRST: &str = "/nonexistent/first";
const SECOND: &str = "/nonexistent/second";

/// Two stores in memory, each reached through faults.
struct Stage {
    promise: Promise,
    first: Memory,
    second: Memory,
    /// What was listed in each store, and so must stay.
    listed: BTreeMap<&'static str, BTreeSet<String>>,
    /// How far the clocks of all are ahead.
    ahead: SignedDuration,
}

/// What a verb was, and which calls came to each store.
struct Ran {
    outcome: Result<Outcome, Failure>,
    first: Flaky,
    second: Flaky,
}

impl Stage {
    fn new() -> Self {
        let source = Server::start(&Version::usual(), &[]);
        fill(&source, 1, 1);
        Self {
            promise: Promise::of(source),
            first: Memory::new(now()),
            second: Memory::new(now()),
            listed: BTreeMap::new(),
            ahead: SignedDuration::ZERO,
        }
    }

    fn url(&self) -> String {
        self.promise.source().url()
    }

    fn empty_second(&mut self) {
        self.second = Memory::new(now());
        self.listed.remove(SECOND);
    }

    async fn run(&self, words: &[&str], of_first: &[Fault], of_second: &[Fault]) -> Ran {
        let (first, second) = self.flaky(of_first, of_second);
        let ahead = self.ahead;
        let clock = Arc::new(move || now() + ahead);
        let context = Context { clock, ..context(&first, &second) };
        let outcome = flow::run(cli(words), &context).await;
        Ran { outcome, first, second }
    }

    fn flaky(&self, of_first: &[Fault], of_second: &[Fault]) -> (Flaky, Flaky) {
        self.first.set_clock(now() + self.ahead);
        self.second.set_clock(now() + self.ahead);
        let first = Flaky::new(Arc::new(self.first.clone()), of_first.iter().cloned());
        let second = Flaky::new(Arc::new(self.second.clone()), of_second.iter().cloned());
        (first, second)
    }

    /// The promise, in one of the stores. How many backups it lists.
    async fn assert_promise(&mut self, store: &'static str, what: &impl Debug) -> usize {
        let words = [
            &["verify", "--all", "--level", "content", "--source-name", SOURCE, "--store", store],
            &IDENTITY[..],
        ];
        let verified = self.run(&words.concat(), &[], &[]).await.outcome;
        let before = self.listed.remove(store).unwrap_or_default();
        let listed = self.promise.assert_kept(verified, &before, what);
        let count = listed.len();
        self.listed.insert(store, listed);
        count
    }

    async fn assert_copy_completes(&mut self, what: &impl Debug) {
        self.assert_completes(&COPY, what).await;
    }

    async fn assert_completes(&mut self, copy: &[&str], what: &impl Debug) {
        let outcome = self.run(copy, &[], &[]).await.outcome;
        let outcome = outcome.unwrap_or_else(|failure| panic!("{what:?}: {}", chain(&failure)));
        assert_eq!(outcome.exit, Exit::Done, "{what:?}: {}", json(&outcome));
        let counts =
            [self.assert_promise(FIRST, what).await, self.assert_promise(SECOND, what).await];
        assert_eq!(counts[0], counts[1], "{what:?}: not all is copied");
        self.assert_no_orphans(what).await;
    }

    /// Each archive belongs to a backup that is listed, in both stores.
    async fn assert_no_orphans(&self, what: &impl Debug) {
        for memory in [&self.first, &self.second] {
            let keys = |folder: &str| {
                let prefix = format!("{SOURCE}/{folder}/");
                async move {
                    let listed = memory.list(&prefix).await.unwrap();
                    listed.into_iter().map(|listed| listed.key).collect::<Vec<Key>>()
                }
            };
            let manifests = keys("manifests").await;
            for archive in keys("archives").await {
                let backup = archive.as_str().split('/').nth(2).unwrap();
                let is_listed = manifests.iter().any(|key| key.as_str().contains(backup));
                assert!(is_listed, "{what:?}: {archive} is left over");
            }
        }
    }
}

const COPY: [&str; 8] = ["copy", "--all", "--from", FIRST, "--to", SECOND, "--source-name", SOURCE];

/// Pairs made for tests; the public half of the one, and where the secret half of the other is.
const RESEAL: [&str; 4] =
    ["--recipients-file", "tests/fixtures/keys/x25519.pub", IDENTITY[0], IDENTITY[1]];
const IDENTITY: [&str; 4] = [
    "--identity-from",
    "file:tests/fixtures/keys/ed25519",
    "--identity-from",
    "file:tests/fixtures/keys/x25519",
];

/// Copies that are encrypted to others on their way.
fn reseal() -> Vec<&'static str> {
    [&COPY[..], &RESEAL[..]].concat()
}

fn cli(words: &[&str]) -> Cli {
    Cli::try_parse_from([&["redis-backup"], words].concat()).unwrap()
}

fn context(first: &Flaky, second: &Flaky) -> Context {
    let (sender, signal) = watch::channel(None);
    drop(sender);
    let (first, second) = (first.clone(), second.clone());
    Context {
        clock: Arc::new(now),
        chance: Arc::new(rand::random),
        environment: Arc::new(|_| None),
        signal,
        progress: Progress::quiet(),
        over_store: Arc::new(move |store: Arc<dyn Store>| -> Arc<dyn Store> {
            match store.address().as_str() {
                FIRST => Arc::new(first.clone()),
                SECOND => Arc::new(second.clone()),
                other => panic!("{other} is opened"),
            }
        }),
        identities: Identities::default(),
    }
}

fn backup_words(url: &str) -> Vec<&str> {
    let stores = ["--source-name", SOURCE, "--store", FIRST, "--store", SECOND];
    [&["backup", "--source-url", url][..], &stores].concat()
}

fn sealed_backup(url: &str) -> Vec<&str> {
    let recipient = "tests/fixtures/keys/ed25519.pub";
    let store = ["--source-name", SOURCE, "--store", FIRST, "--recipients-file", recipient];
    [&["backup", "--source-url", url][..], &store].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_call_to_one_store_fails_the_other_has_the_backup_and_a_copy_completes_it() {
    let mut stage = Stage::new();
    let mut tally = Tally::of(
        "backup into two stores",
        "each call to one store fails, before or after it acted, once or for ever",
    );
    let url = stage.url();
    let words = backup_words(&url);
    let first = stage.run(&words, &[], &[]).await;
    assert_eq!(first.outcome.unwrap().exit, Exit::Done);
    let ran = stage.run(&words, &[], &[]).await;
    assert_eq!(ran.outcome.unwrap().exit, Exit::Done);
    let mut calls = ran.second.calls();
    calls.extend(first.second.calls());
    let (mut good, mut listed) = (2, 2);
    let (mut partial, faults) = (0, faults_of(&calls));
    for fault in &faults {
        let ran = stage.run(&words, &[], std::slice::from_ref(fault)).await;
        let outcome = ran.outcome.unwrap_or_else(|error| panic!("{fault:?}: {}", chain(&error)));
        good += 1;
        assert_eq!(stage.assert_promise(FIRST, fault).await, good, "{fault:?}");
        let now_listed = stage.assert_promise(SECOND, fault).await;
        if outcome.exit == Exit::Done {
            assert_eq!(now_listed, listed + 1, "{fault:?}");
        } else {
            assert_eq!(outcome.exit, Exit::Partial, "{fault:?}");
            partial += 1;
            let report = json(&outcome);
            let lost = &report["backups"][0]["lostStores"][0];
            assert_eq!(lost["store"], SECOND, "{fault:?}: {report}");
            assert_eq!(lost["exit"], 11, "{fault:?}: {report}");
        }
        if ran.second.has_failed() {
            tally.add(now_listed == good);
        }
        listed = now_listed;
        if listed < good {
            stage.assert_copy_completes(fault).await;
            listed = good;
        }
    }
    assert!(partial > faults.len() / 4, "only {partial} of {} were met", faults.len());
    tally.write();
}

#[tokio::test(flavor = "multi_thread")]
async fn when_both_stores_fail_the_backup_fails_and_names_both() {
    let mut stage = Stage::new();
    let url = stage.url();
    for operation in [Operation::Clock, Operation::Upload, Operation::Write, Operation::Attributes]
    {
        let fault = [Fault { failures: usize::MAX, ..Fault::once(operation) }];
        let failure = stage.run(&backup_words(&url), &fault, &fault).await.outcome.unwrap_err();
        assert_eq!(failure.exit(), Exit::StoreUnavailable, "{operation:?}");
        let told = chain(&failure);
        assert!(told.contains(FIRST) && told.contains(SECOND), "{operation:?}: {told}");
        stage.assert_no_orphans(&operation).await;
        for store in [FIRST, SECOND] {
            assert_eq!(stage.assert_promise(store, &operation).await, 0);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_call_fails_in_a_copy_it_is_whole_or_absent_and_can_be_repeated() {
    Box::pin(fail_each_call_of("copy", &COPY)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_call_fails_in_a_copy_to_others_it_is_whole_or_absent_and_can_be_repeated() {
    Box::pin(fail_each_call_of("copy to other recipients", &reseal())).await;
}

async fn fail_each_call_of(work: &'static str, copy: &[&str]) {
    let mut stage = Stage::new();
    let url = stage.url();
    stage.run(&sealed_backup(&url), &[], &[]).await.outcome.unwrap();
    let verify = [&["verify", "--latest", "--store", FIRST], &IDENTITY[..]].concat();
    stage.run(&verify, &[], &[]).await.outcome.unwrap();
    let ran = stage.run(copy, &[], &[]).await;
    assert_eq!(ran.outcome.unwrap().exit, Exit::Done);
    let faults: Vec<(bool, Fault)> = [(true, &ran.first), (false, &ran.second)]
        .into_iter()
        .flat_map(|(is_first, flaky)| {
            faults_of(&flaky.calls()).into_iter().map(move |fault| (is_first, fault))
        })
        .collect();
    let mut failed = 0;
    let mut tally = Tally::of(
        work,
        "each call to either store fails, before or after it acted, once or for ever",
    );
    for fault in &faults {
        stage.empty_second();
        let (is_first, one) = (fault.0, [fault.1.clone()]);
        let (of_first, of_second) =
            if is_first { (&one[..], &[][..]) } else { (&[][..], &one[..]) };
        let ran = stage.run(copy, of_first, of_second).await;
        let listed = stage.assert_promise(SECOND, fault).await;
        match ran.outcome {
            Ok(outcome) if outcome.exit == Exit::Done => assert_eq!(listed, 1, "{fault:?}"),
            Ok(outcome) => assert_eq!(outcome.exit, Exit::StoreUnavailable, "{fault:?}"),
            Err(failure) => assert_eq!(failure.exit(), Exit::StoreUnavailable, "{fault:?}"),
        }
        failed += usize::from(listed == 0);
        if ran.first.has_failed() || ran.second.has_failed() {
            tally.add(listed == 1);
        }
        stage.assert_completes(copy, fault).await;
        let records = stage.second.list(&format!("{SOURCE}/records/")).await.unwrap();
        assert!(!records.is_empty(), "{fault:?}: the proof was not copied");
    }
    assert!(failed > faults.len() / 4, "only {failed} of {} faults were met", faults.len());
    tally.write();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_dropped_at_any_call_is_whole_or_absent_and_can_be_repeated() {
    Box::pin(drop_at_each_call_of("copy", &COPY)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_to_others_dropped_at_any_call_is_whole_or_absent_and_can_be_repeated() {
    Box::pin(drop_at_each_call_of("copy to other recipients", &reseal())).await;
}

async fn drop_at_each_call_of(work: &'static str, copy: &[&str]) {
    let mut stage = Stage::new();
    let url = stage.url();
    stage.run(&sealed_backup(&url), &[], &[]).await.outcome.unwrap();
    let ran = stage.run(copy, &[], &[]).await;
    let calls = ran.first.calls().len() + ran.second.calls().len();
    let mut dropped = 0;
    let mut tally =
        Tally::of(work, "dropped at each call to either store, before and after it acted");
    for (at, more_polls) in (0..=calls).flat_map(|at| [(at, 0), (at, 1)]) {
        stage.empty_second();
        let (first, second) = stage.flaky(&[], &[]);
        let context = context(&first, &second);
        let is_reached = || first.calls().len() + second.calls().len() >= at;
        let ended =
            run_until(is_reached, more_polls, flow::run(cli(copy), &context)).await.is_some();
        dropped += usize::from(!ended);
        let listed = stage.assert_promise(SECOND, &at).await;
        if !ended {
            tally.add(listed == 1);
        }
        stage.assert_completes(copy, &format!("dropped at call {at}")).await;
    }
    assert!(dropped > calls, "only {dropped} were dropped");
    tally.write();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_failed_run_left_under_the_same_key_never_becomes_a_part_of_a_copy() {
    let mut stage = Stage::new();
    let url = stage.url();
    let words = ["backup", "--source-url", &url, "--source-name", SOURCE, "--store", FIRST];
    stage.run(&words, &[], &[]).await.outcome.unwrap();
    let archives = stage.first.list(&format!("{SOURCE}/archives/")).await.unwrap();
    for listed in &archives {
        let body = stage.first.read(&listed.key, usize::MAX).await.unwrap();
        let mut other = body.to_vec();
        other[0] ^= 1;
        stage.second.create(&listed.key, other.into()).await.unwrap();
    }
    stage.assert_copy_completes(&"other bytes under the same keys").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_reseal_left_beside_the_backup_never_becomes_a_part_of_it_and_is_swept() {
    let mut stage = Stage::new();
    let url = stage.url();
    stage.run(&sealed_backup(&url), &[], &[]).await.outcome.unwrap();
    let reseal = reseal();
    let prefix = format!("{SOURCE}/archives/");
    let keys = async |stage: &Stage| -> BTreeSet<Key> {
        let listed = stage.second.list(&prefix).await.unwrap();
        listed.into_iter().map(|listed| listed.key).collect()
    };
    // Tries that never got to their manifest, and could take nothing back.
    let for_ever = |operation| Fault { failures: usize::MAX, ..Fault::once(operation) };
    let faults = [for_ever(Operation::Attributes), for_ever(Operation::Delete)];
    for tries in 1..=2 {
        let ran = stage.run(&reseal, &[], &faults).await;
        assert_ne!(ran.outcome.unwrap().exit, Exit::Done);
        assert_eq!(keys(&stage).await.len(), 2 * tries);
    }
    let left = keys(&stage).await;
    stage.assert_completes(&reseal, &"beside two tries").await;
    let all = keys(&stage).await;
    assert_eq!((all.len(), all.is_superset(&left)), (6, true));

    stage.ahead = SignedDuration::from_hours(47);
    stage.assert_completes(&reseal, &"before the time of sweeping").await;
    assert_eq!(keys(&stage).await, all);
    stage.ahead = SignedDuration::from_hours(49);
    stage.assert_completes(&reseal, &"in the time of sweeping").await;
    assert_eq!(keys(&stage).await, &all - &left);
    assert_eq!(stage.assert_promise(SECOND, &"swept").await, 1);
}
