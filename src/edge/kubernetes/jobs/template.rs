//! The Job of one worker, made of the pod of who starts it. Gives it no right at the API server; decides nothing about what it does.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        batch::v1::{Job, JobSpec},
        core::v1::{
            Affinity, Container, EnvVar, EnvVarSource, NodeAffinity, NodeSelector,
            NodeSelectorRequirement, NodeSelectorTerm, PersistentVolumeClaimVolumeSource, Pod,
            PodSecurityContext, PodSpec, PodTemplateSpec, PreferredSchedulingTerm,
            SecretKeySelector, SecurityContext, Toleration, Volume, VolumeMount,
        },
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};

use super::{CONTAINER, Mounted, Run, Wish};

/// How long a Job that nobody deleted stays to be looked at.
const KEPT_SECONDS: i32 = 3600;

/// For a worker that is told to end, which takes back what it stored.
const GRACE_SECONDS: i64 = 25;

/// Names of volumes of ours, which no other volume of the pod may have.
const DATA_VOLUME: &str = "redis-backup-source-data";

/// Files of Secrets must be readable for whoever the captured server runs as; the worker is alone in its pod.
const READABLE: i32 = 0o444;

const USUAL_TOKEN: &str = "kube-api-access-";

/// Labels by which controllers know their pods.
const OF_CONTROLLERS: [&str; 9] = [
    "controller-uid",
    "job-name",
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-name",
    "batch.kubernetes.io/job-completion-index",
    "pod-template-hash",
    "controller-revision-hash",
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
];

/// None where our own pod is not as the API server tells every pod.
pub(super) fn job(own: &Pod, run: &Run, wish: &Wish, captured: Option<&Pod>) -> Option<Job> {
    let own_spec = own.spec.as_ref()?;
    let own_container = container_of(own_spec, CONTAINER)?;
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        name: own.metadata.name.clone()?,
        uid: own.metadata.uid.clone()?,
        ..OwnerReference::default()
    };
    let mut labels = own.metadata.labels.clone().unwrap_or_default();
    labels.retain(|name, _| !OF_CONTROLLERS.contains(&name.as_str()));
    labels.extend(run.labels());
    let mounted = wish.mounted.as_ref().zip(captured);
    let pod = PodTemplateSpec {
        metadata: Some(ObjectMeta { labels: Some(labels.clone()), ..ObjectMeta::default() }),
        spec: Some(pod(own_spec, own_container, wish, mounted)),
    };
    let annotations = [
        ("redis-backup/backup", run.backup.to_string()),
        ("redis-backup/shard", wish.shard.to_string()),
        ("redis-backup/node", wish.node.clone()),
    ];
    let annotations = annotations.map(|(name, text)| (name.to_owned(), text));
    Some(Job {
        metadata: ObjectMeta {
            name: Some(wish.name.clone()),
            labels: Some(labels),
            annotations: Some(BTreeMap::from(annotations)),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(JobSpec {
            backoff_limit: Some(0),
            active_deadline_seconds: Some(wish.deadline.as_secs().max(1).cast_signed()),
            ttl_seconds_after_finished: Some(KEPT_SECONDS),
            template: pod,
            ..JobSpec::default()
        }),
        status: None,
    })
}

/// The container of that name, or else the first.
fn container_of<'a>(spec: &'a PodSpec, name: &str) -> Option<&'a Container> {
    spec.containers.iter().find(|container| container.name == name).or(spec.containers.first())
}

