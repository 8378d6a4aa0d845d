//! What a namespace holds, in plain words: pods and what owns them. Parsed from nothing, decides nothing.

use std::collections::BTreeMap;

/// Everything about one namespace that decisions are taken from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    pub namespace: String,
    pub pods: Vec<Pod>,
    pub stateful_sets: Vec<StatefulSet>,
    pub services: Vec<Service>,
    /// Custom resources of Redis operators.
    pub resources: Vec<Resource>,
    pub autoscalers: Vec<Autoscaler>,
    /// What could not be looked at, for people.
    pub unseen: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    pub name: String,
    pub labels: Labels,
    /// What controls it.
    pub owner: Option<Owner>,
    /// None until it was given one.
    pub ip: Option<String>,
    /// The Kubernetes node that it runs on.
    pub machine: Option<String>,
    /// The Service that names it in DNS.
    pub subdomain: Option<String>,
    /// It runs and is not about to go.
    pub runs: bool,
    pub containers: Vec<Container>,
    pub volumes: Vec<Volume>,
}

pub type Labels = BTreeMap<String, String>;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    pub kind: String,
    pub name: String,
}

impl Owner {
    pub fn new(kind: &str, name: &str) -> Self {
        Self { kind: kind.to_owned(), name: name.to_owned() }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    pub name: String,
    pub image: String,
    /// Command and arguments.
    pub words: Vec<String>,
    pub variables: Vec<Variable>,
    pub ports: Vec<Port>,
    pub mounts: Vec<Mount>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    pub name: String,
    pub value: Value,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Text(String),
    /// A text that may be a password, and was not kept.
    Withheld,
    Secret(SecretKey),
    /// Of a `ConfigMap`, or a field of the pod.
    Other,
}

/// An entry of a Secret. Never its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretKey {
    pub secret: String,
    pub key: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    pub name: Option<String>,
    pub number: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub volume: String,
    pub path: String,
    pub sub_path: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    pub name: String,
    pub content: VolumeContent,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumeContent {
    /// Of a claim with this name.
    Claim(String),
    /// A Secret, and which of its keys have another file name.
    Secret {
        secret: String,
        files: BTreeMap<String, String>,
    },
    Other,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatefulSet {
    pub name: String,
    pub owner: Option<Owner>,
    /// Who would undo a change, by its labels and annotations: `Argo CD` or `Flux`.
    pub applied_by: Option<&'static str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub name: String,
    pub cluster_ip: Option<String>,
    pub selector: Labels,
}

/// A `RedisFailover`, `RedisCluster` or `RedisReplication`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    pub owner: Owner,
    pub auth: Option<SecretKey>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Autoscaler {
    pub name: String,
    pub target: Owner,
}
