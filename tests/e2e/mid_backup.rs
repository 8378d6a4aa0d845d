//! What happens to an installation in the middle of a backup of it: the backup is whole, if need be from another node, or it
//! ends with the exit code of an unavailable source and leaves nothing behind; the next one is taken.

use redis::Connection;
use serde_json::json;

use crate::{
    cluster::wait_for,
    live::Live,
    namespace::PATIENCE,
    place::{ANALYTICS_ROW, GATEWAY_ROW, Place, Row, SHOP_ROW},
    product::{self, Ended},
};

/// Small values in enough keys that a save lasts as long as the delay for each of them says.
const KEYS: u64 = 3000;
/// For each key a server saves, in microseconds: half a minute for all of them.
const DELAY: &str = "10000";

#[test]
fn whatever_befalls_a_sentinel_installation_its_backups_are_whole_or_absent() {
    let stage = Stage::prepare("mid-backup", &SHOP_ROW);
    for method in ["bgsave", "replication"] {
        let name = format!("deleted-{method}");
        let kill = |scene: &Scene<'_>| scene.kill(&scene.captured);
        from_another(&stage.backed_up_while(&name, method, kill));
    }
    let evict = |scene: &Scene<'_>| scene.evict(&scene.captured);
    from_another(&stage.backed_up_while("evicted", "bgsave", evict));
    stage.backed_up_while("primary-killed", "bgsave", |scene| scene.kill(&scene.primary));
    for method in ["bgsave", "replication"] {
        stage.backed_up_while(&format!("failed-over-{method}"), method, |scene| {
            scene.ask_sentinel_to("failover");
        });
    }
    let restart = ["rollout", "restart", "statefulset/redis"];
    stage.backed_up_while("restarted", "replication", |scene| {
        scene.place.namespace.ask(&restart);
    });
    stage.place.namespace.ask(&["rollout", "status", "statefulset/redis", "--timeout=180s"]);
    whole(&stage.backed_up("at-last"));
}

#[test]
fn whatever_befalls_servers_with_sentinels_beside_them_their_backups_are_whole_or_absent() {
    let stage = Stage::prepare("mid-gateway", &GATEWAY_ROW);
    let kill = |scene: &Scene<'_>| scene.kill(&scene.captured);
    from_another(&stage.backed_up_while("deleted", "replication", kill));
    stage.backed_up_while("failed-over", "bgsave", |scene| scene.ask_sentinel_to("failover"));
    whole(&stage.backed_up("at-last"));
}

#[test]
fn whatever_befalls_a_cluster_its_backups_are_whole_or_absent() {
    let stage = Stage::prepare("mid-cluster", &ANALYTICS_ROW);
    let ended = stage.backed_up_while("migrated", "bgsave", migrate_slots);
    whole(&ended);
    assert!(ended.log.contains("slots moved between shards"), "{}", ended.log);
    let kill = |scene: &Scene<'_>| scene.kill(&scene.captured);
    from_another(&stage.backed_up_while("deleted", "bgsave", kill));
    stage.backed_up_while("primary-killed", "replication", |scene| scene.kill(&scene.primary));
    whole(&stage.backed_up("at-last"));
}

#[track_caller]
fn whole(ended: &Ended) {
    assert_eq!(ended.exit, 0, "{}", ended.log);
}

#[track_caller]
fn from_another(ended: &Ended) {
    whole(ended);
    assert!(ended.log.contains("trying the next way"), "{}", ended.log);
}

/// An installation whose saves last as long as they are wanted to.
struct Stage {
    place: Place,
}

/// The middle of a backup.
struct Scene<'a> {
    place: &'a Place,
    /// The pod that is captured, and that of its primary.
    captured: String,
    primary: String,
}

impl Stage {
    fn prepare(purpose: &str, row: &'static Row) -> Self {
        let place = Place::prepare_as(purpose, row);
        place.live().each_primary(fill);
        Self { place }
    }

