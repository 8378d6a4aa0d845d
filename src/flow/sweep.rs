//! What failed and killed runs left in a store is found and removed. Never touches what a manifest names.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::SignedDuration;

use super::{
    Context,
    catalog::{Located, read_manifest},
    stores::Opened,
};
use crate::{
    domain::{
        catalog::{self, Key},
        identity::{BackupId, SourceName},
        lock::Lock,
    },
    edge::store::{self, Listed},
    failure::chain,
};

/// Long after the last moment at which a backup may still be committed.
const LEFT_OVER_AFTER: SignedDuration = SignedDuration::from_hours(48);

/// How long a failed run cleans up behind itself; a later sweep does the rest. Short enough that a run
/// that was told to end does so before Kubernetes loses patience, which is after 30 s.
pub(super) const CLEAN_UP_LIMIT: Duration = Duration::from_secs(8);

/// Removes everything of a backup whose manifest was never written.
pub(super) async fn discard(opened: &Opened, source: &SourceName, backup: &BackupId) {
    remove_below(opened, &catalog::archives_prefix(source, backup)).await;
}

/// Removes what a try to encrypt a copy anew stored. No manifest names it, for it was never written.
pub(super) async fn discard_resealed(opened: &Opened, prefix: &str) {
    remove_below(opened, prefix).await;
}

/// Removes one shard's part, so that it can be captured again.
pub(super) async fn discard_shard(
    opened: &Opened,
    source: &SourceName,
    backup: &BackupId,
    shard: u32,
) {
    remove_below(opened, &catalog::shard_prefix(source, backup, shard)).await;
}

async fn remove_below(opened: &Opened, prefix: &str) {
    let removal = async {
        for unfinished in opened.store.unfinished(prefix).await? {
            opened.store.forget(&unfinished).await?;
        }
        let mut locks = Locks::default();
        for listed in opened.store.list(prefix).await? {
            locks.skip(opened.store.delete(&listed.key).await)?;
        }
        locks.tell();
        Ok::<_, store::Error>(())
    };
    match tokio::time::timeout(CLEAN_UP_LIMIT, removal).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!("leftovers stay for a later sweep: {}", chain(&error)),
        Err(_) => tracing::warn!("leftovers stay for a later sweep: the store is slow"),
    }
}

/// Leftovers that the store was told to keep. They are no failure: a sweep takes them when it may.
#[derive(Debug, Default)]
struct Locks {
    count: usize,
    last: Option<Lock>,
}

impl Locks {
    /// Whether it was deleted; one that is locked is only counted.
    fn skip(&mut self, deleted: Result<(), store::Error>) -> Result<bool, store::Error> {
        match deleted {
            Ok(()) => Ok(true),
            Err(store::Error::Locked { lock, .. }) => {
                self.count += 1;
                self.last = self.last.max(Some(lock));
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn tell(&self) {
        if let Self { count, last: Some(lock) } = self {
            tracing::info!("{count} leftovers stay for a later sweep, the last {lock}");
        }
    }
}

/// Removes what lies there for two days without a manifest. A failure to do so is only logged: the
/// backup that was just committed is one all the same.
pub(super) async fn sweep(opened: &Opened, source: &SourceName, context: &Context) {
    match try_sweep(opened, source, context).await {
        Ok(0) => {}
        Ok(count) => tracing::info!("swept {count} leftovers of runs that never ended"),
        Err(error) => tracing::warn!("leftovers were not swept: {}", chain(&error)),
    }
}

async fn try_sweep(
    opened: &Opened,
    source: &SourceName,
    context: &Context,
) -> Result<usize, store::Error> {
    // By the store's clock, as its times are.
    let before = opened.store.clock().await? - LEFT_OVER_AFTER;
    let (mut swept, mut locks) = (0, Locks::default());
    for unfinished in opened.store.unfinished(&format!("{source}/")).await? {
        if unfinished.begun < before {
            opened.store.forget(&unfinished).await?;
            swept += 1;
        }
    }
    let archives = opened.store.list(&catalog::all_archives_prefix(source)).await?;
    let records = opened.store.list(&catalog::all_records_prefix(source)).await?;
    // Read after both: a backup committed meanwhile is protected.
    let manifests = opened.store.list(&catalog::manifests_prefix(source)).await?;
    let committed: BTreeSet<BackupId> =
        manifests.iter().filter_map(|listed| catalog::backup_of_manifest(&listed.key)).collect();
    let unnamed = unnamed(opened, source, &archives, &committed).await;
    let archives = archives
        .into_iter()
        .map(|listed| (catalog::backup_of_archive(source, &listed.key), listed));
    let records =
        records.into_iter().map(|listed| (catalog::backup_of_record(source, &listed.key), listed));
    for (backup, listed) in archives.chain(records) {
        let Some(backup) = backup else { continue };
        let old = listed.modified < before && backup.begun() < context.now() - LEFT_OVER_AFTER;
        if old && (!committed.contains(&backup) || unnamed.contains(&listed.key)) {
            swept += usize::from(locks.skip(opened.store.delete(&listed.key).await)?);
        }
    }
    locks.tell();
    Ok(swept)
}

/// What lies beside a backup that exists, from copies that never ended while another did. Once it is old
/// no manifest can come to name it: a copy is not committed with what an earlier one left long ago.
async fn unnamed(
    opened: &Opened,
    source: &SourceName,
    archives: &[Listed],
    committed: &BTreeSet<BackupId>,
) -> BTreeSet<Key> {
    let mut folders: BTreeMap<BackupId, BTreeSet<Option<&str>>> = BTreeMap::new();
    for Listed { key, .. } in archives {
        if let Some(backup) = catalog::backup_of_archive(source, key) {
            let folder = catalog::resealed_folder(source, key);
            folders.entry(backup).or_default().insert(folder);
        }
    }
    let mut unnamed = BTreeSet::new();
    // What lies in one folder only is the backup itself, and its manifest need not be read.
    for (backup, _) in folders
        .into_iter()
        .filter(|(backup, folders)| folders.len() > 1 && committed.contains(backup))
    {
        let located = Located { opened: opened.clone(), source: source.clone(), backup };
        let Ok(manifest) = read_manifest(&located).await else { continue };
        let named: BTreeSet<&Key> = manifest
            .archives()
            .flat_map(|archive| &archive.objects)
            .map(|object| &object.key)
            .collect();
        let prefix = catalog::archives_prefix(source, &located.backup);
        let keys = archives.iter().map(|listed| &listed.key);
        let keys = keys.filter(|key| key.as_str().starts_with(&prefix) && !named.contains(key));
        unnamed.extend(keys.cloned());
    }
    unnamed
}
