//! What `check` finds of a source in pods before a backup does: commands that its user lacks, no room, closed ports, lost packets.

use std::{
    fs,
    io::Write as _,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{
    cluster::{kubectl, node_folder, told},
    discovery::{Laptop, plain, source_of},
    installation::{ANALYTICS, PLAIN},
    jobs,
    namespace::Namespace,
    product,
    rights::Rights,
    s3,
};

/// What `plain` fills its Redis with.
const KEYS_AS_TOLD: &str = "2 000 keys";

/// The rule of the user in docs/RUNBOOK.md, for both ways of capture.
fn documented_rule() -> Vec<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/RUNBOOK.md");
    let text = fs::read_to_string(path).unwrap();
    let begin = "ACL SETUSER backup on >PASSWORD ";
    let rule = text.lines().find_map(|line| line.strip_prefix(begin)).unwrap();
    assert!(text.contains("for BGSAVE `+bgsave`"));
    rule.split(' ').chain(["+bgsave"]).map(str::to_owned).collect()
}

#[test]
fn the_documented_user_is_enough_in_pods_and_check_names_each_command_that_it_lacks() {
    let (namespace, laptop) = plain("acl");
    let rule = documented_rule();
    let set = |words: &[&str]| {
        let command = [&["acl", "setuser", "backup"], words].concat();
        assert_eq!(namespace.redis("redis-0", &command), "OK");
    };
    let words: Vec<&str> = rule.iter().map(String::as_str).collect();
    set(&[&["on", ">acl-and-secret"], &words[..]].concat());
    fs::write(laptop.folder.path().join("password"), "acl-and-secret").unwrap();
    let auth = "auth: {username: backup, passwordFrom: {file: password}}";
    laptop.config(&source_of(&namespace).replace("redis}}}", &format!("redis}}, {auth}}}}}")));

    for method in ["bgsave", "replication"] {
        let output = laptop.run(&["backup", "plain", "--method", method]);
        let said = told(&output);
        assert!(output.status.success() && said.contains(KEYS_AS_TOLD), "{method}: {said}");
    }
    let checked = laptop.well(&["check", "plain"]);
    assert!(checked.contains("user backup may run all commands of a backup"), "{checked}");
    assert!(checked.contains("the data directory of pod redis-0 can be read by exec"), "{checked}");
    assert!(!checked.contains("warn"), "{checked}");

    for command in rule.iter().filter_map(|word| word.strip_prefix('+')) {
        set(&[&format!("-{command}")]);
        let checked = told(&laptop.run(&["check", "plain"]));
        // With BGSAVE permitted nothing is asked by PSYNC.
        if command == "psync" {
            let output = laptop.run(&["backup", "plain", "--method", "replication"]);
            assert!(told(&output).contains("SETUSER <user> +psync"), "{}", told(&output));
        } else {
            let line = format!("ACL SETUSER backup +{command}\n");
            assert!(checked.contains(&line), "{command}: {checked}");
        }
        set(&[&format!("+{command}")]);
    }
}

#[test]
fn a_volume_and_a_memory_limit_that_hold_no_save_are_named_with_what_to_enlarge() {
    let (namespace, laptop) = (Namespace::create_lenient("check-room"), Laptop::new());
    // Nothing is written to the volume, whose file system is every small one's.
    let tight = PLAIN
        .objects()
        .replace("spec: {accessModes", "spec: {storageClassName: small, accessModes")
        .replace("--appendonly, \"yes\"", "--appendonly, \"no\", --save, \"\"")
        .replace("limits: {memory: 1Gi}", "limits: {memory: 176Mi}");
    assert_eq!(tight.matches("small").count() + tight.matches("176Mi").count(), 2, "{tight}");
    namespace.apply(&tight);
    namespace.ask(&["rollout", "status", "statefulset/redis", "--timeout=180s"]);
    namespace.fill("redis-0", 450_000);
    laptop.config(&source_of(&namespace));
    let output = laptop.run(&["check", "plain"]);
    let checked = told(&output);
    assert_eq!(output.status.code(), Some(10), "{checked}");
    assert!(checked.contains("fix: enlarge PVC data-redis-0 by"), "{checked}");
    assert!(checked.contains("fix: raise the memory limit of container redis by"), "{checked}");
}

#[test]
fn a_port_where_nothing_listens_is_told_from_packets_that_are_lost() {
    let (namespace, laptop) = plain("check-port");
    let direct = |more: &str| {
        source_of(&namespace).replace("redis}}}", &format!("redis, via: direct{more}}}}}}}"))
    };
    laptop.config(&direct(", port: 6380"));
    let output = laptop.run(&["check", "plain"]);
    let checked = told(&output);
    assert_eq!(output.status.code(), Some(10), "{checked}");
    assert!(checked.contains("pod redis-0 ("), "{checked}");
    assert!(checked.contains("nothing listens on port 6380 of the pod's IP"), "{checked}");

    laptop.config(&direct(""));
    let checked = laptop.well(&["check", "plain"]);
    assert!(checked.contains("1 pods let this machine in"), "{checked}");
}