    fn live(&self) -> Live<'_> {
        self.place.live()
    }

    /// A backup by `method` in whose middle `befalls` happens. It is whole, or it failed and left nothing.
    #[track_caller]
    fn backed_up_while(&self, name: &str, method: &str, befalls: impl FnOnce(&Scene<'_>)) -> Ended {
        self.delay(DELAY);
        let before = self.place.backups();
        self.place.start(name, &["--method", method]);
        let scene = self.scene(name);
        befalls(&scene);
        // Whatever is saved from now on is saved at once.
        self.delay("0");
        let ended = product::ended(&self.place.namespace, name);
        assert!([0, 10].contains(&ended.exit), "{name} ended with {}: {}", ended.exit, ended.log);
        self.place.holds_no_lease();
        let whole = self.place.backups() - before;
        assert_eq!(whole, usize::from(ended.exit == 0), "{name}: {}", ended.log);
        if ended.exit == 0 {
            self.is_whole(name);
        }
        eprintln!("{name} by {method}: exit {}\n{}", ended.exit, ended.log);
        self.is_settled();
        ended
    }

    /// A backup by the method that the program chooses.
    fn backed_up(&self, name: &str) -> Ended {
        let ended = self.place.back_up(name, &[]);
        if ended.exit == 0 {
            self.is_whole(name);
        }
        ended
    }

    /// Read back, and not one key less.
    fn is_whole(&self, name: &str) {
        let verify = ["verify", "--level", "content"];
        let verified = product::reported_here(&[&verify[..], &self.place.latest()].concat());
        assert_eq!(verified["backups"][0]["proven"], true, "{name}: {verified:#}");
        let manifest = self.place.manifest();
        let shards = manifest["shards"].as_array().unwrap();
        let keys = shards.iter().map(|shard| {
            let read = &shard["rdb"]["content"]["read"];
            assert_eq!(read["keysOutsideSlots"], 0, "{name}: {read:#}");
            read["databases"]["0"]["keys"].as_u64().unwrap()
        });
        assert_eq!(keys.sum::<u64>(), KEYS, "{name}: {manifest:#}");
    }

    /// The next backup needs replicas.
    fn is_settled(&self) {
        self.live().primaries();
        if let Some((words, master)) = self.place.row.sentinel {
            crate::ready::wait_for_quorum(&self.place.namespace, words, master);
        }
    }

    /// Waits until a node is in the middle of the save that the backup waits for.
    fn scene(&self, job: &str) -> Scene<'_> {
        let namespace = &self.place.namespace;
        let log = format!("job/{job}");
        let captured = wait_for("a capture", PATIENCE, || {
            let log = namespace.try_ask(&["logs", &log])?;
            let line = log.lines().find(|line| line.contains("capture: "))?;
            let (_, node) = line.rsplit_once("node=")?;
            self.pod_at(node.rsplit_once(':')?.0)
        });
        wait_for("a save", PATIENCE, || {
            let persistence = self.info(&captured, "persistence")?;
            persistence.contains("rdb_bgsave_in_progress:1").then_some(())
        });
        let replication = self.info(&captured, "replication").unwrap();
        let host = replication.lines().find_map(|line| line.strip_prefix("master_host:"));
        let primary = self.pod_at(host.unwrap().trim()).unwrap();
        Scene { place: &self.place, captured, primary }
    }

    fn info(&self, pod: &str, section: &str) -> Option<String> {
        let mut connection = self.live().connection(pod)?;
        redis::cmd("INFO").arg(section).query(&mut connection).ok()
    }

    /// By its own name, or by its address.
    fn pod_at(&self, host: &str) -> Option<String> {
        let pods = self.place.namespace.get(&["pods"]);
        let pods = pods["items"].as_array().unwrap();
        pods.iter().find_map(|pod| {
            let name = pod["metadata"]["name"].as_str()?;
            let is_it = pod["status"]["podIP"] == host || host.split('.').next() == Some(name);
            is_it.then(|| name.to_owned())
        })
    }

    /// Of each node that answers; one that starts again has none.
    fn delay(&self, microseconds: &str) {
        for pod in self.place.row.pods {
            let Some(mut connection) = self.live().connection(pod) else { continue };
            let set = ["SET", "rdb-key-save-delay", microseconds];
            let _: redis::RedisResult<()> = redis::cmd("CONFIG").arg(&set).query(&mut connection);
        }
    }
}

impl Scene<'_> {
    fn kill(&self, pod: &str) {
        self.place.namespace.ask(&["delete", "pod", pod, "--grace-period=0", "--force"]);
    }

    /// As a person does it who wants another primary.
    fn ask_sentinel_to(&self, command: &str) {
        let (words, master) = self.place.row.sentinel.unwrap();
        let command = ["--", "redis-cli", "-p", "26379", "sentinel", command, master];
        let said = self.place.namespace.ask(&[&["exec"], words, &command].concat());
        assert_eq!(said.trim(), "OK");
    }

    /// As a drain of its node does it.
    fn evict(&self, pod: &str) {
        let namespace = &self.place.namespace;
        let metadata = json!({"name": pod, "namespace": namespace.name});
        let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata});
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("eviction.json");
        std::fs::write(&file, eviction.to_string()).unwrap();
        let path = format!("/api/v1/namespaces/{}/pods/{pod}/eviction", namespace.name);
        namespace.ask(&["create", "--raw", &path, "-f", file.to_str().unwrap()]);
    }
}

/// Moves slots between two shards, with the keys that are in them.
fn migrate_slots(scene: &Scene<'_>) {
    let namespace = &scene.place.namespace;
    let shell =
        |script: &str| namespace.ask(&["exec", "redis-analytics-0", "--", "sh", "-c", script]);
    let nodes = shell("redis-cli cluster nodes");
    let primaries =
        nodes.lines().filter(|line| line.contains("master") && line.contains("connected "));
    let ids: Vec<&str> = primaries.filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(ids.len(), 3, "{nodes}");
    let reshard = format!(
        "redis-cli --cluster reshard $POD_IP:6379 --cluster-from {} --cluster-to {} --cluster-slots 30 --cluster-yes",
        ids[0], ids[1]
    );
    shell(&reshard);
}

/// Of each shard the keys that are its own.
fn fill(connection: &mut Connection) {
    let mut pipeline = redis::Pipeline::new();
    for key in 0..KEYS {
        pipeline.cmd("SET").arg(format!("key:{key}")).arg(format!("value {key}")).ignore();
    }
    // Those of other shards are refused.
    let _: redis::RedisResult<()> = pipeline.query(connection);
}
