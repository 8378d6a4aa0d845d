//! `pin`, `unpin` and `accept`: a record beside a backup that retention heeds. Changes no backup.

use super::{
    Context,
    catalog::{self, Located, Newest},
    lock,
    standing::standing,
};
use crate::{
    cli::{Accept, Past, Pin, Place, Which},
    domain::record::{Event, Standing},
    edge::store,
    failure::{Failure, chain},
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
        let located =
            catalog::locate(which, Newest::Any, place, Past::default(), settings, context).await?;
        let standing = standing(&located).await?;
        Ok((located, standing))
    };
    let (located, standing) = context.unless_ended(look).await?;
    let holds = holds(&standing)?;
    let event_word = event.kind();
    let mut legal_holds = None;
    if !dry_run {
        let is_held = match &event {
            Event::Pinned => Some(true),
            Event::Unpinned => Some(false),
            Event::Accepted | Event::Suspect(_) | Event::Verified(_) => None,
        };
        let act = async {
            if !holds {
                catalog::note(&located, event, context).await?;
            }
            // Also where it was noted before: that run may have been killed in between.
            match is_held {
                Some(is_held) => hold(&located, is_held).await,
                None => Ok(None),
            }
        };
        legal_holds = context.unless_ended_long_ago(act).await?;
    }
    Ok(Outcome::done(MarkReport {
        kind: "mark",
        version: 1,
        event: event_word,
        store: located.opened.name,
        source: located.source,
        backup: located.backup,
        already: holds,
        legal_holds,
        dry_run,
    }))
}

/// Where there is Object Lock, a pin holds against everybody, not only against our own retention.
async fn hold(located: &Located, is_held: bool) -> Result<Option<usize>, Failure> {
    match lock::hold(located, is_held).await {
        Err(failure @ Failure::Store { source: store::Error::Denied { .. }, .. }) => {
            tracing::warn!("it is noted, but legal holds are as they were: {}", chain(&failure));
            Ok(None)
        }
        held => held,
    }
}
