//! The Redis installations of a namespace, each with its name in a config. Decides from facts.

use std::collections::BTreeMap;

use super::{
    Choice, Error, Wanted, Workload, container,
    container::Role,
    facts::{Facts, Labels, Pod},
    resolve,
};

/// Labels that tell a workload from others, the usual one first.
const TELLING_LABELS: [&str; 4] =
    ["app.kubernetes.io/instance", "app.kubernetes.io/name", "app", "k8s-app"];

/// An installation that could become a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    /// What the source could be called.
    pub name: String,
    pub workload: Workload,
}

/// In the order of their names. What nothing runs of is left out.
pub fn inventory(facts: &Facts) -> Vec<Installation> {
    let is_redis = |pod: &&Pod| pod.containers.iter().any(|it| container::role(it) == Role::Redis);
    let mut wanted: Vec<Wanted> = Vec::new();
    for pod in facts.pods.iter().filter(is_redis) {
        let found = named(pod, facts);
        wanted.extend(found.filter(|found| !wanted.contains(found)));
    }
    let mut names: BTreeMap<String, usize> = BTreeMap::new();
    let mut installations: Vec<Installation> = wanted
        .iter()
        .filter_map(|wanted| of(facts, wanted))
        .map(|workload| {
            let name = source_name(&workload.wanted, &facts.namespace);
            let count = names.entry(name.clone()).or_default();
            *count += 1;
            let name = if *count == 1 { name } else { format!("{name}-{count}") };
            Installation { name, workload }
        })
        .collect();
    installations.sort_by(|a, b| a.name.cmp(&b.name));
    installations
}

/// By what a config would name the installation of a pod.
fn named(pod: &Pod, facts: &Facts) -> Option<Wanted> {
    if let Some(owner) = pod.owner.as_ref().filter(|owner| owner.kind == "StatefulSet") {
        let set = facts.stateful_sets.iter().find(|set| set.name == owner.name);
        let operated = set.and_then(|set| Wanted::operated(set.owner.as_ref()?));
        return Some(operated.unwrap_or_else(|| Wanted::StatefulSet(owner.name.clone())));
    }
    let (key, value) = TELLING_LABELS.iter().find_map(|key| pod.labels.get_key_value(*key))?;
    Some(Wanted::Selector(Labels::from([(key.clone(), value.clone())])))
}

/// Where several containers look like Redis, the first is taken, and that is told.
fn of(facts: &Facts, wanted: &Wanted) -> Option<Workload> {
    match resolve(facts, wanted, &Choice::default()) {
        Ok(workload) => Some(workload),
        Err(Error::SeveralRedis { containers, .. }) => {
            let choice = Choice { container: containers.first().cloned(), port: None };
            let mut workload = resolve(facts, wanted, &choice).ok()?;
            workload.unsure.push(format!(
                "several containers look like Redis ({}): name the right one by `container`",
                containers.join(", "),
            ));
            Some(workload)
        }
        Err(
            Error::NotThere { .. }
            | Error::NothingRuns { .. }
            | Error::NoRedis { .. }
            | Error::NoContainer { .. },
        ) => None,
    }
}

/// Letters that a source's name may have; a workload called `redis` is told by its namespace.
fn source_name(wanted: &Wanted, namespace: &str) -> String {
    let name = match wanted {
        Wanted::Selector(labels) => labels.values().next().cloned().unwrap_or_default(),
        Wanted::StatefulSet(_)
        | Wanted::RedisFailover(_)
        | Wanted::RedisCluster(_)
        | Wanted::RedisReplication(_) => wanted.name(),
    };
    let name = match name.as_str() {
        "redis" | "valkey" => format!("{namespace}-{name}"),
        _ => name,
    };
    let is_fine = |sign: char| sign.is_ascii_lowercase() || sign.is_ascii_digit() || sign == '-';
    let name: String =
        name.to_ascii_lowercase().chars().map(|it| if is_fine(it) { it } else { '-' }).collect();
    name.chars().take(60).collect()
}
