//! What one node and its sentinels say of themselves. Parses leniently; decides nothing.
//!
//! Field names are those of `genRedisInfoString` in Redis's and Valkey's `server.c`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use super::{
    cluster::ClusterNode,
    manifest::{Flavour, NodeRole, Server},
    persistence::Persistence,
    rdb::DatabaseFacts,
    source::{NodeAddress, SourceAddress},
};

/// One node at one moment.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeObservation {
    pub address: NodeAddress,
    pub server: Server,
    /// Changes with every start of the process.
    pub run_id: String,
    /// By the node's own clock.
    pub clock: Timestamp,
    pub role: NodeRole,
    /// It reads its dataset from disk or from its primary.
    pub loading: bool,
    pub replication: Replication,
    pub used_memory_bytes: Option<u64>,
    pub persistence: Persistence,
    pub keyspace: BTreeMap<u32, DatabaseFacts>,
    /// Names of the loaded modules, sorted.
    pub modules: Vec<String>,
    pub cluster_enabled: bool,
    /// What it says of the Cluster, where it is in one; of a look at all nodes, only what it says of its own shard.
    pub cluster: Option<Vec<ClusterNode>>,
    /// Whether sentinels listen to it; none where we may not ask.
    pub sentinel_watched: Option<bool>,
    pub settings: NodeSettings,
}

/// The replication section of INFO.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Replication {
    /// Equal on all nodes that hold the same history.
    pub id: String,
    /// Of its own stream; on a replica how far it followed its primary's.
    pub offset: u64,
    /// Whom it replicates.
    pub primary: Option<NodeAddress>,
    pub link_up: bool,
    pub sync_in_progress: bool,
    /// Seconds since its primary was last heard.
    pub last_io_seconds: Option<u64>,
    /// Who replicates it and said where it listens.
    pub replicas: Vec<NodeAddress>,
}

/// What the node runs with now, which need not be what it starts with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeSettings {
    pub dir: Option<String>,
    pub dbfilename: Option<String>,
    pub appendonly: Option<bool>,
    pub appendfilename: Option<String>,
    pub appenddirname: Option<String>,
    pub databases: Option<u32>,
    pub maxmemory_bytes: Option<u64>,
    /// Whether a replica gets its RDB without a file on the server's disk.
    pub repl_diskless_sync: Option<bool>,
    /// The file it was started with; none if there was none.
    pub config_file: Option<String>,
    /// Why some of it is missing.
    pub missing: Option<String>,
}

/// What the best informed sentinel says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SentinelObservation {
    pub primary_name: String,
    pub primary: NodeAddress,
    pub config_epoch: u64,
    /// As `SENTINEL MASTERS` prints them; it hides secrets by itself.
    pub options: BTreeMap<String, String>,
    /// All that answered or are known to those that did.
    pub sentinels: Vec<NodeAddress>,
}

/// A node that was looked at, with or without success.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Seen {
    pub address: NodeAddress,
    pub outcome: Result<NodeObservation, String>,
}

/// Everything seen of a source in one look.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceObservation {
    pub source: SourceAddress,
    pub sentinel: Option<SentinelObservation>,
    pub nodes: Vec<Seen>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("INFO does not tell {field}: is this a Redis?")]
    Missing { field: &'static str },
    #[error("this is a sentinel: give its address as sentinel://host:26379/name")]
    IsSentinel,
}

/// `name:value` lines.
pub(super) struct Info<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Info<'a> {
    pub(super) fn parse(text: &'a str) -> Self {
        Self(text.lines().filter_map(|line| line.split_once(':')).collect())
    }

    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        self.0.get(name).copied().filter(|value| !value.is_empty())
    }

    fn needed(&self, field: &'static str) -> Result<&'a str, Error> {
        self.text(field).ok_or(Error::Missing { field })
    }

    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        self.text(name) == Some("1")
    }
}

impl NodeObservation {
    /// From the answer to INFO.
    pub fn of_info(address: &NodeAddress, text: &str) -> Result<Self, Error> {
        let info = Info::parse(text);
        if info.text("redis_mode") == Some("sentinel") {
            return Err(Error::IsSentinel);
        }
        let server = match info.text("valkey_version") {
            Some(version) => Server { flavour: Flavour::Valkey, version: version.to_owned() },
            None => Server {
                flavour: Flavour::Redis,
                version: info.needed("redis_version")?.to_owned(),
            },
        };
        let role = match info.needed("role")? {
            "master" => NodeRole::Primary,
            _ => NodeRole::Replica,
        };
        let clock = info.needed("server_time_usec")?.parse().ok();
        let clock = clock.and_then(|clock| Timestamp::from_microsecond(clock).ok());
        Ok(Self {
            address: address.clone(),
            server,
            run_id: info.needed("run_id")?.to_owned(),
            clock: clock.ok_or(Error::Missing { field: "server_time_usec" })?,
            role,
            loading: info.flag("loading") || info.flag("async_loading"),
            replication: replication(&info, role),
            used_memory_bytes: info.number("used_memory"),
            persistence: Persistence::of(&info),
            keyspace: keyspace(&info),
            modules: modules(text),
            cluster_enabled: info.flag("cluster_enabled"),
            cluster: None,
            sentinel_watched: None,
            settings: NodeSettings {
                appendonly: info.text("aof_enabled").map(|value| value == "1"),
                maxmemory_bytes: info.number("maxmemory"),
                config_file: info.text("config_file").map(str::to_owned),
                ..NodeSettings::default()
            },
        })
    }
}

