//! What sentinels know of a primary they watch. Asks; never makes them change their mind.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt as _, stream};

use super::{Access, Connection, Credentials, Error};
use crate::domain::{
    observation::SentinelObservation,
    source::{ADDRESSES_MAX, NodeAddress},
};

const ATTEMPT: &str = "ask a sentinel";

const SENTINELS_AT_ONCE: usize = 8;

type Fields = BTreeMap<String, String>;

/// What one sentinel says.
struct View {
    config_epoch: u64,
    primary: NodeAddress,
    options: Fields,
    replicas: Vec<NodeAddress>,
    sentinels: Vec<NodeAddress>,
}

/// The view of the sentinel with the highest config epoch, which is that of the last failover, and
/// the nodes it knows, the primary first. An error only if no sentinel answers.
pub(super) async fn observe(
    sentinels: &[NodeAddress],
    name: &str,
    access: &Access,
) -> Result<(SentinelObservation, Vec<NodeAddress>), Error> {
    let mut asked: BTreeSet<NodeAddress> = BTreeSet::new();
    let (mut views, mut first_error) = (Vec::new(), None);
    let mut next = sentinels.to_vec();
    // Those that were named, then those that they name.
    for _ in 0..2 {
        next.retain(|address| asked.insert(address.clone()));
        next.truncate(ADDRESSES_MAX);
        let looks =
            next.into_iter().map(|address| async move { ask(&address, name, access).await });
        let outcomes: Vec<_> = stream::iter(looks).buffered(SENTINELS_AT_ONCE).collect().await;
        for outcome in outcomes {
            match outcome {
                Ok(view) => views.push(view),
                Err(error) => {
                    first_error.get_or_insert(error);
                }
            }
        }
        next = views.iter().flat_map(|view: &View| view.sentinels.clone()).collect();
    }
    // Of equals the last is taken by max_by_key; the order means nothing.
    let best = views.into_iter().max_by_key(|view| view.config_epoch);
    match (best, first_error) {
        (Some(view), _) => {
            let View { config_epoch, primary, options, replicas, sentinels: _ } = view;
            let nodes = [primary.clone()].into_iter().chain(replicas).collect();
            let primary_name = name.to_owned();
            let sentinels = asked.into_iter().collect();
            let observation =
                SentinelObservation { primary_name, primary, config_epoch, options, sentinels };
            Ok((observation, nodes))
        }
        (None, Some(error)) => Err(error),
        (None, None) => Err(Error::Protocol {
            attempt: ATTEMPT,
            address: NodeAddress::new("", 0),
            finding: "no sentinel is named".to_owned(),
        }),
    }
}

/// The primaries that a sentinel watches: their names and where they are.
pub async fn watched(
    address: &NodeAddress,
    access: &Access,
) -> Result<Vec<(String, NodeAddress)>, Error> {
    let mut sentinel = open(address, access).await?;
    let primaries: Vec<Fields> = sentinel.ask(ATTEMPT, &["SENTINEL", "MASTERS"], 2).await?;
    let found = primaries.iter().filter_map(|it| Some((it.get("name")?.clone(), listening(it)?)));
    Ok(found.collect())
}

async fn ask(address: &NodeAddress, name: &str, access: &Access) -> Result<View, Error> {
    let mut sentinel = open(address, access).await?;
    let protocol =
        |finding| Error::Protocol { attempt: ATTEMPT, address: address.clone(), finding };
    let masters: Vec<Fields> = sentinel.ask(ATTEMPT, &["SENTINEL", "MASTERS"], 2).await?;
    let names = masters.iter().filter_map(|fields| fields.get("name")).cloned();
    let names = names.collect::<Vec<_>>().join(", ");
    let options = masters
        .into_iter()
        .find(|fields| fields.get("name").is_some_and(|found| found == name))
        .ok_or_else(|| protocol(format!("it watches no {name:?}; it watches: {names}")))?;
    let primary =
        listening(&options).ok_or_else(|| protocol(format!("it tells no address of {name:?}")))?;
    let config_epoch =
        options.get("config-epoch").and_then(|epoch| epoch.parse().ok()).unwrap_or_default();
    let replicas: Vec<Fields> = sentinel.ask(ATTEMPT, &["SENTINEL", "REPLICAS", name], 2).await?;
    // What is down only costs a connect timeout; port 0 is what another backup left behind.
    let is_up = |fields: &&Fields| !flagged(fields, "s_down") && !flagged(fields, "disconnected");
    let replicas = replicas.iter().filter(is_up).filter_map(listening).collect();
    let sentinels: Vec<Fields> = sentinel.ask(ATTEMPT, &["SENTINEL", "SENTINELS", name], 2).await?;
    let sentinels = sentinels.iter().filter_map(listening).collect();
    Ok(View { config_epoch, primary, options, replicas, sentinels })
}

/// Most sentinels know no password, also where the servers that they watch have one.
async fn open(address: &NodeAddress, access: &Access) -> Result<Connection, Error> {
    match Connection::open(address, access).await {
        Err(refused @ Error::AuthenticationRefused { .. }) => {
            let anonymous = Access { credentials: Credentials::default(), ..access.clone() };
            Connection::open(address, &anonymous).await.map_err(|_| refused)
        }
        opened => opened,
    }
}

fn listening(fields: &Fields) -> Option<NodeAddress> {
    let port: u16 = fields.get("port")?.parse().ok()?;
    let host = fields.get("ip").filter(|host| !host.is_empty())?;
    (port > 0).then(|| NodeAddress::new(host, port))
}

fn flagged(fields: &Fields, flag: &str) -> bool {
    fields.get("flags").is_some_and(|flags| flags.split(',').any(|found| found == flag))
}
