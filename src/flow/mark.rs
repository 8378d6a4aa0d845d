//! `pin`, `unpin` and `accept`: a record beside a backup, in every store that holds it, that retention heeds. Changes no backup.

use super::{
    Context,
    catalog::{self, Located, Newest},
    lock,
    standing::standing,
};
use crate::{
    cli::{Accept, Past, Pin, Place, Which},
    domain::{
        identity::{BackupId, SourceName},
        record::{Event, Standing},
    },
    edge::store,
    failure::{Exit, Failure, LostStore, chain},
    report::{FailedStore, MarkReport, MarkedStore, Outcome},
    settings::Settings,
};

pub(super) async fn pin(
    arguments: &Pin,
    settings: &Settings,
    context: &Context,
) -> Result<Outcome, Failure> {
    let Pin { which, dry_run, place } = arguments;
    let found = find(which, place, settings, context).await?;
    mark(found, *dry_run, &Event::Pinned, context).await
}

pub(super) async fn unpin(
    arguments: &Pin,
    settings: &Settings,
    context: &Context,
) -> Result<Outcome, Failure> {
    let Pin { which, dry_run, place } = arguments;
    let found = find(which, place, settings, context).await?;
    mark(found, *dry_run, &Event::Unpinned, context).await
}

pub(super) async fn accept(
    arguments: &Accept,
    settings: &Settings,
    context: &Context,
) -> Result<Outcome, Failure> {
    let Accept { which, dry_run, place } = arguments;
    let mut found = find(which, place, settings, context).await?;
    // What is usual differs from store to store.
    found.standings.retain(|(_, standing)| standing.suspect || standing.accepted);
    if found.standings.is_empty() && found.unanswered.is_empty() {
        return Err(Failure::Usage {
            finding: "the backup is not suspect: there is nothing to accept".to_owned(),
            hint: "`redis-backup list` marks the suspect ones".to_owned(),
        });
    }
    mark(found, *dry_run, &Event::Accepted, context).await
}

/// One backup, and what was noted of it in each store that holds it.
struct Found {
    source: SourceName,
    backup: BackupId,
    standings: Vec<(Located, Standing)>,
    unanswered: Vec<LostStore>,
}

async fn find(
    which: &Which,
    place: &Place,
    settings: &Settings,
    context: &Context,
) -> Result<Found, Failure> {
    let find = async {
        let catalog::Found { located, others, failure: _, mut unanswered } =
            catalog::find(which, Newest::Any, place, Past::default(), settings, context).await?;
        let Located { opened: _, source, backup } = located.clone();
        let mut standings = Vec::new();
        for located in [located].into_iter().chain(others) {
            match standing(&located).await {
                Ok(standing) => standings.push((located, standing)),
                Err(failure) => unanswered.push(lost(&located, &failure)),
            }
        }
        Ok(Found { source, backup, standings, unanswered })
    };
    context.unless_ended(find).await
}

fn lost(located: &Located, failure: &Failure) -> LostStore {
    let lost = LostStore::new(&located.opened.name, failure);
    let LostStore { store, exit: _, error, hint } = &lost;
    tracing::error!(backup = %located.backup, store, hint, "{error}");
    lost
}

/// Notes `event` beside the backup in every store, unless it holds there already.
async fn mark(
    found: Found,
    dry_run: bool,
    event: &Event,
    context: &Context,
) -> Result<Outcome, Failure> {
    let Found { source, backup, standings, mut unanswered } = found;
    let mut stores = Vec::with_capacity(standings.len());
    for (located, standing) in standings {
        let act = mark_one(&located, &standing, dry_run, event, context);
        match context.unless_ended_long_ago(act).await {
            Ok(marked) => stores.push(marked),
            Err(failure @ Failure::Ended { .. }) => return Err(failure),
            Err(failure) => unanswered.push(lost(&located, &failure)),
        }
    }
    if stores.is_empty() {
        return Err(Failure::Stores(unanswered));
    }
    let exit = if unanswered.is_empty() { Exit::Done } else { Exit::Partial };
    let failures = unanswered.into_iter().map(FailedStore::from).collect();
    let (kind, version, event) = ("mark", 1, event.kind());
    let report = MarkReport { kind, version, event, source, backup, stores, failures, dry_run };
    Ok(Outcome { report: Box::new(report), exit })
}

async fn mark_one(
    located: &Located,
    standing: &Standing,
    dry_run: bool,
    event: &Event,
    context: &Context,
) -> Result<MarkedStore, Failure> {
    let (already, is_held) = match event {
        Event::Pinned => (standing.pinned, Some(true)),
        Event::Unpinned => (!standing.pinned, Some(false)),
        Event::Accepted => (standing.accepted, None),
        Event::Suspect(_) | Event::Verified(_) => (false, None),
    };
    let store = located.opened.name.clone();
    if dry_run {
        return Ok(MarkedStore { store, already, legal_holds: None });
    }
    context.check_not_ended()?;
    if !already {
        catalog::note(located, event.clone(), context).await?;
    }
    // Also where it was noted before: that run may have been killed in between.
    let legal_holds = match is_held {
        Some(is_held) => hold(located, is_held).await?,
        None => None,
    };
    Ok(MarkedStore { store, already, legal_holds })
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
