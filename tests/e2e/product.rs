//! Our program, as a Job of our image or on this machine: what it is told, how it ended, what it said.

use std::process::Command;

use serde_json::{Value, json};

use crate::{
    cluster::{kubeconfig, product_image, told, wait_for},
    namespace::{Namespace, PATIENCE},
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

/// Runs the image once in the namespace, with its S3 credentials and the Secret `secret` as files in /secret.
#[track_caller]
pub fn run(namespace: &Namespace, name: &str, secret: Option<&str>, arguments: &[&str]) -> Ended {
    let mounts =
        secret.map(|_| json!({"name": "secret", "mountPath": "/secret", "readOnly": true}));
    let volumes = secret.map(
        |name| json!({"name": "secret", "secret": {"secretName": name, "defaultMode": 0o440}}),
    );
    let temporary = json!({"name": "temporary", "emptyDir": {}});
    let container = json!({
        "name": "redis-backup",
        "image": product_image(),
        "args": arguments,
        "envFrom": [{"secretRef": {"name": "redis-backup-s3"}}],
        "securityContext": {"readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": mounts.into_iter().chain([json!({"name": "temporary", "mountPath": "/tmp"})]).collect::<Vec<_>>(),
    });
    let pod = json!({
        "restartPolicy": "Never",
        "automountServiceAccountToken": false,
        "securityContext": {"runAsNonRoot": true, "fsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": volumes.into_iter().chain([temporary]).collect::<Vec<_>>(),
    });
    let labels = json!({"app.kubernetes.io/name": "redis-backup", "redis-client": "true"});
    namespace.apply(
        &json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "labels": labels},
            "spec": {"backoffLimit": 0, "template": {"metadata": {"labels": labels}, "spec": pod}},
        })
        .to_string(),
    );
    ended(namespace, name)
}

/// Runs the program on this machine, as whoever has the kubeconfig of the cluster.
#[track_caller]
pub fn run_here(arguments: &[&str]) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_redis-backup"));
    let output = command.env("KUBECONFIG", kubeconfig()).args(arguments).output().unwrap();
    Ended { exit: output.status.code().unwrap().into(), log: told(&output) }
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