fn pod(
    own: &PodSpec,
    own_container: &Container,
    wish: &Wish,
    mounted: Option<(&Mounted, &Pod)>,
) -> PodSpec {
    let mounts: Vec<VolumeMount> = own_container.volume_mounts.clone().unwrap_or_default();
    let is_mounted = |volume: &&Volume| mounts.iter().any(|mount| mount.name == volume.name);
    let volumes = own.volumes.iter().flatten().filter(is_mounted).filter(|it| !is_token(it));
    let mut volumes: Vec<Volume> = volumes.cloned().collect();
    let mut mounts: Vec<VolumeMount> =
        mounts.into_iter().filter(|it| volumes.iter().any(|one| one.name == it.name)).collect();
    let mut security = own.security_context.clone().unwrap_or_default();
    let mut container_security = own_container.security_context.clone().unwrap_or_default();
    let mut tolerations = own.tolerations.clone().unwrap_or_default();
    if let Some((mounted, captured)) = mounted {
        volumes.iter_mut().for_each(make_readable);
        volumes.push(data_volume(mounted));
        mounts.push(data_mount(mounted));
        take_over(captured, &mounted.container, (&mut security, &mut container_security));
        tolerations.extend(tolerations_of(captured));
    }
    let is_bound = mounted.is_some();
    let container = Container {
        name: CONTAINER.to_owned(),
        args: Some(wish.arguments.clone()),
        command: command(own_container),
        env: Some(variables(own_container, wish)),
        volume_mounts: Some(mounts),
        security_context: Some(container_security),
        env_from: own_container.env_from.clone(),
        image: own_container.image.clone(),
        image_pull_policy: own_container.image_pull_policy.clone(),
        resources: own_container.resources.clone(),
        working_dir: own_container.working_dir.clone(),
        ..Container::default()
    };
    PodSpec {
        containers: vec![container],
        volumes: Some(volumes),
        restart_policy: Some("Never".to_owned()),
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        automount_service_account_token: Some(false),
        service_account_name: wish.service_account.clone(),
        enable_service_links: Some(false),
        security_context: Some(security),
        tolerations: Some(tolerations),
        affinity: wish.machine.as_deref().map(|machine| near(machine, is_bound)),
        node_selector: own.node_selector.clone().filter(|_| !is_bound),
        image_pull_secrets: own.image_pull_secrets.clone(),
        priority_class_name: own.priority_class_name.clone(),
        runtime_class_name: own.runtime_class_name.clone(),
        scheduler_name: own.scheduler_name.clone(),
        dns_policy: own.dns_policy.clone(),
        dns_config: own.dns_config.clone(),
        host_aliases: own.host_aliases.clone(),
        ..PodSpec::default()
    }
}

/// The program, where the pod names it itself and the image's own words do not count.
fn command(own: &Container) -> Option<Vec<String>> {
    let program = own.command.as_ref()?.first()?;
    program.ends_with("redis-backup").then(|| vec![program.clone()])
}

fn variables(own: &Container, wish: &Wish) -> Vec<EnvVar> {
    let is_ours = |name: &str| {
        wish.variables.iter().any(|(it, _)| *it == name)
            || wish.password.as_ref().is_some_and(|(it, _)| *it == name)
    };
    let kept = own.env.iter().flatten().filter(|variable| !is_ours(&variable.name)).cloned();
    let given = wish.variables.iter().map(|(name, text)| EnvVar {
        name: (*name).to_owned(),
        value: Some(text.clone()),
        value_from: None,
    });
    let password = wish.password.as_ref().map(|(name, key)| EnvVar {
        name: (*name).to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            secret_key_ref: Some(SecretKeySelector {
                name: key.secret.clone(),
                key: key.key.clone(),
                optional: None,
            }),
            ..EnvVarSource::default()
        }),
    });
    kept.chain(given).chain(password).collect()
}

/// The token of our own rights, by whatever name.
fn is_token(volume: &Volume) -> bool {
    let sources = volume.projected.as_ref().and_then(|projected| projected.sources.as_ref());
    let is_for_us = sources.into_iter().flatten().any(|source| {
        source.service_account_token.as_ref().is_some_and(|token| token.audience.is_none())
    });
    is_for_us || volume.name.starts_with(USUAL_TOKEN)
}

