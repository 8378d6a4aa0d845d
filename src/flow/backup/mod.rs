//! `backup`: observe, decide, capture, confirm, commit. A backup exists when its manifest does.

mod aftermath;
mod aof;
pub(super) mod commit;
mod exclusive;
pub(super) mod guard;
mod hosts;
mod lanes;
pub(super) mod prepare;
mod rdb;
mod shards;
mod shrink;
mod slot;
mod streams;
mod tasks;
pub(super) mod worker;
mod workers;

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt as _, future::join_all};
use jiff::Timestamp;
use tokio::{sync::watch, time::sleep};

use self::{
    aftermath::{apply_retention, note_run},
    exclusive::Exclusive,
    hosts::Hosts,
    lanes::{Lane, Lanes},
    prepare::Prepared,
    tasks::{Task, tasks},
    workers::Workers,
};
pub(super) use self::{prepare::is_of_any_method, tasks::named_sources, workers::own_pod};
use super::{Context, catalog, sweep};
use crate::{
    cli::Backup,
    domain::{
        identity::BackupId,
        manifest::{Manifest, Origin},
        record::Event,
        shrink_guard::{self, ShrinkGuard, Size},
    },
    failure::{Exit, Failure, chain},
    report::{AlreadyDone, BackedUp, BackupReport, FailedSource, FailedStore, Outcome},
    settings::Settings,
};

/// Between two looks whether the other run has ended.
const BETWEEN_TRIES: Duration = Duration::from_secs(1);

pub(super) async fn run(
    arguments: &Backup,
    settings: &Settings,
    context: &Context,
) -> Result<Outcome, Failure> {
    let mut tasks = tasks(arguments, settings, context)?;
    let alone = tasks.len() == 1;
    if arguments.dry_run {
        let (true, Some((_, task))) = (alone, tasks.pop()) else {
            return Err(Failure::Usage {
                finding: "a dry run shows one source".to_owned(),
                hint: "name the source".to_owned(),
            });
        };
        return Box::pin(context.unless_ended(prepare::plan(&task?, context))).await;
    }
    let mut report = BackupReport::default();
    let mut exit = Exit::Done;
    for (source, task) in tasks {
        let result = match task {
            Ok(task) => Box::pin(run_task(&task, context)).await,
            Err(failure) => Err(failure),
        };
        match result {
            Ok(Ran::BackedUp(backup)) => {
                exit = if exit == Exit::Done { exit_of(&backup) } else { exit };
                report.backups.push(*backup);
            }
            Ok(Ran::AlreadyDone(done)) => report.already_done.push(done),
            Err(failure) if alone || matches!(failure, Failure::Ended { .. }) => {
                return Err(failure);
            }
            Err(failure) => {
                // The other sources must not miss their backups because of this one.
                let (error, hint) = (chain(&failure), failure.hint());
                tracing::error!(%source, hint, "{error}");
                if exit == Exit::Done {
                    exit = failure.exit();
                }
                let failed = failure.exit() as u8;
                report.failures.push(FailedSource { source, exit: failed, error, hint });
            }
        }
    }
    Ok(Outcome { report: Box::new(report), exit })
}

/// What became of one source.
enum Ran {
    BackedUp(Box<BackedUp>),
    /// While it waited, another run did what it was for.
    AlreadyDone(AlreadyDone),
}

