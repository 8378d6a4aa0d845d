//! Sources of which something is wrong: a Secret, a pod, a replica, a disk. What can be captured is; else one clear error says
//! what is wrong, and nothing is left behind.

use serde_json::{Value, json};

use crate::{
    cluster::wait_for,
    namespace::PATIENCE,
    place::{ANALYTICS_ROW, PLAIN_ROW, Place, SHOP_ROW, SMALL_DISK_ROW},
    product::Ended,
};

#[test]
fn a_secret_that_is_not_the_servers_is_named_with_its_key() {
    let place = Place::prepare_as("wrong-secret", &PLAIN_ROW);
    place.namespace.fill("redis-0", 100);
    place.namespace.secret("redis-password", &[("password", "not-this-one")]);
    let ended = place.back_up("rotated", &[]);
    assert_eq!(ended.exit, 10, "{}", ended.log);
    let named = "with the password of its pods, \"password\" of Secret redis-password";
    assert!(ended.log.contains(named) && ended.log.contains("WRONGPASS"), "{}", ended.log);
    assert!(!ended.log.contains("not-this-one"), "{}", ended.log);

    let without = r#"[{"op": "remove", "path": "/data/password"}]"#;
    place.namespace.ask(&["patch", "secret", "redis-password", "--type=json", "--patch", without]);
    let ended = place.back_up("no-key", &[]);
    assert_eq!(ended.exit, 12, "{}", ended.log);
    assert!(ended.log.contains("it has no key \"password\""), "{}", ended.log);
    assert!(ended.log.contains(&format!("Secret {}/redis-password", place.namespace.name)));

    place.namespace.ask(&["delete", "secret", "redis-password"]);
    let ended = place.back_up("no-secret", &[]);
    assert_eq!(ended.exit, 12, "{}", ended.log);
    assert!(ended.log.contains(&format!("Secret {}/redis-password", place.namespace.name)));
    nothing_is_left(&place);

    place.namespace.secret("redis-password", &[("password", "plain-and-secret")]);
    holds(&place, place.back_up("right", &[]), 100);
}

#[test]
fn a_pod_that_is_not_ready_is_asked_all_the_same_and_one_that_never_ran_is_named() {
    let place = Place::empty("not-ready", &PLAIN_ROW);
    let nowhere = "    spec:\n      nodeSelector: {nowhere: \"true\"}\n      terminationGrace";
    let objects = PLAIN_ROW.installation.objects();
    place.namespace.apply(&objects.replace("    spec:\n      terminationGrace", nowhere));
    wait_for("a pod without a node", PATIENCE, || {
        let pod = place.namespace.try_ask(&["get", "pod", "redis-0", "-o", "json"])?;
        pod.contains("Unschedulable").then_some(())
    });
    let ended = place.back_up("pending", &[]);
    assert_eq!(ended.exit, 10, "{}", ended.log);
    assert!(ended.log.contains("no pod of StatefulSet redis runs"), "{}", ended.log);
    nothing_is_left(&place);

    place.namespace.apply(&objects.replace("[redis-cli, ping]", "[\"false\"]"));
    place.namespace.ask(&["delete", "pod", "redis-0", "--wait=false"]);
    wait_for("a server that is not ready", PATIENCE, || {
        let ask = ["exec", "redis-0", "--", "redis-cli", "ping"];
        place.namespace.try_ask(&ask)?.contains("PONG").then_some(())
    });
    place.namespace.fill("redis-0", 100);
    let pod = place.namespace.get(&["pod", "redis-0"]);
    assert_eq!(pod["status"]["containerStatuses"][0]["ready"], false, "{pod:#}");
    for method in ["bgsave", "replication"] {
        holds(&place, place.back_up(&format!("not-ready-{method}"), &["--method", method]), 100);
    }
}

