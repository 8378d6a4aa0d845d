//! Where a source lies in Kubernetes, as a config says it. Checks what the types cannot hold; asks no cluster.

use std::fmt;

use bytesize::ByteSize;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::domain::{
    capture::EXEC_BYTES_MAX,
    source::SourceUrl,
    workload::{Choice, Wanted, Workload, facts::Labels},
};

/// Every byte of them passes the API server and a kubelet, which have other work to do.
const EXEC_STREAMS: u32 = 2;
const EXEC_STREAMS_MAX: u32 = 16;

/// Enough to keep a store busy, and few enough for a small cluster.
const WORKERS_AT_ONCE: usize = 4;

/// Two copies of datasets in the memory of one machine are one too many.
const FORKS_PER_NODE: usize = 1;

/// Pods of one installation; exactly one of `statefulSet`, `selector`, `redisFailover`, `redisCluster` and
/// `redisReplication` names them. Everything else is discovered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Kubernetes {
    pub namespace: String,
    pub stateful_set: Option<String>,
    /// Labels that all of its pods have and no other, such as `app=redis,tier=cache`.
    pub selector: Option<String>,
    /// A resource of the Spotahome operator.
    pub redis_failover: Option<String>,
    /// A resource of the OT-CONTAINER-KIT operator.
    pub redis_cluster: Option<String>,
    /// A resource of the OT-CONTAINER-KIT operator.
    pub redis_replication: Option<String>,
    /// The container of the server, where several look like one.
    pub container: Option<String>,
    /// The port of the server, where it is not the one that its pods declare.
    pub port: Option<u16>,
    /// Of the kubeconfig; its current one when absent.
    pub context: Option<String>,
    /// The largest dataset whose files are read by exec, through the API server; 8 GiB when absent.
    /// What is larger is captured by replication.
    #[schemars(with = "Option<String>")]
    pub exec_bytes_max: Option<ByteSize>,
    /// Nodes whose files are read by exec at the same time in this namespace, by all runs together; 2 when absent.
    #[schemars(range(min = 1, max = 16))]
    pub exec_streams: Option<u32>,
    /// How the pods are reached.
    #[serde(default)]
    pub via: Via,
    /// Where shards are captured.
    #[serde(default)]
    pub workers: WorkersIn,
    /// With `workers: jobs`: how many of them run at the same time; 4 when absent.
    pub workers_at_once: Option<u32>,
    /// With `workers: jobs`: their service account, where a store knows who writes by it. It needs no right at the API server.
    pub worker_service_account: Option<String>,
    /// Forks that this source may have at the same time on one Kubernetes node; 1 when absent.
    pub forks_per_node: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WorkersIn {
    /// In this process.
    #[default]
    Here,
    /// Each in a Kubernetes Job of its own, which stores it by itself.
    Jobs,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Via {
    /// `direct` in a pod, `port-forward` elsewhere.
    #[default]
    Auto,
    /// By the IPs of the pods.
    Direct,
    /// Through the API server.
    PortForward,
}

/// Where a source is found.
#[derive(Clone, Debug)]
pub enum Location {
    Nodes(SourceUrl),
    Kubernetes(Cluster),
}

/// A workload of a Kubernetes cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    pub namespace: String,
    pub wanted: Wanted,
    pub choice: Choice,
    pub context: Option<String>,
    pub via: Via,
    pub exec_bytes_max: u64,
    pub exec_streams: u32,
    pub workers: Workers,
    pub forks_per_node: usize,
}

/// Where the shards of a source are captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Workers {
    Here,
    Jobs { at_once: usize, service_account: Option<String> },
}

impl Location {
    /// What can be compared with the origin of a prefix without asking the source.
    pub fn identities(&self) -> Vec<String> {
        match self {
            Self::Nodes(url) => url.address.identities(),
            Self::Kubernetes(cluster) => {
                vec![Workload::address(&cluster.namespace, &cluster.wanted)]
            }
        }
    }

    /// The address, where it is configured and not discovered.
    pub const fn url(&self) -> Option<&SourceUrl> {
        match self {
            Self::Nodes(url) => Some(url),
            Self::Kubernetes(_) => None,
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nodes(url) => write!(f, "{url}"),
            Self::Kubernetes(cluster) => {
                let context = cluster.context.as_deref().unwrap_or_default();
                write!(f, "{context}/{}", Workload::address(&cluster.namespace, &cluster.wanted))
            }
        }
    }
}

