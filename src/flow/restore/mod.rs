//! `restore --data-dir`: stage beside, check from disk, swap without a gap; undo or finish later.

mod checks;
mod convert;
mod fill;
mod target;

use std::{path::Path, sync::Arc};

use jiff::Timestamp;

use self::target::Wanted;
use super::{
    Context,
    catalog::{self, Newest},
    unlock::unlock,
};
use crate::{
    cli::{Restore, Which},
    domain::{dataset::Form, manifest::Manifest, rdb::Content},
    edge::data_directory::{
        self, Acts, Begun, DataDirectory, Finished, Phase, Undone, Unfinished, look,
    },
    failure::Failure,
    report::{Outcome, RestoreReport, RestoreState},
    settings::Settings,
};

pub(super) async fn run(
    arguments: &Restore,
    settings: &Settings,
    context: &Context,
) -> Result<Outcome, Failure> {
    let begun = context.now();
    let folder = &arguments.data_dir;
    if arguments.undo {
        return undo(folder, begun, context).await;
    }
    if arguments.finish {
        return finish(folder, begun, context).await;
    }
    let mut which = arguments.which.clone();
    if let Some(unfinished) = resumable(arguments)? {
        if matches!(unfinished.phase, Phase::Staged | Phase::Swapping) {
            return go_on(folder, unfinished, begun, context).await;
        }
        which = Which { backup: Some(unfinished.backup), latest: false, before: None };
    }
    let place_of = &arguments.place;
    let locate = catalog::locate(&which, Newest::Good, place_of, arguments.past, settings, context);
    let located = context.unless_ended(locate).await?;
    let manifest = context.unless_ended(catalog::read_manifest(&located)).await?;
    let identity = &arguments.identity;
    let unlock = unlock(&located, &manifest, identity, settings, context);
    let context = &context.unless_ended(unlock).await?;
    let wanted = context.unless_ended(target::want(arguments, &manifest, context)).await?;
    if arguments.dry_run {
        return plan(arguments, &manifest, &wanted);
    }
    let directory = Arc::new(open(folder)?);
    let mut report = report(RestoreState::Restored, folder);
    report.warnings.extend(wanted.warnings.clone());
    report.steps.push(wanted.choice());
    let placed = place(&directory, &located, &manifest, &wanted, context).await;
    let remarks = match placed {
        Ok(remarks) => remarks,
        Err(failure) => {
            leave(directory).await;
            return Err(failure);
        }
    };
    report.warnings.extend(remarks);
    report.backup = Some(manifest.backup.clone());
    report.shard = (manifest.shards.len() > 1).then_some(wanted.restore.shard);
    report.bytes = wanted.restore.bytes;
    report.keys = keys(&manifest, &wanted);
    report.seconds = context.now().duration_since(begun).as_secs_f64();
    Ok(Outcome::done(report))
}

/// An interrupted restore of the backup that is meant: the same command goes on with it, also where
/// `--latest` would mean a newer one by now.
fn resumable(arguments: &Restore) -> Result<Option<Unfinished>, Failure> {
    let folder = &arguments.data_dir;
    let found = data_directory::state(folder).map_err(failed(folder))?;
    Ok(found.filter(|unfinished| {
        let is_meant = match &arguments.which.backup {
            Some(named) => *named == unfinished.backup,
            None => arguments.which.latest,
        };
        let is_shard = arguments.shard.is_none_or(|shard| shard == unfinished.shard);
        let is_going = match unfinished.phase {
            Phase::Staging | Phase::Staged | Phase::Swapping => true,
            Phase::Swapped | Phase::Undoing | Phase::Finishing | Phase::Clearing => false,
        };
        is_meant && is_shard && is_going && !arguments.dry_run
    }))
}

/// Everything is on the volume already: the store is not needed any more.
async fn go_on(
    folder: &Path,
    unfinished: Unfinished,
    begun: Timestamp,
    context: &Context,
) -> Result<Outcome, Failure> {
    let directory = Arc::new(open(folder)?);
    let mut report = report(RestoreState::Restored, folder);
    let swapped = act(&directory, DataDirectory::swap).await?;
    report
        .steps
        .push("an interrupted restore was gone on with, from what it had staged".to_owned());
    report.warnings.extend(swapped.remarks);
    report.backup = Some(unfinished.backup);
    report.shard = Some(unfinished.shard);
    report.seconds = context.now().duration_since(begun).as_secs_f64();
    Ok(Outcome::done(report))
}

/// The sequence of a restore. What an earlier run did is not done again.
async fn place(
    directory: &Arc<DataDirectory>,
    located: &catalog::Located,
    manifest: &Manifest,
    wanted: &Wanted,
    context: &Context,
) -> Result<Vec<String>, Failure> {
    let mut remarks = look(directory.path()).map_err(failed(directory.path()))?.unseen;
    let restore = wanted.restore.clone();
    match act(directory, move |directory| directory.begin(&restore)).await? {
        Begun::Stage(stage) => {
            let fill = fill::fill(directory.path(), stage, located, manifest, wanted, context);
            let filled = context.unless_ended(fill).await;
            if let Err(failure) = filled {
                // What was staged is of no use: this run removes it, the old dataset was not touched.
                let _ = act(directory, DataDirectory::undo).await;
                return Err(failure);
            }
            act(directory, DataDirectory::confirm_staged).await?;
        }
        Begun::Swap => {}
        Begun::InPlace => remarks.push("it was in place already; nothing was changed".to_owned()),
    }
    // Not to be interrupted: it takes a moment, and a kill leaves the old or the new dataset.
    let swapped = act(directory, DataDirectory::swap).await?;
    remarks.extend(swapped.remarks);
    Ok(remarks)
}