fn make_readable(volume: &mut Volume) {
    if let Some(secret) = &mut volume.secret {
        secret.default_mode = Some(READABLE);
        secret.items.iter_mut().flatten().for_each(|item| item.mode = None);
    }
    if let Some(map) = &mut volume.config_map {
        map.default_mode = Some(READABLE);
        map.items.iter_mut().flatten().for_each(|item| item.mode = None);
    }
    if let Some(projected) = &mut volume.projected {
        projected.default_mode = Some(READABLE);
    }
}

fn data_volume(mounted: &Mounted) -> Volume {
    Volume {
        name: DATA_VOLUME.to_owned(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: mounted.claim.clone(),
            read_only: Some(true),
        }),
        ..Volume::default()
    }
}

fn data_mount(mounted: &Mounted) -> VolumeMount {
    VolumeMount {
        name: DATA_VOLUME.to_owned(),
        mount_path: mounted.path.clone(),
        sub_path: mounted.sub_path.clone(),
        read_only: Some(true),
        ..VolumeMount::default()
    }
}

/// Who may read the files of the captured server: whoever it runs as. No group is given to files: that would change theirs.
fn take_over(
    captured: &Pod,
    container: &str,
    (pod, ours): (&mut PodSecurityContext, &mut SecurityContext),
) {
    let spec = captured.spec.clone().unwrap_or_default();
    let theirs = container_of(&spec, container).and_then(|it| it.security_context.clone());
    let (theirs, of_pod) =
        (theirs.unwrap_or_default(), spec.security_context.clone().unwrap_or_default());
    let own_user = ours.run_as_user.take().or(pod.run_as_user);
    let own_group = ours.run_as_group.take().or(pod.run_as_group);
    let user = theirs.run_as_user.or(of_pod.run_as_user);
    pod.run_as_user = user.or(own_user);
    pod.run_as_group = match user {
        Some(_) => theirs.run_as_group.or(of_pod.run_as_group),
        None => own_group,
    };
    if user == Some(0) {
        (pod.run_as_non_root, ours.run_as_non_root) = (None, None);
    }
    let own_groups = pod.supplemental_groups.take().unwrap_or_default();
    let mut groups: Vec<i64> = own_groups
        .into_iter()
        .chain(pod.fs_group.take())
        .chain(of_pod.supplemental_groups.unwrap_or_default())
        .chain(of_pod.fs_group)
        .collect();
    groups.sort_unstable();
    groups.dedup();
    pod.supplemental_groups = (!groups.is_empty()).then_some(groups);
    pod.fs_group_change_policy = None;
    let labels = theirs.se_linux_options.or(of_pod.se_linux_options);
    if labels.is_some() {
        (pod.se_linux_options, ours.se_linux_options) = (labels, None);
    }
}

/// What lets it run where the captured pod does.
fn tolerations_of(captured: &Pod) -> Vec<Toleration> {
    captured.spec.as_ref().and_then(|spec| spec.tolerations.clone()).unwrap_or_default()
}

