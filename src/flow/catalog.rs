//! The backups of a store: which there are, which one is meant, and what was noted beside them.

use std::collections::BTreeSet;

use super::{
    Context,
    stores::{self, Opened},
};
use crate::{
    cli::{Place, Which},
    domain::{
        catalog,
        identity::{BackupId, SourceName},
        manifest::{self, Manifest, Origin},
        record::{self, Event, Record},
    },
    edge::store,
    failure::Failure,
    settings::{Error, Settings},
};

/// A backup in its store.
#[derive(Clone, Debug)]
pub(super) struct Located {
    pub(super) opened: Opened,
    pub(super) source: SourceName,
    pub(super) backup: BackupId,
}

/// The stores and sources that flags and config point to.
pub(super) async fn places(
    place: &Place,
    source: Option<&SourceName>,
    settings: &Settings,
    context: &Context,
) -> Result<Vec<(Opened, SourceName)>, Failure> {
    let mut places = Vec::new();
    for store in settings.stores(place)? {
        let opened = stores::open(&store, context).await?;
        let sources: BTreeSet<SourceName> = match source.or(place.source_name.as_ref()) {
            Some(source) => [source.clone()].into(),
            None => sources_of(&opened).await?,
        };
        places.extend(sources.into_iter().map(|source| (opened.clone(), source)));
    }
    Ok(places)
}

/// Every first part of a key that could be a source's name.
async fn sources_of(opened: &Opened) -> Result<BTreeSet<SourceName>, Failure> {
    let folders = opened.store.folders().await.map_err(|source| Failure::Store {
        attempt: format!("list the sources of {}", opened.name),
        source,
    })?;
    Ok(folders.iter().filter_map(|folder| folder.parse().ok()).collect())
}

/// Newest first.
pub(super) async fn backups(
    opened: &Opened,
    source: &SourceName,
) -> Result<Vec<BackupId>, Failure> {
    let listed = opened.store.list(&catalog::manifests_prefix(source)).await.map_err(|error| {
        Failure::Store {
            attempt: format!("list the backups of {source} in {}", opened.name),
            source: error,
        }
    })?;
    let mut backups: Vec<BackupId> =
        listed.iter().filter_map(|listed| catalog::backup_of_manifest(&listed.key)).collect();
    backups.sort_unstable_by(|left, right| right.cmp(left));
    Ok(backups)
}

/// The one backup that the arguments mean.
pub(super) async fn locate(
    which: &Which,
    place: &Place,
    settings: &Settings,
    context: &Context,
) -> Result<Located, Failure> {
    let places = places(place, None, settings, context).await?;
    if let Some(backup) = &which.backup {
        return by_id(backup, places).await;
    }
    if !which.latest && which.before.is_none() {
        return Err(Failure::Usage {
            finding: "no backup is named".to_owned(),
            hint: "give an id as `redis-backup list` prints it, or --latest, or --before TIME"
                .into(),
        });
    }
    let sources: BTreeSet<&SourceName> = places.iter().map(|(_, source)| source).collect();
    if sources.len() > 1 {
        return Err(Failure::Settings(Error::SeveralSources {
            known: sources.into_iter().cloned().collect(),
        }));
    }
    // A clock that ran ahead must not make its backup the newest for ever.
    let limit = which.before.unwrap_or_else(|| context.now());
    let mut newest: Option<Located> = None;
    for (opened, source) in &places {
        let backups = backups(opened, source).await?;
        let candidate = backups.into_iter().find(|backup| backup.begun() <= limit);
        if let Some(backup) = candidate
            && newest.as_ref().is_none_or(|newest| newest.backup < backup)
        {
            newest = Some(Located { opened: opened.clone(), source: source.clone(), backup });
        }
    }
    let looked: Vec<String> = settings.stores(place)?.into_iter().map(|store| store.name).collect();
    newest.ok_or_else(|| Failure::NoBackup {
        which: match which.before {
            Some(before) => format!("in {} began before {before}", looked.join(", ")),
            None => format!("is in {}", looked.join(", ")),
        },
    })
}