/// One backup of one source in all its stores, and a note in each that it was tried.
#[tracing::instrument(skip_all, fields(source = %task.source.name, backup))]
async fn run_task(task: &Task, context: &Context) -> Result<Ran, Failure> {
    slot::begin(task, context).await?;
    let mut has_waited = false;
    let (exclusive, backup, begun) = loop {
        let begun = context.now();
        let backup = BackupId::new(begun, task.schedule.as_ref(), context.chance());
        match context.unless_ended(Exclusive::take(task, &backup, context)).await {
            Ok(exclusive) => break (exclusive, backup, begun),
            Err(failure) => wait_for_another(task, failure, &mut has_waited, context).await?,
        }
    };
    if has_waited && let Some(backup) = slot::done(task, context).await {
        Box::pin(exclusive.release()).await;
        let (source, scheduled_for) = (task.source.name.clone(), task.scheduled_for);
        return Ok(Ran::AlreadyDone(AlreadyDone { source, scheduled_for, backup }));
    }
    tracing::Span::current().record("backup", tracing::field::display(&backup));
    let result = tokio::select! {
        biased;
        result = Box::pin(run_alone(task, &backup, begun, context)) => result,
        // As if it had been killed: what it stored is no backup, and a later run sweeps it.
        failure = exclusive.lost(task) => Err(failure),
    };
    if result.is_err() {
        // Whoever would have ended them may have been dropped.
        Box::pin(workers::forget(task, &backup, context)).await;
    }
    Box::pin(exclusive.release()).await;
    result.map(|backed_up| Ran::BackedUp(Box::new(backed_up)))
}

/// Returns when a scheduled run may try again; any other, and one whose time is over, fails.
async fn wait_for_another(
    task: &Task,
    failure: Failure,
    has_waited: &mut bool,
    context: &Context,
) -> Result<(), Failure> {
    let ends = task.window.map(|window| window.ends).filter(|ends| *ends > context.now());
    let (Exit::Locked, Some(ends)) = (failure.exit(), ends) else { return Err(failure) };
    if !*has_waited {
        tracing::info!("{}; waiting for its end until {ends}", chain(&failure));
    }
    *has_waited = true;
    context.unless_ended(sleep(BETWEEN_TRIES).map(Ok)).await
}

/// What nobody else does for this source at the same time.
async fn run_alone(
    task: &Task,
    backup: &BackupId,
    begun: Timestamp,
    context: &Context,
) -> Result<BackedUp, Failure> {
    let lanes = context.unless_ended(Lanes::open(task, backup, context)).await?;

    let result = Box::pin(take(task, &lanes, backup, begun, context)).await;
    let note = |lane| note_run(task, lane, &lanes, &result, begun, context);
    join_all(lanes.opened().map(note)).await;
    let backed_up = result?;
    let retained = lanes.live().map(|lane| apply_retention(task, lane, context));
    let retention = join_all(retained).await.into_iter().flatten().collect();
    Ok(BackedUp { retention, ..backed_up })
}

/// The table of contents of a backup.
async fn take(
    task: &Task,
    lanes: &Lanes,
    backup: &BackupId,
    begun: Timestamp,
    context: &Context,
) -> Result<BackedUp, Failure> {
    let store = Box::pin(store_archives(task, lanes, backup, begun, context));
    let store = context.unless_ended_long_ago(store);
    let stored = store.await.and_then(|stored| context.check_not_ended().map(|()| stored));
    let Stored { manifest, plain_bytes, warnings } = match stored {
        Ok(stored) => stored,
        Err(failure) => {
            lanes.discard().await;
            return Err(failure);
        }
    };
    if let Err(failure) = lanes.each(|lane| mark_suspect(lane, &manifest, context)).await {
        lanes.discard().await;
        return Err(failure);
    }
    lanes.discard_lost().await;
    commit::commit(lanes, &manifest, context).await?;
    tracing::info!(keys = manifest.keys(), stored_bytes = manifest.stored_bytes(), "committed");
    lanes.live().filter_map(Lane::suspicion).for_each(|suspicion| tracing::error!("{suspicion}"));

    let sweeps =
        lanes.live().map(|lane| sweep::sweep(&lane.located.opened, &task.source.name, context));
    tokio::select! {
        _ = join_all(sweeps) => {}
        // The backup is there; a later one sweeps.
        _ = context.ended() => {}
    }
    Ok(BackedUp {
        source: task.source.name.clone(),
        stores: lanes.live().map(|lane| lane.name().to_owned()).collect(),
        lost_stores: lanes.lost().into_iter().map(FailedStore::from).collect(),
        backup: backup.clone(),
        shards: manifest.shards.len(),
        keys: manifest.keys(),
        plain_bytes,
        stored_bytes: manifest.stored_bytes(),
        seconds: context.now().duration_since(begun).as_secs_f64(),
        skew_seconds: manifest.skew_seconds,
        warnings,
        suspect: lanes.live().find_map(|lane| lane.suspicion().map(str::to_owned)),
        retention: Vec::new(),
    })
}

