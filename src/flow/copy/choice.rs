//! Which backups to copy, and from which store. Reads names only, but for the one backup that is named.

use std::collections::{BTreeMap, BTreeSet};

use super::catalog::{self, Found, Holding, Holdings, Located, Newest};
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
    is_reseal: bool,
    to: &Opened,
    settings: &Settings,
    context: &Context,
) -> Result<Chosen, Failure> {
    let Copy { which, all, missing, from, source_name, .. } = arguments;
    let place = Place { store: from.clone(), source_name: source_name.clone() };
    if !all && !missing {
        let found =
            catalog::find(which, Newest::Any, &place, Past::default(), settings, context).await?;
        let located = elsewhere(found, to, is_reseal)?;
        return Ok(Chosen { backups: vec![located], there: 0, failure: None });
    }
    let Holdings { sources, failure, unanswered: _ } =
        catalog::holdings(&place, Past::default(), None, settings, context).await?;
    let others = sources.into_iter().filter(|holding| holding.opened.name != to.name);
    let mut backups: BTreeMap<(SourceName, BackupId), Located> = BTreeMap::new();
    let mut held: BTreeMap<SourceName, BTreeSet<BackupId>> = BTreeMap::new();
    for Holding { opened, source, backups: found } in others {
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
    // What is there may be what nobody wants any more: only a look at it tells.
    backups.retain(|(source, backup), _| {
        is_reseal || held.get(source).is_none_or(|it| !it.contains(backup))
    });
    let there = before - backups.len();
    Ok(Chosen { backups: backups.into_values().collect(), there, failure })
}

/// Where it lies in another store than that to copy to, if it does.
fn elsewhere(found: Found, to: &Opened, is_reseal: bool) -> Result<Located, Failure> {
    let Found { located, others, failure, unanswered: _ } = found;
    let is_other = |it: &Located| it.opened.store.address() != to.store.address();
    if is_other(&located) {
        return Ok(located);
    }
    match (others.into_iter().find(is_other), failure) {
        (Some(other), _) => Ok(other),
        (None, Some(failure)) if is_reseal => Err(failure),
        (None, _) => Ok(located),
    }
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
/// Of two that began in the same second neither counts as older: too much is copied rather than too little.
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
