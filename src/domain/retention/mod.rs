//! Which backups to keep. Decides; never deletes.

mod decide;
mod notes;
mod period;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod rules;
mod verdict;

use std::{fmt, str::FromStr};

use jiff::{Span, Timestamp, tz::TimeZone};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de};

pub use self::{
    decide::{Entry, Manifest, Policy, Rule, decide},
    notes::{NOTES_KEPT, expired_notes},
    period::Period,
    verdict::{Expiry, Reason, Verdict},
};

/// How many backups of a schedule are kept. A backup stays as long as one rule wants it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Keep {
    /// So many of the newest.
    pub last: Option<u32>,
    /// All that began so recently, such as `7d`, `36h` or `1y`.
    #[schemars(with = "Option<String>")]
    pub within: Option<Age>,
    /// The newest of each of so many hours, and so on; in the schedule's time zone.
    pub hourly: Option<u32>,
    pub daily: Option<u32>,
    /// Weeks begin on Monday (ISO 8601).
    pub weekly: Option<u32>,
    pub monthly: Option<u32>,
    pub yearly: Option<u32>,
}

impl Keep {
    /// A rule that wants nothing would expire everything.
    pub fn wants_nothing(&self) -> bool {
        let Self { last, within, hourly, daily, weekly, monthly, yearly } = self;
        within.is_none()
            && [last, hourly, daily, weekly, monthly, yearly]
                .iter()
                .all(|count| count.unwrap_or(0) == 0)
    }
}

/// A length of time by the calendar, longer than nothing.
#[derive(Clone, Copy, Debug)]
pub struct Age(Span);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no length of time: write `7d`, `36h`, `4w`, `6mo` or `1y`")]
pub struct NotAnAge {
    text: String,
}

impl Age {
    /// The moment so long before `now`; a day, month or year is one of that zone's calendar.
    pub fn before(self, now: Timestamp, zone: &TimeZone) -> Timestamp {
        let begun = now.to_zoned(zone.clone()).checked_sub(self.0);
        begun.map_or(Timestamp::MIN, |begun| begun.timestamp())
    }
}

impl PartialEq for Age {
    fn eq(&self, other: &Self) -> bool {
        self.0.fieldwise() == other.0.fieldwise()
    }
}

impl FromStr for Age {
    type Err = NotAnAge;

    fn from_str(text: &str) -> Result<Self, NotAnAge> {
        let span = text.parse::<Span>().ok().filter(|span| span.is_positive());
        span.map(Self).ok_or_else(|| NotAnAge { text: text.to_owned() })
    }
}

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.0)
    }
}

impl<'de> Deserialize<'de> for Age {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_longer_than_nothing_and_follows_the_calendar() {
        let now: Timestamp = "2026-03-29T12:00:00Z".parse().unwrap();
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        let before = |text: &str| text.parse::<Age>().unwrap().before(now, &berlin);
        // Berlin's clocks went forward that night: its day had 23 hours.
        assert_eq!(before("1d"), "2026-03-28T13:00:00Z".parse().unwrap());
        assert_eq!(before("24h"), "2026-03-28T12:00:00Z".parse().unwrap());
        assert_eq!(before("1mo"), "2026-02-28T13:00:00Z".parse().unwrap());
        for text in ["", "0d", "-7d", "7", "a week"] {
            assert!(text.parse::<Age>().is_err(), "{text:?}");
        }
    }
}
