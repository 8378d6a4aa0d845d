//! Which of the backups that are due start now, given what runs. Decides; starts nothing.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::domain::identity::{ScheduleName, SourceName};

/// A schedule whose moment has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub schedule: ScheduleName,
    pub source: SourceName,
    pub scheduled_for: Timestamp,
    /// The last moment that was tried, with or without success.
    pub tried: Option<Timestamp>,
}

/// At most `free` of them, and one of a source that is not `busy`.
///
/// Who was not tried for longest goes first. By the moment alone, two schedules of a source whose runs take longer than
/// their moments lie apart would share each moment, and the same name would win every time.
pub fn starts(mut waiting: Vec<Waiting>, busy: &BTreeSet<SourceName>, free: usize) -> Vec<Waiting> {
    waiting.sort_by(|left, right| {
        let Waiting { schedule, source: _, scheduled_for, tried } = left;
        (tried, scheduled_for, schedule).cmp(&(&right.tried, &right.scheduled_for, &right.schedule))
    });
    let mut busy = busy.clone();
    // A busy source keeps nobody behind it from starting.
    waiting.retain(|waiting| busy.insert(waiting.source.clone()));
    waiting.truncate(free);
    waiting
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn waiting(schedule: &str, source: &str, tried: Option<i64>) -> Waiting {
        Waiting {
            schedule: schedule.parse().unwrap(),
            source: source.parse().unwrap(),
            scheduled_for: Timestamp::from_second(1000).unwrap(),
            tried: tried.map(|tried| Timestamp::from_second(tried).unwrap()),
        }
    }

    fn names(started: &[Waiting]) -> Vec<&str> {
        started.iter().map(|started| started.schedule.as_str()).collect()
    }

    #[test]
    fn one_of_a_source_starts_and_the_longest_untried_first() {
        let all = vec![
            waiting("a-hourly", "one", Some(900)),
            waiting("b-daily", "one", Some(500)),
            waiting("c-new", "two", None),
            waiting("d-hourly", "three", Some(900)),
        ];
        let none = BTreeSet::new();
        assert_eq!(names(&starts(all.clone(), &none, 9)), ["c-new", "b-daily", "d-hourly"]);
        assert_eq!(names(&starts(all.clone(), &none, 2)), ["c-new", "b-daily"]);
        assert!(starts(all.clone(), &none, 0).is_empty());
        let busy = ["one".parse().unwrap()].into();
        assert_eq!(names(&starts(all, &busy, 1)), ["c-new"]);
    }

    proptest! {
        /// All are due all the time, as when each run takes longer than the moments lie apart.
        #[test]
        fn nobody_starves(
            sources in prop::collection::vec(0_u8..4, 1..9),
            free in 1_usize..4,
            turns in 1_i64..60,
        ) {
            let mut tried: Vec<Option<i64>> = vec![None; sources.len()];
            let mut passed_over = vec![0; sources.len()];
            for turn in 0..turns {
                let all = sources.iter().zip(&tried).enumerate().map(|(index, (source, tried))| {
                    waiting(&format!("s{index}"), &format!("source{source}"), *tried)
                });
                let started = starts(all.collect(), &BTreeSet::new(), free);
                prop_assert!(!started.is_empty() && started.len() <= free);
                let begun: BTreeSet<&SourceName> = started.iter().map(|it| &it.source).collect();
                prop_assert_eq!(begun.len(), started.len());
                for index in 0..sources.len() {
                    if names(&started).contains(&format!("s{index}").as_str()) {
                        tried[index] = Some(turn);
                        passed_over[index] = 0;
                    } else {
                        passed_over[index] += 1;
                        prop_assert!(passed_over[index] <= sources.len(), "s{} starves", index);
                    }
                }
            }
        }
    }
}
