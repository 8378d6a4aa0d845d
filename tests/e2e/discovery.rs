//! The program beside the cluster, as on a laptop: it finds installations, reaches their pods, backs them up, and names each right that it lacks.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    cluster::{ask, kubeconfig, told, wait_for},
    installation::{ANALYTICS_TLS, PLAIN, SHOP},
    namespace::{Namespace, PATIENCE},
    ready::{KEYS, KEYS_AS_TOLD, certificates, fill_cluster, wait_for_quorum},
    rights::{Rights, kubeconfig_of_account},
};

/// A folder with a config and a store, and the kubeconfig of whoever shall act.
#[derive(Debug)]
pub struct Laptop {
    pub folder: TempDir,
    kubeconfig: Option<PathBuf>,
}

impl Laptop {
    pub fn new() -> Self {
        Self { folder: TempDir::new().unwrap(), kubeconfig: None }
    }

    pub fn config(&self, sources: &str) {
        let store = self.folder.path().join("store");
        let stores = format!("stores:\n  disk: {{directory: {{path: {}}}}}\n", store.display());
        fs::write(self.folder.path().join("config.yaml"), format!("{sources}{stores}")).unwrap();
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_redis-backup"));
        let kubeconfig = self.kubeconfig.clone().unwrap_or_else(kubeconfig);
        command.env("KUBECONFIG", kubeconfig).current_dir(&self.folder);
        if self.folder.path().join("config.yaml").exists() {
            command.args(["--config", "config.yaml"]);
        }
        command.args(arguments).output().unwrap()
    }

    #[track_caller]
    pub fn well(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{}", told(&output));
        String::from_utf8(output.stdout).unwrap()
    }
}

/// One Redis with a password, and the config of its only source.
pub fn plain(purpose: &str) -> (Namespace, Laptop) {
    let namespace = Namespace::create_lenient(purpose);
    namespace.install(&PLAIN);
    namespace.fill("redis-0", KEYS);
    let laptop = Laptop::new();
    laptop.config(&source_of(&namespace));
    (namespace, laptop)
}

pub fn source_of(namespace: &Namespace) -> String {
    let name = &namespace.name;
    format!("sources: {{plain: {{kubernetes: {{namespace: {name}, statefulSet: redis}}}}}}\n")
}

#[test]
fn what_is_discovered_is_pasted_and_backed_up_by_port_forward_and_directly() {
    let (namespace, laptop) = (Namespace::create_lenient("discovered"), Laptop::new());
    namespace.install(&SHOP);
    namespace.fill(namespace.primary(&["redis-0", "redis-1", "redis-2"]), KEYS);
    wait_for_quorum(&namespace, &["redis-sentinel-0"], "mymaster");
    let name = &namespace.name;
    let printed = laptop.well(&["discover", "--namespace", name]);
    assert!(printed.contains("dataset in /data of PVC data-redis-2 (data)"), "{printed}");
    assert!(printed.contains("redis-sentinel-0, redis-sentinel-1, redis-sentinel-2"), "{printed}");
    laptop.config(&printed);
    let source = format!("{name}-redis");

    let output = laptop.run(&["backup", &source]);
    let told_all = told(&output);
    assert!(output.status.success(), "{told_all}");
    assert!(told_all.contains("reached by port-forward"), "{told_all}");
    assert!(told_all.contains("capture: a replica"), "{told_all}");
    assert!(told_all.contains(KEYS_AS_TOLD), "{told_all}");

    laptop.config(&printed.replace("statefulSet: redis}", "statefulSet: redis, via: direct}"));
    let backup = laptop.well(&["backup", &source]);
    assert!(backup.contains(KEYS_AS_TOLD), "{backup}");
    let verified = laptop.well(&["verify", "--all", "--level", "content", "--store", "disk"]);
    assert_eq!(verified.matches("proven").count(), 2, "{verified}");
}

#[test]
fn a_certificate_that_names_the_service_alone_is_good_by_port_forward_and_directly() {
    let (namespace, laptop) = (Namespace::create_lenient("tls-pods"), Laptop::new());
    let authority = certificates(&namespace);
    namespace.install(&ANALYTICS_TLS);
    fill_cluster(&namespace, "redis-analytics-0", "redis-cli --tls --cacert /tls/ca.crt");
    fs::write(laptop.folder.path().join("ca.crt"), authority).unwrap();
    for via in ["port-forward", "direct"] {
        let (name, workload) = (&namespace.name, "statefulSet: redis-analytics");
        laptop.config(&format!(
            "sources:\n  tls:\n    kubernetes: {{namespace: {name}, {workload}, via: {via}}}\n    tls: {{caFile: ca.crt}}\n"
        ));
        let backup = laptop.well(&["backup", "tls"]);
        assert!(backup.contains(KEYS_AS_TOLD) && backup.contains("in 3 shards"), "{backup}");
    }
}

