//! What the stores tell of a schedule: its newest backups, their proofs, and the attempts that failed. Only reads.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};

use crate::{
    domain::{
        agenda::{Attempt, Past},
        catalog,
        identity::{BackupId, StoreName, compact_time, parse_compact_time},
        manifest::{self, Manifest},
        rdb::Content,
        record::{self, Level, Mark, Run, RunKind, Standing},
    },
    edge::store,
    failure::{Exit, Failure},
    flow::{
        Context,
        catalog::{Located, backups, read_manifest, records},
        stores::{self, Opened},
    },
    settings::{Schedule, Settings},
};

/// Of so many of the newest backups the manifests are read. One of them is enough, but for a person who made up for an
/// earlier moment by hand.
const NEWEST_READ: usize = 3;

/// Attempts that failed longer ago do not put the next one off.
const ATTEMPTS_SINCE: SignedDuration = SignedDuration::from_hours(2);

/// More runs of one source in that time are not read.
const RUNS_READ: usize = 32;

/// A backup of a clock that ran further ahead must not keep the schedule from its moments.
const AHEAD_MAX: SignedDuration = SignedDuration::from_mins(10);

/// A store that hangs is one that is down.
const ANSWER_WITHIN: Duration = Duration::from_mins(1);

/// What each store of a schedule answered.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) stores: BTreeMap<StoreName, Result<InStore, Failure>>,
}

/// What one store tells of a schedule.
#[derive(Clone, Debug, Default)]
pub(super) struct InStore {
    pub(super) past: Past,
    pub(super) attempted: Option<Timestamp>,
    pub(super) retained: usize,
    pub(super) newest: Option<Newest>,
    pub(super) verified: BTreeMap<Level, Timestamp>,
}

/// The newest backup of a schedule in a store.
#[derive(Clone, Debug)]
pub(super) struct Newest {
    pub(super) backup: BackupId,
    pub(super) scheduled_for: Option<Timestamp>,
    /// None for one that only a newer program reads.
    pub(super) facts: Option<Facts>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    pub(super) ended: Timestamp,
    pub(super) seconds: f64,
    pub(super) stored_bytes: u64,
    pub(super) plain_bytes: Option<u64>,
    pub(super) keys: Option<u64>,
    pub(super) shards: usize,
    /// As the records say: what a person accepted is not suspect any more.
    pub(super) is_suspect: bool,
}

impl Seen {
    /// What the stores that answered tell together.
    pub(super) fn past(&self) -> Past {
        let mut past = Past::default();
        for found in self.stores.values().flatten() {
            past.done = past.done.max(found.past.done);
            for attempt in &found.past.failed {
                if !past.failed.contains(attempt) {
                    past.failed.push(*attempt);
                }
            }
        }
        past
    }

    pub(super) fn is_complete(&self) -> bool {
        self.stores.values().all(Result::is_ok)
    }

    /// A failure when no store answered.
    pub(super) fn or_failure(mut self) -> Result<Self, Failure> {
        if self.stores.values().any(Result::is_ok) {
            return Ok(self);
        }
        match self.stores.pop_first() {
            Some((_, Err(failure))) => Err(failure),
            Some((_, Ok(_))) | None => Ok(self),
        }
    }

    /// The backup of that moment in each store that has it.
    pub(super) fn backups_for(&self, scheduled_for: Timestamp) -> Vec<(StoreName, BackupId)> {
        let newest = self.stores.iter().filter_map(|(store, found)| {
            let newest = found.as_ref().ok()?.newest.as_ref()?;
            let is_meant = newest.scheduled_for == Some(scheduled_for);
            is_meant.then(|| (store.clone(), newest.backup.clone()))
        });
        newest.collect()
    }
}

pub(super) async fn look(
    schedule: &Schedule,
    settings: &Settings,
    context: &Context,
) -> Result<Seen, Failure> {
    let mut seen = Seen::default();
    for entry in &schedule.stores {
        let store = settings.store(entry.store.as_str())?;
        let look = async {
            let opened = stores::open(&store, context).await?;
            look_into(&opened, schedule, context).await
        };
        let found = tokio::time::timeout(ANSWER_WITHIN, look).await.unwrap_or_else(|elapsed| {
            let attempt = format!("look into store {store}");
            let source = store::Error::Unavailable { attempt, source: elapsed.into() };
            Err(Failure::Store { attempt: format!("look for {}", schedule.name), source })
        });
        seen.stores.insert(entry.store.clone(), found);
    }
    Ok(seen)
}

async fn look_into(
    opened: &Opened,
    schedule: &Schedule,
    context: &Context,
) -> Result<InStore, Failure> {
    let now = context.now();
    let limit = later(now, AHEAD_MAX);
    let mut backups = backups(opened, &schedule.source).await?;
    backups.retain(|backup| backup.schedule() == schedule.name.as_str() && backup.begun() <= limit);
    let mut found = InStore { retained: backups.len(), ..InStore::default() };
    found.verified = proofs(opened, schedule, &backups).await?;
    for backup in backups.into_iter().take(NEWEST_READ) {
        let located = Located { opened: opened.clone(), source: schedule.source.clone(), backup };
        let Some(mut newest) = newest(&located, schedule).await? else { continue };
        let done = newest.scheduled_for.filter(|moment| *moment <= limit);
        found.past.done = found.past.done.max(done);
        let records = records(&located).await?;
        let standing = Standing::of(records.iter().map(|record| record.event.mark()));
        if let Some(facts) = &mut newest.facts {
            facts.is_suspect = standing.suspect;
        }
        found.attempted = found.attempted.max(newest.facts.map(|facts| facts.ended));
        found.newest.get_or_insert(newest);
    }
    for run in runs(opened, schedule, now).await? {
        found.attempted = found.attempted.max(Some(run.ended));
        found.past.failed.extend(failed(&run));
    }
    Ok(found)
}

