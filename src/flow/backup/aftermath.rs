//! What follows a run in each of its stores: the note of it, and retention. Changes nothing about the backup.

use jiff::Timestamp;

use super::{
    lanes::{Lane, Lanes},
    tasks::Task,
};
use crate::{
    domain::record::{self, Run, RunKind},
    failure::{Exit, Failure, chain},
    flow::{
        Context, TOOL,
        prune::first_failure,
        retention::{self, Act, Deletion},
        runs,
    },
    report::{AppliedRetention, BackedUp},
};

/// What the run was for one store, as its note tells it.
pub(super) async fn note_run(
    task: &Task,
    lane: &Lane,
    lanes: &Lanes,
    result: &Result<BackedUp, Failure>,
    begun: Timestamp,
    context: &Context,
) {
    let (exit, error) = match (lane.loss(), result) {
        (Some(lost), _) => (lost.exit, Some(lost.error.clone())),
        (None, Err(failure)) => {
            (failure.exit(), Some(error_text(failure, !task.source.recipients.is_empty())))
        }
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
        tool: TOOL.to_owned(),
        backup: lane.is_committed().then(|| lane.located.backup.clone()),
        schedule: task.schedule.clone(),
        scheduled_for: task.scheduled_for,
        exit: exit as u8,
        error,
    };
    runs::note(&lane.located.opened, &run, context).await;
}

/// Retention after a scheduled backup. The backup is one, whatever becomes of those before it.
pub(super) async fn apply_retention(
    task: &Task,
    lane: &Lane,
    context: &Context,
) -> Option<AppliedRetention> {
    let policy = task.policies.get(lane.name())?;
    let (source, opened) = (&task.source.name, &lane.located.opened);
    let verdicts = context.unless_ended(retention::judge(opened, source, policy, context)).await;
    let result = match verdicts {
        Ok(verdicts) => retention::apply(opened, source, verdicts, Deletion::Hide, context).await,
        Err(failure) => Err(failure),
    };
    if result.is_ok() {
        runs::expire(opened, source, Deletion::Hide, context).await;
    }
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

/// What a store may be told. Where a capture is broken is a matter of its content: a checksum, a byte.
fn error_text(failure: &Failure, is_encrypted: bool) -> String {
    let is_of_the_content =
        matches!(failure, Failure::CapturedRdb { .. } | Failure::CapturedAof { .. });
    if is_of_the_content && is_encrypted { failure.to_string() } else { chain(failure) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{aof, source::NodeAddress};

    #[test]
    fn of_an_encrypted_source_a_store_is_told_no_byte() {
        let source = aof::Error { offset: 7, fault: aof::Fault::NoCommand(0x4b) };
        let node = NodeAddress::new("10.0.0.5", 6379);
        let failure = Failure::CapturedAof { shard: 0, node, source };
        assert!(error_text(&failure, false).contains("0x4b"));
        let told = error_text(&failure, true);
        assert!(told.contains("shard 0") && !told.contains("0x4b"), "{told}");
    }
}
