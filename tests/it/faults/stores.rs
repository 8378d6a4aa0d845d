//! Two real stores, one of which is down, dies, freezes, fills up or lags: the other has the backup, and `copy` completes what is missing.

use std::{collections::BTreeSet, fs, path::Path, process::Command, thread};

use tempfile::TempDir;

use super::{
    bench::{Bench, Ended, Moments, Place, SOURCE, digest, files, on_disk, run, s3_text},
    real::{SLOW_LINES, SmallVolume, spawn},
    signals::{ended, run_and_signal},
    tally::Tally,
};
use crate::{
    servers::{Version, redis::Server, wait_for},
    tcp_proxy::{Fault, TcpProxy},
};

const KILLS: usize = 16;

/// A bench with a store of its own, and a directory as the second one.
struct Pair {
    bench: Bench,
    second: TempDir,
}

impl Pair {
    fn of(bench: Bench) -> Self {
        Self { bench, second: on_disk() }
    }

    fn second(&self) -> String {
        self.second.path().display().to_string()
    }

    /// A config file in which both stores and a schedule of both stand.
    fn config(&self, first: &str, source_lines: &str) -> String {
        let url = self.bench.source.url();
        let path = self.bench.folder.path().join("pair.yaml");
        let s3 = first.strip_prefix("s3://backups?endpoint=").map(|rest| {
            let (endpoint, _) = rest.split_once('&').unwrap();
            format!("{{s3: {{bucket: backups, region: us-east-1, endpoint: \"{endpoint}\"}}}}")
        });
        let first = s3.unwrap_or_else(|| format!("{{directory: {{path: \"{first}\"}}}}"));
        let text = format!(
            "sources:\n  {SOURCE}:\n    nodes: [\"{url}\"]\n{source_lines}\nstores:\n  \
             one: {first}\n  two: {{directory: {{path: \"{}\"}}}}\nschedules:\n  daily: \
             {{source: {SOURCE}, cron: \"0 2 * * *\", timezone: UTC, capture: [rdb], stores: [one, two]}}\n",
            self.second()
        );
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn go(&self, config: &str, line: &str) -> Command {
        let mut command = self.bench.program();
        command.args(line.split(' ')).args(["--output", "json", "--config", config]);
        command
    }

    /// The lost backup comes to the other store, and once only.
    #[track_caller]
    fn assert_copy_completes(&self, config: &str, to: &str, backup: &str) {
        let copied = run(&mut self.go(config, &format!("copy --missing --to {to}")));
        copied.assert_code(0);
        let report = copied.json();
        assert_eq!(report["copies"][0]["backup"], backup, "{report}");
        assert_eq!(report["copies"][0]["state"], "copied", "{report}");
        let again = run(&mut self.go(config, &format!("copy {backup} --to {to}")));
        again.assert_code(0);
        assert_eq!(again.json()["copies"][0]["state"], "there");
        let nothing = run(&mut self.go(config, &format!("copy --all --to {to}")));
        assert_eq!(nothing.json()["copies"], serde_json::json!([]), "{nothing:?}");
        for store in ["one", "two"] {
            let line = format!("verify {backup} --level content --store {store}");
            run(&mut self.go(config, &line)).assert_code(0);
        }
        let listed = run(&mut self.go(config, "list")).json();
        let stores: BTreeSet<&str> = listed["backups"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|listed| listed["backup"] == backup)
            .map(|listed| listed["store"].as_str().unwrap())
            .collect();
        assert_eq!(stores, BTreeSet::from(["one", "two"]), "{listed}");
    }
}

/// One store was lost, and why is told. The id of the backup that the other holds.
#[track_caller]
fn assert_partial(ended: &Ended, lost: &str, kept: &str, texts: &[&str]) -> String {
    ended.assert_code(14);
    let report = ended.json();
    let backup = &report["backups"][0];
    assert_eq!(backup["stores"], serde_json::json!([kept]), "{report}");
    let told = &backup["lostStores"][0];
    assert_eq!(told["store"], lost, "{report}");
    assert_ne!(told["hint"].as_str().unwrap(), "", "{report}");
    for text in texts {
        assert!(told.to_string().contains(text), "{text:?} is not told: {report}");
    }
    backup["backup"].as_str().unwrap().to_owned()
}

#[test]
fn a_store_that_is_down_from_the_start_misses_the_backup_and_gets_it_by_copy() {
    let mut tally = Tally::of("backup into two stores", "one is down");
    let mut pair = Pair::of(Bench::new(Place::s3(), 60));
    let config = pair.config(&pair.bench.place.text(), "");
    let before = digest(&pair.bench.source);
    let whole = run(&mut pair.go(&config, "backup --schedule daily"));
    whole.assert_code(0);
    assert_eq!(whole.json()["backups"][0]["stores"], serde_json::json!(["one", "two"]));

    let Place::S3(server) = &mut pair.bench.place else { panic!("S3") };
    server.stop();
    let partial = run(&mut pair.go(&config, "backup --schedule daily"));
    let texts = ["run again when the store answers"];
    let backup = assert_partial(&partial, "one", "two", &texts);
    let runs = files(&pair.second.path().join(SOURCE).join("runs"));
    let notes: Vec<String> = runs.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    assert!(notes.iter().any(|note| note.contains("\"exit\": 14") && note.contains("one: ")));
    // What is in the other store is found while this one is down.
    run(&mut pair.go(&config, &format!("verify {backup} --level content"))).assert_code(0);

    let Place::S3(server) = &mut pair.bench.place else { panic!("S3") };
    server.start_again();
    pair.assert_copy_completes(&config, "one", &backup);
    assert_eq!(digest(&pair.bench.source), before, "the source changed");
    tally.held();
    tally.write();
}

#[test]
fn a_store_that_dies_in_mid_upload_misses_the_backup_and_gets_it_by_copy() {
    let mut tally = Tally::of("backup into two stores", "one dies in mid-upload");
    let source = Server::start(&Version::usual(), &SLOW_LINES);
    let mut pair = Pair::of(Bench::on(source, Place::s3(), 300));
    let config = pair.config(&pair.bench.place.text(), "");
    let backup = spawn(&mut pair.go(&config, "backup --schedule daily"));
    wait_for("an upload", || (!pair.bench.place.unfinished().is_empty()).then_some(()));
    let Place::S3(server) = &mut pair.bench.place else { panic!("S3") };
    server.stop();
    let partial = ended(backup);
    let backup = assert_partial(&partial, "one", "two", &["store"]);
    let Place::S3(server) = &mut pair.bench.place else { panic!("S3") };
    server.start_again();
    assert!(pair.bench.listed().is_empty());
    pair.assert_copy_completes(&config, "one", &backup);
    tally.held();
    tally.write();
}

#[test]
fn a_store_that_freezes_is_given_up_when_the_spool_is_full_and_the_others_get_the_backup() {
    let mut tally = Tally::of("backup into two stores", "one freezes until the spool is full");
    // No faster than the other store is on a busy machine, or the spool would be full for both.
    let source = Server::start(&Version::usual(), &["rdb-key-save-delay 4000"]);
    let mut pair = Pair::of(Bench::on(source, Place::s3(), 900));
    let folder = pair.bench.folder.path().display();
    let spool = format!("    spool: {{path: \"{folder}\", bytesMax: 24MiB}}");
    let config = pair.config(&pair.bench.place.text(), &spool);
    let backup = spawn(&mut pair.go(&config, "backup --schedule daily"));
    let root = pair.bench.place.unfinished_folder();
    wait_for("an upload", || (!super::bench::entries(&root).is_empty()).then_some(()));
    let Place::S3(server) = &mut pair.bench.place else { panic!("S3") };
    server.freeze();
    let partial = ended(backup);
    let Place::S3(server) = &mut pair.bench.place else { panic!("S3") };
    server.thaw();
    let backup = assert_partial(&partial, "one", "two", &["too slowly", "spool"]);
    pair.assert_copy_completes(&config, "one", &backup);
    tally.held();
    tally.write();
}

#[test]
fn a_store_that_is_full_misses_the_backup_and_the_other_has_it() {
    let mut tally = Tally::of("backup into two stores", "one is full");
    let volume = SmallVolume::mount(4);
    let mut pair = Pair::of(Bench::new(Place::directory(), 150));
    pair.second = TempDir::new_in(volume.0.path()).unwrap();
    let config = pair.config(&pair.bench.place.text(), "");
    let partial = run(&mut pair.go(&config, "backup --schedule daily"));
    let texts = ["no space left in the store", "make room"];
    assert_partial(&partial, "two", "one", &texts);
    let left = files(pair.second.path());
    let is_archive = |path: &std::path::PathBuf| path.display().to_string().contains("archives");
    assert!(!left.iter().any(is_archive), "{left:?}");
    assert_eq!(pair.bench.assert_listed_are_whole(&mut BTreeSet::new()), 1);
    tally.held();
    tally.write();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_store_holds_neither_the_fork_nor_the_other_store_and_gets_its_backup() {
    let mut tally = Tally::of("backup into two stores", "one is slow");
    let pair = Pair::of(Bench::new(Place::s3(), 300));
    let Place::S3(server) = &pair.bench.place else { panic!("S3") };
    let proxy = TcpProxy::start(server.port).await;
    proxy.add("partNumber", 64, Fault::Slow);
    let config = pair.config(&s3_text(&proxy.endpoint()), "");
    let backup = spawn(&mut pair.go(&config, "backup --schedule daily"));
    let backup = thread::spawn(move || ended(backup));
    wait_for("the source to be drained", || {
        let info = |name| pair.bench.source.info(name);
        (info("rdb_bgsave_in_progress")? == "0" && info("total_forks")? != "0").then_some(())
    });
    let whole = backup.join().unwrap();
    whole.assert_code(0);
    assert_eq!(whole.json()["backups"][0]["stores"], serde_json::json!(["one", "two"]));
    for store in ["one", "two"] {
        let line = format!("verify --latest --level content --store {store}");
        run(&mut pair.go(&config, &line)).assert_code(0);
    }
    pair.bench.assert_nothing_remains();
    tally.held();
    tally.write();
}

#[test]
fn a_damaged_object_is_not_copied() {
    let mut tally = Tally::of("copy", "the original is truncated, extended, flipped or deleted");
    let pair = Pair::of(Bench::new(Place::directory(), 30));
    let backup = pair.bench.back_up();
    let damaged = pair.bench.place.archives().into_iter().find(|key| key.contains("dump")).unwrap();
    let path = pair.bench.place.root().join(damaged);
    let whole = fs::read(&path).unwrap();
    let (from, to) = (pair.bench.place.text(), pair.second());
    let copy = || {
        let line = format!("copy {backup} --output json");
        let mut command = pair.bench.program();
        run(command.args(line.split(' ')).args(["--from", &from, "--to", &to]))
    };
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    let longer = [&whole[..], b"x"].concat();
    for bytes in [&flipped, &longer, &whole[..whole.len() - 1].to_vec()] {
        fs::write(&path, bytes).unwrap();
        let failed = copy();
        failed.assert_code(20);
        assert!(failed.json().to_string().contains("dump.rdb"), "{failed:?}");
        let left = files(pair.second.path());
        let told = |path: &std::path::PathBuf| path.display().to_string();
        assert!(!left.iter().any(|path| told(path).contains("archives")), "{left:?}");
        assert!(!left.iter().any(|path| told(path).contains("manifests")), "{left:?}");
    }
    fs::remove_file(&path).unwrap();
    copy().assert_code(20);
    fs::write(&path, &whole).unwrap();
    copy().assert_code(0);
    tally.ended();
    tally.ended();
    tally.ended();
    tally.ended();
    tally.write();
}

#[test]
fn a_copy_into_the_prefix_of_another_installation_is_refused() {
    let pair = Pair::of(Bench::new(Place::directory(), 1));
    let other = Server::start(&Version::usual(), &[]);
    let other = Pair::of(Bench::on(other, Place::directory(), 1));
    pair.bench.back_up();
    other.bench.back_up();
    let (from, to) = (pair.bench.place.text(), other.bench.place.text());
    let copy = |more: &[&str]| {
        let mut command = pair.bench.program();
        run(command.args(["copy", "--latest", "--from", &from, "--to", &to]).args(more))
    };
    copy(&[]).assert_code(2).assert_says(&["belongs to another installation", "--adopt"]);
    copy(&["--dry-run", "--output", "json"]).assert_code(0);
    assert_eq!(other.bench.listed().len(), 1);
    copy(&["--adopt"]).assert_code(0);
    assert_eq!(other.bench.listed().len(), 2);
}

#[test]
fn a_killed_copy_into_s3_is_whole_or_absent_and_goes_on() {
    let tally = Tally::of("copy into S3", "`kill -9` at a random moment");
    kill_copies(tally, &[]);
}

#[test]
fn a_killed_copy_to_other_recipients_is_whole_or_absent_and_begins_anew() {
    let tally = Tally::of("copy to other recipients into S3", "`kill -9` at a random moment");
    kill_copies(tally, &["--recipients-file", "x25519.pub"]);
}

#[track_caller]
fn kill_copies(mut tally: Tally, more: &[&str]) {
    let pair = Pair::of(Bench::new(Place::s3(), 260));
    let source = digest(&pair.bench.source);
    let (to, from) = (pair.bench.place.text(), pair.second());
    run(&mut pair.bench.backup_at(&from)).assert_code(0);
    let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/keys");
    let copy = || {
        let mut command = pair.bench.program();
        command.args(["copy", "--all", "--from", &from, "--to", &to, "--source-name", SOURCE]);
        command.args(more).current_dir(&keys);
        command
    };
    let identity = format!("--identity-from file:{}", keys.join("x25519").display());
    let assert_whole = || {
        let listed = pair.bench.listed();
        if !listed.is_empty() {
            let verify = format!("verify --all --level content {identity}");
            run(&mut pair.bench.verb(&verify)).assert_code(0);
        }
        listed
    };
    let begun = tokio::time::Instant::now();
    run(&mut copy()).assert_code(0);
    let took = begun.elapsed();
    let root = pair.bench.place.root().join(SOURCE);
    let copied = assert_whole();
    assert_eq!(copied.len(), 1);
    // One that finds archives takes a time of its own.
    let mut moments =
        ["kill -9 of copy", "kill -9 of copy that goes on"].map(|what| Moments::new(what, took));
    let mut killed = 0;
    for index in 0..KILLS {
        // The copy is taken away, but every other time for what it left.
        for id in &copied {
            let _ = fs::remove_file(root.join("manifests").join(format!("{id}.json")));
        }
        if index % 2 == 0 {
            let _ = fs::remove_dir_all(root.join("archives"));
        }
        let moments = &mut moments[index % 2];
        let moment = moments.anywhere();
        let is_killed = moments.run_and_kill(&mut copy(), moment);
        killed += usize::from(is_killed);
        let listed = assert_whole();
        if listed.is_empty() {
            run(&mut copy()).assert_code(0);
            assert_eq!(assert_whole(), copied);
        } else {
            assert_eq!(listed, copied);
        }
        if is_killed {
            tally.add(!listed.is_empty());
        }
    }
    let original = pair.bench.verb_at("verify --all --level content", &from);
    run(&mut { original }).assert_code(0);
    assert_eq!(digest(&pair.bench.source), source, "the source changed");
    assert!(killed > KILLS / 4, "only {killed} of {KILLS} were still there to be killed");
    tally.write();
}

#[test]
fn a_signal_in_a_backup_to_two_stores_leaves_nothing_in_either() {
    let pair = Pair::of(Bench::new(Place::s3(), 200));
    let config = pair.config(&pair.bench.place.text(), "");
    run(&mut pair.go(&config, "backup --schedule daily")).assert_code(0);
    let begun = tokio::time::Instant::now();
    run(&mut pair.go(&config, "backup --schedule daily")).assert_code(0);
    let took = begun.elapsed();
    let count = |store: &str| {
        let listed = run(&mut pair.go(&config, &format!("list --store {store}")));
        listed.json()["backups"].as_array().unwrap().len()
    };
    let (mut listed, mut stopped) = (2, 0);
    let mut tally = Tally::of("backup into two stores", "SIGTERM at a random moment");
    let mut moments = Moments::new("signals to two stores", took);
    for _ in 0..12 {
        let mut backup = pair.go(&config, "backup --schedule daily");
        let term = rustix::process::Signal::TERM;
        let (ended, moment) = run_and_signal(&mut backup, &mut moments, term);
        match ended.code {
            Some(0) => listed += 1,
            None => {}
            Some(_) => {
                ended.assert_code(143);
                stopped += 1;
                tally.ended();
                pair.bench.assert_nothing_remains();
                assert_eq!(
                    files(&pair.second.path().join(".staging")),
                    [] as [std::path::PathBuf; 0]
                );
            }
        }
        assert_eq!((count("one"), count("two")), (listed, listed), "after {moment:?}");
    }
    assert!(stopped > 3, "only {stopped} signals met a backup");
    run(&mut pair.go(&config, "verify --all --level content")).assert_code(0);
    tally.write();
}
