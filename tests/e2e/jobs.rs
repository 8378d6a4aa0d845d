//! The Jobs and `CronJob`s of `jobs/`, as they are but for image, addresses and times, where Pod Security is restricted.

use std::{fs, path::Path};

use crate::{
    cluster::{product_image, wait_for},
    installation::PLAIN,
    namespace::{Namespace, PATIENCE},
    product, s3,
};

/// A file of `jobs/` with what each installation changes in it.
fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("jobs").join(name);
    let text = fs::read_to_string(path).unwrap();
    text.replace("image: redis-backup:0.1.0", &format!("image: {}", product_image()))
}

/// A namespace with a filled Redis, the config and the `CronJob`s, none of which is due.
fn deployed(purpose: &str) -> Namespace {
    let namespace = Namespace::create(purpose);
    s3::store_of(&namespace);
    namespace.install(&PLAIN);
    namespace.fill("redis-0", 1000);
    namespace.limit_range();
    namespace.secret("redis-backup", &[("redis-password", "plain-and-secret")]);
    let place = format!("prefix: {}, endpoint: \"http://s3.s3-test:7070\", ", namespace.name);
    let config = file("config.yaml").replace("prefix: sessions, ", &place);
    assert!(config.contains(&place), "config.yaml has no prefix to replace:\n{config}");
    namespace.apply(&config);
    for name in ["backup-hourly", "backup-daily", "verify", "prune"] {
        namespace.apply(&file(&format!("{name}.yaml")));
    }
    namespace
}

#[test]
fn a_cronjob_takes_a_backup_when_it_is_due() {
    let namespace = deployed("scheduled");
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
    let namespace = deployed("by-hand");
    let by_hand = |cronjob: &str, name: &str| {
        namespace.ask(&["create", "job", &format!("--from=cronjob/redis-backup-{cronjob}"), name]);
        product::ended(&namespace, name).well()
    };
    let backup = by_hand("daily", "redis-backup-manual");
    assert!(backup.contains("-daily-"), "{backup}");
    let verified = by_hand("verify", "verify-manual");
    assert!(verified.contains("proven"), "{verified}");
    let pruned = by_hand("prune", "prune-manual");
    assert!(pruned.contains("newest"), "{pruned}");

    namespace.apply(&file("check.yaml"));
    let checked = product::ended(&namespace, "redis-backup-check").well();
    assert!(!checked.contains("FAIL"), "{checked}");
}
