//! The installations under test: each a file of `installations/`, applied as people would.

use std::fs;

/// One of `installations/`.
#[derive(Debug)]
pub struct Installation {
    file: &'static str,
    /// What must have rolled out before it is used.
    pub workloads: &'static [&'static str],
    /// What must have ended well by then.
    pub jobs: &'static [&'static str],
}

/// An entry of a Secret of an installation, and what it holds.
#[derive(Debug)]
pub struct Password {
    pub secret: &'static str,
    pub key: &'static str,
    pub text: &'static str,
}

pub const PLAIN: Installation =
    Installation { file: "plain", workloads: &["statefulset/redis"], jobs: &[] };

pub const SHOP: Installation = Installation {
    file: "shop",
    workloads: &["statefulset/redis", "statefulset/redis-sentinel"],
    jobs: &[],
};

pub const GATEWAY: Installation =
    Installation { file: "gateway", workloads: &["statefulset/redis-gateway"], jobs: &[] };

pub const ANALYTICS: Installation = Installation {
    file: "analytics",
    workloads: &["statefulset/redis-analytics"],
    jobs: &["job/redis-analytics-join"],
};

/// Wants the class `small` of `tests/cluster/storage.yaml`: a file system of 64 MiB.
pub const SMALL_DISK: Installation = Installation { file: "small-disk", ..PLAIN };

/// Wants the Secret `redis-tls`.
pub const ANALYTICS_TLS: Installation = Installation { file: "analytics-tls", ..ANALYTICS };

/// Wants Spotahome's operator in the cluster, as `tests/cluster/install-operators` puts it there.
pub const OPERATOR: Installation = Installation {
    file: "operator",
    workloads: &["statefulset/rfr-redis-cluster", "deployment/rfs-redis-cluster"],
    jobs: &[],
};

/// Wants OT-Container-Kit's operator in the cluster, as `tests/cluster/install-operators` puts it there.
pub const LEADERS: Installation = Installation {
    file: "leaders",
    workloads: &["statefulset/sessions-leader", "statefulset/sessions-follower"],
    jobs: &[],
};

impl Installation {
    pub fn objects(&self) -> String {
        let path =
            format!("{}/tests/e2e/installations/{}.yaml", env!("CARGO_MANIFEST_DIR"), self.file);
        fs::read_to_string(path).unwrap()
    }
}
