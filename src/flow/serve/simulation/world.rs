//! Sources, stores and a clock that the scheduler takes for real, and what they saw of it. Judges only what must never be.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
use tokio::time::{Instant, sleep, timeout};

use crate::flow::serve::{
    board::{Board, Line},
    look::{InStore, Newest, Seen},
    scheduler::{Pace, Scheduler, Work},
};
use crate::{
    domain::{
        agenda::{Attempt, Entry, Past},
        identity::{BackupId, ScheduleName, SourceName},
        schedule::Timetable,
    },
    edge::store,
    failure::{Exit, Failure},
};

/// What lies in the stores outlives every restart.
pub(super) struct World {
    schedules: BTreeMap<ScheduleName, (Entry, SourceName)>,
    begun: Instant,
    origin: Timestamp,
    state: Mutex<State>,
}

pub(super) struct State {
    pub(super) chance: SmallRng,
    /// How far the clock jumped so far.
    pub(super) jumped: SignedDuration,
    pub(super) done: BTreeMap<ScheduleName, Vec<Timestamp>>,
    pub(super) failed: BTreeMap<ScheduleName, Vec<Attempt>>,
    pub(super) failed_in_a_row: BTreeMap<ScheduleName, u32>,
    pub(super) running: BTreeSet<SourceName>,
    pub(super) running_most: usize,
    pub(super) away_until: Instant,
    pub(super) fails: bool,
    pub(super) runs_take: Duration,
    pub(super) proofs: usize,
    pub(super) attempts: usize,
    /// What must never be. A run that panics would be taken for one that failed.
    pub(super) violations: Vec<String>,
    /// Another service is at work, too.
    pub(super) is_shared: bool,
    pub(super) never_works: bool,
}

/// A run that is dropped no longer runs.
struct Running<'a>(&'a World, SourceName);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.state().running.remove(&self.1);
    }
}

impl World {
    pub(super) fn new(
        origin: &str,
        seed: u64,
        schedules: &[(&str, &str, &str, &str, i64)],
    ) -> Rc<Self> {
        let schedules = schedules.iter().map(|(name, source, cron, zone, jitter)| {
            let name: ScheduleName = name.parse().unwrap();
            let timetable = Timetable::new(cron, zone).unwrap();
            let jitter = SignedDuration::from_mins(*jitter);
            let entry = Entry { name: name.clone(), timetable, jitter, start_deadline: None };
            (name, (entry, source.parse().unwrap()))
        });
        let (schedules, begun) = (schedules.collect(), Instant::now());
        let state = State {
            chance: SmallRng::seed_from_u64(seed),
            jumped: SignedDuration::ZERO,
            done: BTreeMap::new(),
            failed: BTreeMap::new(),
            failed_in_a_row: BTreeMap::new(),
            running: BTreeSet::new(),
            running_most: 0,
            away_until: begun,
            fails: true,
            runs_take: Duration::from_mins(5),
            proofs: 0,
            attempts: 0,
            violations: Vec::new(),
            is_shared: false,
            never_works: false,
        };
        let origin = origin.parse().unwrap();
        Rc::new(Self { schedules, begun, origin, state: Mutex::new(state) })
    }

    pub(super) fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn chance(&self, below: u64) -> u64 {
        self.state().chance.random_range(0..below)
    }

    fn is_away(&self) -> bool {
        let mut state = self.state();
        if state.fails
            && state.away_until <= Instant::now()
            && state.chance.random_range(0..400) == 0
        {
            let minutes = state.chance.random_range(1..12);
            state.away_until = Instant::now() + Duration::from_mins(minutes);
        }
        state.away_until > Instant::now()
    }

    pub(super) fn scheduler(self: &Rc<Self>, pace: Pace) -> Scheduler {
        self.scheduler_with_board(pace).0
    }

    pub(super) fn scheduler_with_board(self: &Rc<Self>, pace: Pace) -> (Scheduler, Arc<Board>) {
        let entries = self.schedules.values().cloned().collect();
        let lines = self.schedules.iter().map(|(name, (entry, source))| {
            let stores = vec!["disk".parse().unwrap()];
            (name.clone(), Line::new(entry.clone(), source.clone(), stores))
        });
        let board = Arc::new(Board::of(lines.collect(), self.now()));
        let work: Rc<dyn Work> = Rc::<Self>::clone(self);
        (Scheduler::new(entries, work, Arc::clone(&board), 2, pace), board)
    }

    /// Lives until `end` with a kill now and then, and so long without it.
    pub(super) async fn live(self: &Rc<Self>, end: &str, pace: Pace) {
        let end: Timestamp = end.parse().unwrap();
        while self.now() < end {
            let left = Duration::try_from(end.duration_since(self.now())).unwrap();
            let life = Duration::from_mins(1 + self.chance(60 * 30)).min(left);
            let _ = timeout(life, self.scheduler(pace).run(std::future::pending())).await;
            sleep(Duration::from_secs(1 + self.chance(10 * 60))).await;
        }
    }

