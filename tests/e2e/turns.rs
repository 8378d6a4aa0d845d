//! Who has to wait for whom: Leases of a workload and of the exec streams of a namespace, held by others.

use std::{
    fs,
    process::{Child, Stdio},
};

use serde_json::json;

use crate::{
    by_exec::Laptop,
    cluster::{told, wait_for},
    installation::PLAIN,
    namespace::{Namespace, PATIENCE},
};

const OF_THE_WORKLOAD: &str = "redis-backup-statefulset-redis";
const OF_THE_STREAM: &str = "redis-backup-exec-0";

/// A run whose log can be read while it runs.
struct Begun<'a> {
    laptop: &'a Laptop,
    child: Child,
}

impl<'a> Begun<'a> {
    fn new(laptop: &'a Laptop, arguments: &[&str]) -> Self {
        let log = fs::File::create(laptop.folder.path().join("log")).unwrap();
        let mut command = laptop.command(laptop, arguments);
        let child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        Self { laptop, child }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.laptop.folder.path().join("log")).unwrap()
    }

    /// The lease stays another's until the run says these words; then it is freed, and the run succeeds.
    #[track_caller]
    fn waits(mut self, namespace: &Namespace, lease: &str, words: &str) {
        let mut renewals = 0;
        wait_for(words, PATIENCE, || {
            renewals += 1;
            hand(namespace, lease, "another", renewals % 60);
            self.log().contains(words).then_some(())
        });
        assert!(self.child.try_wait().unwrap().is_none(), "{}", self.log());
        hand(namespace, lease, "", 0);
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}: {}", self.log());
    }
}

/// As if somebody else had taken the lease, or renewed it.
fn hand(namespace: &Namespace, lease: &str, holder: &str, minute: u32) {
    let renewed = format!("2026-01-01T00:{minute:02}:00.000000Z");
    let spec = json!({"holderIdentity": holder, "renewTime": renewed, "leaseDurationSeconds": 30});
    let metadata = json!({"name": lease});
    let kind = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec});
    namespace.apply(&kind.to_string());
}

fn prepared(purpose: &str) -> (Namespace, Laptop) {
    let namespace = Namespace::create(purpose);
    namespace.install(&PLAIN);
    namespace.fill("redis-0", 1000);
    let laptop = Laptop::new(&namespace);
    (namespace, laptop)
}

#[test]
fn a_scheduled_run_waits_for_the_lease_that_a_manual_one_is_refused_for() {
    let (namespace, laptop) = prepared("waits");
    hand(&namespace, OF_THE_WORKLOAD, "another", 0);
    let run = Begun::new(&laptop, &["backup", "--schedule", "daily"]);
    run.waits(&namespace, OF_THE_WORKLOAD, "waiting for its end until");
    let shown = laptop.done(&laptop, &["show", "--latest", "--source-name", "plain"]);
    assert!(shown["manifest"]["shards"][0]["aof"]["files"].is_array(), "{shown:#}");
    // Freed by both.
    let output = laptop.run(&laptop, &["backup", "plain"]);
    assert!(output.status.success(), "{}", told(&output));
}

#[test]
fn files_are_read_by_so_many_runs_at_the_same_time_as_the_namespace_has_streams() {
    let (namespace, laptop) = prepared("streams");
    hand(&namespace, OF_THE_STREAM, "another", 0);
    let run = Begun::new(&laptop, &["backup", "plain", "--method", "bgsave"]);
    run.waits(&namespace, OF_THE_STREAM, "waiting for one of: another");
    let lease = namespace.get(&["lease", OF_THE_STREAM]);
    assert_eq!(lease["spec"]["holderIdentity"], "", "{lease:#}");
    // Redis's own stream is none of them.
    hand(&namespace, OF_THE_STREAM, "another", 1);
    laptop.done(&laptop, &["backup", "plain", "--method", "replication"]);
}
