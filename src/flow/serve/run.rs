//! One run of a schedule: looks whether it is still to be done, does it, proves it, looks again. Decides no start.

use std::rc::Rc;

use jiff::Timestamp;

use super::{look::Seen, scheduler::Work};
use crate::{
    domain::agenda::{Attempt, Due, Entry, Past},
    failure::{Exit, Failure, chain},
};

/// What a run came to.
pub(super) struct Ran {
    pub(super) scheduled_for: Timestamp,
    pub(super) begun: Timestamp,
    /// Whether a store answered before it began.
    pub(super) has_looked: bool,
    /// None when somebody else had done it.
    pub(super) backed_up: Option<Result<Exit, Failure>>,
    pub(super) proven: Option<Result<Exit, Failure>>,
    pub(super) seen: Option<Seen>,
}

/// Looks whether it is still to be done, does it, proves it, and looks again.
pub(super) async fn run(
    work: Rc<dyn Work>,
    entry: Entry,
    own: Vec<Attempt>,
    scheduled_for: Timestamp,
) -> Ran {
    let begun = work.now();
    let (has_looked, backed_up, proven, seen) = (true, None, None, None);
    let mut ran = Ran { scheduled_for, begun, has_looked, backed_up, proven, seen };
    let seen = match work.look(&entry.name).await.and_then(Seen::or_failure) {
        Ok(seen) => seen,
        Err(failure) => {
            tell(&failure);
            return Ran { has_looked: false, backed_up: Some(Err(failure)), ..ran };
        }
    };
    let due = entry.due(&with_own(&seen.past(), &own), work.now());
    if due != (Due::Now { scheduled_for }) {
        tracing::debug!("no longer to be done");
        return Ran { seen: Some(seen), ..ran };
    }
    let result = work.back_up(&entry.name, scheduled_for).await;
    match &result {
        Ok(Exit::Done) => {}
        Ok(exit) => tracing::warn!(exit = *exit as u8, "backed up, but not as it should be"),
        Err(failure) => tell(failure),
    }
    let (is_done, is_ended) = (result.is_ok(), matches!(result, Err(Failure::Ended { .. })));
    ran.backed_up = Some(result);
    if is_ended {
        return ran;
    }
    ran.seen = work.look(&entry.name).await.ok();
    if let (true, Some(seen)) = (is_done, &ran.seen) {
        let proven = work.prove(&entry.name, scheduled_for, seen).await;
        match &proven {
            Ok(Exit::Done) => {}
            Ok(exit) => tracing::error!(exit = *exit as u8, "the backup was not proven"),
            Err(failure) => tell(failure),
        }
        let is_ended = matches!(proven, Err(Failure::Ended { .. }));
        ran.proven = Some(proven);
        if !is_ended {
            ran.seen = work.look(&entry.name).await.ok();
        }
    }
    ran
}

fn tell(failure: &Failure) {
    if matches!(failure, Failure::Ended { .. }) {
        tracing::info!("{}", chain(failure));
    } else {
        tracing::error!(hint = failure.hint(), exit = failure.exit() as u8, "{}", chain(failure));
    }
}

pub(super) fn with_own(past: &Past, own: &[Attempt]) -> Past {
    let failed = past.failed.iter().chain(own).copied().collect();
    Past { done: past.done, failed }
}