    pub(super) fn done(&self, name: &str) -> Vec<Timestamp> {
        let name: ScheduleName = name.parse().unwrap();
        self.state().done.get(&name).cloned().unwrap_or_default()
    }

    /// Each moment since the origin, once.
    #[track_caller]
    pub(super) fn assert_none_missed_none_doubled(&self, end: &str) {
        assert_eq!(self.state().violations, Vec::<String>::new());
        let end: Timestamp = end.parse().unwrap();
        for (name, (entry, _)) in &self.schedules {
            // The moment before the origin is owed, too.
            let first = entry.timetable.last_due(self.origin);
            let next = |moment: &Timestamp| entry.timetable.next_due(*moment);
            let meant: Vec<Timestamp> =
                std::iter::successors(first, next).take_while(|moment| *moment < end).collect();
            let done = self.done(name.as_str());
            let (meant_set, done_set): (BTreeSet<_>, BTreeSet<_>) =
                (meant.iter().collect(), done.iter().collect());
            assert_eq!(done.len(), done_set.len(), "{name}: a moment was done twice");
            let mut missed: Vec<_> = meant_set.difference(&done_set).collect();
            // The last may still be on its way.
            missed.retain(|moment| ***moment != meant[meant.len() - 1]);
            assert!(missed.is_empty(), "{name}: {missed:?} of {} missed", meant.len());
            assert!(done_set.is_subset(&meant_set), "{name}: nobody meant these");
        }
    }
}

#[async_trait(?Send)]
impl Work for World {
    fn now(&self) -> Timestamp {
        let elapsed = SignedDuration::try_from(self.begun.elapsed()).unwrap();
        self.origin + elapsed + self.state().jumped
    }

    async fn look(&self, schedule: &ScheduleName) -> Result<Seen, Failure> {
        sleep(Duration::from_millis(200)).await;
        let attempt = || "look".to_owned();
        let found = if self.is_away() {
            let source = store::Error::Unavailable { attempt: attempt(), source: "away".into() };
            Err(Failure::Store { attempt: attempt(), source })
        } else {
            let state = self.state();
            let done = state.done.get(schedule).and_then(|done| done.iter().max().copied());
            let failed = state.failed.get(schedule).cloned().unwrap_or_default();
            let newest = done.map(|moment| Newest {
                backup: BackupId::new(moment, Some(schedule), 0),
                scheduled_for: done,
                facts: None,
            });
            Ok(InStore { past: Past { done, failed }, newest, ..InStore::default() })
        };
        Ok(Seen { stores: [("disk".parse().unwrap(), found)].into() })
    }

    async fn back_up(
        &self,
        schedule: &ScheduleName,
        scheduled_for: Timestamp,
    ) -> Result<Exit, Failure> {
        let source = self.schedules[schedule].1.clone();
        let (takes, fails) = {
            let mut state = self.state();
            let is_alone = state.running.insert(source.clone());
            // The lock of the host.
            if !is_alone && state.is_shared {
                return Err(Failure::Locked { source_name: source });
            }
            if !is_alone {
                state.violations.push(format!("two runs of {source} at once"));
            }
            state.attempts += 1;
            if state.never_works {
                state.running.remove(&source);
                let finding = "it never works".to_owned();
                return Err(Failure::Unsettled { source_name: source, finding });
            }
            state.running_most = state.running_most.max(state.running.len());
            let longest = state.runs_take.as_secs();
            let takes = Duration::from_secs(state.chance.random_range(1..longest));
            (takes, state.fails && state.chance.random_range(0..10) == 0)
        };
        let _running = Running(self, source);
        sleep(takes).await;
        let now = self.now();
        let mut state = self.state();
        let in_a_row = state.failed_in_a_row.entry(schedule.clone()).or_default();
        if fails && *in_a_row < 2 {
            *in_a_row += 1;
            // Not each failure is noted: the store may have been the reason.
            if state.chance.random_range(0..2) == 0 {
                let attempt = Attempt { scheduled_for, ended: now };
                state.failed.entry(schedule.clone()).or_default().push(attempt);
            }
            let finding = "by chance".to_owned();
            return Err(Failure::Unsettled { source_name: "one".parse().unwrap(), finding });
        }
        *in_a_row = 0;
        let done = state.done.entry(schedule.clone()).or_default();
        let is_doubled = done.contains(&scheduled_for);
        done.push(scheduled_for);
        state.failed.remove(schedule);
        if is_doubled {
            state.violations.push(format!("{schedule}: {scheduled_for} is done twice"));
        }
        Ok(Exit::Done)
    }

    async fn prove(&self, _: &ScheduleName, _: Timestamp, _: &Seen) -> Result<Exit, Failure> {
        self.state().proofs += 1;
        Ok(Exit::Done)
    }
}
