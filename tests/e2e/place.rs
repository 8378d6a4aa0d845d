//! An installation of the table that is up, with what backups out of its pods need: rights, a config, a store. Judges nothing.

use serde_json::{Value, json};

use crate::{
    installation::{
        ANALYTICS, ANALYTICS_TLS, GATEWAY, Installation, LEADERS, OPERATOR, PLAIN, Password, SHOP,
        SMALL_DISK,
    },
    live::Live,
    namespace::Namespace,
    product::{self, Ended, Given},
    ready::{certificates, wait_for_quorum},
    rights::Rights,
    s3,
};

const CONFIG: &str = "redis-backup";

/// How an installation is known.
#[derive(Debug)]
pub struct Row {
    pub name: &'static str,
    pub installation: &'static Installation,
    /// In the words of a config.
    pub workload: &'static str,
    /// A place by which it can be reached without a word to Kubernetes.
    pub address: &'static str,
    pub pods: &'static [&'static str],
    pub shards: usize,
    pub replicas_of_each: usize,
    /// Of `tests/servers/fetch`, and of the image in which the writer runs.
    pub server: &'static str,
    pub image: &'static str,
    /// Sends the writer's commands to whoever is the primary.
    pub dial: &'static str,
    /// The words of kubectl that reach a sentinel, and what it calls the primary.
    pub sentinel: Option<(&'static [&'static str], &'static str)>,
    pub password: Option<Password>,
    pub is_cluster: bool,
    pub has_aof: bool,
}

/// Of version 7.0, with append-only files. Each other one differs in something.
pub const PLAIN_ROW: Row = Row {
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
    password: Some(Password {
        secret: "redis-password",
        key: "password",
        text: "plain-and-secret",
    }),
    is_cluster: false,
    has_aof: true,
};

pub const SHOP_ROW: Row = Row {
    name: "shop",
    installation: &SHOP,
    address: "sentinel://redis-sentinel:26379/mymaster",
    pods: &["redis-0", "redis-1", "redis-2"],
    replicas_of_each: 2,
    dial: "redis-cli -h $(redis-cli -h redis-sentinel -p 26379 sentinel get-master-addr-by-name mymaster | head -n 1)",
    sentinel: Some((&["redis-sentinel-0"], "mymaster")),
    password: None,
    ..PLAIN_ROW
};

pub const GATEWAY_ROW: Row = Row {
    name: "gateway",
    installation: &GATEWAY,
    workload: "statefulSet: redis-gateway",
    address: "sentinel://redis-gateway-sentinel:26379/gateway-master",
    pods: &["redis-gateway-0", "redis-gateway-1", "redis-gateway-2"],
    server: "redis-6.2",
    image: "localhost/redis:6.2",
    dial: "redis-cli -h $(redis-cli -h redis-gateway-sentinel -p 26379 sentinel get-master-addr-by-name gateway-master | head -n 1)",
    sentinel: Some((&["redis-gateway-0", "-c", "sentinel"], "gateway-master")),
    has_aof: false,
    ..SHOP_ROW
};

pub const OPERATOR_ROW: Row = Row {
    name: "operator",
    installation: &OPERATOR,
    workload: "redisFailover: redis-cluster",
    address: "sentinel://rfs-redis-cluster:26379/mymaster",
    pods: &["rfr-redis-cluster-0", "rfr-redis-cluster-1", "rfr-redis-cluster-2"],
    dial: "redis-cli -h $(redis-cli -h rfs-redis-cluster -p 26379 sentinel get-master-addr-by-name mymaster | head -n 1)",
    sentinel: Some((&["deployment/rfs-redis-cluster", "-c", "sentinel"], "mymaster")),
    ..SHOP_ROW
};

pub const ANALYTICS_ROW: Row = Row {
    name: "analytics",
    installation: &ANALYTICS,
    workload: "statefulSet: redis-analytics",
    address: "redis://redis-analytics-0.redis-analytics:6379",
    pods: &[
        "redis-analytics-0",
        "redis-analytics-1",
        "redis-analytics-2",
        "redis-analytics-3",
        "redis-analytics-4",
        "redis-analytics-5",
    ],
    shards: 3,
    replicas_of_each: 1,
    server: "redis-8.0",
    image: "localhost/redis:8.0",
    dial: "redis-cli -c -h redis-analytics",
    password: Some(Password {
        secret: "redis-auth",
        key: "redis-password",
        text: "analytics-and-secret",
    }),
    is_cluster: true,
    ..PLAIN_ROW
};

