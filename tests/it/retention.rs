//! Retention, pins and the shrink guard by the program itself, in a directory and in S3.

use std::{fs, path::PathBuf, process::Command};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::faults::bench::{Bench, Ended, Place, SOURCE, files, next_second, renamed, run};

/// A bench with a config whose one schedule keeps so.
struct Kept {
    bench: Bench,
    config: PathBuf,
}

impl Kept {
    fn new(place: Place, keep: &str, more: &str) -> Self {
        let bench = Bench::new(place, 2);
        let config = bench.folder.path().join("kept.yaml");
        let kept = Self { bench, config };
        let url = kept.bench.source.url();
        kept.configure(&url, keep, more);
        kept
    }

    fn configure(&self, url: &str, keep: &str, more: &str) {
        let store = match &self.bench.place {
            Place::Directory(folder) => {
                format!("{{directory: {{path: {}}}}}", folder.path().display())
            }
            Place::S3(server) => format!(
                "{{s3: {{bucket: backups, region: us-east-1, endpoint: \"{}\"}}}}",
                server.endpoint()
            ),
        };
        let text = format!(
            "sources:\n  {SOURCE}: {{nodes: [\"{url}\"], compression: {{codec: none}}}}\nstores:\n  kept: {store}\nschedules:\n  \
             daily: {{source: {SOURCE}, cron: \"0 2 * * *\", capture: [rdb], stores: [kept], keep: {keep}}}\n{more}\n"
        );
        fs::write(&self.config, text).unwrap();
    }

    fn command(&self, line: &str) -> Command {
        let mut command = self.bench.program();
        command.args(["--output", "json", "--config"]).arg(&self.config).args(line.split(' '));
        command
    }

    #[track_caller]
    fn ends(&self, line: &str, code: u8) -> Ended {
        let ended = run(&mut self.command(line));
        ended.assert_code(code);
        ended
    }

    #[track_caller]
    fn done(&self, line: &str) -> Value {
        self.ends(line, 0).json()
    }

    /// Captures as the schedule does; the id.
    #[track_caller]
    fn back_up(&self, code: u8) -> String {
        let report = self.ends("backup --schedule daily", code).json();
        report["backups"][0]["backup"].as_str().unwrap().to_owned()
    }

    /// The same backup as if it had been taken so many days ago.
    fn copy(&self, id: &str, days: i64) -> String {
        let at = now() - SignedDuration::from_hours(24 * days);
        let copy = at.strftime("%Y%m%dT%H%M%SZ-daily-aaaaaa").to_string();
        let root = self.bench.place.root().join(SOURCE);
        for file in files(&root.join("archives").join(id)) {
            let to = PathBuf::from(file.display().to_string().replace(id, &copy));
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(&file, to).unwrap();
        }
        let installation = root.join("archives").join(&copy).join("installation.json.000");
        let manifest = fs::read(self.manifest(id)).unwrap();
        let (manifest, bytes) = renamed(&manifest, &fs::read(&installation).unwrap(), id, &copy);
        fs::write(installation, bytes).unwrap();
        fs::write(self.manifest(&copy), manifest).unwrap();
        copy
    }

    fn manifest(&self, id: &str) -> PathBuf {
        self.bench.place.root().join(SOURCE).join("manifests").join(format!("{id}.json"))
    }

    fn archives(&self, id: &str) -> Vec<PathBuf> {
        files(&self.bench.place.root().join(SOURCE).join("archives").join(id))
    }

    #[track_caller]
    fn listed(&self) -> Vec<String> {
        ids(&self.done("list")["backups"])
    }
}

#[expect(clippy::disallowed_methods, reason = "a real Redis lives in real time")]
fn now() -> Timestamp {
    Timestamp::now()
}

#[track_caller]
fn ids(backups: &Value) -> Vec<String> {
    let id = |backup: &Value| backup["backup"].as_str().unwrap().to_owned();
    backups.as_array().unwrap().iter().map(id).collect()
}

/// State and words of the reasons of a backup in a report of `prune`.
#[track_caller]
fn verdict(report: &Value, id: &str) -> String {
    let backups = report["places"][0]["backups"].as_array().unwrap();
    let found = backups.iter().find(|backup| backup["backup"] == id);
    let found = found.unwrap_or_else(|| panic!("{id} is not in {report:#}"));
    let reasons = found["reasons"].as_array().unwrap();
    let words: Vec<&str> = reasons.iter().map(|reason| reason["word"].as_str().unwrap()).collect();
    format!("{}: {}", found["state"].as_str().unwrap(), words.join(" "))
}