/// On that Kubernetes node; where it need not be, rather there than elsewhere.
fn near(machine: &str, is_bound: bool) -> Affinity {
    let term = NodeSelectorTerm {
        match_fields: Some(vec![NodeSelectorRequirement {
            key: "metadata.name".to_owned(),
            operator: "In".to_owned(),
            values: Some(vec![machine.to_owned()]),
        }]),
        match_expressions: None,
    };
    let affinity = if is_bound {
        NodeAffinity {
            required_during_scheduling_ignored_during_execution: Some(NodeSelector {
                node_selector_terms: vec![term],
            }),
            ..NodeAffinity::default()
        }
    } else {
        let preferred = PreferredSchedulingTerm { weight: 100, preference: term };
        NodeAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(vec![preferred]),
            ..NodeAffinity::default()
        }
    };
    Affinity { node_affinity: Some(affinity), ..Affinity::default() }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;
    use crate::domain::workload::facts::SecretKey;

    fn pod(spec: &Value) -> Pod {
        let labels = json!({"redis-client": "true", "batch.kubernetes.io/job-name": "backup", "app.kubernetes.io/component": "daily"});
        let metadata = json!({"name": "backup-x", "uid": "1-2-3", "labels": labels});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
    }

    fn own() -> Pod {
        pod(&json!({
            "serviceAccountName": "redis-backup",
            "nodeSelector": {"tools": "true"},
            "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532},
            "containers": [{"name": "sidecar"}, {
                "name": "redis-backup",
                "image": "redis-backup:1",
                "args": ["backup", "--schedule", "daily"],
                "env": [{"name": "REDIS_BACKUP_CONFIG", "value": "/config"}, {"name": "ORDER", "value": "old"}],
                "securityContext": {"runAsUser": 7, "readOnlyRootFilesystem": true},
                "volumeMounts": [
                    {"name": "secrets", "mountPath": "/secrets"},
                    {"name": "kube-api-access-x", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"},
                    {"name": "named-token", "mountPath": "/token"},
                    {"name": "cloud-token", "mountPath": "/cloud"},
                ],
            }],
            "volumes": [
                {"name": "secrets", "secret": {"secretName": "s", "defaultMode": 0o440, "items": [{"key": "a", "path": "b", "mode": 0o400}]}},
                {"name": "kube-api-access-x", "projected": {"sources": []}},
                {"name": "named-token", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
                {"name": "cloud-token", "projected": {"sources": [{"serviceAccountToken": {"path": "token", "audience": "sts"}}]}},
                {"name": "of-the-sidecar", "emptyDir": {}},
            ],
        }))
    }

    fn captured(of_pod: &Value, of_container: &Value) -> Pod {
        pod(&json!({
            "securityContext": of_pod,
            "tolerations": [{"key": "redis", "operator": "Exists"}],
            "containers": [{"name": "exporter"}, {"name": "redis", "securityContext": of_container}],
        }))
    }

    fn wish(mounted: Option<Mounted>) -> Wish {
        Wish {
            name: "redis-backup-1-0-1".to_owned(),
            shard: 0,
            node: "10.0.0.1:6379".to_owned(),
            arguments: vec!["worker".to_owned()],
            variables: vec![("ORDER", "{}".to_owned())],
            password: Some(("PASSWORD", SecretKey { secret: "auth".into(), key: "it".into() })),
            machine: Some("machine-1".to_owned()),
            service_account: None,
            mounted,
            deadline: Duration::from_hours(1),
        }
    }

    fn mounted() -> Mounted {
        Mounted {
            pod: "redis-0".to_owned(),
            container: "redis".to_owned(),
            claim: "data-redis-0".to_owned(),
            sub_path: Some("below".to_owned()),
            path: "/source-data".to_owned(),
        }
    }

    /// What is asked of the API server, as JSON.
    fn made(wish: &Wish, captured: Option<&Pod>) -> Value {
        let backup = "20261120T020000Z-daily-k3x9q2".parse().unwrap();
        let run = Run { namespace: "shop".to_owned(), backup, lease: "lease".to_owned() };
        serde_json::to_value(job(&own(), &run, wish, captured).unwrap()).unwrap()
    }

    #[test]
    fn a_worker_has_what_our_own_container_has_and_no_token_of_the_api_server() {
        let job = made(&wish(None), None);
        let spec = &job["spec"]["template"]["spec"];
        let names = |of: &Value| {
            let all = of.as_array().unwrap().iter();
            all.map(|it| it["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(&spec["volumes"]), ["secrets", "cloud-token"]);
        assert_eq!(names(&spec["containers"][0]["volumeMounts"]), ["secrets", "cloud-token"]);
        assert_eq!(spec["automountServiceAccountToken"], false);
        assert!(spec["serviceAccountName"].is_null());
        let container = &spec["containers"][0];
        assert_eq!(container["args"], json!(["worker"]));
        assert_eq!(names(&container["env"]), ["REDIS_BACKUP_CONFIG", "ORDER", "PASSWORD"]);
        assert_eq!(container["env"][1]["value"], "{}");
        assert_eq!(container["env"][2]["valueFrom"]["secretKeyRef"]["name"], "auth");
        assert_eq!(spec["securityContext"]["fsGroup"], 65532);
        assert_eq!(spec["nodeSelector"]["tools"], "true");
        let near = &spec["affinity"]["nodeAffinity"];
        assert!(near["requiredDuringSchedulingIgnoredDuringExecution"].is_null(), "{near}");
        assert!(near.to_string().contains("machine-1"), "{near}");
    }

    #[test]
    fn a_worker_goes_with_its_run_and_is_no_pod_of_another_controller() {
        let job = made(&wish(None), None);
        assert_eq!(job["metadata"]["ownerReferences"][0]["uid"], "1-2-3");
        let (limits, labels) = (&job["spec"], &job["spec"]["template"]["metadata"]["labels"]);
        assert_eq!(limits["backoffLimit"], 0);
        assert_eq!(limits["activeDeadlineSeconds"], 3600);
        assert!(labels["batch.kubernetes.io/job-name"].is_null(), "{labels}");
        assert_eq!(labels["redis-client"], "true", "it is let in where we are");
        assert_eq!(labels["app.kubernetes.io/component"], "worker");
    }

    #[test]
    fn who_mounts_the_data_runs_as_its_user_there_and_gives_the_files_no_group() {
        let security = json!({"runAsUser": 999, "runAsGroup": 998, "fsGroup": 997});
        let captured = captured(&security, &json!(null));
        let job = made(&wish(Some(mounted())), Some(&captured));
        let spec = &job["spec"]["template"]["spec"];
        let security = &spec["securityContext"];
        assert_eq!((&security["runAsUser"], &security["runAsGroup"]), (&json!(999), &json!(998)));
        assert_eq!(security["supplementalGroups"], json!([997, 65532]));
        assert!(security["fsGroup"].is_null(), "{security}");
        let container = &spec["containers"][0];
        assert!(container["securityContext"]["runAsUser"].is_null(), "it would win: {container}");
        let volumes = spec["volumes"].as_array().unwrap();
        let (secret, data) = (&volumes[0]["secret"], volumes.last().unwrap());
        assert_eq!(secret["defaultMode"], 0o444, "our own user could read it, and theirs must");
        assert!(secret["items"][0]["mode"].is_null(), "{secret}");
        let claim = json!({"claimName": "data-redis-0", "readOnly": true});
        assert_eq!(data["persistentVolumeClaim"], claim);
        let mount = container["volumeMounts"].as_array().unwrap().last().unwrap();
        assert_eq!((&mount["readOnly"], &mount["subPath"]), (&json!(true), &json!("below")));
        let near = &spec["affinity"]["nodeAffinity"];
        let required = &near["requiredDuringSchedulingIgnoredDuringExecution"];
        assert!(required.to_string().contains("machine-1"), "{near}");
        assert!(spec["nodeSelector"].is_null(), "the pod's node need not be one of ours");
        assert_eq!(spec["tolerations"][0]["key"], "redis");
    }

    #[test]
    fn without_a_user_of_the_pod_our_own_stays_and_root_is_root() {
        let of = |of_pod: &Value, of_container: &Value| {
            let captured = captured(of_pod, of_container);
            made(&wish(Some(mounted())), Some(&captured))["spec"]["template"]["spec"].clone()
        };
        let unknown = of(&json!({"fsGroup": 5}), &json!({}));
        assert_eq!(unknown["securityContext"]["runAsUser"], 7);
        assert_eq!(unknown["securityContext"]["supplementalGroups"], json!([5, 65532]));
        let root = of(&json!({"runAsUser": 999}), &json!({"runAsUser": 0}));
        assert_eq!(root["securityContext"]["runAsUser"], 0);
        assert!(root["securityContext"]["runAsNonRoot"].is_null(), "{root}");
    }
}