/// Notes the shrink guard's doubt before the manifest can make it a backup: whoever lists names and
/// records alone must never take it for a good one. Without a manifest the record says nothing.
async fn mark_suspect(lane: &Lane, shared: &Manifest, context: &Context) -> Result<(), Failure> {
    let manifest = lane.manifest(shared);
    let comparison = match &manifest.shrink_guard {
        ShrinkGuard::NotChecked | ShrinkGuard::Passed(_) => return Ok(()),
        ShrinkGuard::Suspect(comparison) => comparison,
    };
    let note = catalog::note(&lane.located, Event::Suspect(comparison.clone()), context);
    context.unless_ended_long_ago(note).await?;
    let (backup, store) = (&manifest.backup, lane.name());
    let suspicion = format!(
        "{backup} is stored in {store} but suspect: {comparison}; look at the source, and if this is the new normal, run `redis-backup accept {backup}`"
    );
    lane.suspect(suspicion);
    Ok(())
}

/// Archives that the stores have confirmed, and the manifest that will make them a backup.
struct Stored {
    /// Without the ids of versions, which each store has of its own.
    manifest: Manifest,
    plain_bytes: u64,
    warnings: Vec<String>,
}

/// Everything before the commit.
async fn store_archives(
    task: &Task,
    lanes: &Lanes,
    backup: &BackupId,
    begun: Timestamp,
    context: &Context,
) -> Result<Stored, Failure> {
    let Prepared { found, topology, chosen, spool, mut warnings } =
        Box::pin(context.unless_ended(prepare::prepare(task, context))).await?;
    let origin = Origin {
        identities: topology.identities.clone(),
        addresses: task.source.location.identities(),
    };
    warnings.extend(admit(task, lanes, &origin, context).await?);

    let opened = Workers::open(task, &found, backup, context);
    let workers = Box::pin(context.unless_ended(opened)).await?;
    let halt = watch::Sender::new(false);
    let job = shards::Job {
        task,
        backup,
        lanes,
        found: &found,
        access: &found.access,
        spool: &spool,
        context,
        halt,
        hosts: &Hosts::new(found.forks_per_host()),
        workers: workers.as_ref(),
        overdue: None,
    };
    let (topology, shards) = shards::capture_all(&job, topology, chosen, &mut warnings).await?;

    let installation = commit::store_installation(&job, &topology, &shards).await?;
    let parts = commit::Parts { origin, topology: &topology, shards: &shards, installation, begun };
    let manifest = commit::confirmed(&job, parts).await?;
    let limit = task.source.shrink_guard;
    let judge = lanes.live().map(|lane| async {
        let baseline = shrink::baseline(&lane.located, context).await;
        lane.set_verdict(shrink_guard::judge(Size::of(&manifest), &baseline, limit));
    });
    join_all(judge).await;
    let plain_bytes = shards.iter().map(|shard| shard.plain_bytes).sum();
    Ok(Stored { manifest, plain_bytes, warnings })
}

/// Leaves the stores that may take this backup. Returns warnings about their clocks.
async fn admit(
    task: &Task,
    lanes: &Lanes,
    origin: &Origin,
    context: &Context,
) -> Result<Vec<String>, Failure> {
    let told = Mutex::new(Vec::new());
    let all_told = &told;
    let admitted = lanes
        .each(|lane| async move {
            let warning = guard::admit(task, lane, origin, context).await?;
            all_told.lock().unwrap_or_else(PoisonError::into_inner).extend(warning);
            Ok(())
        })
        .await;
    context.check_not_ended()?;
    admitted?;
    Ok(told.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// A backup that is there may still need somebody to look.
fn exit_of(backup: &BackedUp) -> Exit {
    let retention_failed = backup.retention.iter().any(|applied| applied.error.is_some());
    if backup.suspect.is_some() {
        Exit::Suspect
    } else if retention_failed || !backup.lost_stores.is_empty() {
        Exit::Partial
    } else {
        Exit::Done
    }
}