/// None for a manifest that is damaged or went away meanwhile: that is no backup.
async fn newest(located: &Located, schedule: &Schedule) -> Result<Option<Newest>, Failure> {
    let backup = located.backup.clone();
    match read_manifest(located).await {
        Ok(manifest) if manifest.schedule.as_ref() != Some(&schedule.name) => Ok(None),
        Ok(manifest) => Ok(Some(Newest {
            backup,
            scheduled_for: manifest.scheduled_for,
            facts: Some(facts(&manifest)),
        })),
        Err(Failure::Manifest { source: manifest::Error::Newer { .. }, .. }) => {
            let scheduled_for = schedule.timetable.last_due(backup.begun());
            Ok(Some(Newest { backup, scheduled_for, facts: None }))
        }
        Err(Failure::Store { source: store::Error::NotFound { .. }, .. }) => Ok(None),
        Err(failure) if failure.exit() == Exit::Corrupt => Ok(None),
        Err(failure) => Err(failure),
    }
}

fn facts(manifest: &Manifest) -> Facts {
    let plain = manifest.shards.iter().map(|shard| shard.rdb_content().map(Content::bytes));
    Facts {
        ended: manifest.ended,
        seconds: manifest.ended.duration_since(manifest.begun).as_secs_f64(),
        stored_bytes: manifest.stored_bytes(),
        plain_bytes: plain.sum(),
        keys: manifest.keys(),
        shards: manifest.shards.len(),
        is_suspect: false,
    }
}

/// When each level proved one of the backups last, by the names of records alone: a load each week proves a backup that is
/// long not the newest.
async fn proofs(
    opened: &Opened,
    schedule: &Schedule,
    backups: &[BackupId],
) -> Result<BTreeMap<Level, Timestamp>, Failure> {
    let source = &schedule.source;
    let prefix = catalog::all_records_prefix(source);
    let listed = opened.store.list(&prefix).await.map_err(|error| Failure::Store {
        attempt: format!("list the records of {source} in {}", opened.name),
        source: error,
    })?;
    let backups: BTreeSet<&BackupId> = backups.iter().collect();
    let mut proofs = BTreeMap::new();
    for listed in listed {
        let of_ours = catalog::backup_of_record(source, &listed.key)
            .is_some_and(|backup| backups.contains(&backup));
        let mark = catalog::kind_of(&listed.key).map(Mark::of_word);
        let proof = mark.and_then(Mark::proves).zip(catalog::time_of_key(&listed.key));
        if let (true, Some((level, at))) = (of_ours, proof) {
            let last = proofs.entry(level).or_insert(at);
            *last = at.max(*last);
        }
    }
    Ok(proofs)
}

/// What was noted of the schedule lately. Keys begin with their time: only today's and yesterday's are listed.
async fn runs(opened: &Opened, schedule: &Schedule, now: Timestamp) -> Result<Vec<Run>, Failure> {
    let failed = |source| Failure::Store {
        attempt: format!("read the runs of {} in {}", schedule.source, opened.name),
        source,
    };
    let since = now.checked_sub(ATTEMPTS_SINCE).unwrap_or(Timestamp::MIN);
    let yesterday = now.checked_sub(SignedDuration::from_hours(24)).unwrap_or(Timestamp::MIN);
    let mut keys = Vec::new();
    for day in [yesterday, now] {
        let day: String = compact_time(day).chars().take_while(char::is_ascii_digit).collect();
        let prefix = format!("{}{day}", catalog::runs_prefix(&schedule.source));
        let listed = opened.store.list(&prefix).await.map_err(failed)?;
        keys.extend(listed.into_iter().map(|listed| listed.key));
    }
    let begun = |name: &str| parse_compact_time(name.split('-').next().unwrap_or_default());
    keys.retain(|key| begun(key.name()).is_some_and(|begun| begun >= since));
    let mut runs = Vec::new();
    for key in keys.iter().rev().take(RUNS_READ) {
        let bytes = match opened.store.read(key, record::BYTES_MAX).await {
            Ok(bytes) => bytes,
            Err(store::Error::NotFound { .. }) => continue,
            Err(source) => return Err(failed(source)),
        };
        // What a newer program noted in another way is passed over.
        let Ok(run) = serde_json::from_slice::<Run>(&bytes) else { continue };
        if run.schedule.as_ref() == Some(&schedule.name) && run.kind == RunKind::Backup {
            runs.push(run);
        }
    }
    Ok(runs)
}

/// A run that was told to end says nothing against the next one.
fn failed(run: &Run) -> Option<Attempt> {
    let was_ended =
        [Exit::Interrupted, Exit::Terminated].iter().any(|exit| *exit as u8 == run.exit);
    let scheduled_for = run.scheduled_for.filter(|_| run.backup.is_none() && !was_ended)?;
    Some(Attempt { scheduled_for, ended: run.ended })
}

fn later(moment: Timestamp, by: SignedDuration) -> Timestamp {
    moment.checked_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
