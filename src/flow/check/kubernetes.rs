//! What a source in Kubernetes needs of its cluster: each right that a backup uses, asked for by name. Changes nothing.

use super::Findings;
use crate::{
    domain::capture::MethodChoice,
    edge::kubernetes::{Way, discovery, exec, lease, rights},
    failure::{Exit, Failure},
    flow::{Context, find},
    settings::{self, Location},
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
    let mut needed = discovery::rights(&cluster.namespace, way == Way::PortForward);
    needed.extend(lease::rights(&cluster.namespace));
    let exec_rights = exec::rights(&cluster.namespace);
    let exec_rights: &[_] = match source.method {
        MethodChoice::Auto | MethodChoice::Bgsave => &exec_rights,
        MethodChoice::Replication => &[],
    };
    let mut missing = 0;
    for right in needed.iter().chain(exec_rights) {
        match rights::has(&client, right).await {
            Ok(true) => {}
            Ok(false) => {
                missing += 1;
                if exec_rights.contains(right) && source.method == MethodChoice::Auto {
                    let finding = format!("{right} is not allowed: no BGSAVE, but replication");
                    findings.warning(&subject, finding, &right.rule());
                    continue;
                }
                let fix = format!("add {} to its Role (deploy/rbac.yaml)", right.rule());
                let finding = format!("{right} is not allowed");
                findings.fail(&subject, finding, fix, Exit::KubernetesUnavailable);
            }
            Err(source) => {
                let attempt = "ask for rights".to_owned();
                return findings
                    .keep(&subject, Err(Failure::Kubernetes { attempt, source }))
                    .unwrap_or_default();
            }
        }
    }
    if missing == 0 {
        let text = format!(
            "by {}; {} rights are granted; {}",
            client.origin(),
            needed.len() + exec_rights.len(),
            find::told(way),
        );
        findings.good(&subject, text);
    }
}
