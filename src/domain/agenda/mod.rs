//! What is due now, by timetable, clock and what is known of earlier runs. Decides; remembers nothing.

pub mod queue;

use std::{
    fmt,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    str::FromStr,
};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer, de};

use super::{identity::ScheduleName, schedule::Timetable};

/// After so many failures in a row the wait between two attempts grows no more.
const DOUBLINGS_MAX: u32 = 4;

/// Between the first failure and the second attempt; doubled after each further one.
const RETRY_AFTER: SignedDuration = SignedDuration::from_mins(1);

/// A backup that is not there so long after its moment is overdue.
const OVERDUE_AFTER: SignedDuration = SignedDuration::from_hours(1);

/// One schedule, and how freely its moments may be taken.
#[derive(Clone, Debug)]
pub struct Entry {
    pub name: ScheduleName,
    pub timetable: Timetable,
    /// Starts are spread over so long after their moment, each always by the same amount.
    pub jitter: SignedDuration,
    /// A moment that passed so long ago is missed; without it, its successor ends it.
    pub start_deadline: Option<SignedDuration>,
}

/// What store and run records tell of one schedule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Past {
    /// The last moment for which a backup exists.
    pub done: Option<Timestamp>,
    /// Attempts that failed, in any order.
    pub failed: Vec<Attempt>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    pub scheduled_for: Timestamp,
    pub ended: Timestamp,
}

/// When a run for a moment may begin, and until when it may wait for another one to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub begins: Timestamp,
    pub ends: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Start it, for this moment.
    Now { scheduled_for: Timestamp },
    /// Nothing before this; look again then.
    Later(Timestamp),
    /// The timetable names no further moment.
    Never,
}

/// A length of time by the clock, longer than nothing and at most a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lapse(SignedDuration);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no length of time of at most a day: write `90s`, `5m` or `1h`")]
pub struct NotALapse {
    text: String,
}

impl Lapse {
    pub const fn duration(self) -> SignedDuration {
        self.0
    }
}

impl FromStr for Lapse {
    type Err = NotALapse;

    fn from_str(text: &str) -> Result<Self, NotALapse> {
        let is_fit = |lapse: &SignedDuration| {
            lapse.is_positive() && *lapse <= SignedDuration::from_hours(24)
        };
        let lapse = text.parse::<SignedDuration>().ok().filter(is_fit);
        lapse.map(Self).ok_or_else(|| NotALapse { text: text.to_owned() })
    }
}

impl fmt::Display for Lapse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.0)
    }
}

impl<'de> Deserialize<'de> for Lapse {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// The moment that an entry owes at `now`, and when it can be started.
#[derive(Clone, Copy, Debug)]
struct Owed {
    scheduled_for: Timestamp,
    start: Timestamp,
}

impl Entry {
    pub fn due(&self, past: &Past, now: Timestamp) -> Due {
        match self.owed(past, now) {
            Some(owed) if owed.start <= now => Due::Now { scheduled_for: owed.scheduled_for },
            Some(owed) => self.earlier_of(Some(owed.start), now),
            None => self.earlier_of(None, now),
        }
    }

    /// From its spread start to its deadline, or else to the moment after it.
    pub fn window(&self, scheduled_for: Timestamp) -> Window {
        let next = self.timetable.next_due(scheduled_for).unwrap_or(Timestamp::MAX);
        let deadline = self.start_deadline.map(|it| later(scheduled_for, it + self.jitter));
        let ends = deadline.map_or(next, |deadline| deadline.min(next));
        Window { begins: self.begins(scheduled_for), ends }
    }

    /// Whether a backup that the schedule meant to have by now is missing.
    pub fn is_overdue(&self, past: &Past, watched_since: Timestamp, now: Timestamp) -> bool {
        let Ok(meant_by) = now.checked_sub(OVERDUE_AFTER + self.jitter) else { return false };
        let meant = self.timetable.last_due(meant_by);
        // Before the first backup there is no telling when the schedule was made.
        match past.done {
            Some(done) => meant.is_some_and(|meant| meant > done),
            None => meant.is_some() && watched_since <= meant_by,
        }
    }

    /// The newest moment that has begun is owed; the one before it ended when it began.
    fn owed(&self, past: &Past, now: Timestamp) -> Option<Owed> {
        let newest = self.timetable.last_due(now)?;
        let scheduled_for = if self.begins(newest) <= now {
            newest
        } else {
            self.timetable.last_due(newest.checked_sub(SignedDuration::from_secs(1)).ok()?)?
        };
        if past.done.is_some_and(|done| done >= scheduled_for) {
            return None;
        }
        let failed = past.failed.iter().filter(|attempt| attempt.scheduled_for == scheduled_for);
        let (count, last) = failed.fold((0_u32, None), |(count, last), attempt| {
            (count + 1, last.max(Some(attempt.ended)))
        });
        let wait = RETRY_AFTER * (1 << count.saturating_sub(1).min(DOUBLINGS_MAX));
        let start = last.map_or(self.begins(scheduled_for), |ended| later(ended, wait));
        let is_missed = self
            .start_deadline
            .is_some_and(|deadline| start.max(now) > later(scheduled_for, deadline + self.jitter));
        (!is_missed).then_some(Owed { scheduled_for, start })
    }