#[test]
fn dead_replicas_leave_another_one_or_the_primary() {
    let place = Place::prepare_as("dead-replicas", &SHOP_ROW);
    place.namespace.fill(place.namespace.primary(place.row.pods), 100);
    // The first pod is the primary, as long as nobody failed over.
    scale(&place, "redis", 2);
    for method in ["bgsave", "replication"] {
        let ended = place.back_up(&format!("one-{method}"), &["--method", method]);
        assert!(ended.log.contains("capture: a replica"), "{}", ended.log);
        holds(&place, ended, 100);
    }
    scale(&place, "redis", 1);
    let ended = place.back_up("none-bgsave", &["--method", "bgsave"]);
    assert!(ended.log.contains("capture: the primary"), "{}", ended.log);
    holds(&place, ended, 100);
    // Sentinels would take us for a replica of it.
    let before = place.backups();
    let ended = place.back_up("none-replication", &["--method", "replication"]);
    assert_eq!(ended.exit, 10, "{}", ended.log);
    assert!(ended.log.contains("a primary watched by sentinels"), "{}", ended.log);
    assert_eq!(place.backups(), before);
    place.holds_no_lease();
}

#[test]
fn a_shard_without_its_replica_is_captured_from_its_primary() {
    let place = Place::prepare_as("dead-shard-replica", &ANALYTICS_ROW);
    let mut keys = 0;
    place.live().each_primary(|connection| {
        let () = redis::cmd("FLUSHALL").query(connection).unwrap();
        for key in 0..100 {
            // Those of other shards are refused.
            let set: redis::RedisResult<()> =
                redis::cmd("SET").arg(format!("key:{key}")).arg("value").query(connection);
            keys += u64::from(set.is_ok());
        }
    });
    assert_eq!(keys, 100);
    scale(&place, "redis-analytics", 5);
    let ended = place.back_up("backup", &[]);
    assert_eq!(ended.log.matches("capture: a replica").count(), 2, "{}", ended.log);
    assert_eq!(ended.log.matches("capture: the primary").count(), 1, "{}", ended.log);
    holds(&place, ended, 100);
}

#[test]
fn a_server_whose_disk_is_full_is_backed_up_by_replication_which_says_why() {
    let place = Place::prepare_as("full-disk", &SMALL_DISK_ROW);
    let shell = |script: &str| place.namespace.ask(&["exec", "redis-0", "--", "sh", "-c", script]);
    shell("for n in $(seq 2000); do echo \"set key:$n value-$n\"; done | valkey-cli");
    shell("head -c 100000000 /dev/zero >/data/filled; valkey-cli bgsave");
    wait_for("a save that fails for want of room", PATIENCE, || {
        shell("valkey-cli info persistence").contains("rdb_last_bgsave_status:err").then_some(())
    });
    let ended = place.back_up("bgsave", &["--method", "bgsave"]);
    assert_eq!(ended.exit, 10, "{}", ended.log);
    assert!(ended.log.contains("filesystem of its data directory has"), "{}", ended.log);
    nothing_is_left(&place);
    let ended = place.back_up("auto", &[]);
    assert!(ended.log.contains("by replication, for the filesystem of its data"), "{}", ended.log);
    holds(&place, ended, 2000);
}

/// Takes pods away and waits until their servers are gone.
fn scale(place: &Place, workload: &str, replicas: usize) {
    let (workload, count) = (format!("statefulset/{workload}"), format!("--replicas={replicas}"));
    place.namespace.ask(&["scale", &workload, &count]);
    let pods = &place.row.pods[replicas..];
    for pod in pods {
        place.namespace.ask(&["wait", "--for=delete", &format!("pod/{pod}"), "--timeout=180s"]);
    }
}

#[track_caller]
fn holds(place: &Place, ended: Ended, keys: u64) {
    ended.well();
    let manifest = place.manifest();
    let of_shard =
        |shard: &Value| shard["rdb"]["content"]["read"]["databases"]["0"]["keys"].as_u64();
    let found: u64 = manifest["shards"].as_array().unwrap().iter().filter_map(of_shard).sum();
    assert_eq!(json!(found), json!(keys), "{manifest:#}");
    place.holds_no_lease();
}

#[track_caller]
fn nothing_is_left(place: &Place) {
    assert_eq!(place.backups(), 0);
    place.holds_no_lease();
}
