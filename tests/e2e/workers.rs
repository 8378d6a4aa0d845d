//! `workers: jobs`: each shard of a Redis Cluster captured by a Job of its own, which stores it by itself.

use std::fs;

use serde_json::{Value, json};

use crate::{
    cluster::wait_for,
    installation::{ANALYTICS, ANALYTICS_TLS, Installation, PLAIN},
    namespace::{Namespace, PATIENCE},
    product::{self, Given},
    ready::{KEYS_AS_TOLD, certificates, fill_cluster},
    rights::Rights,
    s3,
};

const WORKERS: &str = "--selector=app.kubernetes.io/component=worker";

/// The analytics installation, filled, and who backs it up: an account with the rights of deploy/rbac.yaml, but none to reach
/// into a pod through the API server.
struct Analytics {
    namespace: Namespace,
    store: String,
    _rights: Rights,
}

impl Analytics {
    fn new(purpose: &str, options: &str, pace: &str) -> Self {
        let this = Self::in_namespace(Namespace::create_lenient(purpose), &ANALYTICS, "redis-cli");
        this.configure(options, pace, "");
        this
    }

    fn in_namespace(namespace: Namespace, installation: &Installation, cli: &str) -> Self {
        let store = s3::store_of(&namespace);
        namespace.install(installation);
        fill_cluster(&namespace, "redis-analytics-0", cli);
        let this = Self { _rights: Rights::apply(&namespace), namespace, store };
        let reaches_in = |rule: &Value| {
            let resources = rule["resources"].to_string();
            resources.contains("pods/exec") || resources.contains("pods/portforward")
        };
        let all = this.rules();
        this.set_rules(all.iter().filter(|rule| !reaches_in(rule)));
        this
    }

    fn rules(&self) -> Vec<Value> {
        self.namespace.get(&["role", "redis-backup"])["rules"].as_array().unwrap().clone()
    }

    fn set_rules<'a>(&self, rules: impl Iterator<Item = &'a Value>) {
        let rules: Vec<&Value> = rules.collect();
        let patch = json!([{"op": "replace", "path": "/rules", "value": rules}]).to_string();
        self.namespace.ask(&["patch", "role", "redis-backup", "--type=json", "--patch", &patch]);
    }

    fn configure(&self, options: &str, pace: &str, authority: &str) {
        let prefix = &self.namespace.name;
        let config = format!(
            "sources:\n  analytics:\n    kubernetes: {{namespace: {prefix}, statefulSet: redis-analytics, workers: jobs, forksPerNode: 3}}\n    {options}\n\
             stores:\n  s3: {{s3: {{{pace}bucket: backups, prefix: {prefix}, region: us-east-1, endpoint: \"http://s3.s3-test:7070\", forcePathStyle: true}}}}\n"
        );
        self.namespace.apply(
            &json!({
                "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "redis-backup"},
                "data": {"redis-backup.yaml": config, "ca.crt": authority},
            })
            .to_string(),
        );
    }

    /// Begins a run in a pod of the namespace.
    fn begin(&self, name: &str, arguments: &[&str]) {
        let given = Given { config: Some("redis-backup"), ..Given::default() };
        product::start(&self.namespace, name, given, arguments);
    }

    /// Workers' pods as the cluster has them now.
    fn workers(&self) -> Vec<Value> {
        self.namespace.get(&["pods", WORKERS])["items"].as_array().unwrap().clone()
    }

    #[track_caller]
    fn prove(&self) {
        let place = ["--store", &self.store, "--source-name", "analytics"];
        let verify = [&["verify", "--latest", "--level", "content"], &place[..]].concat();
        let verified = product::run(&self.namespace, "verify", None, &verify).well();
        assert!(verified.contains("proven"), "{verified}");
    }
}

