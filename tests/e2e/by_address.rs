//! Every installation by its address alone, without a word to Kubernetes: our image in a pod beside it captures each shard
//! from a replica, over replication, and proves what it stored.

use std::time::Duration;

use crate::{
    cluster::wait_for,
    installation::{ANALYTICS, GATEWAY, Installation, SHOP},
    namespace::{Namespace, PATIENCE},
    product, s3,
};

const KEYS: u32 = 2000;
const KEYS_AS_TOLD: &str = "2 000 keys";

/// Backs an installation up by `source` and reads every byte back; gives what the backup said.
#[track_caller]
fn backed_up(namespace: &Namespace, store: &str, secret: Option<&str>, source: &[&str]) -> String {
    let place = ["--source-name", "source", "--store", store];
    let run = |name, arguments: &[&str]| {
        product::run(namespace, name, secret, &[arguments, &place].concat()).well()
    };
    let backup = run("backup", &[&["backup"], source].concat());
    assert!(backup.contains(KEYS_AS_TOLD), "{backup}");
    let verified = run("verify", &["verify", "--latest", "--level", "content"]);
    assert!(verified.contains("proven"), "{verified}");
    backup
}

fn prepared(purpose: &str, installation: &Installation) -> (Namespace, String) {
    let namespace = Namespace::create_lenient(purpose);
    let store = s3::store_of(&namespace);
    namespace.install(installation);
    (namespace, store)
}

/// Sentinels find the replicas some seconds after they found the primary.
fn wait_for_replicas(namespace: &Namespace, pod: &str, container: &str, master: &str) {
    wait_for("two replicas and three sentinels", PATIENCE, || {
        let ask = [
            "exec",
            pod,
            "-c",
            container,
            "--",
            "redis-cli",
            "-p",
            "26379",
            "sentinel",
            "ckquorum",
            master,
        ];
        let quorum = namespace.try_ask(&ask)?;
        let ask = [
            "exec",
            pod,
            "-c",
            container,
            "--",
            "redis-cli",
            "-p",
            "26379",
            "sentinel",
            "replicas",
            master,
        ];
        let replicas = namespace.try_ask(&ask)?;
        let is_linked = replicas.matches("master-link-status\nok").count() == 2;
        (quorum.contains("3 usable") && is_linked).then_some(())
    });
}

#[test]
fn shop_is_backed_up_by_its_sentinels_from_a_replica() {
    let (namespace, store) = prepared("shop", &SHOP);
    namespace.fill("redis-0", KEYS);
    wait_for_replicas(&namespace, "redis-sentinel-0", "sentinel", "mymaster");
    let source = ["--source-url", "sentinel://redis-sentinel:26379/mymaster"];
    let backup = backed_up(&namespace, &store, None, &source);
    assert!(!backup.contains("the primary"), "{backup}");
}

#[test]
fn gateway_is_backed_up_by_its_sentinels_from_a_replica() {
    let (namespace, store) = prepared("gateway", &GATEWAY);
    namespace.fill("redis-gateway-0", KEYS);
    wait_for_replicas(&namespace, "redis-gateway-0", "sentinel", "gateway-master");
    let source = ["--source-url", "sentinel://redis-gateway-sentinel:26379/gateway-master"];
    let backup = backed_up(&namespace, &store, None, &source);
    assert!(!backup.contains("the primary"), "{backup}");
}

#[test]
fn analytics_is_backed_up_shard_by_shard() {
    let (namespace, store) = prepared("analytics", &ANALYTICS);
    // redis-cli -c follows a key to its shard, so one key at a time.
    let script = format!(
        "for n in $(seq {KEYS}); do echo \"set key:$n value-$n\"; done | redis-cli -c | grep -c OK"
    );
    let filled = namespace.ask(&["exec", "redis-analytics-0", "--", "sh", "-c", &script]);
    assert_eq!(filled.trim(), KEYS.to_string());
    wait_for("every replica's link", Duration::from_mins(1), || {
        let nodes = namespace.redis("redis-analytics-0", &["cluster", "nodes"]);
        (nodes.matches("slave").count() == 3 && !nodes.contains("disconnected")).then_some(())
    });
    let source = [
        "--source-url",
        "redis://redis-analytics-0.redis-analytics:6379",
        "--password-from",
        "file:/secret/redis-password",
    ];
    let backup = backed_up(&namespace, &store, Some("redis-auth"), &source);
    assert!(backup.contains("in 3 shards"), "{backup}");
}
