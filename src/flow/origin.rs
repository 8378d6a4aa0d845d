//! Whose prefix it is: claimed by the first backup, held against every other installation. Never overwrites an origin.

use jiff::Timestamp;

use super::{
    Context,
    catalog::{json, newest_manifest, origin},
    stores::Opened,
};
use crate::{
    domain::{
        catalog,
        identity::{COMPACT_TIME_BYTES, SourceName, parse_compact_time},
        manifest::{self, Manifest, Origin},
        record,
    },
    edge::store,
    failure::Failure,
};

/// Who wants to write below a prefix.
pub(super) struct Claim<'a> {
    pub(super) name: &'a SourceName,
    pub(super) ours: &'a Origin,
    /// Take the prefix over from another installation.
    pub(super) adopt: bool,
    /// The last backup that lies there.
    pub(super) previous: Option<&'a Manifest>,
}

/// The prefix must be new, ours, or taken over on purpose.
pub(super) async fn claim(
    opened: &Opened,
    claim: Claim<'_>,
    context: &Context,
) -> Result<(), Failure> {
    let Claim { name, ours, adopt, previous } = claim;
    let first = match origin(opened, name).await? {
        Some(first) => first,
        None => match create(opened, name, ours).await? {
            Created::Now => return Ok(()),
            // Another run was quicker; what it wrote counts.
            Created::ByAnother => origin(opened, name).await?.unwrap_or_else(|| ours.clone()),
        },
    };
    // Who took the prefix over last owns it, and who was there before no more.
    let (owner, since) = last_adoption(opened, name).await?.unwrap_or((first, Timestamp::MIN));
    // The nodes of a Cluster may all be replaced over the years, a few between two backups.
    let moved_on = previous
        .filter(|manifest| manifest.begun >= since)
        .is_some_and(|manifest| ours.overlaps(&manifest.origin));
    if ours.overlaps(&owner) || moved_on {
        return Ok(());
    }
    if adopt {
        return take_over(opened, name, ours, context).await;
    }
    Err(Failure::OtherOrigin {
        store: opened.name.clone(),
        prefix: name.clone(),
        owner: owner.identities.join(", "),
        ours: ours.identities.join(", "),
    })
}

/// The same for who cannot ask the source: its config must name an address by which the owner of the
/// prefix is known, or was when its newest backup was taken.
pub(super) async fn check_unasked(
    opened: &Opened,
    name: &SourceName,
    ours: &[String],
) -> Result<(), Failure> {
    let Some(first) = origin(opened, name).await? else { return Ok(()) };
    let (owner, since) = last_adoption(opened, name).await?.unwrap_or((first, Timestamp::MIN));
    let previous = newest_manifest(opened, name).await;
    let moved_on = previous
        .filter(|manifest| manifest.begun >= since)
        .is_some_and(|manifest| manifest.origin.is_reached_at(ours));
    if owner.is_reached_at(ours) || moved_on {
        return Ok(());
    }
    Err(Failure::OtherOrigin {
        store: opened.name.clone(),
        prefix: name.clone(),
        owner: owner.identities.join(", "),
        ours: ours.join(", "),
    })
}

enum Created {
    Now,
    ByAnother,
}

async fn create(opened: &Opened, name: &SourceName, ours: &Origin) -> Result<Created, Failure> {
    let key = catalog::origin_key(name);
    match opened.store.create(&key, json(ours)?.into()).await {
        Ok(_) => Ok(Created::Now),
        Err(store::Error::AlreadyExists { .. }) => Ok(Created::ByAnother),
        Err(source) => Err(Failure::Store { attempt: format!("claim {key}"), source }),
    }
}

/// An origin is never overwritten: who takes a prefix over adds an origin beside the first.
async fn take_over(
    opened: &Opened,
    name: &SourceName,
    ours: &Origin,
    context: &Context,
) -> Result<(), Failure> {
    let key = catalog::adopted_origin_key(name, context.now(), context.chance());
    opened.store.create(&key, json(ours)?.into()).await.map_err(|source| Failure::Store {
        attempt: format!("adopt the prefix by {key}"),
        source,
    })?;
    Ok(())
}

/// The origin that was added last, and when.
async fn last_adoption(
    opened: &Opened,
    name: &SourceName,
) -> Result<Option<(Origin, Timestamp)>, Failure> {
    let prefix = catalog::adopted_origins_prefix(name);
    let failed = |source| Failure::Store { attempt: format!("read {prefix}"), source };
    let listed = opened.store.list(&prefix).await.map_err(failed)?;
    // Keys begin with their time, and listings are sorted.
    let Some(last) = listed.last() else { return Ok(None) };
    let bytes = opened.store.read(&last.key, record::BYTES_MAX).await.map_err(failed)?;
    let origin = serde_json::from_slice(&bytes).map_err(|error| Failure::Manifest {
        attempt: format!("read {}", last.key),
        source: manifest::Error::Decode(error),
    })?;
    let at = last.key.name().get(..COMPACT_TIME_BYTES).and_then(parse_compact_time);
    Ok(Some((origin, at.unwrap_or(Timestamp::MIN))))
}
