//! Every installation while a writer writes through its service: backed up by its address, and out of its pods by each method
//! and in each form; loaded, and at a quiet moment equal to the live servers, value by value.

use std::{fs, path::PathBuf};

use redis_backup::domain::dataset::Names;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    by_address::{certificates, wait_for_quorum},
    cluster::wait_for,
    discovery::{ClusterWide, grant},
    installation::{
        ANALYTICS, ANALYTICS_TLS, GATEWAY, Installation, LEADERS, OPERATOR, PLAIN, Password, SHOP,
    },
    live::{Live, tally},
    namespace::{Namespace, PATIENCE},
    product::{self, Given},
    s3,
    servers::{
        dataset::{Digest, assert_same, fill},
        version::Version,
    },
    throw_away::Server,
    writer::Writer,
};

const KEYS: usize = 800;
const CONFIG: &str = "redis-backup";

/// How an installation is known.
struct Row {
    name: &'static str,
    installation: &'static Installation,
    /// In the words of a config.
    workload: &'static str,
    /// A place by which it can be reached without a word to Kubernetes.
    address: &'static str,
    pods: &'static [&'static str],
    shards: usize,
    replicas_of_each: usize,
    /// Of `tests/servers/fetch`, and of the image in which the writer runs.
    server: &'static str,
    image: &'static str,
    /// Sends the writer's commands to whoever is the primary.
    dial: &'static str,
    /// The words of kubectl that reach a sentinel, and what it calls the primary.
    sentinel: Option<(&'static [&'static str], &'static str)>,
    password: Option<Password>,
    is_cluster: bool,
    has_aof: bool,
}

/// One Redis of version 7.0 with append-only files; each installation differs in something.
const USUAL: Row = Row {
    name: "plain",
    installation: &PLAIN,
    workload: "statefulSet: redis",
    address: "redis://redis:6379",
    pods: &["redis-0"],
    shards: 1,
    replicas_of_each: 0,
    server: "redis-7.0",
    image: "localhost/redis:7.0",
    dial: "redis-cli -h redis",
    sentinel: None,
    password: None,
    is_cluster: false,
    has_aof: true,
};

const PODS_OF_ANALYTICS: &[&str] = &[
    "redis-analytics-0",
    "redis-analytics-1",
    "redis-analytics-2",
    "redis-analytics-3",
    "redis-analytics-4",
    "redis-analytics-5",
];

const PASSWORD_OF_ANALYTICS: Password =
    Password { secret: "redis-auth", key: "redis-password", text: "analytics-and-secret" };

const CLUSTER: Row = Row {
    name: "analytics",
    installation: &ANALYTICS,
    workload: "statefulSet: redis-analytics",
    address: "redis://redis-analytics-0.redis-analytics:6379",
    pods: PODS_OF_ANALYTICS,
    shards: 3,
    replicas_of_each: 1,
    server: "redis-8.0",
    image: "localhost/redis:8.0",
    dial: "redis-cli -c -h redis-analytics",
    password: Some(PASSWORD_OF_ANALYTICS),
    is_cluster: true,
    ..USUAL
};

#[test]
fn plain_is_backed_up_while_it_is_written_to_and_comes_back_value_by_value() {
    backs_up(&Row {
        password: Some(Password {
            secret: "redis-password",
            key: "password",
            text: "plain-and-secret",
        }),
        ..USUAL
    });
}

#[test]
fn shop_is_backed_up_while_it_is_written_to_and_comes_back_value_by_value() {
    backs_up(&Row {
        name: "shop",
        installation: &SHOP,
        address: "sentinel://redis-sentinel:26379/mymaster",
        pods: &["redis-0", "redis-1", "redis-2"],
        replicas_of_each: 2,
        dial: "redis-cli -h $(redis-cli -h redis-sentinel -p 26379 sentinel get-master-addr-by-name mymaster | head -n 1)",
        sentinel: Some((&["redis-sentinel-0"], "mymaster")),
        ..USUAL
    });
}

