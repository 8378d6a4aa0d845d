//! Our program, as a Job of our image or on this machine: what it is told, how it ended, what it said.

use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::{
    cluster::{kubeconfig, product_image, told, wait_for},
    namespace::{Namespace, PATIENCE},
    s3,
};

/// What a run of the program came to.
#[derive(Debug)]
pub struct Ended {
    pub exit: i64,
    /// Report and log together, as the pod's log has them.
    pub log: String,
}

impl Ended {
    #[track_caller]
    pub fn well(self) -> String {
        assert_eq!(self.exit, 0, "{}", self.log);
        self.log
    }
}

/// What a pod of ours has besides its arguments.
#[derive(Clone, Copy, Debug, Default)]
pub struct Given<'a> {
    /// A Secret, as files in /secret.
    pub secret: Option<&'a str>,
    /// A `ConfigMap` with `redis-backup.yaml`; with it come the rights of deploy/rbac.yaml.
    pub config: Option<&'a str>,
}

/// Runs the image once in the namespace, with its S3 credentials and the Secret `secret` as files in /secret.
#[track_caller]
pub fn run(namespace: &Namespace, name: &str, secret: Option<&str>, arguments: &[&str]) -> Ended {
    start(namespace, name, Given { secret, config: None }, arguments);
    ended(namespace, name)
}

/// Starts the image in the namespace, with its S3 credentials, as a Job that is tried once.
#[track_caller]
pub fn start(namespace: &Namespace, name: &str, given: Given<'_>, arguments: &[&str]) {
    let mut mounts = vec![json!({"name": "temporary", "mountPath": "/tmp"})];
    let mut volumes = vec![json!({"name": "temporary", "emptyDir": {}})];
    if let Some(secret) = given.secret {
        mounts.push(json!({"name": "secret", "mountPath": "/secret", "readOnly": true}));
        let source = json!({"secretName": secret, "defaultMode": 0o440});
        volumes.push(json!({"name": "secret", "secret": source}));
    }
    if let Some(config) = given.config {
        mounts.push(json!({"name": "config", "mountPath": "/config", "readOnly": true}));
        volumes.push(json!({"name": "config", "configMap": {"name": config}}));
    }
    let is_of_kubernetes = given.config.is_some();
    let config = is_of_kubernetes
        .then(|| json!({"name": "REDIS_BACKUP_CONFIG", "value": "/config/redis-backup.yaml"}));
    let container = json!({
        "name": "redis-backup",
        "image": product_image(),
        "args": arguments,
        "env": config.into_iter().collect::<Vec<_>>(),
        "envFrom": [{"secretRef": {"name": "redis-backup-s3"}}],
        "securityContext": {"readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": mounts,
    });
    let pod = json!({
        "restartPolicy": "Never",
        "serviceAccountName": if is_of_kubernetes { "redis-backup" } else { "default" },
        "automountServiceAccountToken": is_of_kubernetes,
        "securityContext": {"runAsNonRoot": true, "fsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": volumes,
    });
    let labels = json!({"app.kubernetes.io/name": "redis-backup", "redis-client": "true"});
    namespace.apply(
        &json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "labels": labels},
            "spec": {"backoffLimit": 0, "template": {"metadata": {"labels": labels}, "spec": pod}},
        })
        .to_string(),
    );
}

/// Runs the program on this machine, as whoever has the kubeconfig of the cluster and the keys of its S3 server.
#[track_caller]
pub fn run_here(arguments: &[&str]) -> Ended {
    let output = here(arguments);
    Ended { exit: output.status.code().unwrap().into(), log: told(&output) }
}

/// What the program reports on this machine, as JSON.
#[track_caller]
pub fn reported_here(arguments: &[&str]) -> Value {
    let output = here(&[&["--output", "json"], arguments].concat());
    assert!(output.status.success(), "{}: {}", arguments.join(" "), told(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn here(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_redis-backup"));
    command.env("KUBECONFIG", kubeconfig());
    command.env("AWS_ACCESS_KEY_ID", s3::ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", s3::SECRET_KEY);
    command.args(arguments).output().unwrap()
}

/// Waits for a Job's end.
#[track_caller]
pub fn ended(namespace: &Namespace, job: &str) -> Ended {
    let selector = format!("--selector=batch.kubernetes.io/job-name={job}");
    wait_for(&format!("job {job}"), PATIENCE, || {
        let status = namespace.get(&["job", job])["status"]["conditions"].clone();
        let is_over = |condition: &Value| {
            ["Complete", "Failed"].iter().any(|kind| condition["type"] == *kind)
                && condition["status"] == "True"
        };
        status.as_array()?.iter().any(is_over).then_some(())
    });
    let pods = namespace.get(&["pods", &selector]);
    let last = pods["items"].as_array().unwrap().last().cloned().unwrap_or_default();
    let terminated = &last["status"]["containerStatuses"][0]["state"]["terminated"];
    let log = namespace.ask(&["logs", last["metadata"]["name"].as_str().unwrap()]);
    Ended { exit: terminated["exitCode"].as_i64().unwrap(), log }
}
