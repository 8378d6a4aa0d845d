//! Locks of a whole backup: what still forbids deleting it, and the legal hold of a pin. Deletes nothing.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::catalog::{self, Located};
use crate::{
    domain::{
        catalog::{Key, manifest_key},
        lock::Lock,
        manifest::{Manifest, Object},
    },
    edge::store::{self, Store},
    failure::Failure,
};

/// Objects asked for at the same time.
const OBJECTS_AT_ONCE: usize = 8;

/// An object of a backup at the version that belongs to it.
type Part = (Key, Option<String>);

/// What lasts longest of all that forbids deleting a part of the backup.
pub(super) async fn of_backup(located: &Located) -> Result<Option<Lock>, Failure> {
    let store = &located.opened.store;
    let failed = |source| Failure::Store {
        attempt: format!("ask for the locks of {}", located.backup),
        source,
    };
    let manifest = catalog::read_manifest(located).await?;
    let now = store.clock().await.map_err(failed)?;
    let locks: Vec<Option<Lock>> = stream::iter(parts(located, &manifest).await.map_err(failed)?)
        .map(|(key, version_id)| async move {
            match store.protection(&key, version_id.as_deref()).await {
                Ok(protection) => Ok(protection.lock(now)),
                // What is gone cannot be kept.
                Err(store::Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        })
        .buffer_unordered(OBJECTS_AT_ONCE)
        .try_collect()
        .await
        .map_err(failed)?;
    Ok(locks.into_iter().flatten().max())
}

/// Sets or lifts the legal hold of every part, the manifest included. How many, or none where the
/// store has no such thing.
pub(super) async fn hold(located: &Located, is_held: bool) -> Result<Option<usize>, Failure> {
    let store = &located.opened.store;
    let verb = if is_held { "put" } else { "lift" };
    let failed = |source| Failure::Store {
        attempt: format!("{verb} the legal hold of {}", located.backup),
        source,
    };
    let manifest = catalog::read_manifest(located).await?;
    let mut held = 0;
    for (key, version_id) in parts(located, &manifest).await.map_err(failed)? {
        match store.hold(&key, version_id.as_deref(), is_held).await {
            Ok(()) => held += 1,
            Err(store::Error::Unsupported { .. }) => return Ok(None),
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(Some(held))
}

async fn parts(located: &Located, manifest: &Manifest) -> Result<Vec<Part>, store::Error> {
    let objects = manifest.archives().flat_map(|archive| &archive.objects);
    let mut parts: Vec<Part> =
        objects.map(|Object { key, version_id, .. }| (key.clone(), version_id.clone())).collect();
    let key = manifest_key(&located.source, &located.backup);
    let version_id = first_version(&*located.opened.store, &key).await?;
    parts.push((key, version_id));
    Ok(parts)
}

/// The one that a read takes: no manifest can tell its own.
async fn first_version(store: &dyn Store, key: &Key) -> Result<Option<String>, store::Error> {
    match store.versions(key.as_str()).await {
        Ok(versions) => {
            let first = versions.into_iter().rfind(|it| it.key == *key && !it.is_marker);
            Ok(first.map(|version| version.version_id))
        }
        Err(store::Error::Unsupported { .. } | store::Error::Denied { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