#[test]
fn each_shard_is_captured_by_a_worker_over_replication_and_no_byte_crosses_the_api_server() {
    let analytics = Analytics::new("workers", "method: replication", "");
    analytics.begin("backup", &["backup", "analytics"]);
    let worker = wait_for("a worker", PATIENCE, || analytics.workers().into_iter().next());
    let spec = &worker["spec"];
    assert_eq!(spec["automountServiceAccountToken"], false, "{spec}");
    assert!(!spec.to_string().contains("serviceAccountToken"), "it has a token: {spec}");
    let order = spec["containers"][0]["env"].to_string();
    assert!(
        order.contains("REDIS_BACKUP_ORDER") && !order.contains("analytics-and-secret"),
        "{order}"
    );

    let backup = product::ended(&analytics.namespace, "backup").well();
    assert!(backup.contains(KEYS_AS_TOLD) && backup.contains("in 3 shards"), "{backup}");
    assert_eq!(backup.matches("worker=").count(), 3, "{backup}");
    assert!(backup.contains("by replication") && !backup.contains("the primary"), "{backup}");
    let jobs = analytics.namespace.get(&["jobs", WORKERS]);
    assert_eq!(jobs["items"], json!([]), "what was read is deleted");
    analytics.prove();
}

/// Nobody but their user may read the append-only files: a worker runs as that user.
#[test]
fn a_worker_reads_the_save_from_the_volume_of_the_captured_pod() {
    let analytics = Analytics::new("workers-save", "method: bgsave", "");
    let pods = (0..6).map(|n| format!("redis-analytics-{n}"));
    for pod in pods {
        let closed = ["exec", &pod, "--", "chmod", "-R", "go-rwx", "/data/appendonlydir"];
        analytics.namespace.ask(&closed);
    }
    analytics.begin("backup", &["backup", "analytics", "--capture", "rdb,aof"]);
    let worker = wait_for("a worker", PATIENCE, || analytics.workers().into_iter().next());
    let spec = &worker["spec"];
    let data = spec["volumes"].as_array().unwrap().iter();
    let data = data.filter(|it| !it["persistentVolumeClaim"].is_null()).collect::<Vec<_>>();
    assert_eq!(data.len(), 1, "{spec}");
    assert_eq!(data[0]["persistentVolumeClaim"]["readOnly"], true, "{spec}");
    assert_eq!(spec["securityContext"]["runAsUser"], 999, "{spec}");
    assert!(
        spec["securityContext"]["fsGroup"].is_null(),
        "it would change whose the files are: {spec}"
    );
    let near = &spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    assert!(near.to_string().contains("metadata.name"), "{spec}");

    let backup = product::ended(&analytics.namespace, "backup").well();
    assert!(backup.contains(KEYS_AS_TOLD) && backup.contains("in 3 shards"), "{backup}");
    assert_eq!(backup.matches("by BGSAVE").count(), 3, "{backup}");
    analytics.prove();
}

/// A store so slow that a shard of a megabyte takes some seconds.
const SLOW: &str = "uploadMaxPerSecond: 256KiB, ";

#[test]
fn a_worker_that_is_killed_is_followed_by_one_at_another_node_of_its_shard() {
    let analytics = Analytics::new("workers-killed", "compression: {codec: none}", SLOW);
    let noise =
        "for n in $(seq 30); do head -c 100000 /dev/urandom | redis-cli -c -x set noise:$n; done";
    let filled = analytics.namespace.ask(&["exec", "redis-analytics-0", "--", "sh", "-c", noise]);
    assert_eq!(filled.matches("OK").count(), 30, "{filled}");
    analytics.begin("backup", &["backup", "analytics", "--method", "replication"]);
    let killed = wait_for("a worker in the middle of a capture", PATIENCE, || {
        let names = analytics.workers();
        let names = names.iter().filter_map(|worker| worker["metadata"]["name"].as_str());
        let captures = |name: &str| analytics.namespace.try_ask(&["logs", name]);
        names
            .map(str::to_owned)
            .find(|name| captures(name).is_some_and(|log| log.contains("capture: ")))
    });
    analytics.namespace.ask(&["delete", "pod", &killed, "--force", "--grace-period=0"]);

    let backup = product::ended(&analytics.namespace, "backup").well();
    assert!(backup.contains("its pod was deleted"), "{backup}");
    assert!(backup.contains("trying the next way"), "{backup}");
    assert_eq!(backup.matches("worker=").count(), 4, "{backup}");
    assert_eq!(backup.matches("capture: the primary").count(), 1, "{backup}");
    assert!(backup.contains("2 030 keys") && backup.contains("in 3 shards"), "{backup}");
    analytics.prove();
}

