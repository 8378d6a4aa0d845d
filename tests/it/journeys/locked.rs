//! A bucket with Object Lock: what an attacker deletes or overwrites comes back, and what is locked stays.

use std::{
    fs::File,
    time::{Duration, SystemTime},
};

use aws_sdk_s3::{
    primitives::DateTime,
    types::{ObjectLockLegalHold, ObjectLockLegalHoldStatus, ObjectLockMode},
};
use jiff::Timestamp;
use serde_json::Value;

use super::{Tool, into, start_and_compare, wipe};
use crate::servers::{
    Version,
    dataset::{Digest, fill},
    redis::Server,
    s3::{ACCESS_KEY, REGION, S3Server, SECRET_KEY, run},
    wait_for,
};

const BUCKET: &str = "locked";

struct Stage {
    s3: S3Server,
    server: Server,
    tool: Tool,
    source: Digest,
}

impl Stage {
    fn new(lock: &str) -> Self {
        let version = Version::usual();
        let server = Server::start(&version, &[]);
        fill(&mut server.connection(), 7, 300);
        let source = Digest::of(&mut server.connection());
        let s3 = S3Server::start(false);
        s3.create_locked_bucket(BUCKET);
        let tool = Tool::new(&version)
            .with_environment("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            .with_environment("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
            .with_store(&format!(
                "s3://{BUCKET}/p?endpoint={}&region={REGION}&objectLock={lock}",
                s3.endpoint()
            ));
        Self { s3, server, tool, source }
    }

    /// Every key below the bucket, whatever it is.
    fn keys(&self) -> Vec<String> {
        let client = self.s3.client();
        run(async move {
            let listed = client.list_objects_v2().bucket(BUCKET).send().await.unwrap();
            listed.contents().iter().map(|object| object.key().unwrap().to_owned()).collect()
        })
    }

    fn overwrite_all(&self) {
        for key in self.keys() {
            let client = self.s3.client();
            run(async move {
                let put = client.put_object().bucket(BUCKET).key(key);
                put.body(b"pay up".to_vec().into()).send().await.unwrap();
            });
        }
    }

    /// By plain deletes, which answer with success and leave markers.
    fn delete_all(&self) {
        for key in self.keys() {
            let client = self.s3.client();
            run(async move {
                client.delete_object().bucket(BUCKET).key(key).send().await.unwrap();
            });
        }
        assert_eq!(self.keys(), Vec::<String>::new());
    }
}

/// The clock that the S3 server on this machine shares.
#[expect(clippy::disallowed_methods, reason = "a real S3 server lives in real time")]
fn now() -> Timestamp {
    Timestamp::now()
}

fn next_second() -> String {
    let begun = now().as_second();
    wait_for("the next second", || (now().as_second() > begun).then_some(()));
    now().to_string()
}

fn verify_and_restore(stage: &mut Stage, id: &str, as_of: &str, folder: &str) {
    let Stage { s3: _, server, tool, source } = stage;
    for level in ["stored", "content", "load"] {
        let report = tool.done("verify", &["--all", "--level", level, "--as-of", as_of]);
        assert_eq!(report["backups"][0]["proven"], true, "{level}: {report:#}");
        assert_eq!(report["backups"].as_array().unwrap().len(), 1, "{report:#}");
    }
    let report = tool.done("show", &[id, "--as-of", as_of]);
    assert_eq!(report["records"].as_array().unwrap().len(), 1, "{report:#}");
    tool.done("fetch", &["--latest", "--as-of", as_of, "--into", folder]);
    server.kill9();
    wipe(server);
    tool.done("restore", &into(server, &["--latest", "--as-of", as_of]));
    start_and_compare(server, source);
}

#[test]
fn what_an_attacker_deletes_or_overwrites_is_listed_proven_and_restored_as_of_before() {
    let mut stage = Stage::new("governance:1");
    let before = now().to_string();
    next_second();
    let id = stage.tool.back_up(&stage.server.url())["backup"].as_str().unwrap().to_owned();
    stage.tool.done("verify", &["--latest"]);
    let good = next_second();
    next_second();

    stage.overwrite_all();
    stage.s3.tell_when_versions_were_written();
    // The manifest's first version is read, and its archives by their versions.
    assert_eq!(stage.tool.backups(), std::slice::from_ref(&id));
    let report = stage.tool.done("verify", &["--latest", "--level", "content"]);
    assert_eq!(report["backups"][0]["proven"], true, "{report:#}");
    verify_and_restore(&mut stage, &id, &good, "overwritten");

    stage.delete_all();
    stage.s3.tell_when_versions_were_written();
    assert_eq!(stage.tool.backups(), Vec::<String>::new());
    stage.tool.fails("restore", &into(&stage.server, &["--latest"]), 2);
    let listed = stage.tool.done("list", &["--long", "--as-of", &good]);
    assert_eq!(listed["backups"][0]["backup"], id.as_str(), "{listed:#}");
    assert!(listed["backups"][0]["details"]["read"]["keys"].is_u64(), "{listed:#}");
    verify_and_restore(&mut stage, &id, &good, "deleted");
    assert_eq!(stage.keys(), Vec::<String>::new(), "looking at the past wrote something");

    let listed = stage.tool.done("list", &["--as-of", &before]);
    assert_eq!(listed["backups"], Value::Array(Vec::new()), "it was not there yet");
}

#[test]
fn a_store_without_versions_says_that_it_has_no_past() {
    let tool = Tool::new(&Version::usual());
    let words = tool.fails("list", &["--as-of", "2026-01-01T00:00:00Z"], 2);
    assert!(words.contains("keeps no versions"), "{words}");
}

#[test]
fn check_tells_what_the_bucket_protects_and_a_lock_that_outlasts_what_is_kept() {
    let stage = Stage::new("governance:1");
    stage.s3.create_bucket("plain", true);
    let url = stage.server.url();
    let endpoint = stage.s3.endpoint();
    let config = |bucket: &str| {
        format!(
            "sources: {{journey: {{nodes: ['{url}']}}}}\nstores:\n  main: {{s3: {{bucket: {bucket}, \
             region: {REGION}, endpoint: '{endpoint}', objectLock: {{mode: governance, days: 30}}}}}}\n\
             schedules:\n  hourly: {{source: journey, cron: '@hourly', capture: [rdb], stores: [main], \
             keep: {{last: 3}}}}\n"
        )
    };
    let tool = stage.tool.clone().with_store("main").with_config(&config(BUCKET));
    let report = tool.done("check", &[] as &[&str]);
    let items = report["items"].to_string();
    assert!(items.contains("Object Lock is on, each object is locked for 30 days"), "{report:#}");
    assert!(items.contains("after 0 days at the latest, but each is locked for 30"), "{report:#}");
    assert!(items.contains("the test object is locked until"), "{report:#}");
    let tool = tool.with_config(&config("plain"));
    let run = tool.run("check", &[] as &[&str]);
    assert_eq!(run.exit, Some(2), "{run:#?}");
    assert!(run.report.to_string().contains("lacks Object Lock"), "{run:#?}");
}

#[test]
fn prune_puts_a_locked_backup_off_and_a_pin_holds_it_until_it_is_lifted() {
    let stage = Stage::new("governance:1");
    let (url, endpoint) = (stage.server.url(), stage.s3.endpoint());
    let config = |lock: &str| {
        format!(
            "sources: {{journey: {{nodes: ['{url}']}}}}\nstores:\n  main: {{s3: {{bucket: {BUCKET}, \
             region: {REGION}, endpoint: '{endpoint}'{lock}}}}}\n\
             schedules:\n  often: {{source: journey, cron: '* * * * *', capture: [rdb], stores: [main], \
             keep: {{last: 1}}}}\nretention: separate\n"
        )
    };
    let locked = config(", objectLock: {mode: governance, days: 1}");
    let tool = stage.tool.clone().with_store("main").with_config(&config(""));
    let back_up = |tool: &Tool| {
        next_second();
        let report = tool.done("backup", &["--schedule", "often"]);
        report["backups"][0]["backup"].as_str().unwrap().to_owned()
    };
    let (free, partly, held) = (back_up(&tool), back_up(&tool), back_up(&tool));
    hold_one_archive(&stage, &partly);
    let report = tool.done("pin", &[&held]);
    assert_eq!(report["stores"][0]["legalHolds"], 3, "RDB, installation and manifest: {report:#}");
    let tool = tool.with_config(&locked);
    let (kept, newest) = (back_up(&tool), back_up(&tool));
    let told = |report: &Value, id: &str| {
        let backups = report["places"][0]["backups"].as_array().unwrap();
        let found = backups.iter().find(|backup| backup["backup"] == id).unwrap();
        (found["state"].as_str().unwrap().to_owned(), found["reasons"].to_string())
    };

    let keys = stage.keys();
    let report = tool.done("prune", &["--dry-run"]);
    assert_eq!(told(&report, &free).0, "expires");
    assert!(told(&report, &kept).1.contains("locked until"), "{report:#}");
    assert_eq!(stage.keys(), keys);

    let report = tool.done("prune", &["--purge-versions"]);
    assert_eq!(told(&report, &free).0, "expired", "{report:#}");
    assert_eq!(told(&report, &kept).0, "kept", "{report:#}");
    let words = told(&report, &partly).1;
    assert!(words.contains("under legal hold"), "half of it must stay: {report:#}");
    let words = told(&report, &kept).1;
    assert!(words.contains("\"locked\"") && words.contains("locked until"), "{report:#}");
    assert_eq!(tool.backups(), [newest.clone(), kept.clone(), held.clone(), partly.clone()]);
    tool.done("verify", &["--all", "--level", "content"]);
    let left = versions_of(&stage, &free);
    assert!(left.is_empty(), "purged, and yet there: {left:?}");

    // Somebody hides the record of the pin: the hold still holds.
    for key in stage.keys().into_iter().filter(|key| key.contains("-pinned.json")) {
        let client = stage.s3.client();
        run(async move { client.delete_object().bucket(BUCKET).key(key).send().await.unwrap() });
    }
    let report = tool.done("prune", &[] as &[&str]);
    assert!(told(&report, &held).1.contains("under legal hold"), "{report:#}");
    let report = tool.done("unpin", &[&held]);
    assert_eq!(report["stores"][0]["legalHolds"], 3, "{report:#}");
    let report = tool.done("prune", &[] as &[&str]);
    assert_eq!(told(&report, &held).0, "expired", "{report:#}");
    assert!(!versions_of(&stage, &held).is_empty(), "hidden, not purged");
    assert_eq!(tool.backups(), [newest, kept, partly]);
}

#[test]
fn a_sweep_leaves_locked_leftovers_to_be_seen_and_takes_the_others() {
    let stage = Stage::new("governance:1");
    let leftover = |name: &str| {
        format!("p/journey/archives/20260101T000000Z-manual-aaaaaa/shard-0000/{name}.zst.000")
    };
    let (locked, free) = (leftover("dump.rdb"), leftover("other.rdb"));
    let client = stage.s3.client();
    let keys = [locked.clone(), free.clone()];
    let until = now().as_second() + 3600;
    run(async move {
        let [locked, free] = keys;
        let put = client.put_object().bucket(BUCKET).key(locked).body(b"half".to_vec().into());
        let put = put.object_lock_mode(ObjectLockMode::Compliance);
        put.object_lock_retain_until_date(DateTime::from_secs(until)).send().await.unwrap();
        client.put_object().bucket(BUCKET).key(free).send().await.unwrap();
    });
    let long_ago = SystemTime::from(now()) - Duration::from_hours(72);
    for key in [&locked, &free] {
        let file = File::open(stage.s3.data_dir().join(BUCKET).join(key)).unwrap();
        file.set_modified(long_ago).unwrap();
    }
    stage.tool.back_up(&stage.server.url());
    let keys = stage.keys();
    assert!(keys.contains(&locked), "it was hidden: {keys:?}");
    assert!(!keys.contains(&free), "it was not swept: {keys:?}");
}

/// The manifest and the other archive stay free.
fn hold_one_archive(stage: &Stage, id: &str) {
    let mut keys = stage.keys().into_iter();
    let is_archive = |key: &String| key.contains("/archives/") && key.contains(id);
    let key = keys.find(is_archive).unwrap();
    let hold = ObjectLockLegalHold::builder().status(ObjectLockLegalHoldStatus::On).build();
    let client = stage.s3.client();
    run(async move {
        let put = client.put_object_legal_hold().bucket(BUCKET).key(key);
        put.legal_hold(hold).send().await.unwrap();
    });
}

fn versions_of(stage: &Stage, id: &str) -> Vec<String> {
    let (client, id) = (stage.s3.client(), id.to_owned());
    run(async move {
        let listed = client.list_object_versions().bucket(BUCKET).send().await.unwrap();
        let keys = listed.versions().iter().filter_map(|version| version.key());
        keys.filter(|key| key.contains(&id)).map(str::to_owned).collect()
    })
}