async fn undo(folder: &Path, begun: Timestamp, context: &Context) -> Result<Outcome, Failure> {
    let directory = Arc::new(open(folder)?);
    let mut report = report(RestoreState::Undone, folder);
    match act(&directory, DataDirectory::undo).await? {
        Undone::Nothing => {
            report.state = RestoreState::Unchanged;
            report.steps.push("no restore is there to undo".to_owned());
        }
        Undone::Back { kept: Some(kept) } => report.steps.push(format!(
            "a server wrote to the restored dataset meanwhile: it is kept as {}",
            kept.display()
        )),
        Undone::Back { kept: None } => {}
    }
    report.seconds = context.now().duration_since(begun).as_secs_f64();
    Ok(Outcome::done(report))
}

async fn finish(folder: &Path, begun: Timestamp, context: &Context) -> Result<Outcome, Failure> {
    let directory = Arc::new(open(folder)?);
    let mut report = report(RestoreState::Finished, folder);
    match act(&directory, DataDirectory::finish).await? {
        Finished::Nothing => {
            report.state = RestoreState::Unchanged;
            report.steps.push("no restore is there to finish".to_owned());
        }
        Finished::Settled { removed, left } => {
            report.steps.extend(removed.map(|name| {
                format!("{name}, which the server does not read at its start, is deleted")
            }));
            report
                .steps
                .extend(left.map(|name| format!("{name} was written by a server since and stays")));
        }
    }
    report.seconds = context.now().duration_since(begun).as_secs_f64();
    Ok(Outcome::done(report))
}

/// What a tired person wants to know before anything is touched.
fn plan(arguments: &Restore, manifest: &Manifest, wanted: &Wanted) -> Result<Outcome, Failure> {
    let folder = &arguments.data_dir;
    data_directory::is_suitable(folder, &wanted.restore.dataset.names).map_err(failed(folder))?;
    let mut report = report(RestoreState::Planned, folder);
    let sight = look(folder).map_err(failed(folder))?;
    for process in &sight.servers {
        report.warnings.push(format!("{process} runs on it and must be stopped first"));
    }
    report.warnings.extend(sight.unseen);
    report.warnings.extend(wanted.warnings.clone());
    if let Some(unfinished) = data_directory::state(folder).map_err(failed(folder))? {
        report.warnings.push(format!("an earlier restore is there: {unfinished}"));
    }
    report.steps.extend(wanted.steps());
    report.backup = Some(manifest.backup.clone());
    report.shard = Some(wanted.restore.shard);
    report.bytes = wanted.restore.bytes;
    report.keys = keys(manifest, wanted);
    Ok(Outcome::done(report))
}

fn report(state: RestoreState, folder: &Path) -> RestoreReport {
    RestoreReport {
        kind: "restore",
        version: 1,
        state,
        data_dir: folder.to_owned(),
        backup: None,
        shard: None,
        keys: None,
        bytes: 0,
        seconds: 0.0,
        steps: Vec::new(),
        warnings: Vec::new(),
    }
}

/// None for append-only files: how many keys commands make is known to a server only.
fn keys(manifest: &Manifest, wanted: &Wanted) -> Option<u64> {
    let shard = wanted.restore.shard;
    if wanted.chosen.form == Form::Aof {
        return None;
    }
    match manifest.shards.iter().find(|it| it.shard == shard)?.rdb_content()? {
        Content::Read(facts) => Some(facts.keys()),
        Content::Unread(_) => None,
    }
}

fn open(folder: &Path) -> Result<DataDirectory, Failure> {
    DataDirectory::open(folder, Acts::default()).map_err(failed(folder))
}

/// Leaves no trace in the directory if nothing was begun there.
async fn leave(directory: Arc<DataDirectory>) {
    if let Some(directory) = Arc::into_inner(directory) {
        let _ = tokio::task::spawn_blocking(move || directory.close()).await;
    }
}

fn failed(folder: &Path) -> impl Fn(data_directory::Error) -> Failure + use<> {
    let folder = folder.to_owned();
    move |source| Failure::DataDirectory { folder: folder.clone(), source }
}

/// Runs a blocking act on the directory.
async fn act<T: Send + 'static>(
    directory: &Arc<DataDirectory>,
    run: impl FnOnce(&DataDirectory) -> Result<T, data_directory::Error> + Send + 'static,
) -> Result<T, Failure> {
    let worker = Arc::clone(directory);
    tokio::task::spawn_blocking(move || run(&worker))
        .await
        .map_err(|_| Failure::Worker { attempt: "change the data directory" })?
        .map_err(failed(directory.path()))
}