fn prune_deletes_what_no_rule_keeps(place: Place) {
    let kept = Kept::new(place, "{last: 2}", "retention: separate");
    let newest = kept.back_up(0);
    let days: Vec<String> = (1..=5).map(|days| kept.copy(&newest, days)).collect();
    // A manifest that only a newer program understands.
    let text = fs::read_to_string(kept.manifest(&days[3])).unwrap();
    let newer = text.replacen("\"version\": 1", "\"version\": 99", 1);
    fs::write(kept.manifest(&days[3]), newer).unwrap();
    assert_eq!(kept.done(&format!("pin {}", days[4]))["stores"][0]["already"], false);
    assert_eq!(kept.done(&format!("pin {}", days[4]))["stores"][0]["already"], true);
    let before = kept.bench.place.keys();

    let report = kept.done("prune --dry-run");
    for (id, expected) in [
        (&newest, "kept: last newest-good"),
        (&days[0], "kept: last"),
        (&days[1], "expires: no-rule-wants-it"),
        (&days[2], "expires: no-rule-wants-it"),
        (&days[3], "kept: newer-manifest"),
        (&days[4], "kept: pinned"),
    ] {
        assert_eq!(verdict(&report, id), expected, "{id}");
    }
    assert_eq!(kept.bench.place.keys(), before, "a dry run changed something");

    let report = kept.done("prune");
    assert_eq!(verdict(&report, &days[1]), "expired: no-rule-wants-it");
    assert_eq!(kept.listed(), [&newest, &days[0], &days[3], &days[4]].map(String::clone));
    for gone in &days[1..3] {
        assert_eq!(kept.archives(gone), Vec::<PathBuf>::new());
    }
    for whole in [&newest, &days[0], &days[4]] {
        kept.done(&format!("verify {whole} --level content"));
    }
    let standing = &kept.done("list")["backups"][3]["standing"];
    assert_eq!(standing["pinned"], true, "{standing}");

    kept.done(&format!("unpin {}", days[4]));
    let report = kept.done("prune");
    assert_eq!(verdict(&report, &days[4]), "expired: no-rule-wants-it");
    let runs = kept.done("list --runs --last 2");
    assert_eq!(runs["runs"][0]["run"]["kind"], "prune", "{runs:#}");
    assert_eq!(runs["runs"].as_array().unwrap().len(), 2);
    assert_eq!(runs["lastFailed"], serde_json::json!([]));
}

#[test]
fn prune_deletes_what_no_rule_keeps_in_a_directory() {
    prune_deletes_what_no_rule_keeps(Place::directory());
}

#[test]
fn prune_deletes_what_no_rule_keeps_in_s3() {
    prune_deletes_what_no_rule_keeps(Place::s3());
}

#[test]
fn retention_follows_each_backup_of_a_schedule() {
    let kept = Kept::new(Place::directory(), "{last: 2}", "");
    let back_up = |_| {
        next_second();
        kept.back_up(0)
    };
    let backups: Vec<String> = (0..3).map(back_up).collect();
    assert_eq!(kept.listed(), [&backups[2], &backups[1]].map(String::clone));
    // By hand nothing follows, and it counts in no schedule.
    kept.done(&format!("backup {SOURCE}"));
    assert_eq!(kept.listed().len(), 3);
    let report = kept.done("prune");
    assert_eq!(kept.listed().len(), 3, "{report:#}");
}

#[test]
fn a_backup_that_shrank_is_suspect_until_it_is_accepted() {
    let kept = Kept::new(Place::directory(), "{last: 1}", "retention: separate");
    let first = kept.back_up(0);
    let days: Vec<String> = (1..=3).map(|days| kept.copy(&first, days)).collect();
    next_second();
    let () = kept.bench.source.command("FLUSHALL");
    let () = kept.bench.source.command("SET last one");
    let ended = kept.ends("backup --schedule daily", 21);
    let suspect = ended.json()["backups"][0]["backup"].as_str().unwrap().to_owned();
    ended.assert_says(&["keys shrank from 52 to 1", &format!("redis-backup accept {suspect}")]);
    let manifest = kept.done(&format!("show {suspect}"))["manifest"]["shrinkGuard"].clone();
    assert_eq!(manifest["suspect"]["keys"], serde_json::json!({"median": 52, "now": 1}));
    let standing = kept.done("list --last 1")["backups"][0]["standing"].clone();
    assert_eq!(standing["suspect"], true, "{standing}");

    // Nothing good goes, and nobody restores it by accident.
    let report = kept.done("prune");
    assert_eq!(verdict(&report, &days[2]), "kept: newest-is-suspect");
    assert_eq!(kept.listed().len(), 5);
    let ended = kept.ends("fetch --latest --into fetched", 0);
    ended.assert_says(&[&suspect, "is passed over: it is suspect"]);
    assert_eq!(ended.json()["backup"], first.as_str());

    let runs = kept.done("list --runs");
    let failed = &runs["lastFailed"][0]["run"];
    assert_eq!(failed["exit"], 21, "{runs:#}");
    assert!(failed["error"].as_str().unwrap().contains("keys shrank"), "{runs:#}");

    assert_eq!(kept.done(&format!("accept {suspect} --dry-run"))["dryRun"], true);
    assert_eq!(kept.done(&format!("accept {suspect}"))["stores"][0]["already"], false);
    assert_eq!(kept.done(&format!("accept {suspect}"))["stores"][0]["already"], true);
    // What was accepted is what is normal now.
    next_second();
    let next = kept.back_up(0);
    let manifest = kept.done(&format!("show {next}"))["manifest"]["shrinkGuard"].clone();
    assert_eq!(manifest["passed"]["compared"], 1, "{manifest}");
    kept.done("prune");
    assert_eq!(kept.listed(), [next]);
}

