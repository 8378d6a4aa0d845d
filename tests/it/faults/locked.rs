//! `kill -9` of `backup` and `prune` over a bucket with Object Lock: nothing locked is ever hidden, and what is listed is whole.

use std::{collections::BTreeSet, fs, process::Command, time::Duration};

use tokio::time::Instant;

use super::{
    bench::{BUCKET, Bench, Moments, Place, SOURCE, digest, run},
    tally::Tally,
};
use crate::servers::s3::{REGION, S3Server, run as block_on};

const KILLS: usize = 14;

const LOCK: &str = ", objectLock: {mode: governance, days: 1}";

/// With a schedule of which the newest stays.
fn go(bench: &Bench, lock: &str, line: &str) -> Command {
    let text = format!(
        "sources:\n  {SOURCE}: {{nodes: [\"{}\"]}}\nstores:\n  main: {{s3: {{bucket: {BUCKET}, \
         region: {REGION}, endpoint: \"{}\"{lock}}}}}\nschedules:\n  often: {{source: {SOURCE}, cron: \
         \"* * * * *\", capture: [rdb], stores: [main], keep: {{last: 1}}}}\nretention: separate\n",
        bench.source.url(),
        server(bench).endpoint(),
    );
    let path = bench.folder.path().join("locked.yaml");
    fs::write(&path, text).unwrap();
    let mut command = bench.program();
    command.args(line.split(' ')).args(["--output", "json", "--config"]).arg(path);
    command
}

/// What a reader of the bucket sees of backups: hidden objects are not among it.
fn keys(bench: &Bench) -> BTreeSet<String> {
    let client = server(bench).client();
    let keys: BTreeSet<String> = block_on(async move {
        let listed = client.list_objects_v2().bucket(BUCKET).send().await.unwrap();
        assert_ne!(listed.is_truncated(), Some(true));
        listed.contents().iter().map(|object| object.key().unwrap().to_owned()).collect()
    });
    let of_backups = |key: &String| ["/archives/", "/manifests/"].iter().any(|it| key.contains(it));
    keys.into_iter().filter(of_backups).collect()
}

fn server(bench: &Bench) -> &S3Server {
    match &bench.place {
        Place::S3(server) => server,
        Place::Directory(folder) => panic!("{folder:?} is no bucket"),
    }
}

fn timed(command: &mut Command) -> Duration {
    let begun = Instant::now();
    run(command).assert_code(0);
    begun.elapsed()
}

#[test]
fn a_killed_backup_hides_nothing_that_is_locked_and_is_whole_or_absent() {
    let mut tally = Tally::of("backup into S3 with Object Lock", "`kill -9` at a random moment");
    let bench = Bench::new(Place::lockable_s3(), 130);
    let before = digest(&bench.source);
    let backup = || go(&bench, LOCK, "backup --schedule often");
    run(&mut backup()).assert_code(0);
    let mut moments = Moments::new("kill -9 of a backup that is locked", timed(&mut backup()));
    let (mut proven, mut locked) = (BTreeSet::new(), BTreeSet::new());
    let mut killed = 0;
    bench.assert_listed_are_whole(&mut proven);
    for index in 0..KILLS {
        let moment = moments.anywhere();
        let is_killed = moments.run_and_kill(&mut backup(), moment);
        killed += usize::from(is_killed);
        let listed_before = proven.len();
        bench.assert_listed_are_whole(&mut proven);
        if index % 5 == 4 {
            // Whose sweep and whose retention must leave alone what is locked.
            run(&mut backup()).assert_code(0);
            run(&mut go(&bench, LOCK, "prune")).assert_code(0);
        }
        let now = keys(&bench);
        assert!(locked.is_subset(&now), "hidden: {:?}", locked.difference(&now));
        locked = now;
        if is_killed {
            tally.add(proven.len() > listed_before);
        }
    }
    bench.assert_listed_are_whole(&mut proven);
    assert_eq!(digest(&bench.source), before, "the source changed");
    assert!(killed > KILLS / 4, "only {killed} of {KILLS} runs were still there to be killed");
    tally.write();
}

#[test]
fn a_killed_prune_hides_nothing_that_is_locked_and_all_that_stays_is_whole() {
    let mut tally = Tally::of("prune of S3 with Object Lock", "`kill -9` at a random moment");
    let bench = Bench::new(Place::lockable_s3(), 2);
    let back_up = |lock: &str| {
        let report = run(&mut go(&bench, lock, "backup --schedule often")).assert_code(0).json();
        report["backups"][0]["backup"].as_str().unwrap().to_owned()
    };
    let of = |backup: &str| -> BTreeSet<String> {
        keys(&bench).into_iter().filter(|key| key.contains(backup)).collect()
    };
    let mut locked: BTreeSet<String> = (0..3).flat_map(|_| of(&back_up(LOCK))).collect();
    back_up("");
    back_up("");
    let mut moments = Moments::new("kill -9 of prune", timed(&mut go(&bench, "", "prune")));
    let (mut killed, mut expired) = (0, 0);
    for index in 0..KILLS {
        back_up("");
        let mut newest = back_up("");
        if index % 4 == 3 {
            newest = back_up(LOCK);
            locked.extend(of(&newest));
        }
        let moment = moments.anywhere();
        let listed_before = bench.listed();
        let is_killed = moments.run_and_kill(&mut go(&bench, "", "prune"), moment);
        killed += usize::from(is_killed);
        let now = keys(&bench);
        assert!(locked.is_subset(&now), "hidden: {:?}", locked.difference(&now));
        let listed = bench.listed();
        assert!(listed.contains(&newest), "the newest is gone: {listed:?}");
        run(&mut bench.verb("verify --all --level content")).assert_code(0);
        if is_killed {
            let is_done = listed.len() < listed_before.len();
            expired += usize::from(is_done);
            tally.add(is_done);
        }
    }
    eprintln!("{expired} of {killed} killed runs had deleted something");
    run(&mut go(&bench, "", "prune")).assert_code(0);
    let now = keys(&bench);
    assert!(locked.is_subset(&now), "hidden: {:?}", locked.difference(&now));
    assert_eq!(bench.listed().len(), now.iter().filter(|key| key.contains("/manifests/")).count());
    assert!(killed > KILLS / 4, "only {killed} of {KILLS} runs were still there to be killed");
    tally.write();
}
