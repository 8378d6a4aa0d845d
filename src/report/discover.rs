//! The installations of a namespace: their sources as YAML with what is known of them as comments, and as JSON.

use std::fmt;

use serde::Serialize;

use crate::domain::workload::{DataVolume, Installation, Member, Wanted, Workload};

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DiscoverReport {
    pub kind: &'static str,
    pub version: u32,
    pub namespace: String,
    pub sources: Vec<DiscoveredSource>,
    /// Of the namespace, whatever they run.
    pub pods: usize,
    /// What could not be looked at.
    pub unseen: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DiscoveredSource {
    pub name: String,
    pub namespace: String,
    /// Of the config: `statefulSet`, `selector`, `redisFailover`, `redisCluster` or `redisReplication`.
    pub key: &'static str,
    pub workload: String,
    pub context: Option<String>,
    pub pods: Vec<DiscoveredPod>,
    /// Pods of sentinels in the namespace; whom they watch is asked at each backup.
    pub sentinels: Vec<String>,
    pub auth: Option<DiscoveredSecret>,
    pub tls: bool,
    /// Such as `RedisFailover redis-cluster`.
    pub operator: Option<String>,
    /// How the operator is made to leave it alone.
    pub pause: Option<&'static str>,
    pub applied_by: Option<&'static str>,
    pub autoscaler: Option<String>,
    pub unsure: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DiscoveredPod {
    pub pod: String,
    pub container: String,
    pub address: String,
    pub kubernetes_node: Option<String>,
    pub data_path: Option<String>,
    pub claim: Option<String>,
    pub claim_template: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DiscoveredSecret {
    pub secret: String,
    pub key: String,
}

impl DiscoveredSource {
    pub fn new(installation: &Installation, context: Option<String>) -> Self {
        let Installation { name, workload } = installation;
        let Workload {
            namespace,
            wanted,
            members,
            sentinels,
            auth,
            speaks_tls,
            operator,
            applied_by,
            autoscaler,
            unsure,
        } = workload;
        Self {
            name: name.clone(),
            namespace: namespace.clone(),
            key: key(wanted),
            workload: wanted.name(),
            context,
            pods: members.iter().map(DiscoveredPod::new).collect(),
            sentinels: sentinels.iter().map(|it| it.pod.clone()).collect(),
            auth: auth
                .as_ref()
                .map(|it| DiscoveredSecret { secret: it.secret.clone(), key: it.key.clone() }),
            tls: *speaks_tls,
            operator: operator.as_ref().map(|it| format!("{} {}", it.kind, it.name)),
            pause: wanted.pause(),
            applied_by: *applied_by,
            autoscaler: autoscaler.clone(),
            unsure: unsure.clone(),
        }
    }
}

impl DiscoveredPod {
    fn new(member: &Member) -> Self {
        let Member { pod, container, address, names: _, server_names: _, machine, data } = member;
        let data = data.as_ref();
        Self {
            pod: pod.clone(),
            container: container.clone(),
            address: address.to_string(),
            kubernetes_node: machine.clone(),
            data_path: data.map(|DataVolume { path, sub_path, .. }| match sub_path {
                Some(sub_path) => format!("{path} (subPath {sub_path})"),
                None => path.clone(),
            }),
            claim: data.and_then(|data| data.claim.clone()),
            claim_template: data.and_then(|data| data.template.clone()),
        }
    }
}

const fn key(wanted: &Wanted) -> &'static str {
    match wanted {
        Wanted::StatefulSet(_) => "statefulSet",
        Wanted::Selector(_) => "selector",
        Wanted::RedisFailover(_) => "redisFailover",
        Wanted::RedisCluster(_) => "redisCluster",
        Wanted::RedisReplication(_) => "redisReplication",
    }
}

impl fmt::Display for DiscoverReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { namespace, sources, pods, unseen, .. } = self;
        for what in unseen {
            writeln!(f, "# not looked at: {what}")?;
        }
        if sources.is_empty() {
            return match pods {
                0 => writeln!(f, "# namespace {namespace} has no pods: is this its name?"),
                _ => writeln!(
                    f,
                    "# none of the {pods} pods of namespace {namespace} runs Redis or Valkey"
                ),
            };
        }
        writeln!(f, "sources:")?;
        sources.iter().try_for_each(|source| write!(f, "{source}"))
    }
}

impl fmt::Display for DiscoveredSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  {}:", self.name)?;
        for line in self.comments() {
            writeln!(f, "    # {line}")?;
        }
        let mut keys = vec![format!("namespace: {}", self.namespace)];
        keys.push(match self.key {
            // A comma would end the value.
            "selector" => format!("selector: {:?}", self.workload),
            key => format!("{key}: {}", self.workload),
        });
        keys.extend(self.context.as_ref().map(|context| format!("context: {context:?}")));
        writeln!(f, "    kubernetes: {{{}}}", keys.join(", "))?;
        if self.tls {
            writeln!(
                f,
                "    tls: {{}} # the system's authorities; for your own: {{caFile: PATH}}"
            )?;
        }
        Ok(())
    }
}

impl DiscoveredSource {
    fn comments(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for pod in &self.pods {
            let DiscoveredPod { pod, container, address, data_path, claim, claim_template, .. } =
                pod;
            let folder = data_path.as_ref().map(|path| format!(", dataset in {path}"));
            let volume = match (claim, claim_template) {
                (Some(claim), Some(template)) => format!(" of PVC {claim} ({template})"),
                (Some(claim), None) => format!(" of PVC {claim}"),
                (None, _) => " of no PVC".to_owned(),
            };
            let folder = folder.unwrap_or_default();
            let line = format!("pod {pod}, container {container}, {address}{folder}{volume}");
            lines.push(line);
        }
        if !self.sentinels.is_empty() {
            let names = self.sentinels.join(", ");
            lines.push(format!("sentinels of the namespace, asked whom they watch: {names}"));
        }
        if let Some(DiscoveredSecret { secret, key }) = &self.auth {
            lines.push(format!(
                "password: key {key} of Secret {secret}, as the pods have it; `auth` overrides it"
            ));
        }
        if let Some(operator) = &self.operator {
            let pause = self.pause.map(|pause| format!(" (pause: {pause})")).unwrap_or_default();
            lines.push(format!("operated: {operator}{pause}"));
        }
        lines.extend(self.applied_by.map(|by| format!("applied by {by}")));
        lines.extend(self.autoscaler.as_ref().map(|name| format!("scaled by {name}")));
        lines.extend(self.unsure.iter().map(|text| format!("unsure: {text}")));
        lines
    }
}
