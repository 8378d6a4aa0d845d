//! Where the nodes of a source are and how they are talked to: by its config, or by what Kubernetes tells of its pods.

use std::sync::Arc;

use super::Context;
use crate::{
    domain::{
        identity::SourceName,
        manifest::TopologyKind,
        source::{NodeAddress, SourceAddress},
        topology::{self, Shard, Topology},
        workload::{self, Workload, facts::SecretKey},
    },
    edge::{
        kubernetes::{Client, Error, OnePod, Reach, Way, discovery, exec::ContainerShell},
        live_directory::Shell,
        redis_node::{
            self, Access, Credentials, Dial,
            inspect::{SourceAccess, observe},
            tls::{self, Tls},
            watched,
        },
    },
    failure::{Failure, chain},
    settings::{self, Cluster, Location, Via, Workers},
};

/// A source that was found.
pub(super) struct Found {
    pub(super) name: SourceName,
    pub(super) address: SourceAddress,
    pub(super) access: SourceAccess,
    pub(super) pods: Option<Pods>,
}

/// A source that is made of pods.
pub(super) struct Pods {
    pub(super) reach: Reach,
    pub(super) cluster: Cluster,
    /// The cluster's own id with namespace and workload.
    pub(super) identity: String,
    /// From which the password of its nodes was read, where no config gave one.
    pub(super) password_entry: Option<SecretKey>,
    /// In sentences for people.
    pub(super) notes: Vec<String>,
}

/// Finds the source; its files of TLS are loaded, and no node of it is asked but its sentinels.
pub(super) async fn find(source: &settings::Source, context: &Context) -> Result<Found, Failure> {
    let access = SourceAccess {
        nodes: access_of(source, &source.access)?,
        sentinels: access_of(source, &source.sentinel_access)?,
    };
    let name = source.name.clone();
    match &source.location {
        Location::Nodes(url) => {
            Ok(Found { name, address: url.address.clone(), access, pods: None })
        }
        Location::Kubernetes(cluster) => {
            Box::pin(find_pods(source, cluster, access, context)).await
        }
    }
}

/// One node of a source of pods, which somebody else found. Nothing is asked.
pub(super) fn one_node(
    source: &settings::Source,
    address: &NodeAddress,
    pod: OnePod,
) -> Result<Found, Failure> {
    let mut access = SourceAccess {
        nodes: access_of(source, &source.access)?,
        sentinels: access_of(source, &source.sentinel_access)?,
    };
    access.nodes.dial = Some(Arc::new(pod));
    let address = SourceAddress::Nodes(vec![address.clone()]);
    Ok(Found { name: source.name.clone(), address, access, pods: None })
}

impl Pods {
    /// Whether its shards are captured by Jobs.
    pub(super) const fn has_workers(&self) -> bool {
        matches!(self.cluster.workers, Workers::Jobs { .. })
    }

    /// For commands in the container of a node, and where its volume for data is mounted.
    pub(super) fn shell(&self, address: &NodeAddress) -> Option<(Arc<dyn Shell>, Option<String>)> {
        let member = self.reach.member(address)?;
        let (client, namespace) = (self.reach.client(), &self.cluster.namespace);
        let shell = ContainerShell::new(client, namespace, &member.pod, &member.container);
        Some((Arc::new(shell), member.data.map(|data| data.path)))
    }
}

impl Found {
    /// How many forks of it one machine may have at the same time.
    pub(super) fn forks_per_host(&self) -> usize {
        self.pods.as_ref().map_or(1, |pods| pods.cluster.forks_per_node)
    }

    /// Looks at every node once. Pods are looked up again: theirs may be other addresses by now.
    pub(super) async fn look_once(&self) -> Result<Result<Topology, topology::Error>, Failure> {
        let address = match &self.pods {
            Some(pods) => {
                let discovered = discover(pods.reach.client(), &self.name, &pods.cluster);
                let workload = Box::pin(discovered).await?;
                pods.reach.update(workload.clone());
                address(&self.name, &workload, &self.access).await?
            }
            None => self.address.clone(),
        };
        let observed =
            observe(&address, &self.access).await.map_err(|source| self.not_observed(source))?;
        let resolved = topology::resolve(&observed);
        Ok(resolved.map(|topology| self.identified(topology)))
    }

