//! The backups of a store: which there are, which one is meant, and what was noted beside them.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::{
    Context,
    standing::standing,
    stores::{self, Opened},
};
use crate::{
    cli::{Past, Place, Which},
    domain::{
        catalog,
        identity::{BackupId, SourceName},
        manifest::{self, Manifest, Origin},
        record::{self, Event, Record, Standing},
    },
    edge::store,
    failure::{Failure, LostStore, chain},
    settings::{self, Error, Settings},
};

/// A backup in its store.
#[derive(Clone, Debug)]
pub(super) struct Located {
    pub(super) opened: Opened,
    pub(super) source: SourceName,
    pub(super) backup: BackupId,
}

/// What the stores that flags and config point to have.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    pub(super) sources: Vec<Holding>,
    /// The first store that does not answer. A store that is down must not hide what another has.
    pub(super) failure: Option<Failure>,
    /// Every store that does not answer.
    pub(super) unanswered: Vec<LostStore>,
}

/// A source's backups in one store, newest first.
#[derive(Debug)]
pub(super) struct Holding {
    pub(super) opened: Opened,
    pub(super) source: SourceName,
    pub(super) backups: Vec<BackupId>,
}

/// Looks into every store that is meant. Fails if none of them answers.
pub(super) async fn holdings(
    place: &Place,
    past: Past,
    source: Option<&SourceName>,
    settings: &Settings,
    context: &Context,
) -> Result<Holdings, Failure> {
    let source = source.or(place.source_name.as_ref());
    let mut holdings = Holdings::default();
    let mut answers = 0;
    for store in settings.stores(place)? {
        match holdings_of(&store, past, source, context).await {
            Ok(found) => {
                answers += 1;
                holdings.sources.extend(found);
            }
            Err(failure) => {
                tracing::warn!("store {store} is passed over: {}", chain(&failure));
                holdings.unanswered.push(LostStore::new(&store.name, &failure));
                holdings.failure.get_or_insert(failure);
            }
        }
    }
    match holdings.failure {
        Some(failure) if answers == 0 => Err(failure),
        failure => Ok(Holdings { failure, ..holdings }),
    }
}

async fn holdings_of(
    store: &settings::Store,
    Past { as_of }: Past,
    source: Option<&SourceName>,
    context: &Context,
) -> Result<Vec<Holding>, Failure> {
    let opened = stores::open_as_of(store, as_of, context).await?;
    let sources: BTreeSet<SourceName> = match source {
        Some(source) => [source.clone()].into(),
        None => sources_of(&opened).await?,
    };
    let mut holdings = Vec::with_capacity(sources.len());
    for source in sources {
        let backups = backups(&opened, &source).await?;
        holdings.push(Holding { opened: opened.clone(), source, backups });
    }
    Ok(holdings)
}

/// Which backups count as newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Newest {
    Any,
    /// None that is suspect, or whose last proof by content or load failed.
    Good,
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

/// The one backup that the arguments mean, in the first store that holds it.
pub(super) async fn locate(
    which: &Which,
    newest: Newest,
    place: &Place,
    past: Past,
    settings: &Settings,
    context: &Context,
) -> Result<Located, Failure> {
    let found = find(which, newest, place, past, settings, context).await?;
    let (stores, backup) = (found.stores(), &found.located.backup);
    if stores.len() > 1 {
        let (all, name) = (stores.join(", "), &found.located.opened.name);
        tracing::info!("{backup} is in {all}: taken from {name}, or as --store says");
    }
    Ok(found.located)
}

/// One backup in every store that holds it.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) located: Located,
    pub(super) others: Vec<Located>,
    /// Of a store that does not answer, and may hold it too.
    pub(super) failure: Option<Failure>,
    /// Every store that does not answer.
    pub(super) unanswered: Vec<LostStore>,
}

impl Found {
    fn stores(&self) -> Vec<&str> {
        let all = [&self.located].into_iter().chain(&self.others);
        all.map(|located| located.opened.name.as_str()).collect()
    }
}

/// The one backup that the arguments mean, wherever it is.
pub(super) async fn find(
    which: &Which,
    newest: Newest,
    place: &Place,
    past: Past,
    settings: &Settings,
    context: &Context,
) -> Result<Found, Failure> {
    if which.backup.is_none() && !which.latest && which.before.is_none() {
        return Err(Failure::Usage {
            finding: "no backup is named".to_owned(),
            hint: "give an id as `redis-backup list` prints it, or --latest, or --before TIME"
                .into(),
        });
    }
    let Holdings { mut sources, failure, unanswered } =
        holdings(place, past, None, settings, context).await?;
    sources.retain(|holding| !holding.backups.is_empty());
    let known: BTreeSet<&SourceName> = sources.iter().map(|holding| &holding.source).collect();
    if which.backup.is_none() && known.len() > 1 {
        let known = known.into_iter().cloned().collect();
        return Err(Failure::Settings(Error::SeveralSources { known }));
    }
    let candidates = candidates(which, sources, context.now());
    let mut passed_over = Vec::new();
    for (index, located) in candidates.iter().enumerate() {
        let is_choice = which.backup.is_none() && newest == Newest::Good;
        let standing = if is_choice { standing(located).await? } else { Standing::default() };
        if !standing.is_good() {
            let words = standing.words();
            tracing::warn!("{} is passed over: it is {words}; name it to take it", located.backup);
            passed_over.push(located.backup.clone());
            continue;
        }
        let is_same =
            |other: &&Located| (&other.source, &other.backup) == (&located.source, &located.backup);
        let (before, rest) = (&candidates[..index], &candidates[index + 1..]);
        let others = before.iter().chain(rest).filter(is_same).cloned().collect();
        return Ok(Found { located: located.clone(), others, failure, unanswered });
    }
    // What is nowhere else may be in the store that does not answer.
    if let Some(failure) = failure {
        return Err(failure);
    }
    let looked = settings.stores(place)?.into_iter().map(|store| store.name);
    Err(none_fits(which, &looked.collect::<Vec<_>>().join(", "), &passed_over))
}

/// Newest first, the copies of one backup in the order of the stores.
fn candidates(which: &Which, sources: Vec<Holding>, now: Timestamp) -> Vec<Located> {
    // A clock that ran ahead must not make its backup the newest for ever.
    let limit = which.before.unwrap_or(now);
    let is_meant = |backup: &BackupId| match &which.backup {
        Some(id) => backup == id,
        None => backup.begun() <= limit,
    };
    let mut candidates = Vec::new();
    for Holding { opened, source, backups } in sources {
        candidates.extend(backups.into_iter().filter(is_meant).map(|backup| Located {
            opened: opened.clone(),
            source: source.clone(),
            backup,
        }));
    }
    candidates.sort_by(|left, right| right.backup.cmp(&left.backup));
    candidates
}

fn none_fits(which: &Which, looked: &str, passed_over: &[BackupId]) -> Failure {
    if let Some(newest) = passed_over.first() {
        return Failure::NoBackup {
            which: format!(
                "in {looked} is good: {} passed over, such as {newest}, which can be named",
                passed_over.len()
            ),
        };
    }
    Failure::NoBackup {
        which: match (&which.backup, which.before) {
            (Some(backup), _) => format!("in {looked} has the id {backup}"),
            (None, Some(before)) => format!("in {looked} began before {before}"),
            (None, None) => format!("is in {looked}"),
        },
    }
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
    let key = catalog::record_key(source, backup, at, context.chance(), event.kind())?;
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
