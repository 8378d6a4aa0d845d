//! The servers of an installation, asked by the addresses of their pods. Writes nothing but what a test fills in.

use redis::{Client, Connection};
use serde_json::Value;

use crate::{
    cluster::wait_for,
    installation::Password,
    namespace::{Namespace, PATIENCE},
    servers::dataset::Digest,
    writer::TAGS,
};

/// Where Redis listens without TLS; where it does not, the second is opened as long as it is asked.
const PORT: u16 = 6379;
const PORT_BESIDE_TLS: u16 = 6380;

#[derive(Clone, Copy, Debug)]
pub struct Live<'a> {
    pub namespace: &'a Namespace,
    pub pods: &'a [&'a str],
    pub shards: usize,
    pub replicas_of_each: usize,
    pub password: Option<&'a Password>,
    /// How a pod's own shell speaks TLS.
    pub tls_cli: Option<&'a str>,
}

impl Live<'_> {
    /// One connection for each shard, in no order, once its replicas follow.
    #[track_caller]
    pub fn primaries(&self) -> Vec<Connection> {
        self.wait(false)
    }

    /// All that the primaries hold, once their replicas hold the same.
    #[track_caller]
    pub fn digest(&self) -> Digest {
        self.open_plain_port(PORT_BESIDE_TLS);
        let primaries = self.wait(true).into_iter();
        let digests = primaries.map(|mut connection| Digest::portable(&mut connection));
        let digest = digests.reduce(Digest::with).unwrap();
        self.open_plain_port(0);
        digest
    }

    /// What the writer has counted until now.
    #[track_caller]
    pub fn counted(&self) -> u64 {
        self.open_plain_port(PORT_BESIDE_TLS);
        let counts = self.primaries().iter_mut().map(|connection| tally(connection).0).sum();
        self.open_plain_port(0);
        counts
    }

    /// Lets `act` have a connection to each primary.
    #[track_caller]
    pub fn each_primary(&self, act: impl FnMut(&mut Connection)) {
        self.open_plain_port(PORT_BESIDE_TLS);
        self.primaries().iter_mut().for_each(act);
        self.open_plain_port(0);
    }

    fn wait(&self, is_caught_up: bool) -> Vec<Connection> {
        wait_for("each primary with its replicas", PATIENCE, || {
            let nodes = self.pods.iter().filter_map(|pod| self.connection(pod));
            let primaries = nodes.filter_map(|mut connection| {
                let ask = redis::cmd("INFO").arg("replication").query(&mut connection);
                let replication: String = ask.ok()?;
                (followers(&replication, is_caught_up)? == self.replicas_of_each)
                    .then_some(connection)
            });
            let primaries: Vec<_> = primaries.collect();
            (primaries.len() == self.shards).then_some(primaries)
        })
    }

    pub fn connection(&self, pod: &str) -> Option<Connection> {
        let pod = self.namespace.try_ask(&["get", "pod", pod, "-o", "json"])?;
        let pod: Value = serde_json::from_str(&pod).unwrap();
        let address = pod["status"]["podIP"].as_str()?;
        let port = if self.tls_cli.is_some() { PORT_BESIDE_TLS } else { PORT };
        let password = self.password.map(|password| format!(":{}@", password.text));
        let url = format!("redis://{}{address}:{port}", password.unwrap_or_default());
        let connection = Client::open(url).unwrap().get_connection_with_timeout(PATIENCE).ok()?;
        connection.set_read_timeout(Some(PATIENCE)).unwrap();
        Some(connection)
    }

    fn open_plain_port(&self, port: u16) {
        let Some(cli) = self.tls_cli else { return };
        for pod in self.pods {
            let set = format!("{cli} config set port {port}");
            self.namespace.ask(&["exec", pod, "--", "sh", "-c", &set]);
        }
    }
}

/// How many replicas follow a primary; none of what is said tells it of another.
fn followers(replication: &str, is_caught_up: bool) -> Option<usize> {
    let field = |name: &str| replication.lines().find_map(|line| line.strip_prefix(name));
    if field("role:")? != "master" {
        return None;
    }
    let reached = format!(",offset={},", field("master_repl_offset:")?);
    let is_one = |line: &&str| {
        line.starts_with("slave")
            && line.contains("state=online")
            && (!is_caught_up || line.contains(&reached))
    };
    Some(replication.lines().filter(is_one).count())
}

/// What the writer has counted and listed on this server.
#[track_caller]
pub fn tally(connection: &mut Connection) -> (u64, u64) {
    let mut sums = (0, 0);
    for tag in 0..TAGS {
        let key = |kind: &str| format!("through:{{{tag}}}:{kind}");
        // On a node of a Cluster the others are elsewhere.
        let count: redis::RedisResult<Option<u64>> =
            redis::cmd("GET").arg(key("count")).query(connection);
        let Ok(count) = count else { continue };
        let listed: u64 = redis::cmd("LLEN").arg(key("list")).query(connection).unwrap();
        let count = count.unwrap_or_default();
        sums = (sums.0 + count, sums.1 + listed);
    }
    sums
}