#[test]
fn gateway_is_backed_up_while_it_is_written_to_and_comes_back_value_by_value() {
    backs_up(&Row {
        name: "gateway",
        installation: &GATEWAY,
        workload: "statefulSet: redis-gateway",
        address: "sentinel://redis-gateway-sentinel:26379/gateway-master",
        pods: &["redis-gateway-0", "redis-gateway-1", "redis-gateway-2"],
        replicas_of_each: 2,
        server: "redis-6.2",
        image: "localhost/redis:6.2",
        dial: "redis-cli -h $(redis-cli -h redis-gateway-sentinel -p 26379 sentinel get-master-addr-by-name gateway-master | head -n 1)",
        sentinel: Some((&["redis-gateway-0", "-c", "sentinel"], "gateway-master")),
        has_aof: false,
        ..USUAL
    });
}

#[test]
fn operator_is_backed_up_while_it_is_written_to_and_comes_back_value_by_value() {
    backs_up(&Row {
        name: "operator",
        installation: &OPERATOR,
        workload: "redisFailover: redis-cluster",
        address: "sentinel://rfs-redis-cluster:26379/mymaster",
        pods: &["rfr-redis-cluster-0", "rfr-redis-cluster-1", "rfr-redis-cluster-2"],
        replicas_of_each: 2,
        dial: "redis-cli -h $(redis-cli -h rfs-redis-cluster -p 26379 sentinel get-master-addr-by-name mymaster | head -n 1)",
        sentinel: Some((&["deployment/rfs-redis-cluster", "-c", "sentinel"], "mymaster")),
        ..USUAL
    });
}

#[test]
fn analytics_is_backed_up_while_it_is_written_to_and_comes_back_value_by_value() {
    backs_up(&CLUSTER);
}

#[test]
fn analytics_with_tls_is_backed_up_while_it_is_written_to_and_comes_back_value_by_value() {
    backs_up(&Row {
        name: "analytics-tls",
        installation: &ANALYTICS_TLS,
        address: "rediss://redis-analytics-0.redis-analytics:6379",
        dial: "redis-cli --tls --cacert /secret/ca.crt -c -h redis-analytics",
        ..CLUSTER
    });
}

#[test]
fn leaders_are_backed_up_while_they_are_written_to_and_come_back_value_by_value() {
    backs_up(&Row {
        name: "leaders",
        installation: &LEADERS,
        workload: "redisCluster: sessions",
        address: "redis://sessions-leader:6379",
        pods: &[
            "sessions-leader-0",
            "sessions-leader-1",
            "sessions-leader-2",
            "sessions-follower-0",
            "sessions-follower-1",
            "sessions-follower-2",
        ],
        server: "redis-7.0",
        image: "localhost/redis:7.0",
        dial: "redis-cli -c -h sessions-leader",
        password: Some(Password {
            secret: "redis-secret",
            key: "password",
            text: "leaders-and-secret",
        }),
        ..CLUSTER
    });
}

/// An installation that is up, and what its backups need.
struct Place<'a> {
    row: &'a Row,
    namespace: Namespace,
    store: String,
    store_from_here: String,
    _rights: ClusterWide,
}

fn backs_up(row: &Row) {
    let place = Place::prepare(row);
    let live = place.live();
    live.each_primary(|connection| fill(connection, 51, KEYS));

    let with_secret = row.speaks_tls();
    let password = row.password.as_ref();
    let writer = Writer::start(&place.namespace, row.image, row.dial, password, with_secret);
    wait_for("the writer", PATIENCE, || (live.counted() > 100).then_some(()));
    place.back_up_by_address();
    for (method, forms) in row.captures() {
        let before = live.counted();
        let manifest = place.back_up("written", method, forms);
        let after = live.counted();
        place.check(&manifest, method, forms);
        place.verify_by_load();
        for form in forms.split(',') {
            let counted = place.counted_in_backup(&manifest, form);
            let said = format!("{} {method} {form}: {before} {counted} {after}", row.name);
            assert!(before <= counted && counted <= after && before < after, "{said}");
        }
    }
    writer.stop();

    let quiet = live.digest();
    for (method, forms) in row.captures() {
        let manifest = place.back_up("quiet", method, forms);
        for form in forms.split(',') {
            assert_same(&quiet, &place.digest_of_backup(&manifest, form));
        }
    }
    assert_same(&quiet, &live.digest());
    place.holds_no_lease();
}

