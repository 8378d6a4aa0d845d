//! Whether each pod of a source lets this machine in, and which rule of a network may be why it does not. Says nothing to Redis.

use std::{collections::BTreeMap, io, time::Duration};

use futures_util::{StreamExt as _, stream};
use tokio::time::timeout;

use super::Findings;
use crate::{
    domain::workload::{Member, Workload, facts::Facts},
    edge::{
        kubernetes::{Client, Reach, Way},
        redis_node::Dial as _,
    },
    flow::Context,
};

const PODS_AT_ONCE: usize = 16;

/// Why a port was not reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Barrier {
    /// Packets are lost: what a `NetworkPolicy` does in most clusters.
    Silence,
    Refusal,
    NoRoute,
}

/// By the IPs of the pods alone: a port that is forwarded is asked by the kubelet, which no rule keeps out.
pub(super) async fn check(
    subject: &str,
    (client, workload, facts): (&Client, &Workload, &Facts),
    limit: Duration,
    context: &Context,
    findings: &mut Findings,
) {
    let reach = Reach::new(client.clone(), Way::Direct, workload.clone());
    let members = workload.members.iter().chain(&workload.sentinels);
    let looks = members.map(|member| {
        let reach = &reach;
        async move { (member, timeout(limit, reach.dial(&member.address)).await) }
    });
    let looks: Vec<_> = stream::iter(looks).buffered(PODS_AT_ONCE).collect().await;
    let us = us(client, facts, context);
    let mut reached = 0;
    for (member, outcome) in looks {
        let (barrier, cause) = match outcome {
            Ok(Ok(_)) => {
                reached += 1;
                continue;
            }
            Ok(Err(error)) => (barrier_of(&error), error.to_string()),
            Err(_) => (Barrier::Silence, format!("no answer within {} s", limit.as_secs_f64())),
        };
        let Member { pod, address, .. } = member;
        let finding = format!("pod {pod} ({address}) is not reached: {cause}");
        let labels = labels_of(facts, pod);
        findings.warning(subject, finding, &advice(barrier, address.port(), &labels, &us));
    }
    if reached > 0 {
        findings.good(subject, format!("{reached} pods let this machine in"));
    }
}

fn barrier_of(error: &io::Error) -> Barrier {
    if error.kind() == io::ErrorKind::ConnectionRefused {
        Barrier::Refusal
    } else if error.kind() == io::ErrorKind::TimedOut {
        Barrier::Silence
    } else {
        Barrier::NoRoute
    }
}

fn advice(barrier: Barrier, port: u16, theirs: &str, ours: &str) -> String {
    match barrier {
        Barrier::Silence => format!(
            "a NetworkPolicy may drop it: let {ours} into port {port} of {theirs} (ingress there, egress here); \
             deploy/network-policy.yaml and network-policy-redis.yaml have the rules"
        ),
        Barrier::Refusal => format!(
            "nothing listens on port {port} of the pod's IP: see `port`, `bind` and `tls-port` of the server, \
             or `kubernetes: {{port: NUMBER}}`; some networks refuse by a NetworkPolicy, too"
        ),
        Barrier::NoRoute => {
            "this machine has no way to the IPs of pods: run in the cluster, or with `via: port-forward`".to_owned()
        }
    }
}

/// How a `NetworkPolicy` would call this pod.
fn us(client: &Client, facts: &Facts, context: &Context) -> String {
    if !client.is_in_pod() {
        return "this machine".to_owned();
    }
    let name = context.environment()("HOSTNAME").unwrap_or_default();
    if client.namespace() == facts.namespace && facts.pods.iter().any(|pod| pod.name == name) {
        return labels_of(facts, &name);
    }
    format!("this pod of namespace {}", client.namespace())
}

/// `pods with app=redis`, without the labels that are another in each pod.
fn labels_of(facts: &Facts, pod: &str) -> String {
    const OF_ONE: [&str; 5] = ["uid", "hash", "job-name", "pod-name", "pod-index"];
    let pod = facts.pods.iter().find(|it| it.name == pod);
    let empty = BTreeMap::new();
    let labels = pod.map_or(&empty, |it| &it.labels);
    let lasting = labels.iter().filter(|(key, _)| !OF_ONE.iter().any(|word| key.contains(word)));
    let text: Vec<String> = lasting.map(|(key, value)| format!("{key}={value}")).collect();
    if text.is_empty() { "its pods".to_owned() } else { format!("pods with {}", text.join(",")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::workload::facts::Pod;

    #[test]
    fn silence_is_told_as_a_policy_with_the_labels_of_both_and_refusal_is_not() {
        let labels =
            [("app", "redis"), ("controller-uid", "a"), ("batch.kubernetes.io/job-name", "b")];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let pod = Pod { name: "p".to_owned(), labels: labels.into(), ..Pod::default() };
        let facts = Facts { pods: vec![pod], ..Facts::default() };
        let (theirs, ours) = (labels_of(&facts, "p"), labels_of(&facts, "absent"));
        assert_eq!((theirs.as_str(), ours.as_str()), ("pods with app=redis", "its pods"));
        let of =
            |kind: io::ErrorKind| advice(barrier_of(&kind.into()), 6379, &theirs, "pods with a=b");
        let silence = of(io::ErrorKind::TimedOut);
        assert!(
            silence.contains("let pods with a=b into port 6379 of pods with app=redis"),
            "{silence}"
        );
        assert!(of(io::ErrorKind::ConnectionRefused).contains("nothing listens on port 6379"));
        assert!(of(io::ErrorKind::HostUnreachable).contains("via: port-forward"));
    }
}
