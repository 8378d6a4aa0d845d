//! Which pods of a namespace are one Redis installation, and how each is reached. Decides from facts; roles are asked of Redis alone.

mod container;
pub mod facts;
mod inventory;

use std::{collections::BTreeSet, fmt};

pub use self::inventory::{Installation, inventory};
use self::{
    container::Role,
    facts::{Container, Facts, Labels, Owner, Pod, SecretKey, Service},
};
use super::source::NodeAddress;

/// Custom resources by which operators make installations.
pub const OPERATED_KINDS: [&str; 3] = ["RedisFailover", "RedisCluster", "RedisReplication"];

/// What a config names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    StatefulSet(String),
    /// Pods that have all of these labels.
    Selector(Labels),
    RedisFailover(String),
    RedisCluster(String),
    RedisReplication(String),
}

/// How a config narrows down what is found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    pub container: Option<String>,
    pub port: Option<u16>,
}

/// One installation as its pods show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    pub namespace: String,
    pub wanted: Wanted,
    /// Its Redis pods, by name.
    pub members: Vec<Member>,
    /// Every sentinel of the namespace: whom they watch, they tell.
    pub sentinels: Vec<Member>,
    /// Where the servers have their password from.
    pub auth: Option<SecretKey>,
    pub speaks_tls: bool,
    /// Who reverts a change made by another, such as `RedisFailover redis-cluster`.
    pub operator: Option<Owner>,
    pub applied_by: Option<&'static str>,
    pub autoscaler: Option<String>,
    /// In sentences for people.
    pub unsure: Vec<String>,
}

/// A pod with a server in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub pod: String,
    pub container: String,
    /// Its IP and port.
    pub address: NodeAddress,
    /// Other hosts by which Redis may name it.
    pub names: BTreeSet<String>,
    /// DNS names that its certificate may have: its own, and those of its Service.
    pub server_names: Vec<String>,
    /// The Kubernetes node that it runs on.
    pub machine: Option<String>,
    pub data: Option<DataVolume>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataVolume {
    /// As the pod calls it.
    pub volume: String,
    pub path: String,
    pub sub_path: Option<String>,
    pub claim: Option<String>,
    /// Of the `StatefulSet` that made the claim.
    pub template: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("namespace {namespace} has no {wanted} with pods; it has {}", join(.known))]
    NotThere { namespace: String, wanted: Wanted, known: Vec<String> },
    #[error("no pod of {wanted} runs")]
    NothingRuns { wanted: Wanted },
    #[error("pod {pod} of {wanted} has no container that looks like Redis; it has {}", join(.containers))]
    NoRedis { wanted: Wanted, pod: String, containers: Vec<String> },
    #[error("pod {pod} of {wanted} has several containers that look like Redis: {}", join(.containers))]
    SeveralRedis { wanted: Wanted, pod: String, containers: Vec<String> },
    #[error("pod {pod} of {wanted} has no container {container:?}; it has {}", join(.containers))]
    NoContainer { wanted: Wanted, pod: String, container: String, containers: Vec<String> },
}

fn join(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

impl Wanted {
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::StatefulSet(_) => "StatefulSet",
            Self::Selector(_) => "selector",
            Self::RedisFailover(_) => "RedisFailover",
            Self::RedisCluster(_) => "RedisCluster",
            Self::RedisReplication(_) => "RedisReplication",
        }
    }

    /// Its name, or its labels as `a=b,c=d`.
    pub fn name(&self) -> String {
        match self {
            Self::StatefulSet(name)
            | Self::RedisFailover(name)
            | Self::RedisCluster(name)
            | Self::RedisReplication(name) => name.clone(),
            Self::Selector(labels) => {
                let pairs = labels.iter().map(|(key, value)| format!("{key}={value}"));
                pairs.collect::<Vec<_>>().join(",")
            }
        }
    }

    /// The installation that a custom resource makes.
    pub fn operated(owner: &Owner) -> Option<Self> {
        let name = owner.name.clone();
        match owner.kind.as_str() {
            "RedisFailover" => Some(Self::RedisFailover(name)),
            "RedisCluster" => Some(Self::RedisCluster(name)),
            "RedisReplication" => Some(Self::RedisReplication(name)),
            _ => None,
        }
    }

    /// How who operates it is made to leave it alone.
    pub const fn pause(&self) -> Option<&'static str> {
        match self {
            Self::StatefulSet(_) | Self::Selector(_) => None,
            Self::RedisFailover(_) => Some("scale the operator's Deployment to 0"),
            Self::RedisCluster(_) => {
                Some("annotation rediscluster.opstreelabs.in/skip-reconcile: \"true\"")
            }
            Self::RedisReplication(_) => {
                Some("annotation redisreplication.opstreelabs.in/skip-reconcile: \"true\"")
            }
        }
    }

    /// The sets of pods of a custom resource, as its operator names them.
    fn stateful_sets(&self) -> Vec<String> {
        match self {
            Self::StatefulSet(name) | Self::RedisReplication(name) => vec![name.clone()],
            Self::RedisFailover(name) => vec![format!("rfr-{name}")],
            Self::RedisCluster(name) => vec![format!("{name}-leader"), format!("{name}-follower")],
            Self::Selector(_) => Vec::new(),
        }
    }

    fn has(&self, pod: &Pod, facts: &Facts) -> bool {
        let Some(owner) = pod.owner.as_ref().filter(|_| !matches!(self, Self::Selector(_))) else {
            return matches!(self, Self::Selector(labels) if is_selected(labels, &pod.labels));
        };
        if owner.kind != "StatefulSet" {
            return false;
        }
        let set = facts.stateful_sets.iter().find(|set| set.name == owner.name);
        let operator = set.and_then(|set| set.owner.as_ref()).and_then(Self::operated);
        self.stateful_sets().contains(&owner.name) || operator.is_some_and(|it| it == *self)
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind(), self.name())
    }
}