fn replication(info: &Info<'_>, role: NodeRole) -> Replication {
    let offset = match role {
        NodeRole::Primary => info.number("master_repl_offset"),
        NodeRole::Replica => info.number("slave_repl_offset"),
    };
    let primary = info.text("master_host").zip(info.number("master_port"));
    Replication {
        id: info.text("master_replid").unwrap_or_default().to_owned(),
        offset: offset.unwrap_or_default(),
        primary: primary.and_then(|(host, port)| listening(host, port)),
        link_up: info.text("master_link_status") == Some("up"),
        sync_in_progress: info.flag("master_sync_in_progress"),
        // -1 stands for never.
        last_io_seconds: info.number("master_last_io_seconds_ago"),
        replicas: (0..)
            .map_while(|index| info.text(&format!("slave{index}")))
            .filter_map(|line| {
                let fields = fields(line);
                listening(fields.get("ip")?, fields.get("port")?.parse().ok()?)
            })
            .collect(),
    }
}

/// None for port 0: a replica that did not say where it listens, such as another backup.
pub(super) fn listening(host: &str, port: u64) -> Option<NodeAddress> {
    let port = u16::try_from(port).ok().filter(|port| *port > 0)?;
    (!host.is_empty()).then(|| NodeAddress::new(host, port))
}

/// `db0:keys=3,expires=1,avg_ttl=0`
fn keyspace(info: &Info<'_>) -> BTreeMap<u32, DatabaseFacts> {
    let database = |(name, line): (&&str, &&str)| {
        let index = name.strip_prefix("db")?.parse().ok()?;
        let fields = fields(line);
        let number = |name| fields.get(name)?.parse().ok();
        Some((index, DatabaseFacts { keys: number("keys")?, expires: number("expires")? }))
    };
    info.0.iter().filter_map(database).collect()
}

/// `module:name=ReJSON,ver=20400,…`, a line for each.
fn modules(text: &str) -> Vec<String> {
    let mut names: Vec<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("module:"))
        .filter_map(|line| fields(line).get("name").map(|name| (*name).to_owned()))
        .collect();
    names.sort();
    names
}

fn fields(line: &str) -> BTreeMap<&str, &str> {
    line.split(',').filter_map(|field| field.split_once('=')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLICA: &str = "# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\nrun_id:aa\r\nserver_time_usec:1500000\r\nconfig_file:\r\n\r\n\
        # Persistence\r\nloading:0\r\nasync_loading:0\r\naof_enabled:1\r\n\r\n# Modules\r\nmodule:name=b,ver=1,api=1\r\nmodule:name=a,ver=2\r\n\r\n\
        # Replication\r\nrole:slave\r\nmaster_host:::1\r\nmaster_port:6379\r\nmaster_link_status:up\r\n\
        master_last_io_seconds_ago:3\r\nmaster_sync_in_progress:0\r\nslave_read_repl_offset:120\r\nslave_repl_offset:100\r\n\
        slave0:ip=10.0.0.7,port=6380,state=online,offset=90,lag=1\r\nslave1:ip=10.0.0.9,port=0,state=online,offset=0,lag=1\r\n\
        master_replid:8de1\r\nmaster_repl_offset:100\r\n\r\n# Keyspace\r\ndb0:keys=3,expires=1,avg_ttl=0\r\ndb10:keys=1,expires=0,avg_ttl=0,subexpiry=0\r\n";

    fn of_info(text: &str) -> Result<NodeObservation, Error> {
        NodeObservation::of_info(&NodeAddress::new("a", 1), text)
    }

    #[test]
    fn info_of_a_replica_is_read() {
        let node = of_info(REPLICA).unwrap();
        assert_eq!(node.role, NodeRole::Replica);
        assert_eq!(node.clock.as_millisecond(), 1500);
        assert_eq!(
            node.replication,
            Replication {
                id: "8de1".to_owned(),
                offset: 100,
                primary: Some(NodeAddress::new("::1", 6379)),
                link_up: true,
                sync_in_progress: false,
                last_io_seconds: Some(3),
                replicas: vec![NodeAddress::new("10.0.0.7", 6380)],
            },
        );
        assert_eq!(node.keyspace[&0], DatabaseFacts { keys: 3, expires: 1 });
        assert_eq!(node.keyspace[&10], DatabaseFacts { keys: 1, expires: 0 });
        assert_eq!(node.modules, ["a", "b"]);
        assert_eq!((node.settings.appendonly, node.settings.config_file), (Some(true), None));
    }

    #[test]
    fn a_valkey_is_told_from_a_redis() {
        let text = REPLICA.replace("redis_mode", "valkey_version:9.1.2\r\nredis_mode");
        let server = of_info(&text).unwrap().server;
        assert_eq!((server.flavour, server.version.as_str()), (Flavour::Valkey, "9.1.2"));
        assert_eq!(of_info(REPLICA).unwrap().server.flavour, Flavour::Redis);
    }

    #[test]
    fn a_replica_without_link_has_no_last_io() {
        let text = REPLICA.replace("seconds_ago:3", "seconds_ago:-1").replace(":up", ":down");
        let replication = of_info(&text).unwrap().replication;
        assert_eq!((replication.last_io_seconds, replication.link_up), (None, false));
    }

    #[test]
    fn what_is_no_data_node_is_told() {
        assert_eq!(of_info("redis_mode:sentinel\r\n"), Err(Error::IsSentinel));
        assert_eq!(of_info("hello\r\n"), Err(Error::Missing { field: "redis_version" }));
    }
}
