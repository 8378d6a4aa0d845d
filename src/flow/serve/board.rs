//! What the service shows of itself: filled by the scheduler, read by whoever asks over HTTP. Decides nothing.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::time::Instant;

use super::{
    entry,
    look::{InStore, Seen},
};
use crate::{
    domain::{
        agenda::{Entry, Past},
        identity::{ScheduleName, SourceName, StoreName},
    },
    failure::{Exit, Failure, chain},
    settings::Settings,
};

/// The scheduler turns at least each minute.
const STUCK_AFTER: Duration = Duration::from_mins(3);

#[derive(Debug)]
pub(super) struct Board {
    shown: Mutex<Shown>,
}

#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub(super) since: Timestamp,
    pub(super) schedules: BTreeMap<ScheduleName, Line>,
    turned: Instant,
    is_ending: bool,
}

/// One schedule.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) entry: Entry,
    pub(super) source: SourceName,
    pub(super) past: Past,
    pub(super) next: Option<Timestamp>,
    pub(super) running_since: Option<Timestamp>,
    pub(super) attempted: Option<Timestamp>,
    pub(super) failures: BTreeMap<(Verb, u8), u64>,
    pub(super) stores: BTreeMap<StoreName, StoreLine>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verb {
    Backup,
    Verify,
}

impl Verb {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Verify => "verify",
        }
    }
}

/// One store of a schedule.
#[derive(Clone, Debug, Default)]
pub(super) struct StoreLine {
    /// None before the first look has ended.
    pub(super) answers: Option<bool>,
    /// What it told last; none before it ever answered.
    pub(super) found: Option<InStore>,
}

impl Board {
    pub(super) fn new(settings: &Settings, now: Timestamp) -> Self {
        let schedules = settings.schedules().map(|schedule| {
            let stores = schedule.stores.iter().map(|entry| entry.store.clone());
            let (entry, source) = entry(schedule);
            (schedule.name.clone(), Line::new(entry, source, stores.collect()))
        });
        Self::of(schedules.collect(), now)
    }

    pub(super) fn of(schedules: BTreeMap<ScheduleName, Line>, since: Timestamp) -> Self {
        let turned = Instant::now();
        Self { shown: Mutex::new(Shown { since, schedules, turned, is_ending: false }) }
    }

    /// As it is at this moment.
    pub(super) fn shown(&self) -> Shown {
        self.lock().clone()
    }

    pub(super) fn turned(&self, at: Instant) {
        self.lock().turned = at;
    }

    pub(super) fn ending(&self) {
        self.lock().is_ending = true;
    }

    pub(super) fn next(&self, name: &ScheduleName, next: Option<Timestamp>) {
        self.change(name, |line| line.next = next);
    }

    pub(super) fn started(&self, name: &ScheduleName, at: Timestamp) {
        self.change(name, |line| line.running_since = Some(at));
    }

    /// `backed_up` is none when there was nothing to do, `proven` when there was nothing to prove.
    pub(super) fn ended(
        &self,
        name: &ScheduleName,
        backed_up: Option<&Result<Exit, Failure>>,
        proven: Option<&Result<Exit, Failure>>,
        at: Timestamp,
    ) {
        self.change(name, |line| {
            line.running_since = None;
            if backed_up.is_some() {
                line.attempted = line.attempted.max(Some(at));
            }
            for (verb, result) in [(Verb::Backup, backed_up), (Verb::Verify, proven)] {
                let exit = match result {
                    Some(Ok(exit)) => *exit,
                    Some(Err(failure)) => failure.exit(),
                    None => Exit::Done,
                };
                if exit != Exit::Done {
                    *line.failures.entry((verb, exit as u8)).or_default() += 1;
                }
            }
        });
    }

    pub(super) fn seen(&self, name: &ScheduleName, seen: Seen) {
        self.change(name, |line| {
            for (store, found) in seen.stores {
                let shown = line.stores.entry(store.clone()).or_default();
                match found {
                    Ok(found) => {
                        if shown.answers == Some(false) {
                            tracing::info!(schedule = %name, "store {store} answers again");
                        }
                        line.attempted = line.attempted.max(found.attempted);
                        *shown = StoreLine { answers: Some(true), found: Some(found) };
                    }
                    Err(failure) => {
                        // Once, not each time that it is asked.
                        if shown.answers != Some(false) {
                            let (hint, error) = (failure.hint(), chain(&failure));
                            tracing::warn!(schedule = %name, hint, "store {store} does not answer: {error}");
                        }
                        shown.answers = Some(false);
                    }
                }
            }
        });
    }

    pub(super) fn past(&self, name: &ScheduleName, past: &Past) {
        self.change(name, |line| line.past = past.clone());
    }

    fn change(&self, name: &ScheduleName, change: impl FnOnce(&mut Line)) {
        if let Some(line) = self.lock().schedules.get_mut(name) {
            change(line);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shown {
    /// What keeps the service from being alive, if anything does.
    pub(super) fn is_stuck(&self, at: Instant) -> Option<String> {
        let since = at.saturating_duration_since(self.turned);
        let is_stuck = since > STUCK_AFTER && !self.is_ending;
        is_stuck.then(|| format!("the scheduler has not turned for {} s", since.as_secs()))
    }

    /// What keeps the service from being ready, a line each.
    pub(super) fn is_not_ready(&self) -> Vec<String> {
        let mut findings = Vec::new();
        if self.is_ending {
            findings.push("the service ends".to_owned());
        }
        for (name, line) in &self.schedules {
            let silent = line.stores.iter().filter(|(_, shown)| shown.found.is_none());
            findings.extend(
                silent.map(|(store, _)| {
                    format!("schedule {name}: store {store} has not answered yet")
                }),
            );
        }
        findings
    }
}

impl Line {
    pub(super) fn new(entry: Entry, source: SourceName, stores: Vec<StoreName>) -> Self {
        Self {
            entry,
            source,
            past: Past::default(),
            next: None,
            running_since: None,
            attempted: None,
            failures: BTreeMap::new(),
            stores: stores.into_iter().map(|store| (store, StoreLine::default())).collect(),
        }
    }
}
