//! `discover`: the Redis installations of a namespace, as config ready to paste. Reads no Secret and asks no Redis.

use super::{Context, find};
use crate::{
    cli::Discover,
    domain::workload::inventory,
    edge::kubernetes::discovery,
    failure::Failure,
    report::{DiscoverReport, DiscoveredSource, Outcome},
};

pub(super) async fn run(arguments: &Discover, context: &Context) -> Result<Outcome, Failure> {
    let Discover { namespace, context: context_name } = arguments;
    let client = find::client(context_name.as_deref(), context).await?;
    let namespace = namespace.as_deref().unwrap_or(client.namespace()).to_owned();
    let facts = discovery::facts(&client, &namespace)
        .await
        .map_err(find::failed(format!("look into namespace {namespace}")))?;
    let sources = inventory(&facts);
    Ok(Outcome::done(DiscoverReport {
        kind: "discover",
        version: 1,
        sources: sources.iter().map(|it| DiscoveredSource::new(it, context_name.clone())).collect(),
        pods: facts.pods.len(),
        unseen: facts.unseen,
        namespace,
    }))
}
