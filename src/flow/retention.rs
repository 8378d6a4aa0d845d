//! Retention of one source in one store: look, decide, delete. A manifest goes first, so that nothing half deleted is listed.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;

use super::{
    Context,
    catalog::{self, Located},
    lock,
    standing::{standing, standings},
    stores::Opened,
};
use crate::{
    domain::{
        catalog::{Key, archives_prefix, manifest_key, records_prefix},
        clock::{self, Skew},
        identity::{BackupId, SourceName},
        lock::Lock,
        manifest,
        retention::{Entry, Manifest, Policy, Reason, Verdict, decide},
        shrink_guard::ShrinkGuard,
    },
    edge::store,
    failure::{Failure, chain},
};

const READS_AT_ONCE: usize = 16;

/// A verdict and what came of it.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) verdict: Verdict,
    pub(super) outcome: Act,
}

/// What deleting means where the bucket keeps versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deletion {
    /// A marker hides the object; its bytes stay until a rule of the bucket removes them.
    Hide,
    /// The versions go too.
    Purge,
}

#[derive(Debug)]
pub(super) enum Act {
    /// Nothing was to be done, or it is a dry run.
    None,
    Deleted,
    Failed(Failure),
}

/// What the store holds, judged. Newest first.
pub(super) async fn judge(
    opened: &Opened,
    source: &SourceName,
    policy: &Policy,
    context: &Context,
) -> Result<Vec<Verdict>, Failure> {
    let now = trusted_now(opened, context).await?;
    let mut entries = entries(opened, source).await?;
    loop {
        let verdicts = decide(&entries, policy, now);
        let unread = worth_reading(&entries, &verdicts);
        if unread.is_empty() {
            return Ok(verdicts);
        }
        let read: Vec<(usize, Found)> = stream::iter(unread)
            .map(|index| {
                let backup = entries[index].backup.clone();
                let located = Located { opened: opened.clone(), source: source.clone(), backup };
                async move { Ok::<_, Failure>((index, find(&located).await?)) }
            })
            .buffer_unordered(READS_AT_ONCE)
            .try_collect()
            .await?;
        let mut gone = Vec::new();
        for (index, found) in read {
            let entry = &mut entries[index];
            match found {
                Found::Manifest { state, is_suspect } => {
                    entry.manifest = state;
                    // The record that says so too may have been lost.
                    entry.standing.suspect |= is_suspect && !entry.standing.accepted;
                }
                Found::Gone => gone.push(entry.backup.clone()),
            }
        }
        entries.retain(|entry| !gone.contains(&entry.backup));
    }
}

/// By a clock that runs ahead, everything would be old.
async fn trusted_now(opened: &Opened, context: &Context) -> Result<Timestamp, Failure> {
    let store = opened.store.clock().await.map_err(|source| Failure::Store {
        attempt: format!("ask {} for the time", opened.name),
        source,
    })?;
    let now = context.now();
    match clock::compare(&format!("store {}", opened.name), store, now) {
        Skew::Fine | Skew::Warn(_) => Ok(now),
        Skew::Refuse(finding) => Err(Failure::Refused {
            finding,
            hint: "set the clocks (NTP): backups are expired by time; nothing was deleted".into(),
        }),
    }
}

async fn entries(opened: &Opened, source: &SourceName) -> Result<Vec<Entry>, Failure> {
    let backups = catalog::backups(opened, source).await?;
    // Listed after the manifests: whoever is there by then has its record of being suspect.
    let mut standings = standings(opened, source).await?;
    let entry = |backup| Entry {
        standing: standings.remove(&backup).unwrap_or_default(),
        backup,
        manifest: Manifest::Unread,
    };
    Ok(backups.into_iter().map(entry).collect())
}

/// Where something expires: that, and what stays because it is the newest good one. A manifest that
/// cannot be read must neither be deleted nor stand in for a good one.
fn worth_reading(entries: &[Entry], verdicts: &[Verdict]) -> Vec<usize> {
    if verdicts.iter().all(Verdict::is_kept) {
        return Vec::new();
    }
    // Both are in the same order: newest first.
    let judged = entries.iter().zip(verdicts).enumerate();
    judged
        .filter(|(_, (entry, verdict))| {
            entry.manifest == Manifest::Unread
                && (!verdict.is_kept() || verdict.reasons.contains(&Reason::NewestGood))
        })
        .map(|(index, _)| index)
        .collect()
}

enum Found {
    Manifest {
        state: Manifest,
        is_suspect: bool,
    },
    /// Another run deleted it.
    Gone,
}

