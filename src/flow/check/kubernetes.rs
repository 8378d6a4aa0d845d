//! What a source in Kubernetes needs of its cluster: each right that a backup uses, asked for by name. Changes nothing.

use super::{Findings, network};
use crate::{
    domain::{
        capture::MethodChoice,
        workload::{self, Workload},
    },
    edge::kubernetes::{Client, Error, Right, Way, discovery, exec, jobs, lease, rights},
    failure::{Exit, Failure, chain},
    flow::{Context, backup::own_pod, find},
    settings::{self, Cluster, Location, Workers},
};

/// A line for the cluster, and one for each right that is missing.
pub(super) async fn check(
    subject: &str,
    source: &settings::Source,
    context: &Context,
    findings: &mut Findings,
) {
    let Location::Kubernetes(cluster) = &source.location else { return };
    let subject = format!("{subject}: kubernetes");
    let client = find::client(cluster.context.as_deref(), context).await;
    let Some(client) = findings.keep(&subject, client) else { return };
    let way = find::way(cluster.via, &client);
    // What is wrong with these is told by who needs them.
    let facts = discovery::facts(&client, &cluster.namespace).await.ok();
    let resolve = |facts| workload::resolve(facts, &cluster.wanted, &cluster.choice).ok();
    let workload = facts.as_ref().and_then(resolve);
    let asked = Asked { client: &client, cluster, way, workload: workload.as_ref() };
    if let (Workers::Jobs { .. }, Err(failure)) =
        (&cluster.workers, own_pod(&client, cluster, context))
    {
        findings.warning(&subject, chain(&failure), &failure.hint());
    }
    let checked = asked.check(&subject, source.method, findings).await;
    let attempt = "ask for rights".to_owned();
    findings.keep(&subject, checked.map_err(|source| Failure::Kubernetes { attempt, source }));
    if let (Way::Direct, Some(facts), Some(workload)) = (way, &facts, &workload) {
        let subject = format!("{subject}: network");
        let limit = source.timeouts.connect.get();
        network::check(&subject, (&client, workload, facts), limit, context, findings).await;
    }
}

/// Whose rights are asked for, and to what.
struct Asked<'a> {
    client: &'a Client,
    cluster: &'a Cluster,
    way: Way,
    workload: Option<&'a Workload>,
}

impl Asked<'_> {
    async fn check(
        &self,
        subject: &str,
        method: MethodChoice,
        findings: &mut Findings,
    ) -> Result<(), Error> {
        let Self { client, cluster, way, workload: _ } = self;
        let mut needed = discovery::rights(&cluster.namespace, *way == Way::PortForward);
        needed.extend(lease::rights(&cluster.namespace));
        let exec_rights = exec::rights(&cluster.namespace);
        let exec_rights: &[_] = match (&cluster.workers, method) {
            (Workers::Here, MethodChoice::Auto | MethodChoice::Bgsave) => &exec_rights,
            (Workers::Here, MethodChoice::Replication) | (Workers::Jobs { .. }, _) => &[],
        };
        if let Workers::Jobs { .. } = cluster.workers {
            needed.extend(jobs::rights(&cluster.namespace));
        }
        let mut missing = 0;
        for right in needed.iter().chain(exec_rights) {
            if self.is_granted(right).await? {
                continue;
            }
            missing += 1;
            if exec_rights.contains(right) && method == MethodChoice::Auto {
                let finding = format!("{right} is not allowed: no BGSAVE, but replication");
                findings.warning(subject, finding, &right.rule());
                continue;
            }
            let fix = format!("add {} to its Role (deploy/rbac.yaml)", right.rule());
            let finding = format!("{right} is not allowed");
            findings.fail(subject, finding, fix, Exit::KubernetesUnavailable);
        }
        if missing == 0 {
            let text = format!(
                "by {}; {} rights are granted; {}",
                client.origin(),
                needed.len() + exec_rights.len(),
                find::told(*way),
            );
            findings.good(subject, text);
        }
        Ok(())
    }

    /// What is done to single pods may be granted for these alone.
    async fn is_granted(&self, right: &Right) -> Result<bool, Error> {
        let Self { client, cluster: _, way: _, workload } = self;
        if rights::has(client, right).await? {
            return Ok(true);
        }
        let Some(workload) = workload.filter(|_| right.resource.starts_with("pods/")) else {
            return Ok(false);
        };
        let pods: Vec<&str> = workload.members.iter().map(|member| member.pod.as_str()).collect();
        rights::has_for_each(client, right, &pods).await
    }
}