impl Workload {
    /// The pod that has this address, whoever names it so.
    pub fn at(&self, address: &NodeAddress) -> Option<&Member> {
        let is_at = |member: &&Member| {
            member.address.host() == address.host() || member.names.contains(address.host())
        };
        self.members.iter().chain(&self.sentinels).find(is_at)
    }

    pub fn member_at(&self, address: &NodeAddress) -> Option<&Member> {
        self.at(address).filter(|found| self.members.iter().any(|member| member.pod == found.pod))
    }

    /// Known without asking the cluster, as it stands in a config.
    pub fn address(namespace: &str, wanted: &Wanted) -> String {
        format!("kubernetes/{namespace}/{}/{}", wanted.kind(), wanted.name())
    }
}

/// What is wanted, as the facts show it.
pub fn resolve(facts: &Facts, wanted: &Wanted, choice: &Choice) -> Result<Workload, Error> {
    let chosen: Vec<&Pod> = facts.pods.iter().filter(|pod| wanted.has(pod, facts)).collect();
    if chosen.is_empty() {
        let known = inventory(facts).into_iter().map(|it| it.workload.wanted.to_string());
        return Err(Error::NotThere {
            namespace: facts.namespace.clone(),
            wanted: wanted.clone(),
            known: known.collect(),
        });
    }
    let mut unsure = Vec::new();
    let (mut members, mut auths, mut speaks_tls) = (Vec::new(), Vec::new(), false);
    for pod in &chosen {
        let is_pure_sentinel = choice.container.is_none()
            && pod.containers.iter().any(|it| container::role(it) == Role::Sentinel)
            && !pod.containers.iter().any(|it| container::role(it) == Role::Redis);
        if is_pure_sentinel {
            continue;
        }
        let container = redis_of(pod, wanted, choice)?;
        let (port, guessed) = match choice.port {
            Some(port) => (port, false),
            None => container::port(container, Role::Redis),
        };
        if guessed {
            unsure.push(format!("the port of pod {} is not declared: 6379 is a guess", pod.name));
        }
        auths.push(container::password(pod, container));
        speaks_tls |= container::speaks_tls(container);
        members.extend(member(pod, container, port, facts));
    }
    if members.is_empty() {
        return Err(Error::NothingRuns { wanted: wanted.clone() });
    }
    if members.len() < chosen.len() {
        let count = chosen.len() - members.len();
        unsure.push(format!("{count} of its {} pods do not run", chosen.len()));
    }
    members.sort_by(|a: &Member, b: &Member| a.pod.cmp(&b.pod));
    let sets: Vec<_> = facts
        .stateful_sets
        .iter()
        .filter(|set| chosen.iter().any(|pod| is_owned(pod, &set.name)))
        .collect();
    let operator = sets.iter().find_map(|set| set.owner.clone());
    let scaled = |owner: &Owner| {
        sets.iter().any(|set| set.name == owner.name) || operator.as_ref() == Some(owner)
    };
    let autoscaler = facts.autoscalers.iter().find(|it| scaled(&it.target));
    let auth = auth(facts, operator.as_ref(), auths, &mut unsure);
    Ok(Workload {
        namespace: facts.namespace.clone(),
        wanted: wanted.clone(),
        members,
        sentinels: sentinels(facts),
        auth,
        speaks_tls,
        applied_by: sets.iter().find_map(|set| set.applied_by),
        autoscaler: autoscaler.map(|it| it.name.clone()),
        operator,
        unsure,
    })
}

fn is_owned(pod: &Pod, set: &str) -> bool {
    pod.owner.as_ref().is_some_and(|owner| owner.kind == "StatefulSet" && owner.name == set)
}

