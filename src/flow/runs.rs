//! The notes of runs: writes one at the end of each, reads them back for `list --runs`, and deletes the old.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    Context,
    catalog::{self, Holding, Holdings, json},
    retention::{self, Deletion},
    stores::Opened,
    sweep,
};
use crate::{
    cli::List,
    domain::{
        catalog::{Key, kind_of, run_key, runs_prefix, time_of_key},
        identity::SourceName,
        record::{self, FAILED, Run},
        retention::{NOTES_KEPT, expired_notes},
    },
    edge::store,
    failure::{Exit, Failure, chain},
    report::{ListedRun, Outcome, RunsReport},
    settings::Settings,
};

/// What `list --runs` shows when nobody says how many.
const SHOWN: usize = 20;

const READS_AT_ONCE: usize = 16;

/// A run that cannot be noted is still what it was: the failure to note it is only logged.
pub(super) async fn note(opened: &Opened, run: &Run, context: &Context) {
    let written = async {
        let key = run_key(&run.source, run.begun, context.chance(), &run.word())
            .map_err(|error| error.to_string())?;
        let body = json(run).map_err(|failure| chain(&failure))?;
        opened.store.create(&key, body.into()).await.map_err(|error| chain(&error))
    };
    if let Ok(Err(reason)) | Err(reason) = tokio::time::timeout(sweep::CLEAN_UP_LIMIT, written)
        .await
        .map_err(|_| "no answer".into())
        .map(|it| it.map(drop))
    {
        tracing::warn!("the run was not noted in the store: {reason}");
    }
}

/// Deletes what was noted long ago. A failure to do so is only logged, and a signal ends it: a later run
/// does the rest.
pub(super) async fn expire(
    opened: &Opened,
    source: &SourceName,
    deletion: Deletion,
    context: &Context,
) {
    match context.unless_ended(try_expire(opened, source, deletion, context)).await {
        Ok(0) | Err(Failure::Ended { .. }) => {}
        Ok(count) => tracing::info!("deleted {count} old notes of runs"),
        Err(failure) => tracing::warn!("old notes of runs stay: {}", chain(&failure)),
    }
}

async fn try_expire(
    opened: &Opened,
    source: &SourceName,
    deletion: Deletion,
    context: &Context,
) -> Result<usize, Failure> {
    let before = context.now() - NOTES_KEPT;
    let mut keys = keys_of(opened, source).await?;
    keys.retain(|key| time_of_key(key).is_some_and(|begun| begun < before));
    let old = read_all(keys.into_iter().map(|key| (opened.clone(), key)).collect()).await?;
    let mut deleted = 0;
    for key in expired_notes(old.into_iter().map(|(key, listed)| (key, listed.run)).collect()) {
        match retention::delete(opened, &key, deletion).await {
            Ok(()) => deleted += 1,
            // A later run takes it when its lock has ended.
            Err(store::Error::Locked { .. }) => {}
            Err(source) => {
                return Err(Failure::Store { attempt: format!("delete the run {key}"), source });
            }
        }
    }
    Ok(deleted)
}

/// `list --runs`: the newest, and of each source in each store the last one that failed.
pub(super) async fn list(
    arguments: &List,
    settings: &Settings,
    context: &Context,
) -> Result<Outcome, Failure> {
    let List { source, place, past, last, long: _, runs: _ } = arguments;
    let Holdings { sources, failure, unanswered: _ } =
        catalog::holdings(place, *past, source.as_ref(), settings, context).await?;
    let (mut keys, mut failed) = (Vec::new(), Vec::new());
    for Holding { opened, source, backups: _ } in sources {
        let found = keys_of(&opened, &source).await?;
        let is_failed = |key: &&Key| kind_of(key).is_some_and(|kind| kind.ends_with(FAILED));
        let last_failed = found.iter().rev().find(is_failed).cloned();
        failed.extend(last_failed.map(|key| (opened.clone(), key)));
        keys.extend(found.into_iter().map(|key| (opened.clone(), key)));
    }
    keys.sort_by(|(_, left), (_, right)| right.name().cmp(left.name()));
    keys.truncate(last.unwrap_or(SHOWN));
    let stores = settings.stores(place)?.into_iter().map(|store| store.name).collect();
    let report = RunsReport {
        kind: "runs",
        version: 1,
        runs: read_all(keys).await?.into_iter().map(|(_, run)| run).collect(),
        last_failed: read_all(failed).await?.into_iter().map(|(_, run)| run).collect(),
        stores,
    };
    let exit = if failure.is_some() { Exit::Partial } else { Exit::Done };
    Ok(Outcome { report: Box::new(report), exit })
}

/// Oldest first.
async fn keys_of(opened: &Opened, source: &SourceName) -> Result<Vec<Key>, Failure> {
    let listed = opened.store.list(&runs_prefix(source)).await.map_err(|error| Failure::Store {
        attempt: format!("list the runs of {source} in {}", opened.name),
        source: error,
    })?;
    Ok(listed.into_iter().map(|listed| listed.key).collect())
}

/// A run of a newer program is passed over.
async fn read_all(keys: Vec<(Opened, Key)>) -> Result<Vec<(Key, ListedRun)>, Failure> {
    let read: Vec<Option<(Key, ListedRun)>> = stream::iter(keys)
        .map(|(opened, key)| async move {
            let read = opened.store.read(&key, record::BYTES_MAX).await;
            let bytes = match read {
                // Another run has just deleted it.
                Err(store::Error::NotFound { .. }) => return Ok(None),
                read => read.map_err(|source| Failure::Store {
                    attempt: format!("read the run {key} in {}", opened.name),
                    source,
                })?,
            };
            let run = serde_json::from_slice::<Run>(&bytes).ok();
            Ok::<_, Failure>(run.map(|run| (key, ListedRun { store: opened.name, run })))
        })
        .buffered(READS_AT_ONCE)
        .try_collect()
        .await?;
    Ok(read.into_iter().flatten().collect())
}