#[test]
fn a_run_that_is_told_to_end_ends_its_workers_and_one_that_lost_its_lease_does_so_too() {
    let analytics = Analytics::new("workers-ended", "compression: {codec: none}", SLOW);
    let noise =
        "for n in $(seq 30); do head -c 100000 /dev/urandom | redis-cli -c -x set noise:$n; done";
    analytics.namespace.ask(&["exec", "redis-analytics-0", "--", "sh", "-c", noise]);
    let begin = |name: &str| {
        analytics.begin(name, &["backup", "analytics"]);
        wait_for("three workers", PATIENCE, || (analytics.workers().len() == 3).then_some(()));
    };
    let gone = || {
        wait_for("the end of all workers", PATIENCE, || {
            let jobs = analytics.namespace.get(&["jobs", WORKERS]);
            (jobs["items"] == json!([]) && analytics.workers().is_empty()).then_some(())
        });
    };
    begin("robbed");
    let spec = json!({"holderIdentity": "another", "renewTime": "2026-01-01T00:00:00.000000Z"});
    let patch = json!({"spec": spec}).to_string();
    let lease = ["patch", "lease", "redis-backup-statefulset-redis-analytics", "--type=merge"];
    analytics.namespace.ask(&[&lease[..], &["--patch", &patch]].concat());
    let robbed = product::ended(&analytics.namespace, "robbed");
    assert_eq!(robbed.exit, 12, "{}", robbed.log);
    // Its pod is still there: nothing but the run itself ended them.
    gone();

    begin("ended");
    analytics.namespace.ask(&["delete", "job", "ended", "--wait=false"]);
    gone();
    let list = ["list", "--store", &analytics.store, "--source-name", "analytics"];
    let listed = product::run(&analytics.namespace, "list", None, &list).well();
    assert!(!listed.contains("-manual-"), "{listed}");
}

#[test]
fn workers_speak_tls_and_every_right_for_them_that_is_missing_is_named() {
    let namespace = Namespace::create_lenient("workers-tls");
    let authority = certificates(&namespace);
    let cli = "redis-cli --tls --cacert /tls/ca.crt";
    let analytics = Analytics::in_namespace(namespace, &ANALYTICS_TLS, cli);
    analytics.configure("tls: {caFile: /config/ca.crt}", "", &authority);
    let run = |name: &str, arguments: &[&str]| {
        analytics.begin(name, arguments);
        product::ended(&analytics.namespace, name)
    };
    let checked = run("check", &["check", "analytics"]).well();
    assert!(!checked.contains("FAIL"), "{checked}");
    let backup = run("backup", &["backup", "analytics"]).well();
    assert!(backup.contains(KEYS_AS_TOLD) && backup.contains("in 3 shards"), "{backup}");
    analytics.prove();

    let rules = analytics.rules();
    let is_of_workers = |rule: &&Value| {
        let (resources, verbs) = (rule["resources"].to_string(), rule["verbs"].to_string());
        resources.contains("jobs") || resources.contains("log") || verbs.contains("watch")
    };
    let (of_workers, others): (Vec<&Value>, Vec<&Value>) = rules.iter().partition(is_of_workers);
    assert_eq!(of_workers.len(), 3, "{rules:?}");
    analytics.set_rules(others.into_iter());
    let checked = run("check-less", &["check", "analytics"]);
    assert_eq!(checked.exit, 12, "{}", checked.log);
    for right in [
        "pods get",
        "pods watch",
        "pods/log get",
        "jobs.batch create",
        "jobs.batch list",
        "jobs.batch delete",
    ] {
        let expected = format!("{right} in namespace {} is not allowed", analytics.namespace.name);
        assert!(checked.log.contains(&expected), "{right}: {}", checked.log);
    }
}

#[test]
fn a_machine_outside_the_cluster_can_start_no_workers() {
    let namespace = Namespace::create_lenient("workers-outside");
    namespace.install(&PLAIN);
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "sources: {{plain: {{kubernetes: {{namespace: {}, statefulSet: redis, workers: jobs}}}}}}\n\
         stores: {{disk: {{directory: {{path: {}}}}}}}\n",
        namespace.name,
        folder.path().display(),
    );
    let path = folder.path().join("config.yaml");
    fs::write(&path, config).unwrap();
    let ended = product::run_here(&["--config", path.to_str().unwrap(), "backup", "plain"]);
    assert_eq!(ended.exit, 2, "{}", ended.log);
    assert!(ended.log.contains("needs a pod to make workers of"), "{}", ended.log);
    assert!(ended.log.contains("write `workers: here`"), "{}", ended.log);
}
