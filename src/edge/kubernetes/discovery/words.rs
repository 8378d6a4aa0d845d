//! Objects of the API in the words of the domain. Leaves out what may be a secret; judges nothing.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::StatefulSet,
        autoscaling::v2::HorizontalPodAutoscaler,
        core::v1::{self, Container, EnvVar, Pod, Service},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::api::DynamicObject;
use serde_json::Value as Json;

use crate::domain::workload::facts::{self, Owner, SecretKey, Value, VolumeContent};

pub(super) fn pod(pod: &Pod) -> Option<facts::Pod> {
    let spec = pod.spec.as_ref()?;
    let status = pod.status.clone().unwrap_or_default();
    let is_going = pod.metadata.deletion_timestamp.is_some();
    Some(facts::Pod {
        name: pod.metadata.name.clone()?,
        labels: pod.metadata.labels.clone().unwrap_or_default(),
        owner: owner(&pod.metadata),
        ip: status.pod_ip.filter(|ip| !ip.is_empty()),
        machine: spec.node_name.clone(),
        subdomain: spec.subdomain.clone().filter(|_| spec.hostname.is_some()),
        runs: status.phase.as_deref() == Some("Running") && !is_going,
        containers: spec.containers.iter().map(container).collect(),
        volumes: spec.volumes.iter().flatten().map(volume).collect(),
    })
}

pub(super) fn stateful_set(set: &StatefulSet) -> Option<facts::StatefulSet> {
    Some(facts::StatefulSet {
        name: set.metadata.name.clone()?,
        owner: owner(&set.metadata),
        applied_by: applied_by(&set.metadata),
    })
}

pub(super) fn service(service: &Service) -> Option<facts::Service> {
    let spec = service.spec.as_ref()?;
    let has_address = |ip: &String| !ip.is_empty() && ip != "None";
    Some(facts::Service {
        name: service.metadata.name.clone()?,
        cluster_ip: spec.cluster_ip.clone().filter(has_address),
        selector: spec.selector.clone().unwrap_or_default(),
    })
}

pub(super) fn autoscaler(scaler: &HorizontalPodAutoscaler) -> Option<facts::Autoscaler> {
    let target = &scaler.spec.as_ref()?.scale_target_ref;
    Some(facts::Autoscaler {
        name: scaler.metadata.name.clone()?,
        target: Owner::new(&target.kind, &target.name),
    })
}

pub(super) fn resource(kind: &str, object: &DynamicObject) -> Option<facts::Resource> {
    let name = object.metadata.name.as_deref()?;
    let text = |pointer: &str| object.data.pointer(pointer).and_then(Json::as_str);
    let spotahome = text("/spec/auth/secretPath").map(|secret| (secret, "password"));
    let opstree = text("/spec/kubernetesConfig/redisSecret/name")
        .zip(text("/spec/kubernetesConfig/redisSecret/key"));
    let auth = spotahome.or(opstree).map(|(secret, key)| secret_key(secret, key));
    Some(facts::Resource { owner: Owner::new(kind, name), auth })
}

fn owner(metadata: &ObjectMeta) -> Option<Owner> {
    let owners = metadata.owner_references.as_ref()?;
    let owner = owners.iter().find(|owner| owner.controller == Some(true)).or(owners.first())?;
    Some(Owner::new(&owner.kind, &owner.name))
}

fn applied_by(metadata: &ObjectMeta) -> Option<&'static str> {
    let keys = || metadata.annotations.iter().chain(&metadata.labels).flat_map(BTreeMap::keys);
    if keys().any(|key| key.starts_with("argocd.argoproj.io/")) {
        Some("Argo CD")
    } else if keys().any(|key| key.contains(".toolkit.fluxcd.io/")) {
        Some("Flux")
    } else {
        None
    }
}

fn container(container: &Container) -> facts::Container {
    let words = container.command.iter().chain(&container.args).flatten().cloned();
    let ports = container.ports.iter().flatten().filter_map(|port| {
        let number = u16::try_from(port.container_port).ok()?;
        Some(facts::Port { name: port.name.clone(), number })
    });
    let mounts = container.volume_mounts.iter().flatten().map(|mount| facts::Mount {
        volume: mount.name.clone(),
        path: mount.mount_path.clone(),
        sub_path: mount.sub_path.clone().filter(|path| !path.is_empty()),
    });
    facts::Container {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        words: words.collect(),
        variables: container.env.iter().flatten().map(variable).collect(),
        ports: ports.collect(),
        mounts: mounts.collect(),
    }
}

fn variable(variable: &EnvVar) -> facts::Variable {
    let name = variable.name.to_ascii_uppercase();
    let is_secret = ["PASS", "AUTH", "TOKEN", "SECRET", "KEY"].iter().any(|it| name.contains(it));
    let reference = variable.value_from.as_ref().and_then(|source| source.secret_key_ref.as_ref());
    let value = match (reference, &variable.value) {
        (Some(reference), _) => Value::Secret(secret_key(&reference.name, &reference.key)),
        (None, Some(text)) if text.is_empty() => Value::Other,
        (None, Some(_)) if is_secret && !name.ends_with("_FILE") => Value::Withheld,
        (None, Some(text)) => Value::Text(text.clone()),
        (None, None) => Value::Other,
    };
    facts::Variable { name: variable.name.clone(), value }
}

fn volume(volume: &v1::Volume) -> facts::Volume {
    let claim = volume.persistent_volume_claim.as_ref();
    let secret = volume.secret.as_ref().and_then(|secret| {
        let renamed = secret.items.iter().flatten();
        let files = renamed.map(|item| (item.key.clone(), item.path.clone())).collect();
        Some(VolumeContent::Secret { secret: secret.secret_name.clone()?, files })
    });
    let content = match (claim, secret) {
        (Some(claim), _) => VolumeContent::Claim(claim.claim_name.clone()),
        (None, Some(secret)) => secret,
        (None, None) => VolumeContent::Other,
    };
    facts::Volume { name: volume.name.clone(), content }
}

fn secret_key(secret: &str, key: &str) -> SecretKey {
    SecretKey { secret: secret.to_owned(), key: key.to_owned() }
}
