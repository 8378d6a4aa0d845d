//! `list`: names are the catalog, and the names of records tell which are good; manifests are read only when asked for.

use std::collections::BTreeSet;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    Context,
    catalog::{self, Holding, Holdings, Located},
    runs,
    standing::standings,
};
use crate::{
    cli::List,
    domain::record::Standing,
    failure::{Exit, Failure, chain},
    report::{ListReport, ListedBackup, ListedDetails, ListedOrigin, Outcome},
    settings::Settings,
};

/// Manifests read at the same time.
const READS_AT_ONCE: usize = 16;

pub(super) async fn run(
    arguments: &List,
    settings: &Settings,
    context: &Context,
) -> Result<Outcome, Failure> {
    if arguments.runs {
        return runs::list(arguments, settings, context).await;
    }
    let List { source, place, past, long, last, runs: _ } = arguments;
    let Holdings { sources, failure, unanswered: _ } =
        catalog::holdings(place, *past, source.as_ref(), settings, context).await?;
    let mut origins = Vec::new();
    let mut located = Vec::new();
    for Holding { opened, source, backups } in sources {
        if let Some(origin) = catalog::origin(&opened, &source).await? {
            origins.push(ListedOrigin {
                store: opened.name.clone(),
                source: source.clone(),
                origin,
            });
        }
        let mut standings = standings(&opened, &source).await?;
        located.extend(backups.into_iter().map(|backup| {
            let standing = standings.remove(&backup).unwrap_or_default();
            (Located { opened: opened.clone(), source: source.clone(), backup }, standing)
        }));
    }
    // The copies of one backup stand together, in the order of the stores.
    located.sort_by(|(left, _), (right, _)| {
        right.backup.cmp(&left.backup).then_with(|| left.source.cmp(&right.source))
    });
    keep_newest(&mut located, last.unwrap_or(usize::MAX));
    let backups = stream::iter(located)
        .map(|(located, standing)| list_one(located, standing, *long))
        .buffered(READS_AT_ONCE)
        .try_collect()
        .await?;
    let stores = settings.stores(place)?.into_iter().map(|store| store.name).collect();
    let source = source.as_ref().or(place.source_name.as_ref()).cloned();
    let as_of = past.as_of;
    let report = ListReport { kind: "list", version: 1, as_of, backups, stores, source, origins };
    let exit = if failure.is_some() { Exit::Partial } else { Exit::Done };
    Ok(Outcome { report: Box::new(report), exit })
}

/// So many backups, each in all its stores.
fn keep_newest(located: &mut Vec<(Located, Standing)>, count: usize) {
    let mut backups = BTreeSet::new();
    located.retain(|(located, _)| {
        let one = (located.backup.clone(), located.source.clone());
        backups.contains(&one) || (backups.len() < count && backups.insert(one))
    });
}

async fn list_one(
    located: Located,
    standing: Standing,
    long: bool,
) -> Result<ListedBackup, Failure> {
    let details = if long { Some(details(&located).await?) } else { None };
    let Located { opened, source, backup } = located;
    Ok(ListedBackup {
        store: opened.name,
        source,
        begun: backup.begun(),
        schedule: backup.schedule().to_owned(),
        backup,
        standing,
        details,
    })
}

/// A manifest that cannot be read is a row of the list, not the end of it.
async fn details(located: &Located) -> Result<ListedDetails, Failure> {
    match catalog::read_manifest(located).await {
        Ok(manifest) => Ok(ListedDetails::Read {
            keys: manifest.keys(),
            stored_bytes: manifest.stored_bytes(),
            seconds: manifest.ended.duration_since(manifest.begun).as_secs_f64(),
            server: manifest.server.to_string(),
            shards: manifest.shards.len(),
        }),
        Err(failure @ (Failure::Manifest { .. } | Failure::Corrupt { .. })) => {
            Ok(ListedDetails::Unreadable { reason: chain(&failure) })
        }
        Err(failure) => Err(failure),
    }
}