async fn find(located: &Located) -> Result<Found, Failure> {
    let (state, is_suspect) = match catalog::read_manifest(located).await {
        Ok(manifest) => match manifest.shrink_guard {
            ShrinkGuard::Suspect(_) => (Manifest::Known, true),
            ShrinkGuard::NotChecked | ShrinkGuard::Passed(_) => (Manifest::Known, false),
        },
        Err(Failure::Manifest { source: manifest::Error::Newer { found }, .. }) => {
            (Manifest::Newer(found), false)
        }
        Err(Failure::Store { source: store::Error::NotFound { .. }, .. }) => {
            return Ok(Found::Gone);
        }
        Err(failure @ Failure::Store { source: store::Error::Unavailable { .. }, .. }) => {
            return Err(failure);
        }
        Err(failure) => {
            tracing::warn!("{} is kept: {}", located.backup, chain(&failure));
            (Manifest::Unreadable, false)
        }
    };
    Ok(Found::Manifest { state, is_suspect })
}

/// What would come of each verdict: what is locked would stay.
pub(super) async fn preview(
    opened: &Opened,
    source: &SourceName,
    verdicts: Vec<Verdict>,
) -> Result<Vec<Judged>, Failure> {
    let mut judged = Vec::with_capacity(verdicts.len());
    for mut verdict in verdicts {
        if !verdict.is_kept() {
            let backup = verdict.backup.clone();
            let located = Located { opened: opened.clone(), source: source.clone(), backup };
            verdict.reasons.extend(locked(&located).await?.map(Reason::Locked));
        }
        judged.push(Judged { verdict, outcome: Act::None });
    }
    Ok(judged)
}

/// Deletes what expires, the oldest first. What fails of one does not stop the others; a signal does.
pub(super) async fn apply(
    opened: &Opened,
    source: &SourceName,
    verdicts: Vec<Verdict>,
    deletion: Deletion,
    context: &Context,
) -> Result<Vec<Judged>, Failure> {
    let mut judged = Vec::with_capacity(verdicts.len());
    for mut verdict in verdicts.into_iter().rev() {
        let mut outcome = Act::None;
        if !verdict.is_kept() {
            context.check_not_ended()?;
            let backup = verdict.backup.clone();
            let located = Located { opened: opened.clone(), source: source.clone(), backup };
            outcome = match context.unless_ended_long_ago(expire(&located, deletion)).await {
                Ok(Some(reason)) => {
                    verdict.reasons.push(reason);
                    Act::None
                }
                Ok(None) => Act::Deleted,
                Err(failure @ Failure::Ended { .. }) => return Err(failure),
                Err(failure) => {
                    tracing::error!(backup = %located.backup, "{}", chain(&failure));
                    Act::Failed(failure)
                }
            };
        }
        judged.push(Judged { verdict, outcome });
    }
    judged.reverse();
    Ok(judged)
}

/// Deletes one backup, or tells why it stays after all.
async fn expire(located: &Located, deletion: Deletion) -> Result<Option<Reason>, Failure> {
    let Located { opened, source, backup } = located;
    // Somebody may have pinned it while others were deleted.
    let standing = standing(located).await?;
    if standing.pinned {
        return Ok(Some(Reason::Pinned));
    }
    if standing.unknown {
        return Ok(Some(Reason::NewerRecord));
    }
    // Nothing of it goes as long as a part must stay: neither half a backup nor one that is only hidden.
    if let Some(lock) = locked(located).await? {
        return Ok(Some(Reason::Locked(lock)));
    }
    let key = manifest_key(source, backup);
    match delete(opened, &key, deletion).await {
        Ok(()) => {}
        Err(store::Error::Locked { lock, .. }) => return Ok(Some(Reason::Locked(lock))),
        Err(source) => {
            let attempt = format!("delete the manifest of {backup}");
            return Err(Failure::Store { attempt, source });
        }
    }
    tracing::info!(%backup, "expired");
    // From here on it is no backup; what stays is swept as any other leftover.
    let archives = archives_prefix(source, backup);
    delete_below(opened, backup, "archives", &archives, deletion).await?;
    delete_below(opened, backup, "records", &records_prefix(source, backup), deletion).await?;
    Ok(None)
}

/// A manifest that another run has just deleted locks nothing.
async fn locked(located: &Located) -> Result<Option<Lock>, Failure> {
    match lock::of_backup(located).await {
        Err(Failure::Store { source: store::Error::NotFound { .. }, .. }) => Ok(None),
        found => found,
    }
}

pub(super) async fn delete(
    opened: &Opened,
    key: &Key,
    deletion: Deletion,
) -> Result<(), store::Error> {
    match deletion {
        Deletion::Hide => opened.store.delete(key).await,
        Deletion::Purge => opened.store.purge(key).await,
    }
}

async fn delete_below(
    opened: &Opened,
    backup: &BackupId,
    noun: &str,
    prefix: &str,
    deletion: Deletion,
) -> Result<(), Failure> {
    let failed = |source| Failure::Store {
        attempt: format!("delete the {noun} of {backup}, which is no backup any more"),
        source,
    };
    for listed in opened.store.list(prefix).await.map_err(failed)? {
        match delete(opened, &listed.key, deletion).await {
            // Written later than the backup, such as a proof: a sweep takes it when its lock has ended.
            Err(store::Error::Locked { .. }) => {}
            deleted => deleted.map_err(failed)?,
        }
    }
    Ok(())
}
