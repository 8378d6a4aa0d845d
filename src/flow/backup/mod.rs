//! `backup`: observe, decide, capture, confirm, commit. A backup exists when its manifest does.

mod aof;
pub(super) mod commit;
pub(super) mod guard;
mod lanes;
pub(super) mod prepare;
mod rdb;
mod shards;
mod shrink;

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::sync::watch;

pub(super) use self::prepare::is_of_any_method;
use self::{
    lanes::{Lane, Lanes},
    prepare::Prepared,
};
use super::{
    Context, catalog,
    prune::first_failure,
    retention::{self, Act, Deletion},
    runs, sweep,
};
use crate::{
    cli::{Backup, CaptureForm, CaptureMethod},
    domain::{
        capture::{Forms, MethodChoice},
        identity::{BackupId, ScheduleName, SourceName},
        manifest::{Manifest, Origin},
        record::{self, Event, Run, RunKind},
        retention::Policy,
        shrink_guard::{self, ShrinkGuard, Size},
    },
    failure::{Exit, Failure, chain},
    report::{AppliedRetention, BackedUp, BackupReport, FailedSource, FailedStore, Outcome},
    settings::{self, Error, Retention, Settings},
};

/// What one run shall back up, and where to.
struct Task {
    source: settings::Source,
    stores: Vec<settings::Store>,
    forms: Forms,
    method: MethodChoice,
    schedule: Option<ScheduleName>,
    scheduled_for: Option<Timestamp>,
    adopt: bool,
    /// By the names of stores: what stays there, applied after the backup.
    policies: BTreeMap<String, Policy>,
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
    let Backup {
        sources,
        schedule,
        scheduled_for,
        method,
        capture,
        source,
        stores,
        source_name,
        adopt,
        dry_run: _,
    } = arguments;
    let environment = context.environment();
    let forms = forms(capture);
    let task = |source: settings::Source, stores| Task {
        method: method.map_or(source.method, method_choice),
        source,
        stores,
        forms: forms.unwrap_or(Forms::RDB),
        schedule: None,
        scheduled_for: None,
        adopt: *adopt,
        policies: BTreeMap::new(),
    };
    if let Some(name) = schedule {
        let schedule = settings.schedule(name)?;
        let named = if stores.is_empty() { schedule.store_names() } else { stores.clone() };
        let stores = settings.stores_to_write(&named)?;
        let task = Task {
            policies: policies(name, &schedule.source, &stores, settings),
            schedule: Some(name.clone()),
            forms: forms.unwrap_or(schedule.forms),
            scheduled_for: scheduled_for.or_else(|| schedule.timetable.last_due(context.now())),
            ..task(settings.source(&schedule.source, environment)?, stores)
        };
        return Ok(vec![(schedule.source.clone(), Ok(task))]);
    }
    let stores = settings.stores_to_write(stores)?;
    if let (false, Some(name)) = (source.source_url.is_empty(), source_name) {
        let source = settings.ad_hoc_source(source, name, environment)?;
        return Ok(vec![(name.clone(), Ok(task(source, stores)))]);
    }
    let names = named_sources(sources, source_name.as_ref(), settings);
    if names.is_empty() {
        return Err(Error::NoSource.into());
    }
    let tasks = names.into_iter().map(|name| {
        let source = settings.source(&name, environment).map_err(Failure::from);
        (name, source.map(|source| task(source, stores.clone())))
    });
    Ok(tasks.collect())
}

/// What is applied in each store after the backup.
fn policies(
    schedule: &ScheduleName,
    source: &SourceName,
    stores: &[settings::Store],
    settings: &Settings,
) -> BTreeMap<String, Policy> {
    if settings.retention() == Retention::Separate {
        return BTreeMap::new();
    }
    let policies = stores.iter().map(|store| (&store.name, settings.policy(source, &store.name)));
    let has_rule =
        |policy: &Policy| policy.schedules.get(schedule).is_some_and(|rule| rule.keep.is_some());
    let ruled = policies.filter(|(_, policy)| has_rule(policy));
    ruled.map(|(name, policy)| (name.clone(), policy)).collect()
}

/// None when no form is named.
fn forms(capture: &[CaptureForm]) -> Option<Forms> {
    let forms = Forms {
        rdb: capture.contains(&CaptureForm::Rdb),
        aof: capture.contains(&CaptureForm::Aof),
    };
    (!capture.is_empty()).then_some(forms)
}

const fn method_choice(method: CaptureMethod) -> MethodChoice {
    match method {
        CaptureMethod::Auto => MethodChoice::Auto,
        CaptureMethod::Bgsave => MethodChoice::Bgsave,
        CaptureMethod::Replication => MethodChoice::Replication,
    }
}