/// The key below `kubernetes` that is wrong, and why.
type Wrong = (&'static str, String);

pub(super) fn check(configured: &Kubernetes) -> Result<Cluster, Wrong> {
    let Kubernetes { namespace, container, port, context, via, exec_bytes_max, .. } = configured;
    if !is_label(namespace) {
        return Err(("kubernetes.namespace", format!("{namespace:?} is no name of a namespace")));
    }
    if *port == Some(0) {
        return Err(("kubernetes.port", "a port is 1 to 65535".to_owned()));
    }
    Ok(Cluster {
        namespace: namespace.clone(),
        wanted: wanted(configured)?,
        choice: Choice { container: container.clone(), port: *port },
        context: context.clone(),
        via: *via,
        exec_bytes_max: exec_bytes_max.map_or(EXEC_BYTES_MAX, |size| size.as_u64()),
        exec_streams: streams(configured.exec_streams)?,
        workers: workers(configured)?,
        forks_per_node: forks(configured.forks_per_node)?,
    })
}

/// The one key that names the pods.
fn wanted(configured: &Kubernetes) -> Result<Wanted, Wrong> {
    let Kubernetes {
        stateful_set, selector, redis_failover, redis_cluster, redis_replication, ..
    } = configured;
    let mut named = Vec::new();
    if let Some(selector) = selector {
        let labels = labels(selector).map_err(|finding| ("kubernetes.selector", finding))?;
        named.push(("selector", Wanted::Selector(labels)));
    }
    for (key, place, name, wanted) in [
        ("statefulSet", "kubernetes.statefulSet", stateful_set, Wanted::StatefulSet as fn(_) -> _),
        ("redisFailover", "kubernetes.redisFailover", redis_failover, Wanted::RedisFailover),
        ("redisCluster", "kubernetes.redisCluster", redis_cluster, Wanted::RedisCluster),
        (
            "redisReplication",
            "kubernetes.redisReplication",
            redis_replication,
            Wanted::RedisReplication,
        ),
    ] {
        if let Some(name) = name {
            if name.is_empty() {
                return Err((place, "a name is missing".to_owned()));
            }
            named.push((key, wanted(name.clone())));
        }
    }
    let keys = named.iter().map(|(key, _)| *key).collect::<Vec<_>>().join(" and ");
    let mut named = named.into_iter();
    match (named.next(), named.next()) {
        (Some((_, wanted)), None) => Ok(wanted),
        (None, _) => Err((
            "kubernetes",
            "which pods is missing: write one of `statefulSet`, `selector`, `redisFailover`, `redisCluster`, \
             `redisReplication`; `redis-backup discover -n NAMESPACE` shows what is there"
                .to_owned(),
        )),
        (Some(_), Some(_)) => {
            Err(("kubernetes", format!("{keys} both name the pods; write one of them")))
        }
    }
}

fn workers(configured: &Kubernetes) -> Result<Workers, Wrong> {
    let Kubernetes { workers, workers_at_once, worker_service_account, .. } = configured;
    let at_once = "kubernetes.workersAtOnce";
    match (workers, workers_at_once, worker_service_account) {
        (WorkersIn::Here, None, None) => Ok(Workers::Here),
        (WorkersIn::Here, Some(_), _) => Err((
            at_once,
            "it is for `workers: jobs`; here `capturesAtOnce` says how many".to_owned(),
        )),
        (WorkersIn::Here, None, Some(_)) => {
            Err(("kubernetes.workerServiceAccount", "it is for `workers: jobs`".to_owned()))
        }
        (WorkersIn::Jobs, Some(0), _) => {
            Err((at_once, "0 captures nothing; write 1 or more".to_owned()))
        }
        (WorkersIn::Jobs, number, account) => Ok(Workers::Jobs {
            at_once: count(*number, WORKERS_AT_ONCE),
            service_account: account.clone(),
        }),
    }
}

fn streams(configured: Option<u32>) -> Result<u32, Wrong> {
    match configured.unwrap_or(EXEC_STREAMS) {
        streams @ 1..=EXEC_STREAMS_MAX => Ok(streams),
        streams => {
            Err(("kubernetes.execStreams", format!("{streams} is not 1 to {EXEC_STREAMS_MAX}")))
        }
    }
}

fn forks(configured: Option<u32>) -> Result<usize, Wrong> {
    match configured {
        Some(0) => {
            Err(("kubernetes.forksPerNode", "0 captures nothing; write 1 or more".to_owned()))
        }
        number => Ok(count(number, FORKS_PER_NODE)),
    }
}

fn count(configured: Option<u32>, default: usize) -> usize {
    configured.and_then(|number| usize::try_from(number).ok()).unwrap_or(default)
}

/// `a=b,c=d`
fn labels(text: &str) -> Result<Labels, String> {
    let pair = |part: &str| {
        let (key, value) = part.split_once('=')?;
        let (key, value) = (key.trim(), value.trim());
        let is_pair = !key.is_empty() && !key.contains(['!', '=']) && !value.starts_with('=');
        is_pair.then(|| (key.to_owned(), value.to_owned()))
    };
    text.split(',')
        .map(|part| {
            pair(part).ok_or_else(|| format!("{part:?} is no label: write such as `app=redis`"))
        })
        .collect()
}

/// RFC 1123, section 2.1.
fn is_label(text: &str) -> bool {
    let is_fine = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(is_fine) && !text.starts_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(yaml: &str) -> String {
        let configured: Kubernetes = serde_saphyr::from_str(yaml).unwrap();
        check(&configured).unwrap_err().1
    }

    #[test]
    fn a_selector_is_labels_that_all_must_be_there() {
        let yaml = "{namespace: shop, selector: 'app=redis, tier=a', port: 6380, via: direct}";
        let configured: Kubernetes = serde_saphyr::from_str(yaml).unwrap();
        let cluster = check(&configured).unwrap();
        assert_eq!(
            Location::Kubernetes(cluster.clone()).identities(),
            ["kubernetes/shop/selector/app=redis,tier=a"],
        );
        assert_eq!((cluster.choice.port, cluster.via), (Some(6380), Via::Direct));
    }

    #[test]
    fn workers_are_in_this_process_unless_the_config_says_otherwise() {
        for (yaml, expected) in [
            ("", (Workers::Here, 1)),
            (", forksPerNode: 3", (Workers::Here, 3)),
            (", workers: jobs", (Workers::Jobs { at_once: 4, service_account: None }, 1)),
            (
                ", workers: jobs, workersAtOnce: 9, workerServiceAccount: writer",
                (Workers::Jobs { at_once: 9, service_account: Some("writer".to_owned()) }, 1),
            ),
        ] {
            let yaml = format!("{{namespace: shop, statefulSet: a{yaml}}}");
            let cluster = check(&serde_saphyr::from_str(&yaml).unwrap()).unwrap();
            assert_eq!((cluster.workers, cluster.forks_per_node), expected, "{yaml}");
        }
    }

    #[test]
    fn what_names_no_pods_or_other_pods_is_refused() {
        for (yaml, expected) in [
            ("{namespace: shop}", "which pods is missing"),
            ("{namespace: shop, statefulSet: a, redisCluster: b}", "statefulSet and redisCluster"),
            ("{namespace: Shop, statefulSet: a}", "no name of a namespace"),
            ("{namespace: shop, statefulSet: ''}", "a name is missing"),
            ("{namespace: shop, selector: app}", "\"app\" is no label"),
            ("{namespace: shop, selector: 'app!=x'}", "is no label"),
            ("{namespace: shop, statefulSet: a, port: 0}", "1 to 65535"),
            ("{namespace: shop, statefulSet: a, execStreams: 0}", "0 is not 1 to 16"),
            ("{namespace: shop, statefulSet: a, forksPerNode: 0}", "0 captures nothing"),
            ("{namespace: shop, statefulSet: a, workersAtOnce: 2}", "for `workers: jobs`"),
            ("{namespace: shop, statefulSet: a, workerServiceAccount: b}", "for `workers: jobs`"),
            (
                "{namespace: shop, statefulSet: a, workers: jobs, workersAtOnce: 0}",
                "0 captures nothing",
            ),
        ] {
            assert!(finding(yaml).contains(expected), "{yaml}: {}", finding(yaml));
        }
    }
}
