//! Which notes of runs were kept long enough. Decides; never deletes.

use std::collections::BTreeSet;

use jiff::SignedDuration;

use crate::domain::{identity::ScheduleName, record::Run};

/// Whoever wants to know why a backup failed asks within weeks.
pub const NOTES_KEPT: SignedDuration = SignedDuration::from_hours(90 * 24);

/// Of notes that are older than that: all but the newest of each verb, outcome and schedule, so that what
/// happens once a year is still told when it happened last.
pub fn expired_notes<T>(mut old: Vec<(T, Run)>) -> Vec<T> {
    old.sort_by_key(|(_, run)| std::cmp::Reverse(run.begun));
    let mut seen: BTreeSet<(String, Option<ScheduleName>)> = BTreeSet::new();
    let is_expired = |(note, run): (T, Run)| {
        let is_newest = seen.insert((run.word(), run.schedule));
        (!is_newest).then_some(note)
    };
    old.into_iter().filter_map(is_expired).collect()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::domain::record::{self, RunKind};

    fn run(second: i64, schedule: &str, exit: u8) -> Run {
        let begun = Timestamp::from_second(second).unwrap();
        Run {
            version: record::VERSION,
            source: "sessions".parse().unwrap(),
            kind: if schedule.is_empty() { RunKind::Prune } else { RunKind::Backup },
            begun,
            ended: begun,
            tool: String::new(),
            backup: None,
            schedule: schedule.parse().ok(),
            scheduled_for: None,
            exit,
            error: None,
        }
    }

    #[test]
    fn the_newest_of_each_schedule_and_outcome_stays() {
        let runs = [
            (run(1, "daily", 0), true),
            (run(5, "daily", 0), false),
            (run(2, "daily", 11), true),
            (run(3, "daily", 10), false),
            (run(1, "yearly", 0), false),
            (run(4, "", 0), false),
            (run(3, "", 0), true),
        ];
        let expired = expired_notes(runs.iter().map(|(run, _)| run.clone()).enumerate().collect());
        for (index, (run, is_expired)) in runs.iter().enumerate() {
            assert_eq!(expired.contains(&index), *is_expired, "{run:?}");
        }
        assert_eq!(expired_notes(Vec::<((), Run)>::new()), []);
    }
}