/// One password for all; what the pods do not tell, their custom resource may.
fn auth(
    facts: &Facts,
    operator: Option<&Owner>,
    found: Vec<Result<Option<SecretKey>, String>>,
    unsure: &mut Vec<String>,
) -> Option<SecretKey> {
    let mut keys = Vec::new();
    let mut doubts = Vec::new();
    for one in found {
        match one {
            Ok(Some(key)) if !keys.contains(&key) => keys.push(key),
            Err(doubt) if !doubts.contains(&doubt) => doubts.push(doubt),
            Ok(_) | Err(_) => {}
        }
    }
    if keys.len() > 1 {
        unsure.push("its pods have their passwords from different Secrets".to_owned());
    }
    let resource = facts.resources.iter().find(|resource| Some(&resource.owner) == operator);
    let auth = keys.into_iter().next().or_else(|| resource?.auth.clone());
    if auth.is_none() {
        unsure.extend(doubts.into_iter().map(|doubt| format!("{doubt}: name it by `auth`")));
    }
    auth
}

fn redis_of<'a>(pod: &'a Pod, wanted: &Wanted, choice: &Choice) -> Result<&'a Container, Error> {
    let names =
        || pod.containers.iter().map(|container| container.name.clone()).collect::<Vec<_>>();
    let (wanted, pod_name) = (wanted.clone(), pod.name.clone());
    if let Some(name) = &choice.container {
        return pod.containers.iter().find(|it| it.name == *name).ok_or_else(|| {
            Error::NoContainer {
                wanted,
                pod: pod_name,
                container: name.clone(),
                containers: names(),
            }
        });
    }
    let mut redis: Vec<&Container> =
        pod.containers.iter().filter(|it| container::role(it) == Role::Redis).collect();
    if redis.is_empty() && is_of_an_operator(&wanted) {
        // Images of any name, told by the environment alone what they are to be.
        let is_server =
            |it: &&Container| container::role(it) == Role::Other && !container::is_exporter(it);
        redis.extend(pod.containers.iter().filter(is_server));
    }
    match redis.as_slice() {
        [one] => Ok(one),
        [] => Err(Error::NoRedis { wanted, pod: pod_name, containers: names() }),
        several => {
            let containers = several.iter().map(|it| it.name.clone()).collect();
            Err(Error::SeveralRedis { wanted, pod: pod_name, containers })
        }
    }
}

/// Whose pods are servers of Redis whatever they look like.
const fn is_of_an_operator(wanted: &Wanted) -> bool {
    match wanted {
        Wanted::RedisFailover(_) | Wanted::RedisCluster(_) | Wanted::RedisReplication(_) => true,
        Wanted::StatefulSet(_) | Wanted::Selector(_) => false,
    }
}

/// Every sentinel that runs in the namespace.
fn sentinels(facts: &Facts) -> Vec<Member> {
    let mut found: Vec<Member> = facts
        .pods
        .iter()
        .filter_map(|pod| {
            let sentinel =
                pod.containers.iter().find(|it| container::role(it) == Role::Sentinel)?;
            let (port, _) = container::port(sentinel, Role::Sentinel);
            member(pod, sentinel, port, facts)
        })
        .collect();
    found.sort_by(|a, b| a.pod.cmp(&b.pod));
    found
}

/// None for a pod that does not run.
fn member(pod: &Pod, container: &Container, port: u16, facts: &Facts) -> Option<Member> {
    let ip = pod.ip.as_ref().filter(|_| pod.runs)?;
    let in_dns = pod.subdomain.as_ref().map(|service| format!("{}.{service}", pod.name));
    let mut names: BTreeSet<String> = BTreeSet::from([pod.name.clone()]);
    let forms = |name: &str| {
        let namespace = &facts.namespace;
        [
            name.to_owned(),
            format!("{name}.{namespace}"),
            format!("{name}.{namespace}.svc"),
            format!("{name}.{namespace}.svc.cluster.local"),
        ]
    };
    let mut server_names: Vec<String> = in_dns.iter().flat_map(|name| forms(name)).rev().collect();
    names.extend(server_names.iter().cloned());
    // A certificate for all pods may name the Service that they have their names from.
    server_names.extend(pod.subdomain.iter().flat_map(|service| forms(service)).rev());
    // A Service for each pod is how some make addresses that stay.
    for service in facts.services.iter().filter(|service| selects_only(service, pod, facts)) {
        names.extend(forms(&service.name));
        names.extend(service.cluster_ip.clone());
    }
    Some(Member {
        pod: pod.name.clone(),
        container: container.name.clone(),
        address: NodeAddress::new(ip, port),
        names,
        server_names,
        machine: pod.machine.clone(),
        data: container::data(pod, container),
    })
}

fn selects_only(service: &Service, pod: &Pod, facts: &Facts) -> bool {
    let mut selected = facts.pods.iter().filter(|it| is_selected(&service.selector, &it.labels));
    selected.next().is_some_and(|first| first.name == pod.name) && selected.next().is_none()
}

/// An empty selector selects nothing.
fn is_selected(selector: &Labels, labels: &Labels) -> bool {
    !selector.is_empty() && selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}