#[test]
fn only_a_suspect_backup_can_be_accepted() {
    let kept = Kept::new(Place::directory(), "{last: 1}", "");
    let backup = kept.back_up(0);
    let ended = kept.ends(&format!("accept {backup}"), 2);
    assert!(ended.json()["error"].as_str().unwrap().contains("not suspect"), "{ended:?}");
}

#[test]
fn prune_refuses_the_prefix_of_another_installation_without_asking_any() {
    let kept = Kept::new(Place::directory(), "{last: 1}", "");
    let backup = kept.back_up(0);
    kept.copy(&backup, 2);
    kept.configure("redis://127.0.0.1:1", "{last: 1}", "");
    let before = kept.bench.place.keys();
    let ended = kept.ends("prune", 2);
    assert!(ended.json()["error"].as_str().unwrap().contains("another installation"), "{ended:?}");
    assert_eq!(kept.bench.place.keys(), before);
    // The source need not be up.
    let url = kept.bench.source.url();
    kept.configure(&url, "{last: 1}", "");
    let Kept { mut bench, config } = kept;
    bench.source.kill9();
    let kept = Kept { bench, config };
    kept.done("prune");
    assert_eq!(kept.listed(), [backup]);

    // When it last failed, and why, is told also behind newer runs.
    kept.ends("backup --schedule daily", 10);
    next_second();
    kept.done("prune");
    let runs = kept.done("list --runs --last 1");
    assert_eq!(runs["runs"][0]["run"]["kind"], "prune", "{runs:#}");
    let failed = &runs["lastFailed"][0]["run"];
    assert_eq!((&failed["kind"], &failed["exit"]), (&"backup".into(), &10.into()), "{runs:#}");
    assert!(failed["error"].as_str().unwrap().contains("observe source"), "{runs:#}");
}

#[test]
fn notes_of_runs_older_than_ninety_days_go_but_the_newest_of_each_schedule() {
    let kept = Kept::new(Place::directory(), "{last: 2}", "retention: separate");
    kept.back_up(0);
    let folder = kept.bench.place.root().join(SOURCE).join("runs");
    let note = kept.bench.runs().remove(0);
    let put = |days: i64, schedule: &str, kind: &str| {
        let at = now() - SignedDuration::from_hours(24 * days);
        let exit = if kind.ends_with("-failed") { 11 } else { 0 };
        let mut run = note.clone();
        run["begun"] = at.to_string().into();
        run["schedule"] = schedule.into();
        run["exit"] = exit.into();
        let path =
            folder.join(at.strftime(&format!("%Y%m%dT%H%M%SZ-00000abcde-{kind}.json")).to_string());
        fs::write(&path, run.to_string()).unwrap();
        path
    };
    let old = [
        put(300, "daily", "backup"),
        put(95, "daily", "backup"),
        put(200, "daily", "backup-failed"),
    ];
    let stay = [
        put(91, "daily", "backup"),
        put(100, "daily", "backup-failed"),
        put(299, "yearly", "backup"),
        put(89, "daily", "backup"),
        put(88, "daily", "backup-failed"),
    ];
    // Of a newer program, which alone knows what it tells.
    let newer = folder.join("20200101T000000Z-00000abcde-other.json");
    fs::write(&newer, "{}").unwrap();
    kept.done("prune --dry-run");
    assert!(old.iter().all(|path| path.exists()), "a dry run deleted a note");
    kept.done("prune");
    assert!(!old.iter().any(|path| path.exists()), "an old note stays");
    assert!(stay.iter().chain([&newer]).all(|path| path.exists()), "a note that stays is gone");

    // After a scheduled backup too.
    let again = put(95, "daily", "backup");
    kept.configure(&kept.bench.source.url(), "{last: 2}", "");
    next_second();
    kept.back_up(0);
    assert!(!again.exists());
    assert!(stay.iter().all(|path| path.exists()));
}

#[test]
fn prune_without_a_config_says_whose_rules_it_lacks() {
    let bench = Bench::new(Place::directory(), 1);
    let ended = run(bench.program().arg("prune"));
    ended.assert_code(2).assert_says(&["prune applies the config's rules", "--config"]);
}