pub const ANALYTICS_TLS_ROW: Row = Row {
    name: "analytics-tls",
    installation: &ANALYTICS_TLS,
    address: "rediss://redis-analytics-0.redis-analytics:6379",
    dial: "redis-cli --tls --cacert /secret/ca.crt -c -h redis-analytics",
    ..ANALYTICS_ROW
};

pub const LEADERS_ROW: Row = Row {
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
    ..ANALYTICS_ROW
};

/// Valkey, without append-only files, on a volume that a test can fill.
pub const SMALL_DISK_ROW: Row = Row {
    name: "small-disk",
    installation: &SMALL_DISK,
    password: None,
    server: "valkey-8.1",
    image: "localhost/valkey:8.1",
    dial: "valkey-cli -h redis",
    has_aof: false,
    ..PLAIN_ROW
};

/// An installation that is up, and what its backups need.
#[derive(Debug)]
pub struct Place {
    pub row: &'static Row,
    pub namespace: Namespace,
    /// As pods name it, and as this machine does.
    pub store: String,
    pub store_from_here: String,
    _rights: Rights,
}

impl Row {
    pub fn speaks_tls(&self) -> bool {
        self.address.starts_with("rediss:")
    }
}

impl Place {
    pub fn prepare(row: &'static Row) -> Self {
        Self::prepare_as(row.name, row)
    }

    /// `purpose` tells it from others of the same row.
    pub fn prepare_as(purpose: &str, row: &'static Row) -> Self {
        let place = Self::empty(purpose, row);
        if row.speaks_tls() {
            let authority = certificates(&place.namespace);
            let password = ("password", row.password.as_ref().unwrap().text);
            place.namespace.secret("client", &[password, ("ca.crt", &authority)]);
        }
        place.namespace.install(row.installation);
        if let Some((words, master)) = row.sentinel {
            wait_for_quorum(&place.namespace, words, master);
        }
        place
    }

    /// Everything but the installation.
    pub fn empty(purpose: &str, row: &'static Row) -> Self {
        let namespace = Namespace::create_lenient(purpose);
        let store = s3::store_of(&namespace);
        let store_from_here = s3::store_from_here(&namespace);
        let rights = Rights::apply(&namespace);
        let place = Self { row, namespace, store, store_from_here, _rights: rights };
        place.configure();
        place
    }

    /// Writes the config of its one source, `it`.
    fn configure(&self) {
        let tls = if self.row.speaks_tls() { "    tls: {caFile: /secret/ca.crt}\n" } else { "" };
        let config = format!(
            "sources:\n  it:\n    kubernetes: {{namespace: {}, {}}}\n{tls}",
            self.namespace.name, self.row.workload
        );
        self.namespace.apply(
            &json!({
                "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": CONFIG},
                "data": {"redis-backup.yaml": config},
            })
            .to_string(),
        );
    }

    pub fn live(&self) -> Live<'_> {
        Live {
            namespace: &self.namespace,
            pods: self.row.pods,
            shards: self.row.shards,
            replicas_of_each: self.row.replicas_of_each,
            password: self.row.password.as_ref(),
            tls_cli: self.row.speaks_tls().then_some("redis-cli --tls --cacert /tls/ca.crt"),
        }
    }

    /// Begins a backup out of the pods as the Job `name`.
    pub fn start(&self, name: &str, more: &[&str]) {
        let arguments = [&["backup", "it", "--store", &self.store], more].concat();
        let secret = self.row.speaks_tls().then_some("client");
        product::start(&self.namespace, name, Given { secret, config: Some(CONFIG) }, &arguments);
    }

    pub fn back_up(&self, name: &str, more: &[&str]) -> Ended {
        self.start(name, more);
        product::ended(&self.namespace, name)
    }

    /// The newest backup out of the pods, for verbs on this machine.
    pub fn latest(&self) -> [&str; 5] {
        ["--latest", "--source-name", "it", "--store", &self.store_from_here]
    }

    pub fn manifest(&self) -> Value {
        let arguments = [&["show"], &self.latest()[..]].concat();
        product::reported_here(&arguments)["manifest"].clone()
    }

    /// How many backups there are.
    pub fn backups(&self) -> usize {
        let list = ["list", "it", "--store", &self.store_from_here];
        product::reported_here(&list)["backups"].as_array().unwrap().len()
    }

    #[track_caller]
    pub fn holds_no_lease(&self) {
        let leases = self.namespace.get(&["leases"]);
        let leases = leases["items"].as_array().unwrap();
        let is_free = |lease: &Value| lease["spec"]["holderIdentity"] == "";
        assert!(!leases.is_empty() && leases.iter().all(is_free), "{leases:#?}");
    }
}
