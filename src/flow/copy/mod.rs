//! `copy`: backups into another store, every byte checked on its way, the manifest last. Never deletes a backup, and never changes one that is there.

mod choice;
mod one;
mod reseal;

use self::{choice::Chosen, reseal::Reseal};
use super::{
    Context,
    catalog::{self, Located},
    runs,
    stores::{self, Opened},
    sweep,
    transfer::Budget,
};
use crate::{
    cli::Copy,
    domain::{
        catalog as names,
        identity::SourceName,
        record::{self, Run, RunKind},
    },
    failure::{Exit, Failure, chain},
    report::{CopiedBackup, CopyReport, CopyState, FailedCopy, Outcome},
    settings::{self, Settings},
};

/// What every copy of one run shares.
struct Job<'a> {
    to: &'a Opened,
    adopt: bool,
    dry_run: bool,
    /// Where the copies are encrypted to others.
    reseal: Option<Reseal<'a>>,
    budget: Budget,
    context: &'a Context,
}

pub(super) async fn run(
    arguments: &Copy,
    settings: &Settings,
    context: &Context,
) -> Result<Outcome, Failure> {
    let recipients =
        settings.recipients(&arguments.recipient, arguments.recipients_file.as_deref())?;
    let identity = &arguments.identity;
    if recipients.is_empty() && !identity.identity_from.is_empty() {
        return Err(Failure::Usage {
            finding: "--identity-from is given, and a copy opens nothing".to_owned(),
            hint: "add --recipient to encrypt the copies anew, or leave it out".to_owned(),
        });
    }
    let reseal = Reseal { recipients: &recipients, identity, settings };
    let reseal = (!recipients.is_empty()).then_some(reseal);
    let to = context.unless_ended(target(arguments, settings, context)).await?;
    let choose = choice::choose(arguments, reseal.is_some(), &to, settings, context);
    let Chosen { backups, there, failure } = context.unless_ended(choose).await?;
    let budget = Budget::shared_by(1).remove(0);
    let Copy { all, missing, adopt, dry_run, .. } = arguments;
    let job = Job { to: &to, adopt: *adopt, dry_run: *dry_run, reseal, budget, context };
    let is_one = !all && !missing;

    let mut report = CopyReport::new(to.name.clone(), there);
    let mut exit = if failure.is_some() { Exit::Partial } else { Exit::Done };
    let mut swept: Option<SourceName> = None;
    for located in backups {
        if !dry_run && swept.as_ref() != Some(&located.source) {
            let sweep = async {
                sweep::sweep(&to, &located.source, context).await;
                Ok(())
            };
            context.unless_ended(sweep).await?;
            swept = Some(located.source.clone());
        }
        match copy_and_note(&located, &job).await {
            Ok(copied) => report.copies.push(copied),
            Err(failure) if is_one || matches!(failure, Failure::Ended { .. }) => {
                return Err(failure);
            }
            Err(failure) => {
                let (error, hint) = (chain(&failure), failure.hint());
                tracing::error!(backup = %located.backup, hint, "{error}");
                let failed = failure.exit();
                if exit == Exit::Done {
                    exit = failed;
                }
                let Located { opened, source, backup } = located;
                let (from, exit) = (opened.name, failed as u8);
                report.failures.push(FailedCopy { source, backup, from, exit, error, hint });
                // What does not answer now would be waited for once more by each of the others.
                if failed == Exit::StoreUnavailable {
                    break;
                }
            }
        }
    }
    Ok(Outcome { report: Box::new(report), exit })
}

/// The store to copy to, which must be another one than that to copy from.
async fn target(
    arguments: &Copy,
    settings: &Settings,
    context: &Context,
) -> Result<Opened, Failure> {
    let to: settings::Store = settings.store(&arguments.to)?;
    if let Some(from) = &arguments.from
        && settings.store(from)?.kind == to.kind
    {
        return Err(Failure::Usage {
            finding: format!("--from {from} and --to {to} are the same store"),
            hint: "name two stores; nothing was changed".to_owned(),
        });
    }
    stores::open(&to, context).await
}

/// One copy, and a note of it in the store that it goes to.
#[tracing::instrument(skip_all, fields(backup = %located.backup))]
async fn copy_and_note(located: &Located, job: &Job<'_>) -> Result<CopiedBackup, Failure> {
    let begun = job.context.now();
    let result = one::copy(located, begun, job).await;
    let is_nothing =
        job.dry_run || result.as_ref().is_ok_and(|copied| copied.state == CopyState::There);
    if !is_nothing {
        let run = Run {
            version: record::VERSION,
            source: located.source.clone(),
            kind: RunKind::Copy,
            begun,
            ended: job.context.now(),
            tool: super::TOOL.to_owned(),
            backup: result.is_ok().then(|| located.backup.clone()),
            schedule: None,
            scheduled_for: None,
            exit: result.as_ref().err().map_or(Exit::Done, Failure::exit) as u8,
            error: result.as_ref().err().map(|failure| chain(failure)),
        };
        runs::note(job.to, &run, job.context).await;
    }
    result
}
