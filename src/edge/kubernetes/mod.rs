//! A Kubernetes cluster, through its API server. Asks and acts with the rights that it is given; never decides what is meant.

pub mod client;
pub mod discovery;
pub mod exec;
pub mod jobs;
pub mod lease;
mod reach;
mod right;
pub mod rights;

use std::{error, path::PathBuf, time::Duration};

pub use self::{
    client::Client,
    reach::{OnePod, Reach, Way},
    right::Right,
};

type Cause = Box<dyn error::Error + Send + Sync>;

/// Variants by what the caller can do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither a kubeconfig nor a pod's service account. `looked` says where they were looked for.
    #[error("find a Kubernetes cluster: {looked}")]
    NoCluster { looked: String },
    #[error("read the kubeconfig {}", path.display())]
    ReadKubeconfig {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("use the kubeconfig {origin}: {finding}")]
    Kubeconfig { origin: String, finding: String },
    #[error("use the service account of this pod: {finding}")]
    ServiceAccount { finding: String },
    /// Who we are is not known there, or no longer.
    #[error("{attempt}: Kubernetes does not know who asks ({finding})")]
    Unauthorized { attempt: String, finding: String },
    #[error("{attempt}: {right} is not allowed ({finding})")]
    Forbidden { attempt: String, right: Right, finding: String },
    #[error("{attempt}: it is not there ({finding})")]
    NotFound { attempt: String, finding: String },
    #[error("{attempt}: it exists already")]
    AlreadyExists { attempt: String },
    /// Somebody else changed it meanwhile. Look again.
    #[error("{attempt}: somebody else changed it meanwhile")]
    Conflict { attempt: String },
    /// No answer from the API server, or one that says to come later.
    #[error("{attempt}: the Kubernetes API cannot be reached")]
    Unreachable {
        attempt: String,
        #[source]
        source: Cause,
    },
    #[error("{attempt}: no answer of the Kubernetes API within {} s", limit.as_secs_f64())]
    Timeout { attempt: String, limit: Duration },
    /// The API server is up and says no for a reason that no other variant names.
    #[error("{attempt}: Kubernetes refuses it ({code} {finding})")]
    Refused { attempt: String, code: u16, finding: String },
    #[error("{attempt}: the answer of the Kubernetes API cannot be read")]
    Protocol {
        attempt: String,
        #[source]
        source: Cause,
    },
}

impl Error {
    /// What an error of the client library means; `right` is what the request needs.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the library's errors are open; most of them mean that nothing was reached"
    )]
    pub fn of(attempt: impl Into<String>, right: &Right, error: kube::Error) -> Self {
        let attempt = attempt.into();
        match error {
            kube::Error::Api(status) => Self::of_status(attempt, right, &status),
            kube::Error::SerdeError(source) => Self::Protocol { attempt, source: source.into() },
            kube::Error::UpgradeConnection(source) => {
                Self::Protocol { attempt, source: source.into() }
            }
            kube::Error::Auth(error) => Self::Unauthorized { attempt, finding: error.to_string() },
            // Their texts repeat their causes.
            kube::Error::Service(source) => Self::Unreachable { attempt, source },
            kube::Error::HyperError(source) => Self::Unreachable { attempt, source: source.into() },
            other => Self::Unreachable { attempt, source: other.into() },
        }
    }

    fn of_status(attempt: String, right: &Right, status: &kube::core::Status) -> Self {
        let finding = one_line(&status.message);
        match status.code {
            401 => Self::Unauthorized { attempt, finding },
            403 => Self::Forbidden { attempt, right: right.clone(), finding },
            404 => Self::NotFound { attempt, finding },
            409 if status.reason == "AlreadyExists" => Self::AlreadyExists { attempt },
            409 => Self::Conflict { attempt },
            429 | 502..=504 => Self::Unreachable { attempt, source: finding.into() },
            code => Self::Refused { attempt, code, finding },
        }
    }

    pub const fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }
}

/// Messages of an API server may be long and have several lines.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: u16, reason: &str) -> Error {
        let status = kube::core::Status {
            code,
            ..kube::core::Status::failure("pods is\n forbidden", reason)
        };
        let right = Right::new("create", "pods/exec").in_namespace("shop");
        Error::of("run a command in pod redis-0", &right, kube::Error::Api(status.boxed()))
    }

    #[test]
    fn a_missing_right_is_named_as_the_rule_that_grants_it() {
        assert_eq!(
            of(403, "Forbidden").to_string(),
            "run a command in pod redis-0: pods/exec create in namespace shop is not allowed (pods is forbidden)",
        );
    }

    #[test]
    fn answers_become_what_the_caller_can_do() {
        assert!(of(404, "NotFound").is_not_found());
        assert!(matches!(of(409, "AlreadyExists"), Error::AlreadyExists { .. }));
        assert!(matches!(of(409, "Conflict"), Error::Conflict { .. }));
        assert!(matches!(of(401, "Unauthorized"), Error::Unauthorized { .. }));
        assert!(matches!(of(503, "ServiceUnavailable"), Error::Unreachable { .. }));
        assert!(matches!(of(422, "Invalid"), Error::Refused { code: 422, .. }));
    }
}
