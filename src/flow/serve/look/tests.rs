//! What is read from a store as other runs, other programs and accidents leave it.

use std::{fs, path::Path, sync::Arc};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;

use super::*;
use crate::{domain::archive::Identities, report::Progress};

const NOW: &str = "2026-11-20T12:00:30Z";

struct Bench {
    folder: TempDir,
    settings: Settings,
}

impl Bench {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let text = format!(
            "sources: {{sessions: {{nodes: ['redis://localhost']}}}}\n\
             stores: {{disk: {{directory: {{path: {}}}}}, away: {{directory: {{path: {}}}}}}}\n\
             schedules:\n  daily: {{source: sessions, cron: '0 2 * * *', capture: [rdb], stores: [disk]}}\n  \
             lost: {{source: sessions, cron: '0 2 * * *', capture: [rdb], stores: [away]}}\n",
            folder.path().display(),
            // Below a file, nothing can be.
            folder.path().join("file/store").display(),
        );
        let settings = Settings::parse(Path::new("test.yaml"), &text).unwrap();
        Self { folder, settings }
    }

    fn write(&self, key: &str, body: &Value) {
        let path = self.folder.path().join("sessions").join(key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, body.to_string()).unwrap();
    }

    fn backup(&self, id: &str, schedule: &str, scheduled_for: &str) {
        let text = fs::read_to_string("tests/fixtures/manifest-v1.json").unwrap();
        let text =
            text.replace("20261120T020000Z-daily-k3x9q2", id).replace("analytics", "sessions");
        let mut manifest: Value = serde_json::from_str(&text).unwrap();
        manifest["schedule"] = json!(schedule);
        manifest["scheduledFor"] = json!(scheduled_for);
        self.write(&format!("manifests/{id}.json"), &manifest);
    }

    fn run(&self, at: &str, schedule: &str, exit: u8, backup: Option<&str>) {
        let begun: Timestamp = at.parse().unwrap();
        let run = json!({
            "version": 1, "source": "sessions", "kind": "backup", "begun": begun, "ended": begun,
            "tool": "test", "backup": backup, "schedule": schedule,
            "scheduledFor": "2026-11-20T02:00:00Z", "exit": exit, "error": null,
        });
        let name = format!("{}-{exit:08x}-backup.json", compact_time(begun));
        self.write(&format!("runs/{name}"), &run);
    }

    fn proof(&self, id: &str, at: &str, level: &str, findings: &Value) {
        let event = json!({"verified": {"level": level, "server": null, "findings": findings}});
        let record = json!({"version": 1, "backup": id, "at": at, "tool": "test", "event": event});
        let kind = if findings == &json!([]) { "proven" } else { "broken" };
        let name = format!("{}-0000000000-{kind}-{level}.json", compact_time(at.parse().unwrap()));
        self.write(&format!("records/{id}/{name}"), &record);
    }

    async fn look(&self) -> InStore {
        let seen = self.look_for("daily").await;
        seen.stores.into_values().next().unwrap().unwrap()
    }

    async fn look_for(&self, schedule: &str) -> Seen {
        let context = Context {
            clock: Arc::new(|| NOW.parse().unwrap()),
            chance: Arc::new(|| 7),
            environment: Arc::new(|_| None),
            signal: watch::channel(None).1,
            progress: Progress::quiet(),
            over_store: Arc::new(|store| store),
            identities: Identities::default(),
        };
        let schedule = self.settings.schedule(&schedule.parse().unwrap()).unwrap();
        look(schedule, &self.settings, &context).await.unwrap()
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

#[tokio::test]
async fn the_last_moment_done_is_that_of_the_schedules_own_backups() {
    let bench = Bench::new();
    assert_eq!(bench.look().await.past, Past::default());
    bench.backup("20261118T020001Z-daily-aaaaaa", "daily", "2026-11-18T02:00:00Z");
    bench.backup("20261119T020001Z-other-aaaaaa", "other", "2026-11-19T02:00:00Z");
    bench.backup("20261119T030001Z-manual-aaaaaa", "manual", "2026-11-19T02:00:00Z");
    let found = bench.look().await;
    assert_eq!(found.past.done, Some(at("2026-11-18T02:00:00Z")));
    assert_eq!(found.retained, 1);
    // A person made up for an earlier moment by hand: the later one stays done.
    bench.backup("20261119T090000Z-daily-aaaaaa", "daily", "2026-11-10T02:00:00Z");
    let found = bench.look().await;
    assert_eq!(found.past.done, Some(at("2026-11-18T02:00:00Z")));
    assert_eq!(found.newest.unwrap().backup.as_str(), "20261119T090000Z-daily-aaaaaa");
}

#[tokio::test]
async fn a_damaged_manifest_is_no_backup_and_a_newer_programs_counts_by_its_name() {
    let bench = Bench::new();
    bench.backup("20261118T020001Z-daily-aaaaaa", "daily", "2026-11-18T02:00:00Z");
    bench.write("manifests/20261119T020001Z-daily-aaaaaa.json", &json!({"version": 1}));
    assert_eq!(bench.look().await.past.done, Some(at("2026-11-18T02:00:00Z")));
    bench.write("manifests/20261119T020501Z-daily-bbbbbb.json", &json!({"version": 99}));
    let found = bench.look().await;
    assert_eq!(found.past.done, Some(at("2026-11-19T02:00:00Z")));
    assert!(found.newest.unwrap().facts.is_none());
}

#[tokio::test]
async fn a_backup_from_the_future_keeps_no_moment_from_being_done() {
    let bench = Bench::new();
    bench.backup("20261119T020001Z-daily-aaaaaa", "daily", "2026-11-19T02:00:00Z");
    bench.backup("20271119T020001Z-daily-aaaaaa", "daily", "2027-11-19T02:00:00Z");
    bench.backup("20261119T020002Z-daily-aaaaaa", "daily", "2036-11-19T02:00:00Z");
    let found = bench.look().await;
    assert_eq!(found.past.done, Some(at("2026-11-19T02:00:00Z")));
    assert_eq!(found.newest.unwrap().backup.as_str(), "20261119T020002Z-daily-aaaaaa");
}

#[tokio::test]
async fn only_what_failed_lately_by_itself_counts_as_a_failed_attempt() {
    let bench = Bench::new();
    bench.run("2026-11-20T09:00:00Z", "daily", 10, None);
    bench.run("2026-11-20T11:50:00Z", "daily", 11, None);
    bench.run("2026-11-20T11:51:00Z", "daily", 143, None);
    bench.run("2026-11-20T11:52:00Z", "daily", 21, Some("20261120T115200Z-daily-aaaaaa"));
    bench.run("2026-11-20T11:53:00Z", "other", 10, None);
    bench.write("runs/20261120T115400Z-00000000-backup.json", &json!({"version": 99}));
    bench.write("runs/nonsense.json", &json!({}));
    let found = bench.look().await;
    let ended: Vec<Timestamp> = found.past.failed.iter().map(|attempt| attempt.ended).collect();
    assert_eq!(ended, ["2026-11-20T11:50:00Z".parse::<Timestamp>().unwrap()]);
    assert_eq!(found.attempted, Some(at("2026-11-20T11:52:00Z")));
}

#[tokio::test]
async fn a_proof_is_told_with_its_level_and_a_failed_one_is_none() {
    let bench = Bench::new();
    let id = "20261119T020001Z-daily-aaaaaa";
    bench.backup(id, "daily", "2026-11-19T02:00:00Z");
    for (second, level, findings) in
        [(1, "stored", json!([])), (2, "content", json!([])), (3, "content", json!(["gone"]))]
    {
        bench.proof(id, &format!("2026-11-19T03:00:0{second}Z"), level, &findings);
    }
    let verified = bench.look().await.verified;
    assert_eq!(verified.get(&Level::Content).copied(), Some(at("2026-11-19T03:00:02Z")));
    assert_eq!(verified.get(&Level::Stored).copied(), Some(at("2026-11-19T03:00:01Z")));
    assert_eq!(verified.get(&Level::Load), None);
}

#[tokio::test]
async fn the_load_of_a_backup_that_is_long_not_the_newest_is_told_as_long_as_that_is_kept() {
    let bench = Bench::new();
    let ids: Vec<String> =
        (1..=6).map(|day| format!("2026111{day}T020001Z-daily-aaaaaa")).collect();
    for (id, day) in ids.iter().zip(1..) {
        bench.backup(id, "daily", &format!("2026-11-1{day}T02:00:00Z"));
    }
    let (kept, gone) = (&ids[0], "20261117T020001Z-daily-aaaaaa");
    for (id, at) in [(kept.as_str(), "2026-11-12T05:30:00Z"), (gone, "2026-11-17T05:30:00Z")] {
        bench.proof(id, at, "load", &json!([]));
    }
    let verified = bench.look().await.verified;
    assert_eq!(verified.get(&Level::Load).copied(), Some(at("2026-11-12T05:30:00Z")));
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_told_from_one_that_has_nothing() {
    let bench = Bench::new();
    fs::write(bench.folder.path().join("file"), "no folder").unwrap();
    let seen = bench.look_for("lost").await;
    assert!(!seen.is_complete());
    assert_eq!(seen.or_failure().unwrap_err().exit(), Exit::StoreUnavailable);
    assert!(bench.look_for("daily").await.is_complete());
}
