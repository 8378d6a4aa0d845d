//! The S3 server of the tests: a pod that all of them share, each with a prefix of its own.

use std::{fs, sync::OnceLock};

use crate::{
    cluster::{apply, ask, get},
    namespace::Namespace,
};

pub const ACCESS_KEY: &str = "redis-backup-test";
pub const SECRET_KEY: &str = "redis-backup-test-secret";

/// URL of a store in the bucket, below a prefix that is the namespace's own; its credentials are put there as the Secret
/// that `jobs/` expects.
pub fn store_of(namespace: &Namespace) -> String {
    static STARTED: OnceLock<()> = OnceLock::new();
    STARTED.get_or_init(|| {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/s3.yaml");
        apply(None, &fs::read_to_string(path).unwrap());
        ask(&["--namespace", "s3-test", "rollout", "status", "deployment/s3", "--timeout=120s"]);
    });
    let keys = [("AWS_ACCESS_KEY_ID", ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", SECRET_KEY)];
    namespace.secret("redis-backup-s3", &keys);
    url(namespace, "s3.s3-test")
}

/// The same store by the address of its service, which this machine reaches.
pub fn store_from_here(namespace: &Namespace) -> String {
    let service = get(&["--namespace", "s3-test", "service", "s3"]);
    url(namespace, service["spec"]["clusterIP"].as_str().unwrap())
}

fn url(namespace: &Namespace, host: &str) -> String {
    let prefix = &namespace.name;
    format!("s3://backups/{prefix}?endpoint=http://{host}:7070&region=us-east-1&pathStyle=true")
}
