//! `backup`: observe, decide, capture, confirm, commit. A backup exists when its manifest does.

mod commit;
pub(super) mod guard;
pub(super) mod prepare;
mod shards;
mod shrink;

use jiff::Timestamp;
use tokio::sync::watch;

use self::{commit::Written, prepare::Prepared};
use super::{
    Context,
    catalog::{Located, newest_manifest, note},
    prune::first_failure,
    retention::{self, Act},
    runs,
    stores::{self, Opened},
    sweep,
};
use crate::{
    cli::{Backup, Place},
    domain::{
        identity::{BackupId, ScheduleName, SourceName},
        manifest::Manifest,
        record::{self, Event, Run, RunKind},
        retention::Policy,
        shrink_guard::{self, ShrinkGuard, Size},
    },
    failure::{Exit, Failure, chain},
    report::{AppliedRetention, BackedUp, BackupReport, FailedSource, Outcome},
    settings::{self, Error, Retention, Settings},
};

/// What one run shall back up, and where to.
struct Task {
    source: settings::Source,
    store: settings::Store,
    schedule: Option<ScheduleName>,
    scheduled_for: Option<Timestamp>,
    adopt: bool,
    /// What to keep here, applied after the backup; none where that is left to `prune`.
    policy: Option<Policy>,
}

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
        return context.unless_ended(prepare::plan(&task?, context)).await;
    }
    let (backups, failures) = (Vec::new(), Vec::new());
    let mut report = BackupReport { kind: "backup", version: 1, backups, failures };
    let mut exit = Exit::Done;
    for (source, task) in tasks {
        let result = match task {
            Ok(task) => run_task(&task, context).await,
            Err(failure) => Err(failure),
        };
        match result {
            Ok(backup) => {
                exit = if exit == Exit::Done { exit_of(&backup) } else { exit };
                report.backups.push(backup);
            }
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

/// A source that cannot be read, for want of its password say, has a failure in the place of its task.
type Tasks = Vec<(SourceName, Result<Task, Failure>)>;

fn tasks(arguments: &Backup, settings: &Settings, context: &Context) -> Result<Tasks, Failure> {
    let Backup { sources, schedule, scheduled_for, source, place, adopt, dry_run: _ } = arguments;
    let environment = context.environment();
    let task = |source, store| Task {
        source,
        store,
        schedule: None,
        scheduled_for: None,
        adopt: *adopt,
        policy: None,
    };
    if let Some(name) = schedule {
        let schedule = settings.schedule(name)?;
        let first = schedule.stores.first().map(|entry| entry.store.as_str());
        let store = settings.store(place.store.as_deref().or(first).unwrap_or_default())?;
        let policy = settings.policy(&schedule.source, &store.name);
        let has_rule = policy.schedules.get(name).is_some_and(|rule| rule.keep.is_some());
        let inline = settings.retention() == Retention::Inline && has_rule;
        let task = Task {
            schedule: Some(name.clone()),
            scheduled_for: scheduled_for.or_else(|| schedule.timetable.last_due(context.now())),
            policy: inline.then_some(policy),
            ..task(settings.source(&schedule.source, environment)?, store)
        };
        return Ok(vec![(schedule.source.clone(), Ok(task))]);
    }
    let store = settings.only_store(place)?;
    if let (false, Some(name)) = (source.source_url.is_empty(), &place.source_name) {
        let source = settings.ad_hoc_source(source, name, environment)?;
        return Ok(vec![(name.clone(), Ok(task(source, store)))]);
    }
    let names = named_sources(sources, place, settings);
    if names.is_empty() {
        return Err(Error::NoSource.into());
    }
    let tasks = names.into_iter().map(|name| {
        let source = settings.source(&name, environment).map_err(Failure::from);
        (name, source.map(|source| task(source, store.clone())))
    });
    Ok(tasks.collect())
}

/// The sources of the config that are meant: those that are named, or else all.
pub(super) fn named_sources(
    sources: &[SourceName],
    place: &Place,
    settings: &Settings,
) -> Vec<SourceName> {
    match (sources, &place.source_name) {
        ([], Some(name)) => vec![name.clone()],
        ([], None) => settings.source_names(),
        (named, _) => named.to_vec(),
    }
}

/// One backup of one source, and the note that it was tried.
#[tracing::instrument(skip_all, fields(source = %task.source.name, backup))]
async fn run_task(task: &Task, context: &Context) -> Result<BackedUp, Failure> {
    let begun = context.now();
    let backup = BackupId::new(begun, task.schedule.as_ref(), context.chance());
    tracing::Span::current().record("backup", tracing::field::display(&backup));
    let _lock = guard::lock(&task.source.name, &task.source.url, context)?;
    let opened = context.unless_ended(stores::open(&task.store, context)).await?;

    let result = take(task, &opened, &backup, begun, context).await;
    record_run(task, &opened, &backup, begun, &result, context).await;
    let backed_up = result?;
    let retention = apply_retention(task, &opened, context).await;
    Ok(BackedUp { retention, ..backed_up })
}

/// The table of contents of a backup.
async fn take(
    task: &Task,
    opened: &Opened,
    backup: &BackupId,
    begun: Timestamp,
    context: &Context,
) -> Result<BackedUp, Failure> {
    let located = Located {
        opened: opened.clone(),
        source: task.source.name.clone(),
        backup: backup.clone(),
    };
    let store = context.unless_ended_long_ago(store_archives(task, &located, begun, context));
    let stored = store.await.and_then(|stored| context.check_not_ended().map(|()| stored));
    let Stored { manifest, plain_bytes, warnings } = match stored {
        Ok(stored) => stored,
        Err(failure) => {
            sweep::discard(opened, &task.source.name, backup).await;
            return Err(failure);
        }
    };
    let suspect = match mark_suspect(&located, &manifest, context).await {
        Ok(suspect) => suspect,
        Err(failure) => {
            sweep::discard(opened, &task.source.name, backup).await;
            return Err(failure);
        }
    };
    let write = async { Ok(commit::write(&located, &manifest).await) };
    match context.unless_ended_long_ago(write).await.unwrap_or_else(Written::Unknown) {
        Written::Committed => {}
        Written::Refused(failure) => {
            sweep::discard(opened, &task.source.name, backup).await;
            return Err(failure);
        }
        Written::Unknown(failure) => {
            // With a manifest that arrived all the same, this is a backup.
            tracing::warn!("whether {backup} was committed is not known; its archives stay");
            return Err(failure);
        }
    }
    tracing::info!(keys = manifest.keys(), stored_bytes = manifest.stored_bytes(), "committed");

    tokio::select! {
        () = sweep::sweep(opened, &task.source.name, context) => {}
        // The backup is there; a later one sweeps.
        _ = context.ended() => {}
    }
    Ok(BackedUp {
        source: task.source.name.clone(),
        store: opened.name.clone(),
        backup: backup.clone(),
        shards: manifest.shards.len(),
        keys: manifest.keys(),
        plain_bytes,
        stored_bytes: manifest.stored_bytes(),
        seconds: context.now().duration_since(begun).as_secs_f64(),
        skew_seconds: manifest.skew_seconds,
        warnings,
        suspect,
        retention: None,
    })
}

/// Notes the shrink guard's doubt before the manifest can make it a backup: whoever lists names and
/// records alone must never take it for a good one. Without a manifest the record says nothing.
async fn mark_suspect(
    located: &Located,
    manifest: &Manifest,
    context: &Context,
) -> Result<Option<String>, Failure> {
    let comparison = match &manifest.shrink_guard {
        ShrinkGuard::NotChecked | ShrinkGuard::Passed(_) => return Ok(None),
        ShrinkGuard::Suspect(comparison) => comparison,
    };
    let note = note(located, Event::Suspect(comparison.clone()), context);
    context.unless_ended_long_ago(note).await?;
    let backup = &located.backup;
    let suspicion = format!(
        "{backup} is stored but suspect: {comparison}; look at the source, and if this is the new normal, run `redis-backup accept {backup}`"
    );
    tracing::error!("{suspicion}");
    Ok(Some(suspicion))
}

/// Archives that the store has confirmed, and the manifest that will make them a backup.
struct Stored {
    manifest: Manifest,
    plain_bytes: u64,
    warnings: Vec<String>,
}

/// Everything before the commit.
async fn store_archives(
    task: &Task,
    located: &Located,
    begun: Timestamp,
    context: &Context,
) -> Result<Stored, Failure> {
    let opened = &located.opened;
    let Prepared { access, topology, plan, spool, mut warnings } =
        context.unless_ended(prepare::prepare(task, opened, context)).await?;
    let previous = newest_manifest(opened, &located.source).await;
    let origin = guard::claim_origin(task, opened, &topology, previous.as_ref(), context).await?;

    let halt = watch::Sender::new(false);
    let job = shards::Job {
        task,
        located,
        access: &access,
        spool: &spool,
        previous: previous.as_ref(),
        context,
        halt,
    };
    let (topology, shards) = shards::capture_all(&job, topology, plan, &mut warnings).await?;

    let installation = commit::store_installation(&job, &topology, &shards).await?;
    let parts = commit::Parts { origin, topology: &topology, shards: &shards, installation, begun };
    let mut manifest = commit::confirmed(&job, parts).await?;
    let baseline = shrink::baseline(located, context).await;
    let limit = task.source.shrink_guard;
    manifest.shrink_guard = shrink_guard::judge(Size::of(&manifest), &baseline, limit);
    let plain_bytes = shards.iter().map(|shard| shard.plain.bytes).sum();
    Ok(Stored { manifest, plain_bytes, warnings })
}

/// What the store may be told. Where an RDB is broken is a matter of its content, its checksum above all.
fn error_text(failure: &Failure, source: &settings::Source) -> String {
    let is_of_the_content = matches!(failure, Failure::CapturedRdb { .. });
    if is_of_the_content && !source.recipients.is_empty() {
        failure.to_string()
    } else {
        chain(failure)
    }
}

async fn record_run(
    task: &Task,
    opened: &Opened,
    backup: &BackupId,
    begun: Timestamp,
    result: &Result<BackedUp, Failure>,
    context: &Context,
) {
    let (exit, error) = match result {
        Ok(BackedUp { suspect: Some(suspicion), .. }) => (Exit::Suspect, Some(suspicion.clone())),
        Ok(_) => (Exit::Done, None),
        Err(failure) => (failure.exit(), Some(error_text(failure, &task.source))),
    };
    let run = Run {
        version: record::VERSION,
        source: task.source.name.clone(),
        kind: RunKind::Backup,
        begun,
        ended: context.now(),
        tool: super::TOOL.to_owned(),
        backup: result.is_ok().then(|| backup.clone()),
        schedule: task.schedule.clone(),
        scheduled_for: task.scheduled_for,
        exit: exit as u8,
        error,
    };
    runs::note(opened, &run, context).await;
}

/// Retention after a scheduled backup. The backup is one, whatever becomes of those before it.
async fn apply_retention(
    task: &Task,
    opened: &Opened,
    context: &Context,
) -> Option<AppliedRetention> {
    let policy = task.policy.as_ref()?;
    let source = &task.source.name;
    let verdicts = context.unless_ended(retention::judge(opened, source, policy, context)).await;
    let result = match verdicts {
        Ok(verdicts) => retention::apply(opened, source, verdicts, context).await,
        Err(failure) => Err(failure),
    };
    let (judged, failure) = match result {
        Ok(judged) => (judged, None),
        Err(failure) => (Vec::new(), Some(failure)),
    };
    let failure = failure.as_ref().or_else(|| first_failure(&judged));
    let error = failure.map(|failure| {
        let (error, hint) = (chain(failure), failure.hint());
        tracing::error!(hint, "retention after the backup: {error}");
        error
    });
    let deleted = judged.iter().filter(|judged| matches!(judged.outcome, Act::Deleted));
    let expired = deleted.map(|judged| judged.verdict.backup.clone()).collect();
    Some(AppliedRetention { expired, error })
}

/// A backup that is there may still need somebody to look.
fn exit_of(backup: &BackedUp) -> Exit {
    let retention_failed = backup.retention.as_ref().is_some_and(|applied| applied.error.is_some());
    if backup.suspect.is_some() {
        Exit::Suspect
    } else if retention_failed {
        Exit::Partial
    } else {
        Exit::Done
    }
}
