//! `prune`: apply the config's rules to every source in every store. Asks no Redis.

use super::{
    Context,
    backup::guard,
    origin,
    retention::{self, Act, Deletion, Judged},
    runs,
    stores::{self, Opened},
    sweep,
};
use crate::{
    cli::Prune,
    domain::{
        identity::SourceName,
        record::{self, Run, RunKind},
    },
    failure::{Exit, Failure, chain},
    report::{
        FailedPrune, Outcome, PruneReport, PrunedBackup, PrunedPlace, PrunedState, StatedReason,
    },
    settings::{self, Error, Settings},
};

pub(super) async fn run(
    arguments: &Prune,
    settings: &Settings,
    context: &Context,
) -> Result<Outcome, Failure> {
    let Prune { sources, dry_run, purge_versions, place } = arguments;
    let deletion = if *purge_versions { Deletion::Purge } else { Deletion::Hide };
    let names = super::backup::named_sources(sources, place.source_name.as_ref(), settings);
    if names.is_empty() {
        return Err(Error::NoRules.into());
    }
    let mut report = PruneReport {
        kind: "prune",
        version: 1,
        dry_run: *dry_run,
        places: Vec::new(),
        failures: Vec::new(),
    };
    let mut exit = Exit::Done;
    let stores = settings.stores(place)?;
    let alone = names.len() == 1 && stores.len() == 1;
    for source in &names {
        for store in &stores {
            match prune_place(source, store, *dry_run, deletion, settings, context).await {
                Ok((place, failed)) => {
                    report.places.push(place);
                    exit = if exit == Exit::Done { failed } else { exit };
                }
                Err(failure) if alone || matches!(failure, Failure::Ended { .. }) => {
                    return Err(failure);
                }
                // One store that is down must not keep the others full.
                Err(failure) => {
                    let (error, hint) = (chain(&failure), failure.hint());
                    tracing::error!(%source, store = store.name, hint, "{error}");
                    exit = if exit == Exit::Done { failure.exit() } else { exit };
                    let (source, store) = (source.clone(), store.name.clone());
                    let failed = failure.exit() as u8;
                    report.failures.push(FailedPrune { source, store, exit: failed, error, hint });
                }
            }
        }
    }
    Ok(Outcome { report: Box::new(report), exit })
}

/// One source in one store, and the exit code of what failed there.
#[tracing::instrument(skip_all, fields(%source, store = store.name))]
async fn prune_place(
    source: &SourceName,
    store: &settings::Store,
    dry_run: bool,
    deletion: Deletion,
    settings: &Settings,
    context: &Context,
) -> Result<(PrunedPlace, Exit), Failure> {
    let begun = context.now();
    let location = settings.location(source)?;
    // No Lease of a workload in Kubernetes: what a backup stores is swept after days only, the newest good one never expires,
    // and who applies retention need know no cluster.
    let _lock = if dry_run { None } else { Some(guard::lock(source, &location, context)?) };
    let opened = context.unless_ended(stores::open(store, context)).await?;
    let policy = settings.policy(source, &store.name);
    let judge = async {
        origin::check_unasked(&opened, source, &location.identities()).await?;
        retention::judge(&opened, source, &policy, context).await
    };
    let verdicts = context.unless_ended(judge).await;
    if dry_run {
        let preview = retention::preview(&opened, source, verdicts?);
        let judged = context.unless_ended(preview).await?;
        return Ok((place(source, &opened, &judged), Exit::Done));
    }
    let result = match verdicts {
        Ok(verdicts) => retention::apply(&opened, source, verdicts, deletion, context).await,
        Err(failure) => Err(failure),
    };
    if result.is_ok() {
        tokio::select! {
            () = sweep::sweep(&opened, source, context) => {}
            // A later run sweeps.
            _ = context.ended() => {}
        }
        runs::expire(&opened, source, deletion, context).await;
    }
    let failure = match &result {
        Ok(judged) => first_failure(judged),
        Err(failure) => Some(failure),
    };
    let exit = failure.map_or(Exit::Done, Failure::exit);
    let run = Run {
        version: record::VERSION,
        source: source.clone(),
        kind: RunKind::Prune,
        begun,
        ended: context.now(),
        tool: super::TOOL.to_owned(),
        backup: None,
        schedule: None,
        scheduled_for: None,
        exit: exit as u8,
        error: failure.map(|failure| chain(failure)),
    };
    // Nothing is written into the prefix of another installation.
    if !matches!(failure, Some(Failure::OtherOrigin { .. })) {
        runs::note(&opened, &run, context).await;
    }
    Ok((place(source, &opened, &result?), exit))
}

pub(super) fn first_failure(judged: &[Judged]) -> Option<&Failure> {
    judged.iter().find_map(|judged| match &judged.outcome {
        Act::Failed(failure) => Some(failure),
        Act::None | Act::Deleted => None,
    })
}

fn place(source: &SourceName, opened: &Opened, judged: &[Judged]) -> PrunedPlace {
    let backups = judged.iter().map(pruned_backup).collect();
    PrunedPlace { source: source.clone(), store: opened.name.clone(), backups }
}

fn pruned_backup(judged: &Judged) -> PrunedBackup {
    let Judged { verdict, outcome } = judged;
    let stated =
        |reason: &dyn std::fmt::Display, word| StatedReason { word, text: reason.to_string() };
    let reasons = match verdict.expiry() {
        Some(expiry) => vec![stated(&expiry, expiry.word())],
        None => verdict.reasons.iter().map(|reason| stated(reason, reason.word())).collect(),
    };
    let (state, error) = match outcome {
        Act::None if verdict.is_kept() => (PrunedState::Kept, None),
        Act::None => (PrunedState::Expires, None),
        Act::Deleted => (PrunedState::Expired, None),
        Act::Failed(failure) => (PrunedState::Failed, Some(chain(failure))),
    };
    PrunedBackup {
        backup: verdict.backup.clone(),
        state,
        standing: verdict.standing,
        reasons,
        error,
    }
}
