//! The loop of the service: looks, decides what starts, waits. Never waits for a store or a source itself.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::{
    task::{Id, JoinError, JoinSet},
    time::{Instant, sleep, timeout_at},
};
use tracing::Instrument as _;

use super::{
    board::Board,
    look::Seen,
    run::{Ran, run, with_own},
};
use crate::{
    domain::{
        agenda::{Attempt, Due, Entry, Past, queue},
        identity::{ScheduleName, SourceName},
    },
    failure::{Exit, Failure, chain},
};

/// Schedules that are looked at at the same time.
const LOOKS_AT_ONCE: usize = 8;

/// After the first look that got no answer; doubled after each further one, up to the usual time between two.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Kubernetes kills after 30 s; a single run ends within 20.
const END_WITHIN: Duration = Duration::from_secs(25);

/// Failed attempts of this process that are remembered for a schedule.
const ATTEMPTS_MAX: usize = 64;

/// What the scheduler asks of the world outside; a simulation stands in for it.
///
/// Its futures stay on one thread: what they wait for works on others.
#[async_trait(?Send)]
pub(super) trait Work {
    fn now(&self) -> Timestamp;

    /// What is known of a schedule's backups and attempts.
    async fn look(&self, schedule: &ScheduleName) -> Result<Seen, Failure>;

    /// Takes the backup of that moment.
    async fn back_up(
        &self,
        schedule: &ScheduleName,
        scheduled_for: Timestamp,
    ) -> Result<Exit, Failure>;

    /// Proves the backup of that moment where it was seen.
    async fn prove(
        &self,
        schedule: &ScheduleName,
        scheduled_for: Timestamp,
        seen: &Seen,
    ) -> Result<Exit, Failure>;
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// The clock is looked at so often, whatever it may do meanwhile.
    pub(super) wait_max: Duration,
    /// Others take and expire backups too.
    pub(super) look_every: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { wait_max: Duration::from_mins(1), look_every: Duration::from_mins(5) }
    }
}

pub(super) struct Scheduler {
    lines: BTreeMap<ScheduleName, Line>,
    work: Rc<dyn Work>,
    board: Arc<Board>,
    backups_at_once: usize,
    pace: Pace,
    jobs: JoinSet<Job>,
    names: HashMap<Id, ScheduleName>,
}

/// One schedule and what this process knows of it.
struct Line {
    entry: Entry,
    source: SourceName,
    past: Past,
    /// Before the first answer of a store, and again when none answered as a run should start: nothing starts.
    is_unseen: bool,
    /// What failed here and may stand in no store.
    own: Vec<Attempt>,
    doing: Doing,
    look_at: Instant,
    looks_failed: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Nothing,
    Looking,
    Running { scheduled_for: Timestamp },
}

/// What a job of a schedule came to.
enum Job {
    Looked(Result<Seen, Failure>),
    Ran(Box<Ran>),
}

impl Scheduler {
    pub(super) fn new(
        entries: Vec<(Entry, SourceName)>,
        work: Rc<dyn Work>,
        board: Arc<Board>,
        backups_at_once: usize,
        pace: Pace,
    ) -> Self {
        let look_at = Instant::now();
        let line = |(entry, source): (Entry, SourceName)| {
            let line = Line {
                source,
                past: Past::default(),
                is_unseen: true,
                own: Vec::new(),
                doing: Doing::Nothing,
                look_at,
                looks_failed: 0,
                entry,
            };
            (line.entry.name.clone(), line)
        };
        let lines = entries.into_iter().map(line).collect();
        let (jobs, names) = (JoinSet::new(), HashMap::new());
        Self { lines, work, board, backups_at_once, pace, jobs, names }
    }

    /// Returns when `end` does, and what was running has ended. Wants to run in a `LocalSet`.
    pub(super) async fn run(mut self, end: impl Future<Output = Failure>) -> Failure {
        tokio::pin!(end);
        loop {
            let wait = self.turn();
            tokio::select! {
                biased;
                failure = &mut end => {
                    self.finish().await;
                    return failure;
                }
                Some(joined) = self.jobs.join_next_with_id() => self.joined(joined),
                () = sleep(wait) => {}
            }
        }
    }

