//! So many nodes at the same time in a namespace whose files are read by exec, whoever reads them. Only makes wait.

use std::sync::Arc;

use super::shards::Job;
use crate::{
    edge::kubernetes::lease::{self, Claim, Held},
    failure::Failure,
    flow::find,
};

/// Waits for one of the streams of the source's namespace. None for a source that is not in Kubernetes.
pub(super) async fn turn(job: &Job<'_>, shard: u32) -> Result<Option<Box<Held>>, Failure> {
    let Some(pods) = &job.found.pods else { return Ok(None) };
    let (client, cluster) = (pods.reach.client(), &pods.cluster);
    let host = job.context.environment()("HOSTNAME");
    let host = host.map(|host| format!(" on {host}")).unwrap_or_default();
    let claims = (0..cluster.exec_streams).map(|number| Claim {
        namespace: cluster.namespace.clone(),
        name: lease::exec_stream(number),
        holder: format!("backup {}, shard {shard}{host}", job.backup),
        clock: Arc::clone(&job.context.clock),
    });
    let taken = job
        .unless_ended(async {
            let attempt =
                format!("take one of the exec streams of namespace {}", cluster.namespace);
            lease::take_any(client, claims.collect()).await.map_err(find::failed(attempt))
        })
        .await?;
    Ok(Some(taken))
}
