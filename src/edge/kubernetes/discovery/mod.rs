//! What a namespace holds, listed by the API server and put into plain words. Reads no Secret and decides nothing.

#[cfg(test)]
mod tests;
mod words;

use std::fmt::Debug;

use k8s_openapi::api::{
    apps::v1::StatefulSet,
    autoscaling::v2::HorizontalPodAutoscaler,
    core::v1::{Namespace, Pod, Secret, Service},
};
use kube::{
    Resource,
    api::{Api, ApiResource, DynamicObject, ListParams, ObjectList},
    core::{GroupVersionKind, NamespaceResourceScope},
};
use serde::de::DeserializeOwned;

use super::{Client, Error, Right};
use crate::domain::{
    secret::Secret as Hidden,
    workload::facts::{Facts, SecretKey},
};

/// More than any namespace has pods; a list is read in pages of this size.
const PAGE: u32 = 500;

/// A custom resource of an operator: group, version, kind, plural.
const OPERATED: [(&str, &str, &str, &str); 3] = [
    ("databases.spotahome.com", "v1", "RedisFailover", "redisfailovers"),
    ("redis.redis.opstreelabs.in", "v1beta2", "RedisCluster", "redisclusters"),
    ("redis.redis.opstreelabs.in", "v1beta2", "RedisReplication", "redisreplications"),
];

/// Rights that finding and reaching a source needs, the needed ones first.
pub fn rights(namespace: &str, port_forward: bool) -> Vec<Right> {
    let core = |verb, resource| Right::new(verb, resource).in_namespace(namespace);
    let mut rights = vec![core("list", "pods"), core("list", "services"), sets(namespace)];
    if port_forward {
        rights.extend([core("create", "pods/portforward"), core("get", "pods/portforward")]);
    }
    rights.push(cluster_right());
    rights
}

fn sets(namespace: &str) -> Right {
    Right::new("list", "statefulsets").of_group("apps").in_namespace(namespace)
}

fn cluster_right() -> Right {
    Right::new("get", "namespaces")
}

/// Everything that decisions need. What a minimal user may not list, and can be done without, is told.
pub async fn facts(client: &Client, namespace: &str) -> Result<Facts, Error> {
    let core = |resource| Right::new("list", resource).in_namespace(namespace);
    let (pods, services, stateful_sets) = tokio::try_join!(
        list::<Pod>(client, namespace, core("pods")),
        list::<Service>(client, namespace, core("services")),
        list::<StatefulSet>(client, namespace, sets(namespace)),
    )?;
    let autoscalers = core("horizontalpodautoscalers").of_group("autoscaling");
    let mut unseen = Vec::new();
    let scalers = list::<HorizontalPodAutoscaler>(client, namespace, autoscalers).await;
    let scalers = allowed(scalers, &mut unseen)?.unwrap_or_default();
    let mut resources = Vec::new();
    for (group, version, kind, plural) in OPERATED {
        let found = list_operated(client, namespace, (group, version, kind, plural)).await;
        for object in allowed(found, &mut unseen)?.unwrap_or_default() {
            resources.extend(words::resource(kind, &object));
        }
    }
    Ok(Facts {
        namespace: namespace.to_owned(),
        pods: pods.iter().filter_map(words::pod).collect(),
        stateful_sets: stateful_sets.iter().filter_map(words::stateful_set).collect(),
        services: services.iter().filter_map(words::service).collect(),
        resources,
        autoscalers: scalers.iter().filter_map(words::autoscaler).collect(),
        unseen,
    })
}

/// What tells this Kubernetes cluster from every other.
pub async fn cluster_id(client: &Client) -> Result<String, Error> {
    let api: Api<Namespace> = Api::all(client.kube());
    let attempt = "ask which cluster this is (the UID of namespace kube-system)";
    let namespace = client.ask(attempt, &cluster_right(), api.get("kube-system")).await?;
    namespace.metadata.uid.ok_or_else(|| Error::Protocol {
        attempt: attempt.to_owned(),
        source: "it has no UID".into(),
    })
}

/// The content of one entry of a Secret.
pub async fn read_secret(
    client: &Client,
    namespace: &str,
    wanted: &SecretKey,
) -> Result<Hidden, Error> {
    let SecretKey { secret, key } = wanted;
    let attempt = format!("read the password in Secret {namespace}/{secret}");
    let right = Right::new("get", "secrets").in_namespace(namespace);
    let api: Api<Secret> = Api::namespaced(client.kube(), namespace);
    let found = client.ask(&attempt, &right, api.get(secret)).await?;
    let bytes = found.data.unwrap_or_default().remove(key);
    let missing = |finding: String| Error::NotFound { attempt: attempt.clone(), finding };
    let bytes = bytes.ok_or_else(|| missing(format!("it has no key {key:?}")))?;
    let text = String::from_utf8(bytes.0)
        .map_err(|_| missing(format!("what stands under {key:?} is no text")))?;
    Ok(Hidden::new(text.trim_end_matches(['\n', '\r'])))
}

async fn list<T>(client: &Client, namespace: &str, right: Right) -> Result<Vec<T>, Error>
where
    T: Resource<Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    T::DynamicType: Default,
{
    pages(client, &Api::namespaced(client.kube(), namespace), &right, namespace).await
}

/// Nothing where the operator's types are not installed.
async fn list_operated(
    client: &Client,
    namespace: &str,
    (group, version, kind, plural): (&'static str, &str, &str, &'static str),
) -> Result<Vec<DynamicObject>, Error> {
    let kind = GroupVersionKind::gvk(group, version, kind);
    let resource = ApiResource::from_gvk_with_plural(&kind, plural);
    let api: Api<DynamicObject> = Api::namespaced_with(client.kube(), namespace, &resource);
    let right = Right::new("list", plural).of_group(group).in_namespace(namespace);
    match pages(client, &api, &right, namespace).await {
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        listed => listed,
    }
}

async fn pages<T>(
    client: &Client,
    api: &Api<T>,
    right: &Right,
    namespace: &str,
) -> Result<Vec<T>, Error>
where
    T: Clone + DeserializeOwned + Debug,
{
    let attempt = format!("list {} of namespace {namespace}", right.resource);
    let mut found = Vec::new();
    let mut parameters = ListParams::default().limit(PAGE);
    loop {
        let ObjectList { metadata, items, .. } =
            client.ask(&attempt, right, api.list(&parameters)).await?;
        found.extend(items);
        match metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => parameters = ListParams::default().limit(PAGE).continue_token(&token),
            None => return Ok(found),
        }
    }
}

/// What may not be seen is told, and counts as not there.
fn allowed<T>(found: Result<T, Error>, unseen: &mut Vec<String>) -> Result<Option<T>, Error> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(Error::Forbidden { right, .. }) => {
            unseen.push(format!("{right} is not allowed"));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