    fn not_observed(&self, source: redis_node::Error) -> Failure {
        let source_name = self.name.clone();
        let entry = self.pods.as_ref().and_then(|pods| pods.password_entry.clone());
        match (source, entry) {
            (source @ redis_node::Error::AuthenticationRefused { .. }, Some(entry)) => {
                Failure::Password { source_name, entry, source }
            }
            (source, _) => Failure::Observe { source_name, source },
        }
    }

    /// Addresses of pods do not last, and sentinels everywhere watch a `mymaster`.
    fn identified(&self, topology: Topology) -> Topology {
        let Some(pods) = &self.pods else { return topology };
        let mut identities = vec![pods.identity.clone()];
        match topology.kind {
            TopologyKind::Cluster => identities.extend(topology.identities),
            TopologyKind::Standalone | TopologyKind::Sentinel => {}
        }
        Topology { identities, ..topology }
    }

    /// What a person should know of how it was found.
    pub(super) fn notes(&self, topology: &Topology) -> Vec<String> {
        let Some(pods) = &self.pods else { return Vec::new() };
        let mut notes = pods.notes.clone();
        let seen: Vec<&NodeAddress> = topology
            .shards
            .iter()
            .flat_map(|shard| &shard.nodes)
            .map(|node| &node.address)
            .collect();
        let workload = pods.reach.workload();
        for node in topology.shards.iter().flat_map(|shard| &shard.nodes) {
            if workload.member_at(&node.address).is_none() {
                notes.push(format!("node {} is no pod of {}", node.address, workload.wanted));
            }
        }
        for member in &workload.members {
            let is_it =
                |address: &&&NodeAddress| workload.at(address).is_some_and(|it| it == member);
            if !seen.iter().any(|address| is_it(&address)) {
                notes.push(format!("pod {} takes no part in the replication", member.pod));
            }
        }
        notes
    }
}

/// How many nodes of a topology answered, for people.
pub(super) fn answered(topology: &Topology) -> (usize, usize) {
    let all = topology.shards.iter().map(|shard| shard.nodes.len()).sum();
    (topology.shards.iter().map(Shard::observed).map(Iterator::count).sum(), all)
}

fn access_of(source: &settings::Source, access: &settings::Access) -> Result<Access, Failure> {
    let settings::Access { username, password, tls } = access.clone();
    let tls = tls
        .map(|settings::Tls { ca_file, cert_file, key_file, server_name }| {
            let files = tls::Files { ca: ca_file, certificate: cert_file, key: key_file };
            Tls::load(&files, server_name.as_deref())
        })
        .transpose()
        .map_err(|error| Failure::Tls { source_name: source.name.clone(), source: error })?;
    Ok(Access {
        credentials: Credentials { username, password },
        tls,
        connect_timeout: source.timeouts.connect.get(),
        response_timeout: source.timeouts.reply.get(),
        dial: None,
    })
}

/// A client for the cluster of a source.
pub(super) async fn client(
    context_name: Option<&str>,
    context: &Context,
) -> Result<Client, Failure> {
    Client::new(context_name, context.environment())
        .await
        .map_err(failed("reach a Kubernetes cluster".to_owned()))
}

pub(super) fn failed(attempt: String) -> impl Fn(Error) -> Failure {
    move |source| Failure::Kubernetes { attempt: attempt.clone(), source }
}