    fn earlier_of(&self, start: Option<Timestamp>, now: Timestamp) -> Due {
        // The start of the newest moment may be still to come.
        let newest = self.timetable.last_due(now).map(|newest| self.begins(newest));
        let newest = newest.filter(|begins| *begins > now);
        let next = newest.or_else(|| Some(self.begins(self.timetable.next_due(now)?)));
        start.into_iter().chain(next).min().map_or(Due::Never, Due::Later)
    }

    /// Always the same for the same moment, so that a restart in between changes nothing.
    fn begins(&self, scheduled_for: Timestamp) -> Timestamp {
        let span = u64::try_from(self.jitter.as_secs()).unwrap_or(0);
        if span == 0 {
            return scheduled_for;
        }
        let mut hasher = DefaultHasher::new();
        (self.name.as_str(), scheduled_for.as_second()).hash(&mut hasher);
        let offset = i64::try_from(hasher.finish() % span).unwrap_or(0);
        later(scheduled_for, SignedDuration::from_secs(offset))
    }
}

fn later(moment: Timestamp, by: SignedDuration) -> Timestamp {
    moment.checked_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(expression: &str, zone: &str, jitter_minutes: i64) -> Entry {
        Entry {
            name: "daily".parse().unwrap(),
            timetable: Timetable::new(expression, zone).unwrap(),
            jitter: SignedDuration::from_mins(jitter_minutes),
            start_deadline: None,
        }
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn done(text: &str) -> Past {
        Past { done: Some(at(text)), failed: Vec::new() }
    }

    #[test]
    fn a_moment_is_due_until_a_backup_is_there() {
        let entry = entry("0 2 * * *", "UTC", 0);
        let now = at("2026-11-20T02:00:00Z");
        assert_eq!(entry.due(&Past::default(), now), Due::Now { scheduled_for: now });
        assert_eq!(entry.due(&done("2026-11-19T02:00:00Z"), now), Due::Now { scheduled_for: now });
        assert_eq!(
            entry.due(&done("2026-11-20T02:00:00Z"), now),
            Due::Later(at("2026-11-21T02:00:00Z"))
        );
        // It was down at two: what was missed is made up for, once.
        assert_eq!(
            entry.due(&done("2026-11-15T02:00:00Z"), at("2026-11-20T09:00:00Z")),
            Due::Now { scheduled_for: now }
        );
    }

    #[test]
    fn a_run_waits_for_others_until_its_deadline_or_the_next_moment() {
        let moment = at("2026-11-20T02:00:00Z");
        let plain = entry("0 2 * * *", "UTC", 0).window(moment);
        assert_eq!(plain, Window { begins: moment, ends: at("2026-11-21T02:00:00Z") });
        let spread = entry("0 2 * * *", "UTC", 30);
        let deadline = Some(SignedDuration::from_hours(1));
        let window = Entry { start_deadline: deadline, ..spread }.window(moment);
        assert!(window.begins > moment && window.begins < moment + SignedDuration::from_mins(30));
        assert_eq!(window.ends, at("2026-11-20T03:30:00Z"));
        let hourly = entry("0 * * * *", "UTC", 0);
        let window = Entry { start_deadline: deadline, ..hourly }.window(moment);
        assert_eq!(window.ends, at("2026-11-20T03:00:00Z"));
    }

    #[test]
    fn a_failed_attempt_is_repeated_after_longer_and_longer_waits() {
        let entry = entry("0 2 * * *", "UTC", 0);
        let scheduled_for = at("2026-11-20T02:00:00Z");
        let failed = |minutes: &[i64]| Past {
            done: None,
            failed: minutes
                .iter()
                .map(|minute| Attempt {
                    scheduled_for,
                    ended: scheduled_for + SignedDuration::from_mins(*minute),
                })
                .collect(),
        };
        let now = at("2026-11-20T02:10:00Z");
        let next = |minutes: &[i64]| entry.due(&failed(minutes), now);
        assert_eq!(next(&[9]), Due::Now { scheduled_for });
        assert_eq!(next(&[10]), Due::Later(at("2026-11-20T02:11:00Z")));
        assert_eq!(next(&[8, 10]), Due::Later(at("2026-11-20T02:12:00Z")));
        assert_eq!(next(&[5, 6, 10]), Due::Later(at("2026-11-20T02:14:00Z")));
        assert_eq!(next(&[10; 40]), Due::Later(at("2026-11-20T02:26:00Z")));
        let of_yesterday = Attempt { scheduled_for: at("2026-11-19T02:00:00Z"), ended: now };
        let past = Past { done: None, failed: vec![of_yesterday] };
        assert_eq!(entry.due(&past, now), Due::Now { scheduled_for });
    }

    #[test]
    fn a_lapse_is_longer_than_nothing_and_no_longer_than_a_day() {
        let lapse = |text: &str| text.parse::<Lapse>().map(Lapse::duration);
        assert_eq!(lapse("5m"), Ok(SignedDuration::from_mins(5)));
        assert_eq!(lapse("1h 30m"), Ok(SignedDuration::from_mins(90)));
        for text in ["", "0s", "-5m", "5", "25h", "soon"] {
            assert!(lapse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_start_deadline_gives_a_moment_up() {
        let entry = Entry {
            start_deadline: Some(SignedDuration::from_mins(30)),
            ..entry("0 2 * * *", "UTC", 0)
        };
        let past = done("2026-11-19T02:00:00Z");
        let due = |now: &str| entry.due(&past, at(now));
        assert!(matches!(due("2026-11-20T02:30:00Z"), Due::Now { .. }));
        assert_eq!(due("2026-11-20T02:30:01Z"), Due::Later(at("2026-11-21T02:00:00Z")));
    }

    #[test]
    fn a_backup_is_overdue_an_hour_after_its_moment() {
        let entry = entry("0 2 * * *", "UTC", 10);
        let past = done("2026-11-19T02:00:00Z");
        let since = at("2026-11-20T01:00:00Z");
        let is_overdue = |past: &Past, now: &str| entry.is_overdue(past, since, at(now));
        assert!(!is_overdue(&past, "2026-11-20T03:09:59Z"));
        assert!(is_overdue(&past, "2026-11-20T03:10:00Z"));
        assert!(!is_overdue(&done("2026-11-20T02:00:00Z"), "2026-11-20T04:00:00Z"));
        // What was never backed up is overdue once it was watched for so long.
        assert!(!is_overdue(&Past::default(), "2026-11-20T02:09:59Z"));
        assert!(is_overdue(&Past::default(), "2026-11-20T02:10:00Z"));
    }

    /// Every moment of a year, found by walking forward, while what is tested looks back.
    fn moments(entry: &Entry, from: Timestamp, to: Timestamp) -> Vec<Timestamp> {
        let before = from - SignedDuration::from_secs(1);
        let next = |moment: &Timestamp| entry.timetable.next_due(*moment);
        let moments = std::iter::successors(next(&before), next);
        moments.take_while(|moment| *moment < to).collect()
    }

    /// A service that is restarted again and again, and whose attempts fail now and then.
    fn live(entry: &Entry, from: Timestamp, to: Timestamp, chances: &[u8]) -> Vec<Timestamp> {
        let mut chances = chances.iter().cycle();
        let mut past = Past { done: Some(from - SignedDuration::from_secs(1)), failed: vec![] };
        let (mut ran, mut now) = (Vec::new(), from);
        while now < to {
            let chance = *chances.next().unwrap();
            match entry.due(&past, now) {
                Due::Now { scheduled_for } if chance < 40 => {
                    now += SignedDuration::from_secs(20);
                    past.failed.push(Attempt { scheduled_for, ended: now });
                }
                Due::Now { scheduled_for } => {
                    ran.push(scheduled_for);
                    now += SignedDuration::from_secs(i64::from(chance));
                    past.done = Some(scheduled_for);
                    past.failed.clear();
                }
                // A restart: it looks again before it has to.
                Due::Later(then) if chance < 120 => {
                    assert!(then > now);
                    let wait = then.duration_since(now).min(SignedDuration::from_mins(47));
                    now += wait;
                }
                Due::Later(then) => now = then,
                Due::Never => break,
            }
        }
        ran
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

        #[test]
        fn in_a_year_of_restarts_no_moment_is_missed_and_none_is_done_twice(
            expression in prop::sample::select(vec![
                "0 2 * * *", "30 2 * * *", "0 */4 * * *", "15 3 * * 0", "0 0 1 * *", "30 1 * * *",
                "0 * * * *",
            ]),
            zone in prop::sample::select(vec![
                "UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu",
            ]),
            jitter in prop::sample::select(vec![0_i64, 7]),
            chances in prop::collection::vec(any::<u8>(), 97..300),
        ) {
            // A service whose every attempt fails makes nothing.
            prop_assume!(chances.iter().filter(|chance| **chance >= 40).count() > 60);
            let entry = entry(expression, zone, jitter);
            let (from, to) = (at("2026-01-01T00:00:00Z"), at("2027-01-01T00:00:00Z"));
            let ran = live(&entry, from, to, &chances);
            let mut meant = moments(&entry, from, to);
            // The last may still be on its way.
            if ran.len() < meant.len() {
                meant.pop();
            }
            prop_assert_eq!(ran, meant);
        }
    }
}
