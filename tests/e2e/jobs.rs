//! The Jobs and `CronJob`s of `jobs/`, as they are but for image, addresses and times, where Pod Security is restricted.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    cluster::{product_image, wait_for},
    installation::PLAIN,
    namespace::{Namespace, PATIENCE},
    product::{self, Ended},
    rights::Rights,
    s3,
};

/// Where the source of `jobs/config.yaml` is.
pub const NODES: &str = "nodes: [\"redis://redis:6379\"]";

/// A file of `jobs/` with what each installation changes in it.
pub fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("jobs").join(name);
    let text = fs::read_to_string(path).unwrap();
    text.replace("image: redis-backup:0.1.0", &format!("image: {}", product_image()))
        .replace("image: redis:7.0.15", "image: localhost/redis:7.0")
}

/// How the source stands in the config of `jobs/`, in the place of `nodes:`.
fn in_kubernetes(namespace: &Namespace) -> String {
    format!("kubernetes: {{namespace: {}, statefulSet: redis}}", namespace.name)
}

/// A namespace with a filled Redis, the config and the `CronJob`s, none of which is due.
fn deployed(purpose: &str, source: impl Fn(&Namespace) -> String) -> (Namespace, String) {
    let namespace = Namespace::create(purpose);
    let store = s3::store_of(&namespace);
    namespace.install(&PLAIN);
    namespace.fill("redis-0", 1000);
    namespace.limit_range();
    namespace.secret("redis-backup", &[("redis-password", "plain-and-secret")]);
    let place = format!("prefix: {}, endpoint: \"http://s3.s3-test:7070\", ", namespace.name);
    let mut config = file("config.yaml");
    for (theirs, ours) in [("prefix: sessions, ", place), (NODES, source(&namespace))] {
        assert!(config.contains(theirs), "config.yaml has no {theirs}:\n{config}");
        config = config.replace(theirs, &ours);
    }
    namespace.apply(&config);
    for name in ["account", "backup-hourly", "backup-daily", "verify", "verify-load", "prune"] {
        namespace.apply(&file(&format!("{name}.yaml")));
    }
    (namespace, store)
}

/// Runs a `CronJob` as a person does who cannot wait.
#[track_caller]
pub fn by_hand(namespace: &Namespace, cronjob: &str, name: &str) -> Ended {
    let from = format!("--from=cronjob/redis-backup-{cronjob}");
    namespace.ask(&["create", "job", &from, name]);
    product::ended(namespace, name)
}

#[test]
fn a_cronjob_takes_a_backup_when_it_is_due() {
    let (namespace, _) = deployed("scheduled", |_| NODES.to_owned());
    let each_minute = r#"{"spec": {"schedule": "* * * * *"}}"#;
    namespace.ask(&["patch", "cronjob", "redis-backup-hourly", "--patch", each_minute]);
    let job = wait_for("a job of the CronJob", PATIENCE, || {
        let jobs = namespace.get(&["jobs", "--selector=app.kubernetes.io/component=hourly"]);
        let name = jobs["items"][0]["metadata"]["name"].as_str()?;
        Some(name.to_owned())
    });
    namespace.ask(&[
        "patch",
        "cronjob",
        "redis-backup-hourly",
        "--patch",
        r#"{"spec": {"suspend": true}}"#,
    ]);
    let log = product::ended(&namespace, &job).well();
    assert!(log.contains("-hourly-"), "{log}");
}

#[test]
fn each_job_runs_by_hand_too_and_check_finds_nothing_to_mend() {
    let (namespace, _) = deployed("by-hand", in_kubernetes);
    let _rights = Rights::apply(&namespace);
    let by_hand = |cronjob: &str, name: &str| by_hand(&namespace, cronjob, name).well();
    let backup = by_hand("daily", "redis-backup-manual");
    assert!(backup.contains("-daily-"), "{backup}");
    assert!(backup.contains("BGSAVE") && backup.contains("by the IPs of its pods"), "{backup}");
    let verified = by_hand("verify", "verify-manual");
    assert!(verified.contains("proven"), "{verified}");
    let pruned = by_hand("prune", "prune-manual");
    assert!(pruned.contains("newest"), "{pruned}");

    namespace.apply(&file("check.yaml"));
    let checked = product::ended(&namespace, "redis-backup-check").well();
    assert!(!checked.contains("FAIL") && !checked.contains("warn"), "{checked}");
}

#[test]
fn what_only_the_owner_of_an_identity_can_read_is_loaded_by_the_redis_of_the_source() {
    let encrypted = |_: &Namespace| {
        let recipient = fs::read_to_string(key("x25519.pub")).unwrap();
        format!("{NODES}\n        encryption: {{recipients: [{}]}}", recipient.trim())
    };
    let (namespace, store) = deployed("load", encrypted);
    by_hand(&namespace, "daily", "redis-backup-manual").well();
    let blind = by_hand(&namespace, "verify-load", "without-identity");
    assert_eq!(blind.exit, 2, "{}", blind.log);

    let identity = fs::read_to_string(key("x25519")).unwrap();
    namespace.secret("redis-backup-identity", &[("identity", &identity)]);
    let verified = by_hand(&namespace, "verify-load", "with-identity").well();
    assert!(verified.contains("Redis 7.0.15 loaded 1000 keys"), "{verified}");
    let show = ["show", "--latest", "--source-name", "sessions", "--store", &store];
    let shown = product::run(&namespace, "show", None, &show).well();
    assert!(shown.contains("proven (load by Redis 7.0.15)"), "{shown}");
}

fn key(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/keys").join(name)
}
