//! The rights of deploy/rbac.yaml, as they are but for the namespace and for names that tests at the same time need of their own.

use std::fs;

use serde_json::{Value, json};

use crate::{
    cluster::{ask, kubectl},
    namespace::Namespace,
};

/// What is of the whole cluster does not go with the namespace, but with this.
#[derive(Debug)]
pub struct Rights {
    /// Of the `ClusterRole` and its binding.
    pub cluster_role: String,
}

impl Rights {
    /// Applies them for the service account `redis-backup`.
    #[track_caller]
    pub fn apply(namespace: &Namespace) -> Self {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/rbac.yaml");
        let cluster_role = format!("redis-backup-{}", namespace.name);
        let mut text = fs::read_to_string(path).unwrap();
        for (theirs, ours) in [
            ("namespace: shop", format!("namespace: {}", namespace.name)),
            (
                "kind: ClusterRole\nmetadata:\n  name: redis-backup\n",
                format!("kind: ClusterRole\nmetadata:\n  name: {cluster_role}\n"),
            ),
            (
                "kind: ClusterRoleBinding\nmetadata:\n  name: redis-backup\n",
                format!("kind: ClusterRoleBinding\nmetadata:\n  name: {cluster_role}\n"),
            ),
            (
                "kind: ClusterRole, name: redis-backup}",
                format!("kind: ClusterRole, name: {cluster_role}}}"),
            ),
        ] {
            assert!(text.contains(theirs), "deploy/rbac.yaml has no {theirs:?}");
            text = text.replace(theirs, &ours);
        }
        namespace.apply(&text);
        Self { cluster_role }
    }
}

impl Drop for Rights {
    fn drop(&mut self) {
        for kind in ["clusterrolebinding", "clusterrole"] {
            let _ = kubectl(&["delete", kind, &self.cluster_role]).output();
        }
    }
}

/// A kubeconfig of the service account `redis-backup`.
#[track_caller]
pub fn kubeconfig_of_account(namespace: &Namespace) -> String {
    let token = namespace.ask(&["create", "token", "redis-backup"]);
    let mut config: Value =
        serde_json::from_str(&ask(&["config", "view", "--raw", "--minify", "-o", "json"])).unwrap();
    config["users"][0]["user"] = json!({"token": token.trim()});
    config.to_string()
}