    /// Starts what may start. How long to wait unless something ends before.
    fn turn(&mut self) -> Duration {
        let (now, instant) = (self.work.now(), Instant::now());
        self.board.turned(instant);
        self.start_looks(instant);
        let mut wait = self.pace.wait_max;
        let mut waiting = Vec::new();
        for (name, line) in &self.lines {
            if line.doing != Doing::Nothing {
                continue;
            }
            wait = wait.min(line.look_at.saturating_duration_since(instant));
            if line.is_unseen {
                continue;
            }
            match line.entry.due(&with_own(&line.past, &line.own), now) {
                Due::Now { scheduled_for } => {
                    self.board.next(name, Some(scheduled_for));
                    waiting.push(queue::Waiting {
                        schedule: name.clone(),
                        source: line.source.clone(),
                        scheduled_for,
                        tried: line.tried(),
                    });
                }
                Due::Later(then) => {
                    self.board.next(name, Some(then));
                    let until = Duration::try_from(then.duration_since(now));
                    wait = wait.min(until.unwrap_or_default());
                }
                Due::Never => self.board.next(name, None),
            }
        }
        for started in queue::starts(waiting, &self.busy(), self.free()) {
            self.start(&started);
        }
        // A look that waits for its turn begins when another ends.
        wait.max(Duration::from_millis(10))
    }

    fn busy(&self) -> BTreeSet<SourceName> {
        let busy = self.lines.values().filter(|line| line.is_running());
        busy.map(|line| line.source.clone()).collect()
    }

    fn free(&self) -> usize {
        let running = self.lines.values().filter(|line| line.is_running()).count();
        self.backups_at_once.saturating_sub(running)
    }

    fn start_looks(&mut self, instant: Instant) {
        let is_looking = |line: &&Line| line.doing == Doing::Looking;
        let free = LOOKS_AT_ONCE.saturating_sub(self.lines.values().filter(is_looking).count());
        let is_due = |line: &Line| line.doing == Doing::Nothing && line.look_at <= instant;
        for (name, line) in self.lines.iter_mut().filter(|(_, line)| is_due(line)).take(free) {
            line.doing = Doing::Looking;
            let (work, schedule) = (Rc::clone(&self.work), name.clone());
            let look = async move { Job::Looked(work.look(&schedule).await) };
            let span = tracing::info_span!("look", schedule = %name);
            let id = self.jobs.spawn_local(look.instrument(span)).id();
            self.names.insert(id, name.clone());
        }
    }

    fn start(&mut self, started: &queue::Waiting) {
        let queue::Waiting { schedule, source: _, scheduled_for, tried: _ } = started;
        let Some(line) = self.lines.get_mut(schedule) else { return };
        line.doing = Doing::Running { scheduled_for: *scheduled_for };
        self.board.started(schedule, self.work.now());
        let span = tracing::info_span!("run", %schedule, %scheduled_for);
        let run = run(Rc::clone(&self.work), line.entry.clone(), line.own.clone(), *scheduled_for);
        let id = self
            .jobs
            .spawn_local(async move { Job::Ran(Box::new(run.await)) }.instrument(span))
            .id();
        self.names.insert(id, schedule.clone());
    }

    fn joined(&mut self, joined: Result<(Id, Job), JoinError>) {
        let id = match &joined {
            Ok((id, _)) => *id,
            Err(error) => error.id(),
        };
        let Some(name) = self.names.remove(&id) else { return };
        let Some(line) = self.lines.get_mut(&name) else { return };
        let (doing, now) = (std::mem::replace(&mut line.doing, Doing::Nothing), self.work.now());
        let job = joined.map_or_else(|_| died(doing, now), |(_, job)| job);
        let instant = Instant::now();
        match job {
            Job::Looked(result) => {
                let seen = result.ok();
                line.looked(seen.as_ref(), self.pace, instant);
                if let Some(seen) = seen {
                    self.board.seen(&name, seen);
                }
            }
            Job::Ran(ran) => {
                line.ran(&ran, now, self.pace, instant);
                let Ran { scheduled_for: _, begun, has_looked: _, backed_up, proven, seen } = *ran;
                self.board.ended(&name, backed_up.as_ref(), proven.as_ref(), now);
                tracing::debug!(schedule = %name, seconds = now.duration_since(begun).as_secs(), "run ended");
                if let Some(seen) = seen {
                    self.board.seen(&name, seen);
                }
            }
        }
        self.board.past(&name, &line.past);
    }

