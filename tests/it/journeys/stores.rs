//! One capture in several stores, a directory and a bucket that keeps versions: the dataset comes back from each of them, and from a copy.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Tool, restore_and_compare};
use crate::servers::{
    Version,
    dataset::{Digest, fill},
    redis::Server,
    s3::{ACCESS_KEY, REGION, S3Server, SECRET_KEY},
};

const KEYS: usize = 600;

/// The server's stores `disk`, `spare` and, where there is one, `s3`.
fn config(server: &Server, s3: &S3Server) -> String {
    format!(
        "sources:\n  journey:\n    nodes: [{}]\nstores:\n  disk: {{directory: {{path: ./store}}}}\n  \
         s3: {{s3: {{bucket: versioned, prefix: some/prefix, region: {REGION}, endpoint: \"{}\"}}}}\n  \
         spare: {{directory: {{path: ./spare}}}}\nschedules:\n  daily: {{source: journey, \
         cron: '0 2 * * *', timezone: UTC, capture: [rdb], stores: [disk, s3]}}\n",
        server.url(),
        s3.endpoint()
    )
}

fn stores_of(tool: &Tool, backup: &str) -> BTreeSet<String> {
    let report = tool.done("list", &[] as &[&str]);
    let listed = report["backups"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    listed
        .iter()
        .filter(|listed| listed["backup"] == backup)
        .map(|listed| text(&listed["store"]))
        .collect()
}

fn objects(manifest: &Value) -> &Value {
    &manifest["shards"][0]["archives"][0]["objects"]
}

#[test]
fn one_capture_comes_back_from_each_of_its_stores_and_from_a_copy() {
    let version = Version::usual();
    let mut server = Server::start(&version, &[]);
    fill(&mut server.connection(), 21, KEYS);
    let source = Digest::of(&mut server.connection());
    let s3 = S3Server::start(false);
    s3.create_bucket("versioned", true);
    let tool = Tool::new(&version)
        .with_environment("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        .with_environment("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        .with_config(&config(&server, &s3))
        .without_store();

    let report = tool.done("backup", &["--schedule", "daily"]);
    let backup = report["backups"][0]["backup"].as_str().unwrap().to_owned();
    assert_eq!(report["backups"][0]["stores"], serde_json::json!(["disk", "s3"]));
    // Each shard was forked once.
    assert_eq!(server.info("total_forks").as_deref(), Some("1"));
    assert_eq!(stores_of(&tool, &backup), BTreeSet::from(["disk".to_owned(), "s3".to_owned()]));

    let plan = tool.run_anywhere("copy", &[&backup, "--to", "spare", "--from", "s3", "--dry-run"]);
    assert_eq!((plan.exit, &plan.report["copies"][0]["state"]), (Some(0), &"missing".into()));
    assert!(!tool.folder().join("spare").exists());
    let copied = tool.run_anywhere("copy", &[&backup, "--to", "spare", "--from", "s3"]);
    assert_eq!((copied.exit, &copied.report["copies"][0]["state"]), (Some(0), &"copied".into()));
    assert_eq!(stores_of(&tool, &backup).len(), 3);

    for store in ["disk", "s3", "spare"] {
        let tool = tool.clone().with_store(store);
        let manifest = tool.manifest();
        let object = &objects(&manifest)[0];
        assert_eq!(object["versionId"].is_string(), store == "s3", "{store}: {object:#}");
        tool.verify_by_load();
        server.kill9();
        restore_and_compare(&tool, &mut server, &source);
        server.try_start_again().unwrap();
    }
    // Back into the bucket with versions, after it lost the backup.
    let removed = s3.data_dir().join("versioned/some/prefix/journey");
    std::fs::remove_dir_all(removed).unwrap();
    let copied = tool.run_anywhere("copy", &["--missing", "--to", "s3"]);
    assert_eq!(copied.report["copies"][0]["backup"], backup.as_str(), "{copied:#?}");
    let tool = tool.clone().with_store("s3");
    assert!(objects(&tool.manifest())[0]["versionId"].is_string());
    tool.done("verify", &["--latest", "--level", "stored"]);
    tool.verify_by_load();
}

#[test]
fn a_pin_reaches_each_store_that_holds_the_backup_and_says_which_it_did_not_reach() {
    let version = Version::usual();
    let server = Server::start(&version, &[]);
    fill(&mut server.connection(), 22, 60);
    let mut s3 = S3Server::start(false);
    s3.create_bucket("versioned", true);
    let tool = Tool::new(&version)
        .with_environment("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        .with_environment("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        .with_config(&config(&server, &s3))
        .without_store();
    let report = tool.done("backup", &["--schedule", "daily"]);
    let backup = report["backups"][0]["backup"].as_str().unwrap().to_owned();
    let marked = |report: &Value| -> Vec<(String, bool)> {
        let stores = report["stores"].as_array().unwrap().iter();
        stores.map(|it| (it["store"].as_str().unwrap().to_owned(), it["already"] == true)).collect()
    };
    let both = |already| vec![("disk".to_owned(), already), ("s3".to_owned(), already)];
    let pinned_in = |store: &str| {
        let shown = tool.clone().with_store(store).done("show", &[&backup]);
        shown["records"].as_array().unwrap().iter().any(|record| record["event"] == "pinned")
    };

    let shown = tool.done("show", &[&backup]);
    assert_eq!(
        (&shown["store"], &shown["otherStores"]),
        (&"disk".into(), &serde_json::json!(["s3"]))
    );
    assert_eq!(marked(&tool.done("pin", &[&backup, "--dry-run"])), both(false));
    assert!(!pinned_in("disk") && !pinned_in("s3"));
    assert_eq!(marked(&tool.done("pin", &[&backup])), both(false));
    assert!(pinned_in("disk") && pinned_in("s3"));
    assert_eq!(marked(&tool.done("pin", &["--latest"])), both(true));
    let one = tool.clone().with_store("s3").done("unpin", &[&backup]);
    assert_eq!(marked(&one), [("s3".to_owned(), false)]);
    let rest = vec![("disk".to_owned(), false), ("s3".to_owned(), true)];
    assert_eq!(marked(&tool.done("unpin", &[&backup])), rest);

    s3.stop();
    let run = tool.run("pin", &[&backup]);
    assert_eq!(run.exit, Some(14), "{run:#?}");
    assert_eq!(marked(&run.report), [("disk".to_owned(), false)]);
    assert_eq!(run.report["failures"][0]["store"], "s3", "{run:#?}");
    assert_eq!(run.report["failures"][0]["exit"], 11, "{run:#?}");
    let shown = tool.done("show", &[&backup]);
    assert_eq!(shown["unanswered"][0]["store"], "s3", "{shown:#}");
    s3.start_again();
    let rest = vec![("disk".to_owned(), true), ("s3".to_owned(), false)];
    assert_eq!(marked(&tool.done("pin", &[&backup])), rest);
}