async fn by_id(backup: &BackupId, places: Vec<(Opened, SourceName)>) -> Result<Located, Failure> {
    for (opened, source) in places {
        let key = catalog::manifest_key(&source, backup);
        match opened.store.attributes(&key, None).await {
            Ok(_) => return Ok(Located { opened, source, backup: backup.clone() }),
            Err(store::Error::NotFound { .. }) => {}
            Err(source) => {
                return Err(Failure::Store { attempt: format!("look for {backup}"), source });
            }
        }
    }
    Err(Failure::NoBackup { which: format!("has the id {backup}") })
}

pub(super) async fn read_manifest(located: &Located) -> Result<Manifest, Failure> {
    let Located { opened, source, backup } = located;
    let attempt = || format!("read the manifest of {backup}");
    let bytes = opened
        .store
        .read(&catalog::manifest_key(source, backup), manifest::BYTES_MAX)
        .await
        .map_err(|source| Failure::Store { attempt: attempt(), source })?;
    let manifest = Manifest::decode(&bytes)
        .map_err(|source| Failure::Manifest { attempt: attempt(), source })?;
    if manifest.backup != *backup || manifest.source != *source {
        return Err(Failure::Corrupt {
            backup: backup.clone(),
            finding: format!(
                "its manifest is that of {} of source {}",
                manifest.backup, manifest.source
            ),
        });
    }
    Ok(manifest)
}

/// For estimates only: none where none is there, or where it cannot be read.
pub(super) async fn newest_manifest(opened: &Opened, source: &SourceName) -> Option<Manifest> {
    let backup = backups(opened, source).await.ok()?.into_iter().next()?;
    let located = Located { opened: opened.clone(), source: source.clone(), backup };
    read_manifest(&located).await.ok()
}

/// None where nothing was ever backed up.
pub(super) async fn origin(
    opened: &Opened,
    source: &SourceName,
) -> Result<Option<Origin>, Failure> {
    let key = catalog::origin_key(source);
    let attempt = || format!("read {key} in {}", opened.name);
    match opened.store.read(&key, record::BYTES_MAX).await {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| Failure::Manifest {
            attempt: attempt(),
            source: manifest::Error::Decode(error),
        }),
        Err(store::Error::NotFound { .. }) => Ok(None),
        Err(source) => Err(Failure::Store { attempt: attempt(), source }),
    }
}

/// Oldest first. A record of a newer program is passed over: it changes nothing for this one.
pub(super) async fn records(located: &Located) -> Result<Vec<Record>, Failure> {
    let Located { opened, source, backup } = located;
    let failed =
        |source| Failure::Store { attempt: format!("read the records of {backup}"), source };
    let mut records = Vec::new();
    for listed in
        opened.store.list(&catalog::records_prefix(source, backup)).await.map_err(failed)?
    {
        let bytes = opened.store.read(&listed.key, record::BYTES_MAX).await.map_err(failed)?;
        if let Ok(record) = serde_json::from_slice::<Record>(&bytes) {
            records.push(record);
        }
    }
    Ok(records)
}

/// Writes a note beside a backup.
pub(super) async fn note(
    located: &Located,
    event: Event,
    context: &Context,
) -> Result<(), Failure> {
    let Located { opened, source, backup } = located;
    let at = context.now();
    let attempt = || format!("note beside {backup} that it was {}", event.kind());
    let key = catalog::record_key(source, backup, at, context.chance(), event.kind())
        .map_err(|error| Failure::Usage { finding: error.to_string(), hint: String::new() })?;
    let kind = event.kind();
    let record = Record {
        version: record::VERSION,
        backup: backup.clone(),
        at,
        tool: super::TOOL.to_owned(),
        event: event.clone(),
    };
    let body = json(&record)?;
    tracing::debug!(%backup, kind, "note");
    opened
        .store
        .create(&key, body.into())
        .await
        .map_err(|source| Failure::Store { attempt: attempt(), source })?;
    Ok(())
}

/// Pretty, for people read stores too.
pub(super) fn json(value: &impl serde::Serialize) -> Result<Vec<u8>, Failure> {
    let mut bytes = serde_json::to_vec_pretty(value).map_err(|error| Failure::Local {
        attempt: "encode JSON".to_owned(),
        source: error.into(),
    })?;
    bytes.push(b'\n');
    Ok(bytes)
}