/// The sources of the config that are meant: those that are named, or else all.
pub(super) fn named_sources(
    sources: &[SourceName],
    source_name: Option<&SourceName>,
    settings: &Settings,
) -> Vec<SourceName> {
    match (sources, source_name) {
        ([], Some(name)) => vec![name.clone()],
        ([], None) => settings.source_names(),
        (named, _) => named.to_vec(),
    }
}

/// One backup of one source in all its stores, and a note in each that it was tried.
#[tracing::instrument(skip_all, fields(source = %task.source.name, backup))]
async fn run_task(task: &Task, context: &Context) -> Result<BackedUp, Failure> {
    let begun = context.now();
    let backup = BackupId::new(begun, task.schedule.as_ref(), context.chance());
    tracing::Span::current().record("backup", tracing::field::display(&backup));
    let _lock = guard::lock(&task.source.name, &task.source.url, context)?;
    let lanes = context.unless_ended(Lanes::open(task, &backup, context)).await?;

    let result = take(task, &lanes, &backup, begun, context).await;
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
    let store = context.unless_ended_long_ago(store_archives(task, lanes, backup, begun, context));
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
    tracing::error!("{suspicion}");
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
    let Prepared { access, topology, plan, spool, mut warnings } =
        context.unless_ended(prepare::prepare(task, context)).await?;
    let origin = Origin {
        identities: topology.identities.clone(),
        addresses: task.source.url.address.identities(),
    };
    warnings.extend(admit(task, lanes, &origin, context).await?);

    let halt = watch::Sender::new(false);
    let job = shards::Job { task, backup, lanes, access: &access, spool: &spool, context, halt };
    let (topology, shards) = shards::capture_all(&job, topology, plan, &mut warnings).await?;

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

/// What the run was for one store, as its note tells it.
async fn note_run(
    task: &Task,
    lane: &Lane,
    lanes: &Lanes,
    result: &Result<BackedUp, Failure>,
    begun: Timestamp,
    context: &Context,
) {
    let (exit, error) = match (lane.loss(), result) {
        (Some(lost), _) => (lost.exit, Some(lost.error.clone())),
        (None, Err(failure)) => (failure.exit(), Some(error_text(failure, &task.source))),
        (None, Ok(_)) => match (lane.suspicion(), lanes.lost()) {
            (Some(suspicion), _) => (Exit::Suspect, Some(suspicion.to_owned())),
            (None, lost) if lost.is_empty() => (Exit::Done, None),
            (None, lost) => {
                let told = lost.iter().map(|lost| format!("{}: {}", lost.store, lost.error));
                (Exit::Partial, Some(told.collect::<Vec<_>>().join("; ")))
            }
        },
    };
    let run = Run {
        version: record::VERSION,
        source: task.source.name.clone(),
        kind: RunKind::Backup,
        begun,
        ended: context.now(),
        tool: super::TOOL.to_owned(),
        backup: lane.is_committed().then(|| lane.located.backup.clone()),
        schedule: task.schedule.clone(),
        scheduled_for: task.scheduled_for,
        exit: exit as u8,
        error,
    };
    runs::note(&lane.located.opened, &run, context).await;
}

/// What a store may be told. Where an RDB is broken is a matter of its content, its checksum above all.
fn error_text(failure: &Failure, source: &settings::Source) -> String {
    let is_of_the_content = matches!(failure, Failure::CapturedRdb { .. });
    if is_of_the_content && !source.recipients.is_empty() {
        failure.to_string()
    } else {
        chain(failure)
    }
}

/// Retention after a scheduled backup. The backup is one, whatever becomes of those before it.
async fn apply_retention(task: &Task, lane: &Lane, context: &Context) -> Option<AppliedRetention> {
    let policy = task.policies.get(lane.name())?;
    let (source, opened) = (&task.source.name, &lane.located.opened);
    let verdicts = context.unless_ended(retention::judge(opened, source, policy, context)).await;
    let result = match verdicts {
        Ok(verdicts) => retention::apply(opened, source, verdicts, Deletion::Hide, context).await,
        Err(failure) => Err(failure),
    };
    let (judged, failure) = match result {
        Ok(judged) => (judged, None),
        Err(failure) => (Vec::new(), Some(failure)),
    };
    let failure = failure.as_ref().or_else(|| first_failure(&judged));
    let error = failure.map(|failure| {
        let (error, hint) = (chain(failure), failure.hint());
        tracing::error!(hint, "retention in {}: {error}", lane.name());
        error
    });
    let deleted = judged.iter().filter(|judged| matches!(judged.outcome, Act::Deleted));
    let expired = deleted.map(|judged| judged.verdict.backup.clone()).collect();
    Some(AppliedRetention { store: lane.name().to_owned(), expired, error })
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
