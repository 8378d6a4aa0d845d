//! Which backups to copy, and from which store. Reads names only, but for the one backup that is named.

use std::collections::{BTreeMap, BTreeSet};

use super::catalog::{self, Holding, Holdings, Located, Newest};
use crate::{
    cli::{Copy, Past, Place},
    domain::identity::{BackupId, SourceName},
    failure::Failure,
    flow::{Context, stores::Opened},
    settings::Settings,
};

pub(super) struct Chosen {
    /// Oldest first.
    pub(super) backups: Vec<Located>,
    /// How many of those that are meant the other store holds.
    pub(super) there: usize,
    /// Of a store that could not be looked into.
    pub(super) failure: Option<Failure>,
}

pub(super) async fn choose(
    arguments: &Copy,
    to: &Opened,
    settings: &Settings,
    context: &Context,
) -> Result<Chosen, Failure> {
    let Copy { which, all, missing, to: _, from, source_name, adopt: _, dry_run: _ } = arguments;
    let place = Place { store: from.clone(), source_name: source_name.clone() };
    if !all && !missing {
        let located =
            catalog::locate(which, Newest::Any, &place, Past::default(), settings, context).await?;
        return Ok(Chosen { backups: vec![located], there: 0, failure: None });
    }
    let Holdings { sources, failure } =
        catalog::holdings(&place, Past::default(), None, settings, context).await?;
    let elsewhere = sources.into_iter().filter(|holding| holding.opened.name != to.name);
    let mut backups: BTreeMap<(SourceName, BackupId), Located> = BTreeMap::new();
    let mut held: BTreeMap<SourceName, BTreeSet<BackupId>> = BTreeMap::new();
    for Holding { opened, source, backups: found } in elsewhere {
        if !held.contains_key(&source) {
            let there = catalog::backups(to, &source).await?;
            held.insert(source.clone(), there.into_iter().collect());
        }
        for backup in found {
            // Of several stores that hold it, the first.
            backups.entry((source.clone(), backup.clone())).or_insert_with(|| Located {
                opened: opened.clone(),
                source: source.clone(),
                backup,
            });
        }
    }
    if *missing {
        let meant = schedules_of(to, settings);
        backups.retain(|(source, backup), _| {
            let there = held.get(source);
            meant.contains(&(source.clone(), backup.schedule().to_owned()))
                && is_not_expired_there(backup, there)
        });
    }
    let before = backups.len();
    backups.retain(|(source, backup), _| held.get(source).is_none_or(|it| !it.contains(backup)));
    let there = before - backups.len();
    Ok(Chosen { backups: backups.into_values().collect(), there, failure })
}

/// The schedules whose backups go to this store.
fn schedules_of(to: &Opened, settings: &Settings) -> BTreeSet<(SourceName, String)> {
    let goes_there = |schedule: &&crate::settings::Schedule| {
        schedule.stores.iter().any(|entry| entry.store.as_str() == to.name)
    };
    let schedules = settings.schedules().filter(goes_there);
    schedules.map(|schedule| (schedule.source.clone(), schedule.name.to_string())).collect()
}

/// What is older than all of its schedule there has expired there, or is from before the store was used.
/// Of two that began in the same second, chance orders the ids, so moments are compared.
fn is_not_expired_there(backup: &BackupId, there: Option<&BTreeSet<BackupId>>) -> bool {
    let mut of_schedule =
        there.into_iter().flatten().filter(|other| other.schedule() == backup.schedule());
    of_schedule.next().is_none_or(|oldest| oldest.begun() <= backup.begun())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_than_all_of_its_schedule_has_expired_and_the_same_second_is_not_older() {
        let id = |text: &str| text.parse::<BackupId>().unwrap();
        let there = BTreeSet::from([
            id("20260101T000000Z-hourly-mmmmmm"),
            id("20260102T030405Z-daily-mmmmmm"),
        ]);
        for (missing, is_wanted) in [
            ("20260102T030404Z-daily-mmmmmm", false),
            ("20260102T030405Z-daily-aaaaaa", true),
            ("20260102T030405Z-daily-zzzzzz", true),
            ("20260102T030406Z-daily-mmmmmm", true),
            ("20251231T000000Z-weekly-mmmmmm", true),
        ] {
            assert_eq!(is_not_expired_there(&id(missing), Some(&there)), is_wanted, "{missing}");
        }
        assert!(is_not_expired_there(&id("20200101T000000Z-daily-mmmmmm"), None));
    }
}
