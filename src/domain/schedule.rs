//! When a schedule is due. Decides from an expression and a moment; never looks at a clock.

use std::{fmt, str::FromStr};

use croner::Cron;
use jiff::{SignedDuration, Timestamp, tz::TimeZone};

/// A cron expression of five fields as Kubernetes reads them, in a time zone.
#[derive(Clone, Debug)]
pub struct Timetable {
    cron: Cron,
    timezone: TimeZone,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cron expression {expression:?}: {finding}")]
    Expression { expression: String, finding: String },
    #[error("time zone {name:?}: no such zone in the IANA database")]
    Timezone {
        name: String,
        #[source]
        source: jiff::Error,
    },
}

impl Timetable {
    /// `expression` has five fields (minute, hour, day, month, weekday) or is `@hourly`, `@daily`, …
    pub fn new(expression: &str, timezone: &str) -> Result<Self, Error> {
        let cron = Cron::from_str(expression).map_err(|error| Error::Expression {
            expression: expression.to_owned(),
            finding: error.to_string(),
        })?;
        let fields = expression.split_whitespace().count();
        if fields != 5 && !expression.starts_with('@') {
            return Err(Error::Expression {
                expression: expression.to_owned(),
                finding: format!(
                    "{fields} fields; expected five: minute hour day-of-month month day-of-week"
                ),
            });
        }
        let timezone = TimeZone::get(timezone)
            .map_err(|source| Error::Timezone { name: timezone.to_owned(), source })?;
        Ok(Self { cron, timezone })
    }

    pub fn timezone(&self) -> &TimeZone {
        &self.timezone
    }

    /// The last moment at or before `now` that the schedule meant.
    pub fn last_due(&self, now: Timestamp) -> Option<Timestamp> {
        let now = now.to_zoned(self.timezone.clone());
        let due = self.cron.find_previous_occurrence(&now, true).ok()?;
        Some(due.timestamp())
    }

    /// The first moment after `now` that the schedule means.
    pub fn next_due(&self, now: Timestamp) -> Option<Timestamp> {
        let now = now.to_zoned(self.timezone.clone());
        let due = self.cron.find_next_occurrence(&now, false).ok()?;
        Some(due.timestamp())
    }

    /// The least time between two moments of those that a year shows, of the first hundred at most.
    pub fn least_gap(&self) -> Option<SignedDuration> {
        let next = |moment: &Timestamp| self.next_due(*moment);
        let moments = std::iter::successors(self.next_due(Timestamp::UNIX_EPOCH), next);
        let moments: Vec<Timestamp> = moments.take(100).collect();
        moments.windows(2).map(|pair| pair[1].duration_since(pair[0])).min()
    }
}

impl fmt::Display for Timetable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let zone = self.timezone.iana_name().unwrap_or("UTC");
        write!(f, "{} {zone}", self.cron.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(expression: &str, timezone: &str, now: &str, due: &str) {
        let timetable = Timetable::new(expression, timezone).unwrap();
        assert_eq!(timetable.last_due(now.parse().unwrap()), Some(due.parse().unwrap()));
    }

    #[test]
    fn the_last_due_moment_may_be_now() {
        check("0 2 * * *", "UTC", "2026-11-20T02:00:00Z", "2026-11-20T02:00:00Z");
        check("0 2 * * *", "UTC", "2026-11-20T01:59:59Z", "2026-11-19T02:00:00Z");
        check("@hourly", "UTC", "2026-11-20T01:59:59Z", "2026-11-20T01:00:00Z");
        check("0 0 * * 0", "UTC", "2026-11-20T12:00:00Z", "2026-11-15T00:00:00Z");
    }

    #[test]
    fn the_time_zone_moves_with_summer_time() {
        check("0 2 * * *", "Europe/Berlin", "2026-07-01T12:00:00Z", "2026-07-01T00:00:00Z");
        check("0 2 * * *", "Europe/Berlin", "2026-12-01T12:00:00Z", "2026-12-01T01:00:00Z");
    }

    #[test]
    fn what_is_no_timetable_is_named() {
        for (expression, timezone, expected) in [
            ("61 * * * *", "UTC", "61 * * * *"),
            ("0 0 2 * * *", "UTC", "6 fields"),
            ("every day", "UTC", "every day"),
            ("0 2 * * *", "Europe/Atlantis", "Europe/Atlantis"),
        ] {
            let error = Timetable::new(expression, timezone).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