impl Row {
    fn speaks_tls(&self) -> bool {
        self.address.starts_with("rediss:")
    }

    /// Methods with forms. Append-only files are read by exec whatever the method.
    fn captures(&self) -> [(&'static str, &'static str); 2] {
        [("bgsave", if self.has_aof { "rdb,aof" } else { "rdb" }), ("replication", "rdb")]
    }
}

impl<'a> Place<'a> {
    fn prepare(row: &'a Row) -> Self {
        let namespace = Namespace::create_lenient(row.name);
        let store = s3::store_of(&namespace);
        let store_from_here = s3::store_from_here(&namespace);
        let _rights = grant(&namespace);
        if row.speaks_tls() {
            let authority = certificates(&namespace);
            let password = ("password", row.password.as_ref().unwrap().text);
            namespace.secret("client", &[password, ("ca.crt", &authority)]);
        }
        namespace.install(row.installation);
        let tls = if row.speaks_tls() { "\n    tls: {caFile: /secret/ca.crt}" } else { "" };
        let config = format!(
            "sources:\n  it:\n    kubernetes: {{namespace: {}, {}}}{tls}\n",
            namespace.name, row.workload
        );
        namespace.apply(
            &json!({
                "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": CONFIG},
                "data": {"redis-backup.yaml": config},
            })
            .to_string(),
        );
        if let Some((words, master)) = row.sentinel {
            wait_for_quorum(&namespace, words, master);
        }
        Self { row, namespace, store, store_from_here, _rights }
    }

    fn live(&self) -> Live<'_> {
        Live {
            namespace: &self.namespace,
            pods: self.row.pods,
            shards: self.row.shards,
            replicas_of_each: self.row.replicas_of_each,
            password: self.row.password.as_ref(),
            tls_cli: self.row.speaks_tls().then_some("redis-cli --tls --cacert /tls/ca.crt"),
        }
    }

    /// Over replication, by names and a password that somebody configured.
    fn back_up_by_address(&self) {
        let secret = match &self.row.password {
            Some(_) if self.row.speaks_tls() => Some(("client", "password")),
            Some(password) => Some((password.secret, password.key)),
            None => None,
        };
        let from = secret.map(|(_, key)| format!("file:/secret/{key}"));
        let mut source = vec!["backup", "--source-name", "by-address", "--store", &self.store];
        source.extend(["--source-url", self.row.address]);
        source.extend(from.iter().flat_map(|from| ["--password-from", from]));
        if self.row.speaks_tls() {
            source.extend(["--tls-ca", "/secret/ca.crt", "--tls-server-name", "redis-analytics"]);
        }
        let secret = secret.map(|(name, _)| name);
        let said = product::run(&self.namespace, "by-address", secret, &source).well();
        self.is_of_replicas(&said);
        let verify = ["verify", "--latest", "--level", "content", "--source-name", "by-address"];
        let verify = [&verify[..], &["--store", &self.store]].concat();
        let verified = product::run(&self.namespace, "by-address-verify", None, &verify).well();
        assert!(verified.contains("proven"), "{verified}");
    }

    /// Out of the pods, by their own names, with the password of their own Secret. Gives the manifest.
    fn back_up(&self, when: &str, method: &str, forms: &str) -> Value {
        let arguments =
            ["backup", "it", "--method", method, "--capture", forms, "--store", &self.store];
        let secret = self.row.speaks_tls().then_some("client");
        let given = Given { secret, config: Some(CONFIG) };
        let name = format!("{when}-{method}");
        product::start(&self.namespace, &name, given, &arguments);
        let said = product::ended(&self.namespace, &name).well();
        self.is_of_replicas(&said);
        assert!(said.contains("reached by the IPs of its pods"), "{said}");
        let arguments = [&["show"], &self.latest()[..]].concat();
        product::reported_here(&arguments)["manifest"].clone()
    }

    fn is_of_replicas(&self, said: &str) {
        let is_expected = self.row.replicas_of_each == 0;
        assert_eq!(said.contains("capture: the primary"), is_expected, "{said}");
        assert_ne!(said.contains("capture: a replica"), is_expected, "{said}");
    }

    fn latest(&self) -> [&str; 5] {
        ["--latest", "--source-name", "it", "--store", &self.store_from_here]
    }

    /// The manifest says what was captured, and how.
    fn check(&self, manifest: &Value, method: &str, forms: &str) {
        let shards = manifest["shards"].as_array().unwrap();
        assert_eq!(shards.len(), self.row.shards, "{manifest:#}");
        let from = if self.row.replicas_of_each == 0 { "primary" } else { "replica" };
        for shard in shards {
            assert_eq!(shard["rdb"]["method"], method, "{shard:#}");
            assert_eq!(shard["rdb"]["capturedFrom"], from, "{shard:#}");
            assert_eq!(shard["aof"].is_null(), !forms.contains("aof"), "{shard:#}");
        }
    }

    /// Read back whole, and loaded by a server of the same version.
    fn verify_by_load(&self) {
        let binary = self.binary();
        let how = ["verify", "--level", "load", "--server-binary", binary.to_str().unwrap()];
        let verified = product::reported_here(&[&how[..], &self.latest()].concat());
        assert_eq!(verified["backups"][0]["proven"], true, "{verified:#}");
    }

    fn binary(&self) -> PathBuf {
        Version::named(self.row.server).program("redis-server")
    }

    /// A private server for each shard of the newest backup.
    fn loaded(&self, manifest: &Value, form: &str) -> Vec<(Server, TempDir)> {
        let shards = manifest["shards"].as_array().unwrap().iter();
        shards.map(|shard| self.loaded_shard(&shard["shard"].to_string(), form)).collect()
    }

    fn loaded_shard(&self, shard: &str, form: &str) -> (Server, TempDir) {
        let folder = TempDir::new().unwrap();
        let binary = self.binary();
        let appendonly = form == "aof";
        let mut how =
            vec!["restore", "--from", form, "--data-dir", folder.path().to_str().unwrap()];
        how.extend(["--server-binary", binary.to_str().unwrap()]);
        how.extend(["--redis-defaults", "--appendonly", if appendonly { "yes" } else { "no" }]);
        if self.row.is_cluster {
            how.extend(["--shard", shard]);
        }
        how.extend(self.latest());
        product::run_here(&how).well();
        assert!(fs::read_dir(&folder).unwrap().count() > 0);
        let names = Names { appendonly, ..Names::default() };
        (Server::start(&binary, folder.path(), &names), folder)
    }

    /// What the writer had counted; each count with as many elements beside it.
    fn counted_in_backup(&self, manifest: &Value, form: &str) -> u64 {
        let servers = self.loaded(manifest, form);
        let tallies = servers.into_iter().map(|(mut server, _folder)| {
            let (counted, listed) = tally(server.connection());
            assert_eq!(counted, listed, "{}: a script half done, in {form}", self.row.name);
            counted
        });
        tallies.sum()
    }

    fn digest_of_backup(&self, manifest: &Value, form: &str) -> Digest {
        let servers = self.loaded(manifest, form);
        let digests =
            servers.into_iter().map(|(mut server, _folder)| Digest::portable(server.connection()));
        digests.reduce(Digest::with).unwrap()
    }

    fn holds_no_lease(&self) {
        let leases = self.namespace.get(&["leases"]);
        let leases = leases["items"].as_array().unwrap();
        assert_eq!(leases.len(), 1, "{leases:#?}");
        assert_eq!(leases[0]["spec"]["holderIdentity"], "", "{leases:#?}");
    }
}
