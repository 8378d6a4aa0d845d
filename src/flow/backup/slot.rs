//! The moment of a schedule that a run is for: when it begins, and whether it has its backup already. Captures nothing.

use futures_util::FutureExt as _;
use tokio::time::sleep;

use super::Task;
use crate::{
    domain::identity::BackupId,
    failure::Failure,
    flow::{
        Context,
        catalog::{Located, backups, read_manifest},
        stores::{self, Opened},
    },
};

/// Manifests of a schedule that are read: what is looked for was stored a moment ago.
const NEWEST_READ: usize = 4;

/// Waits until the spread start of a scheduled run. Whoever starts it at the moment itself need not know of it.
pub(super) async fn begin(task: &Task, context: &Context) -> Result<(), Failure> {
    let (Some(moment), Some(window)) = (task.scheduled_for, task.window) else { return Ok(()) };
    let begins = window.begins;
    // No more than it is spread: the clock that named the moment may be ahead of ours.
    let wait = begins.duration_since(context.now()).min(begins.duration_since(moment));
    if wait.is_positive() {
        tracing::info!("waiting until {begins}: the starts of schedules are spread (`jitter`)");
        let wait = sleep(wait.unsigned_abs());
        context.unless_ended(wait.map(Ok)).await?;
    }
    Ok(())
}

/// The backup of the task's own moment, if each of its stores has one.
pub(super) async fn done(task: &Task, context: &Context) -> Option<BackupId> {
    let mut done = None;
    for store in &task.stores {
        let look = async {
            let opened = stores::open(store, context).await?;
            in_store(task, &opened).await
        };
        match context.unless_ended(look).await {
            Ok(Some(backup)) => done = Some(backup),
            // What a store hides, a backup brings to light.
            Ok(None) | Err(_) => return None,
        }
    }
    done
}

async fn in_store(task: &Task, opened: &Opened) -> Result<Option<BackupId>, Failure> {
    let (Some(schedule), Some(_)) = (&task.schedule, task.scheduled_for) else { return Ok(None) };
    let source = &task.source.name;
    let all = backups(opened, source).await?.into_iter();
    let of_schedule = all.filter(|backup| backup.schedule() == schedule.as_str());
    for backup in of_schedule.take(NEWEST_READ) {
        let located = Located { opened: opened.clone(), source: source.clone(), backup };
        let Ok(manifest) = read_manifest(&located).await else { continue };
        if manifest.scheduled_for == task.scheduled_for {
            return Ok(Some(located.backup));
        }
    }
    Ok(None)
}
