//! `verify`: by the store's word, by reading back, or by loading. What was found is noted beside the backup.

use super::{
    Context,
    catalog::{self, Holding, Holdings, Located, Newest},
    examine::{self, Examined, finding_of},
    load,
    unlock::unlock,
};
use crate::{
    cli::{IdentityFrom, Past, Place, Verify, VerifyLevel, Which},
    domain::{
        manifest::Manifest,
        record::{Event, Level, Verification},
    },
    failure::{Exit, Failure, chain},
    report::{Outcome, VerifiedBackup, VerifyReport},
    settings::Settings,
};

pub(super) async fn run(
    arguments: &Verify,
    settings: &Settings,
    context: &Context,
) -> Result<Outcome, Failure> {
    let Verify { which, all, place, past, level, server_binary, identity } = arguments;
    let level = match level {
        VerifyLevel::Stored => Level::Stored,
        VerifyLevel::Content => Level::Content,
        VerifyLevel::Load => Level::Load,
    };
    let located = context.unless_ended(meant(which, *all, place, *past, settings, context)).await?;
    let mut report =
        VerifyReport { kind: "verify", version: 1, level: level.to_string(), backups: Vec::new() };
    let mut unjudged = Exit::Done;
    for located in &located {
        let binary = server_binary.clone().or_else(|| settings.server_binary(&located.source));
        let binary = binary.as_deref();
        let means = Means { level, server_binary: binary, identity, past: *past, settings };
        let verified = verify_one(located, means, context);
        match context.unless_ended(verified).await {
            Ok(verified) => report.backups.push(verified),
            Err(failure) if !*all || matches!(failure, Failure::Ended { .. }) => {
                return Err(failure);
            }
            // One that cannot be judged says nothing of the others.
            Err(failure) => {
                if unjudged == Exit::Done {
                    unjudged = failure.exit();
                }
                report.backups.push(not_judged(located, &failure));
            }
        }
    }
    let broken = report.backups.iter().any(|backup| !backup.findings.is_empty());
    let exit = if broken { Exit::Corrupt } else { unjudged };
    Ok(Outcome { report: Box::new(report), exit })
}

fn not_judged(located: &Located, failure: &Failure) -> VerifiedBackup {
    let Located { opened, source, backup } = located.clone();
    VerifiedBackup {
        store: opened.name,
        source,
        backup,
        proven: false,
        evidence: Vec::new(),
        findings: Vec::new(),
        unjudged: Some(chain(failure)),
    }
}

/// The one backup that is named, or all of them.
async fn meant(
    which: &Which,
    all: bool,
    place: &Place,
    past: Past,
    settings: &Settings,
    context: &Context,
) -> Result<Vec<Located>, Failure> {
    if !all {
        return Ok(vec![
            catalog::locate(which, Newest::Any, place, past, settings, context).await?,
        ]);
    }
    let Holdings { sources, failure, unanswered: _ } =
        catalog::holdings(place, past, None, settings, context).await?;
    if let Some(failure) = failure {
        return Err(failure);
    }
    let mut located = Vec::new();
    for Holding { opened, source, backups } in sources {
        located.extend(backups.into_iter().map(|backup| Located {
            opened: opened.clone(),
            source: source.clone(),
            backup,
        }));
    }
    if located.is_empty() {
        let stores: Vec<String> =
            settings.stores(place)?.into_iter().map(|store| store.name).collect();
        return Err(Failure::NoBackup { which: format!("is in {}", stores.join(", ")) });
    }
    Ok(located)
}

/// How far to go, and what is needed for it.
#[derive(Clone, Copy)]
struct Means<'a> {
    level: Level,
    server_binary: Option<&'a std::path::Path>,
    identity: &'a IdentityFrom,
    past: Past,
    settings: &'a Settings,
}

async fn verify_one(
    located: &Located,
    means: Means<'_>,
    context: &Context,
) -> Result<VerifiedBackup, Failure> {
    let Means { level, server_binary: _, identity: _, past, settings: _ } = means;
    let (examined, is_encrypted) = match catalog::read_manifest(located).await {
        Ok(manifest) => {
            (examine_at(located, &manifest, means, context).await?, manifest.is_encrypted())
        }
        Err(failure) => {
            (Examined { findings: vec![finding_of(failure)?], ..Examined::default() }, false)
        }
    };
    let Examined { evidence, findings, server } = examined;
    let noted = noted(&findings, level, is_encrypted);
    let event = Event::Verified(Verification { level, server, findings: noted });
    // A look at the past leaves no trace in it.
    if past.as_of.is_none()
        && let Err(failure) = catalog::note(located, event, context).await
    {
        // Whoever verifies may have no right to write; the proof is a proof all the same.
        tracing::warn!("the result was not noted beside the backup: {}", chain(&failure));
    }
    let Located { opened, source, backup } = located.clone();
    let proven = findings.is_empty();
    Ok(VerifiedBackup {
        store: opened.name,
        source,
        backup,
        proven,
        evidence,
        findings,
        unjudged: None,
    })
}

async fn examine_at(
    located: &Located,
    manifest: &Manifest,
    means: Means<'_>,
    context: &Context,
) -> Result<Examined, Failure> {
    let Means { level, server_binary, identity, past: _, settings } = means;
    match level {
        Level::Stored => examine::stored(&*located.opened.store, manifest).await,
        Level::Content => {
            let context = unlock(located, manifest, identity, settings, context).await?;
            examine::content(located, manifest, &context).await
        }
        Level::Load => {
            let context = unlock(located, manifest, identity, settings, context).await?;
            load::run(located, manifest, server_binary, &context).await
        }
    }
}

/// Findings as they may stand in the store. A digest or the words of a server tell of the content,
/// so of an encrypted one only how many there were.
pub(super) fn noted(findings: &[String], level: Level, is_encrypted: bool) -> Vec<String> {
    match level {
        Level::Content | Level::Load if is_encrypted && !findings.is_empty() => vec![format!(
            "{} findings, told to whoever verified only, for the backup is encrypted",
            findings.len()
        )],
        Level::Stored | Level::Content | Level::Load => findings.to_vec(),
    }
}
