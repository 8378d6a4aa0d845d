//! How long something may take, as people write it. Measures nothing.

use std::{fmt, str::FromStr, time::Duration};

use jiff::SignedDuration;
use serde::{Deserialize, Deserializer, de};

/// Longer than nothing, at most a year, to the millisecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimeLimit(Duration);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no limit of time: write `30s`, `10m`, `4h` or `1h 30m`")]
pub struct NotATimeLimit {
    text: String,
}

/// Whoever wants none still gets one.
const LIMIT_MAX: Duration = Duration::from_hours(24 * 365);
const LIMIT_MIN: Duration = Duration::from_millis(1);

impl TimeLimit {
    /// What is out of bounds becomes the nearest bound.
    pub fn new(limit: Duration) -> Self {
        Self(limit.clamp(LIMIT_MIN, LIMIT_MAX))
    }

    pub const fn get(self) -> Duration {
        self.0
    }
}

impl FromStr for TimeLimit {
    type Err = NotATimeLimit;

    fn from_str(text: &str) -> Result<Self, NotATimeLimit> {
        let limit = text.parse::<SignedDuration>().ok().and_then(|it| Duration::try_from(it).ok());
        let limit = limit.filter(|limit| (LIMIT_MIN..=LIMIT_MAX).contains(limit));
        limit.map(Self).ok_or_else(|| NotATimeLimit { text: text.to_owned() })
    }
}

impl fmt::Display for TimeLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match SignedDuration::try_from(self.0) {
            Ok(limit) => write!(f, "{limit:#}"),
            Err(_) => write!(f, "{} s", self.0.as_secs()),
        }
    }
}

impl<'de> Deserialize<'de> for TimeLimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_written_as_people_say_it() {
        for (text, seconds, printed) in [
            ("30s", 30, "30s"),
            ("10m", 600, "10m"),
            ("1h 30m", 5400, "1h 30m"),
            ("36h", 129_600, "36h"),
        ] {
            let limit: TimeLimit = text.parse().unwrap();
            assert_eq!(
                (limit.get(), limit.to_string()),
                (Duration::from_secs(seconds), printed.to_owned())
            );
        }
        for text in ["", "0s", "-5s", "30", "soon", "2y", "99999999h"] {
            assert!(text.parse::<TimeLimit>().is_err(), "{text:?}");
        }
    }
}