/// Stands in for the network plugin that the cluster has none of: keeps whoever is not labelled `redis-client` from the
/// Redis of `analytics`, as its `NetworkPolicy` says. Gone with this value.
struct Policy {
    table: String,
    ends: Arc<AtomicBool>,
    watcher: Option<JoinHandle<()>>,
}

impl Policy {
    fn enforce(namespace: &Namespace) -> Self {
        let table = format!("redis_backup_{}", namespace.name.replace('-', "_"));
        let redis = addresses(&namespace.name, "app=redis-analytics");
        assert_eq!(redis.len(), 6, "{redis:?}");
        nft(&format!(
            "table inet {table} {{\n set redis {{ type ipv4_addr; elements = {{ {redis} }} }}\n \
             set clients {{ type ipv4_addr; elements = {{ {redis} }} }}\n chain forward {{\n \
             type filter hook forward priority -10;\n \
             ip daddr @redis tcp dport 6379 ip saddr != @clients drop\n }}\n}}\n",
            redis = redis.join(", "),
        ))
        .unwrap();
        let ends = Arc::new(AtomicBool::new(false));
        let (name, seen, told) = (namespace.name.clone(), Arc::clone(&ends), table.clone());
        let watcher = thread::spawn(move || {
            while !seen.load(Ordering::Relaxed) {
                for address in addresses(&name, "redis-client=true") {
                    let _ = nft(&format!("add element inet {told} clients {{ {address} }}\n"));
                }
                thread::sleep(Duration::from_millis(200));
            }
        });
        Self { table, ends, watcher: Some(watcher) }
    }
}

impl Drop for Policy {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        let _ = self.watcher.take().map(JoinHandle::join);
        let _ = nft(&format!("delete table inet {}\n", self.table));
    }
}

fn addresses(namespace: &str, selector: &str) -> Vec<String> {
    let path = "jsonpath={.items[*].status.podIP}";
    let get = ["-n", namespace, "get", "pods", "-l", selector, "-o", path];
    let output = kubectl(&get).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().map(str::to_owned).collect()
}

/// That of the cluster's own packages.
fn nft(script: &str) -> Result<(), String> {
    let node = node_folder();
    let mut command = Command::new(node.join("usr/sbin/nft"));
    command.env("LD_LIBRARY_PATH", node.join("usr/lib/x86_64-linux-gnu"));
    let mut child = command.args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    if output.status.success() { Ok(()) } else { Err(format!("nft: {}", told(&output))) }
}

#[test]
fn a_network_policy_lets_the_jobs_in_by_their_label_and_is_named_where_it_does_not() {
    let namespace = Namespace::create("policy");
    let _rights = Rights::apply(&namespace);
    s3::store_of(&namespace);
    namespace.install(&ANALYTICS);
    let prefix = format!("prefix: {}, endpoint: \"http://s3.s3-test:7070\", ", namespace.name);
    let source =
        format!("kubernetes: {{namespace: {}, statefulSet: redis-analytics}}", namespace.name);
    let auth = "        auth: {passwordFrom: {file: /etc/redis-backup/secrets/redis-password}}\n";
    let config = jobs::file("config.yaml").replace("prefix: sessions, ", &prefix);
    namespace.apply(&config.replace(jobs::NODES, &source).replace(auth, ""));
    let _policy = Policy::enforce(&namespace);

    let check = jobs::file("check.yaml");
    let stranger = check.replace(", redis-client: \"true\"}", "}");
    namespace.apply(&stranger.replace("name: redis-backup-check\n", "name: stranger\n"));
    let told = product::ended(&namespace, "stranger");
    assert_eq!(told.exit, 10, "{}", told.log);
    assert!(told.log.contains("is not reached: no answer within 5 s"), "{}", told.log);
    let policy = "a NetworkPolicy may drop it: let pods with app.kubernetes.io/component=check";
    assert!(told.log.contains(policy), "{}", told.log);
    assert!(told.log.contains("into port 6379 of pods with app=redis-analytics"), "{}", told.log);

    namespace.apply(&check);
    let checked = product::ended(&namespace, "redis-backup-check").well();
    assert!(checked.contains("6 pods let this machine in"), "{checked}");
    namespace.apply(&jobs::file("backup-daily.yaml"));
    let backup = jobs::by_hand(&namespace, "daily", "daily-manual").well();
    assert!(backup.contains("in 3 shards"), "{backup}");
}