async fn find_pods(
    source: &settings::Source,
    cluster: &Cluster,
    mut access: SourceAccess,
    context: &Context,
) -> Result<Found, Failure> {
    let name = &source.name;
    let client = client(cluster.context.as_deref(), context).await?;
    let workload = discover(&client, name, cluster).await?;
    let attempt = format!("find source {name}");
    let id = discovery::cluster_id(&client).await.map_err(failed(attempt.clone()))?;
    let mut notes = workload.unsure.clone();
    let mut password_entry = None;
    if access.nodes.credentials.password.is_none()
        && let Some(key) = &workload.auth
    {
        let password = discovery::read_secret(&client, &cluster.namespace, key).await;
        let password = Some(password.map_err(failed(attempt))?);
        tracing::debug!(secret = key.secret, key = key.key, "the password of the workload is used");
        access.nodes.credentials.password = password.clone();
        if access.sentinels.credentials.password.is_none() {
            access.sentinels.credentials.password = password;
        }
        password_entry = Some(key.clone());
    }
    if workload.speaks_tls && access.nodes.tls.is_none() {
        notes.push("its pods speak TLS: `tls: {caFile: PATH}` makes us speak it, too".to_owned());
    }
    let way = way(cluster.via, &client);
    tracing::info!(pods = workload.members.len(), "{}: {}", workload.wanted, told(way));
    let reach = Reach::new(client, way, workload.clone());
    let dial: Arc<dyn Dial> = Arc::new(reach.clone());
    access.nodes.dial = Some(dial.clone());
    access.sentinels.dial = Some(dial);
    let address = address(name, &workload, &access).await?;
    let identity = format!("{id}/{}", Workload::address(&cluster.namespace, &cluster.wanted));
    let pods = Some(Pods { reach, cluster: cluster.clone(), identity, password_entry, notes });
    Ok(Found { name: name.clone(), address, access, pods })
}

/// From a laptop no pod has a route.
pub(super) const fn way(via: Via, client: &Client) -> Way {
    match via {
        Via::Direct => Way::Direct,
        Via::Auto if client.is_in_pod() => Way::Direct,
        Via::Auto | Via::PortForward => Way::PortForward,
    }
}

pub(super) const fn told(way: Way) -> &'static str {
    match way {
        Way::Direct => "reached by the IPs of its pods",
        Way::PortForward => "reached by port-forward",
    }
}

async fn discover(
    client: &Client,
    name: &SourceName,
    cluster: &Cluster,
) -> Result<Workload, Failure> {
    let facts = discovery::facts(client, &cluster.namespace)
        .await
        .map_err(failed(format!("find source {name}")))?;
    workload::resolve(&facts, &cluster.wanted, &cluster.choice)
        .map_err(|source| Failure::Workload { source_name: name.clone(), source })
}

/// By the sentinels that watch one of its pods, where there are such; else by its pods.
async fn address(
    name: &SourceName,
    workload: &Workload,
    access: &SourceAccess,
) -> Result<SourceAddress, Failure> {
    let mut names: Vec<String> = Vec::new();
    let mut sentinels = Vec::new();
    for sentinel in &workload.sentinels {
        let told = match watched(&sentinel.address, &access.sentinels).await {
            Ok(told) => told,
            Err(error) => {
                tracing::warn!("a sentinel is left out: {}", chain(&error));
                continue;
            }
        };
        let ours = told.into_iter().filter(|(_, primary)| workload.member_at(primary).is_some());
        let ours: Vec<String> = ours.map(|(name, _)| name).collect();
        if !ours.is_empty() {
            sentinels.push(sentinel.address.clone());
        }
        names.extend(ours.into_iter().filter(|name| !names.contains(name)).collect::<Vec<_>>());
    }
    let mut names = names.into_iter();
    match (names.next(), names.next()) {
        (None, _) => {
            Ok(SourceAddress::Nodes(workload.members.iter().map(|it| it.address.clone()).collect()))
        }
        (Some(primary_name), None) => Ok(SourceAddress::Sentinel { sentinels, primary_name }),
        (Some(first), Some(second)) => Err(Failure::Unsettled {
            source_name: name.clone(),
            finding: format!("the sentinels watch its pods by several names, {first} and {second}"),
        }),
    }
}