#[test]
fn an_installation_of_the_same_names_elsewhere_may_not_write_below_a_prefix() {
    let (_namespace, laptop) = plain("owner");
    let (other, _) = plain("stranger");
    laptop.well(&["backup", "plain"]);
    laptop.config(&source_of(&other));
    let output = laptop.run(&["backup", "plain"]);
    assert_eq!(output.status.code(), Some(2), "{}", told(&output));
    assert!(told(&output).contains("belongs to another installation"), "{}", told(&output));
}

/// Someone with the rights of deploy/rbac.yaml and no other.
fn minimal(namespace: &Namespace, laptop: &mut Laptop) -> Rights {
    let rights = Rights::apply(namespace);
    let path = laptop.folder.path().join("kubeconfig");
    fs::write(&path, kubeconfig_of_account(namespace)).unwrap();
    laptop.kubeconfig = Some(path);
    rights
}

/// Rights of the role without which a BGSAVE through the API server fails, and how a missing one is told.
const NEEDED: [(&str, &str, &str); 11] = [
    ("pods", "list", "pods"),
    ("services", "list", "services"),
    ("statefulsets", "list", "statefulsets.apps"),
    ("secrets", "get", "secrets"),
    ("pods/portforward", "create", "pods/portforward"),
    ("pods/portforward", "get", "pods/portforward"),
    ("pods/exec", "create", "pods/exec"),
    ("pods/exec", "get", "pods/exec"),
    ("leases", "get", "leases.coordination.k8s.io"),
    // One that is there is not created.
    ("leases", "update", "leases.coordination.k8s.io"),
    ("leases", "create", "leases.coordination.k8s.io"),
];

/// What only `discover` looks at, and what only `workers: jobs` does.
const OPTIONAL: [(&str, &[&str]); 7] = [
    ("horizontalpodautoscalers", &["list"]),
    ("redisfailovers", &["list"]),
    ("redisclusters", &["list"]),
    ("redisreplications", &["list"]),
    ("jobs", &["create", "list", "delete"]),
    ("pods", &["get", "watch"]),
    ("pods/log", &["get"]),
];

#[test]
fn the_rights_of_the_role_are_enough_and_each_that_is_missing_is_named() {
    let (namespace, mut laptop) = plain("rights");
    let name = namespace.name.clone();
    let rights = minimal(&namespace, &mut laptop);
    laptop.config(&source_of(&namespace).replace("redis}}}", "redis}, method: bgsave}}"));
    let checked = laptop.well(&["check", "plain"]);
    assert!(checked.contains("rights are granted; reached by port-forward"), "{checked}");
    let backup = laptop.well(&["backup", "plain"]);
    assert!(backup.contains(KEYS_AS_TOLD), "{backup}");

    let all = namespace.get(&["role", "redis-backup"]);
    for (resource, verb, told_as) in NEEDED {
        set_rules(&namespace, &without(&all["rules"], resource, verb));
        let expected = format!("{told_as} {verb} in namespace {name} is not allowed");
        let check = laptop.run(&["check", "plain"]);
        assert!(told(&check).contains(&expected), "check, {resource} {verb}: {}", told(&check));
        assert_eq!(check.status.code(), Some(12), "check, {resource} {verb}: {}", told(&check));
        if (resource, verb) == ("leases", "create") {
            namespace.ask(&["delete", "lease", "--all"]);
        }
        // From 1.35 on Kubernetes asks for the right to create what it asks to get before.
        if !(resource.starts_with("pods/") && verb == "create") {
            let run = laptop.run(&["backup", "plain", "--method", "bgsave"]);
            assert!(told(&run).contains(&expected), "run, {resource} {verb}: {}", told(&run));
            assert_eq!(run.status.code(), Some(12), "run, {resource} {verb}: {}", told(&run));
            let rule = format!("resources: [{resource}], verbs: [{verb}]");
            assert!(told(&run).contains(&rule), "run, {resource} {verb}: {}", told(&run));
        }
    }
    for (resource, verbs) in rights_of(&all["rules"]) {
        for verb in verbs {
            let is_needed = NEEDED.iter().any(|it| (it.0, it.1) == (&resource, &verb));
            let is_optional =
                OPTIONAL.iter().any(|(it, verbs)| *it == resource && verbs.contains(&&*verb));
            assert!(is_needed || is_optional, "nobody needs {resource} {verb}");
        }
    }

    // What is done to single pods may be limited to them.
    let limited = all["rules"].to_string().replace(
        "\"resources\":[\"pods/exec\"]",
        "\"resourceNames\":[\"redis-0\"],\"resources\":[\"pods/exec\"]",
    );
    assert!(limited.contains("resourceNames"), "{limited}");
    set_rules(&namespace, &serde_json::from_str(&limited).unwrap());
    let checked = laptop.well(&["check", "plain"]);
    assert!(checked.contains("rights are granted"), "{checked}");
    laptop.well(&["backup", "plain", "--method", "bgsave"]);
    set_rules(&namespace, &all["rules"]);
    let all = ask(&["get", "clusterrole", &rights.cluster_role, "-o", "json"]);
    assert!(all.contains("kube-system"), "{all}");
    ask(&["delete", "clusterrolebinding", &rights.cluster_role]);
    let output = laptop.run(&["backup", "plain"]);
    assert_eq!(output.status.code(), Some(12), "{}", told(&output));
    assert!(told(&output).contains("namespaces get in the whole cluster"), "{}", told(&output));
}

