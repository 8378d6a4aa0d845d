//! One run of a source at a time: by a lock on this host, or for pods by a Lease of their workload.

use std::sync::Arc;

use super::{Task, guard};
use crate::{
    domain::identity::BackupId,
    edge::{
        host_lock::HostLock,
        kubernetes::lease::{self, Claim, Held, Taken},
    },
    failure::Failure,
    flow::{Context, find},
    settings::Location,
};

/// Held until it is released.
pub(super) enum Exclusive {
    Host(HostLock),
    Lease(Box<Held>),
}

impl Exclusive {
    pub(super) async fn take(
        task: &Task,
        backup: &BackupId,
        context: &Context,
    ) -> Result<Self, Failure> {
        let name = &task.source.name;
        let cluster = match &task.source.location {
            Location::Nodes(_) => {
                return guard::lock(name, &task.source.location, context).map(Self::Host);
            }
            Location::Kubernetes(cluster) => cluster,
        };
        let client = find::client(cluster.context.as_deref(), context).await?;
        let host = context.environment()("HOSTNAME");
        let host = host.map(|host| format!(" on {host}")).unwrap_or_default();
        let claim = Claim {
            namespace: cluster.namespace.clone(),
            name: lease::name_of(cluster.wanted.kind(), &cluster.wanted.name()),
            holder: format!("backup {backup}{host}"),
            clock: Arc::clone(&context.clock),
        };
        let taken = lease::take(&client, claim).await;
        match taken.map_err(find::failed(format!("take the lease of source {name}")))? {
            Taken::Held(held) => Ok(Self::Lease(held)),
            Taken::ByAnother { holder } => {
                Err(Failure::LeaseHeld { source_name: name.clone(), holder })
            }
        }
    }

    /// Never returns unless another run may begin.
    pub(super) async fn lost(&self, task: &Task) -> Failure {
        match self {
            Self::Host(_) => std::future::pending().await,
            Self::Lease(held) => {
                held.lost().await;
                Failure::LeaseLost { source_name: task.source.name.clone() }
            }
        }
    }

    pub(super) async fn release(self) {
        match self {
            Self::Host(lock) => drop(lock),
            Self::Lease(held) => held.release().await,
        }
    }
}
