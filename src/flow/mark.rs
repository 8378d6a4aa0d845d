//! `pin`, `unpin` and `accept`: a record beside a backup that retention heeds. Changes no backup.

use super::{
    Context,
    catalog::{self, Newest},
    standing::standing,
};
use crate::{
    cli::{Accept, Pin, Place, Which},
    domain::record::{Event, Standing},
    failure::Failure,
    report::{MarkReport, Outcome},
    settings::Settings,
};

pub(super) async fn pin(
    arguments: &Pin,
    settings: &Settings,
    context: &Context,
) -> Result<Outcome, Failure> {
    let Pin { which, dry_run, place } = arguments;
    let holds = |standing: &Standing| Ok(standing.pinned);
    mark(which, *dry_run, place, Event::Pinned, holds, settings, context).await
}

pub(super) async fn unpin(
    arguments: &Pin,
    settings: &Settings,
    context: &Context,
) -> Result<Outcome, Failure> {
    let Pin { which, dry_run, place } = arguments;
    let holds = |standing: &Standing| Ok(!standing.pinned);
    mark(which, *dry_run, place, Event::Unpinned, holds, settings, context).await
}

pub(super) async fn accept(
    arguments: &Accept,
    settings: &Settings,
    context: &Context,
) -> Result<Outcome, Failure> {
    let Accept { which, dry_run, place } = arguments;
    let holds = |standing: &Standing| {
        if standing.suspect || standing.accepted {
            return Ok(standing.accepted);
        }
        Err(Failure::Usage {
            finding: "the backup is not suspect: there is nothing to accept".to_owned(),
            hint: "`redis-backup list` marks the suspect ones".to_owned(),
        })
    };
    mark(which, *dry_run, place, Event::Accepted, holds, settings, context).await
}

/// Notes `event` beside the backup, unless it holds already.
async fn mark(
    which: &Which,
    dry_run: bool,
    place: &Place,
    event: Event,
    holds: impl FnOnce(&Standing) -> Result<bool, Failure>,
    settings: &Settings,
    context: &Context,
) -> Result<Outcome, Failure> {
    let look = async {
        let located = catalog::locate(which, Newest::Any, place, settings, context).await?;
        let standing = standing(&located).await?;
        Ok((located, standing))
    };
    let (located, standing) = context.unless_ended(look).await?;
    let holds = holds(&standing)?;
    let event_word = event.kind();
    if !holds && !dry_run {
        let note = catalog::note(&located, event, context);
        context.unless_ended_long_ago(note).await?;
    }
    Ok(Outcome::done(MarkReport {
        kind: "mark",
        version: 1,
        event: event_word,
        store: located.opened.name,
        source: located.source,
        backup: located.backup,
        already: holds,
        dry_run,
    }))
}