    /// Nothing new starts; what runs was told by the same signal, and ends by itself.
    async fn finish(&mut self) {
        self.board.ending();
        let deadline = Instant::now() + END_WITHIN;
        while self.lines.values().any(Line::is_running) {
            match timeout_at(deadline, self.jobs.join_next_with_id()).await {
                Ok(Some(joined)) => self.joined(joined),
                Ok(None) => break,
                Err(_) => {
                    tracing::warn!("a run did not end in time; what it left is swept later");
                    break;
                }
            }
        }
    }
}

impl Line {
    const fn is_running(&self) -> bool {
        matches!(self.doing, Doing::Running { .. })
    }

    fn tried(&self) -> Option<Timestamp> {
        let attempts = self.past.failed.iter().chain(&self.own);
        attempts.map(|attempt| attempt.scheduled_for).chain(self.past.done).max()
    }

    fn looked(&mut self, seen: Option<&Seen>, pace: Pace, instant: Instant) {
        if let Some(seen) = seen.filter(|seen| seen.stores.values().any(Result::is_ok)) {
            self.saw(seen, pace, instant);
        } else {
            let wait = LOOK_AGAIN * (1 << self.looks_failed.min(16));
            self.looks_failed += 1;
            self.look_at = instant + wait.min(pace.look_every);
        }
    }

    fn saw(&mut self, seen: &Seen, pace: Pace, instant: Instant) {
        let mut past = seen.past();
        if !seen.is_complete() {
            past.done = past.done.max(self.past.done);
        }
        let done = past.done;
        self.own.retain(|attempt| done.is_none_or(|done| attempt.scheduled_for > done));
        self.past = past;
        self.is_unseen = false;
        self.looks_failed = 0;
        self.look_at = instant + pace.look_every;
    }

    fn ran(&mut self, ran: &Ran, now: Timestamp, pace: Pace, instant: Instant) {
        let Ran { scheduled_for, begun, has_looked, backed_up, proven: _, seen } = ran;
        self.looked(seen.as_ref(), pace, instant);
        match backed_up {
            Some(Ok(_)) => {
                // The store may have gone down right after.
                self.past.done = self.past.done.max(Some(*scheduled_for));
            }
            // It was not tried: as soon as a store answers, it is.
            Some(Err(_)) if !has_looked => self.is_unseen = true,
            Some(Err(Failure::Ended { .. })) | None => {}
            Some(Err(_)) => {
                let is_noted = |attempt: &Attempt| {
                    attempt.scheduled_for == *scheduled_for && attempt.ended >= *begun
                };
                if !self.past.failed.iter().any(is_noted) {
                    self.own.push(Attempt { scheduled_for: *scheduled_for, ended: now });
                    let surplus = self.own.len().saturating_sub(ATTEMPTS_MAX);
                    self.own.drain(..surplus);
                }
            }
        }
    }
}

/// A job that ended by a bug: the schedule goes on as after any failure.
fn died(doing: Doing, now: Timestamp) -> Job {
    let failure = Failure::Worker { attempt: "serve a schedule" };
    tracing::error!(hint = failure.hint(), "{}", chain(&failure));
    match doing {
        Doing::Running { scheduled_for } => Job::Ran(Box::new(Ran {
            scheduled_for,
            begun: now,
            has_looked: true,
            backed_up: Some(Err(failure)),
            proven: None,
            seen: None,
        })),
        Doing::Looking | Doing::Nothing => Job::Looked(Err(failure)),
    }
}