/// Each resource of the rules with its verbs.
fn rights_of(rules: &Value) -> Vec<(String, Vec<String>)> {
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().unwrap().iter().map(|it| it.as_str().unwrap().to_owned()).collect()
    };
    let rules = rules.as_array().unwrap().iter();
    let of = |rule: &Value| {
        let verbs = texts(&rule["verbs"]);
        texts(&rule["resources"]).into_iter().map(move |it| (it, verbs.clone())).collect::<Vec<_>>()
    };
    rules.flat_map(of).collect()
}

/// The rules, where one verb on one resource is missing.
fn without(rules: &Value, resource: &str, verb: &str) -> Value {
    let mut left = Vec::new();
    for rule in rules.as_array().unwrap() {
        for one in rule["resources"].as_array().unwrap() {
            let verbs = rule["verbs"].as_array().unwrap().iter();
            let verbs: Vec<_> = verbs.filter(|it| one != resource || *it != verb).collect();
            if !verbs.is_empty() {
                left.push(
                    json!({"apiGroups": rule["apiGroups"], "resources": [one], "verbs": verbs}),
                );
            }
        }
    }
    json!(left)
}

fn set_rules(namespace: &Namespace, rules: &Value) {
    let patch = json!([{"op": "replace", "path": "/rules", "value": rules}]).to_string();
    namespace.ask(&["patch", "role", "redis-backup", "--type=json", "--patch", &patch]);
}

#[test]
fn a_run_that_holds_the_lease_keeps_others_out_and_a_dead_one_does_not() {
    let (namespace, laptop) = plain("lease");
    laptop.well(&["backup", "plain"]);
    let lease = || namespace.get(&["lease", "redis-backup-statefulset-redis"]);
    assert_eq!(lease()["spec"]["holderIdentity"], "", "a run that ended holds nothing");

    // One that renews, as long as the second run looks.
    let take = |minute: u32| hand_lease(&namespace, "backup of another", minute);
    take(0);
    let waiting = std::thread::scope(|scope| {
        let second = scope.spawn(|| laptop.run(&["backup", "plain"]));
        let mut minute = 1;
        while !second.is_finished() {
            take(minute);
            minute = minute % 59 + 1;
            std::thread::sleep(std::time::Duration::from_millis(500));
        }
        second.join().unwrap()
    });
    assert_eq!(waiting.status.code(), Some(13), "{}", told(&waiting));
    assert!(told(&waiting).contains("backup of another has the lease"), "{}", told(&waiting));
    // It died: nobody renews any more.
    let backup = laptop.well(&["backup", "plain"]);
    assert!(backup.contains(KEYS_AS_TOLD), "{backup}");
    assert_eq!(lease()["spec"]["holderIdentity"], "");
}

/// As if somebody else had taken the lease, or renewed it.
fn hand_lease(namespace: &Namespace, holder: &str, minute: u32) {
    let renewed = format!("2026-01-01T00:{minute:02}:00.000000Z");
    let spec = json!({"holderIdentity": holder, "renewTime": renewed, "leaseDurationSeconds": 30});
    let patch = json!({"spec": spec}).to_string();
    let lease = ["patch", "lease", "redis-backup-statefulset-redis", "--type=merge", "--patch"];
    namespace.ask(&[&lease[..], &[&patch]].concat());
}

#[test]
fn a_run_whose_lease_is_taken_by_another_ends_and_leaves_no_backup() {
    let (namespace, laptop) = plain("lost-lease");
    namespace.fill("redis-0", 50_000);
    let store = laptop.folder.path().join("store");
    // Ten megabytes at this pace would take minutes.
    let slow = format!(
        "stores: {{disk: {{directory: {{path: {}, uploadMaxPerSecond: 64KiB}}}}}}\n",
        store.display()
    );
    let source = source_of(&namespace).replace("redis}", "redis}, compression: {codec: none}");
    fs::write(laptop.folder.path().join("config.yaml"), format!("{source}{slow}")).unwrap();
    let output = std::thread::scope(|scope| {
        let run = scope.spawn(|| laptop.run(&["backup", "plain"]));
        wait_for("the lease", PATIENCE, || {
            let holder = ["get", "lease", "redis-backup-statefulset-redis", "-o", "yaml"];
            namespace.try_ask(&holder)?.contains("holderIdentity: backup").then_some(())
        });
        hand_lease(&namespace, "backup of another", 0);
        run.join().unwrap()
    });
    assert_eq!(output.status.code(), Some(12), "{}", told(&output));
    assert!(told(&output).contains("could not be renewed"), "{}", told(&output));
    assert!(!store.join("plain/manifests").exists(), "a backup was committed");
}
