//! Names of sources, stores, schedules, backups and runs. Checks them once; never generates chance or time.

use std::{fmt, str::FromStr};

use jiff::{Timestamp, tz::TimeZone};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer, de};

/// Why a text is not a name or an id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error(
        "{noun} name {text:?}: use 1 to 63 characters of a-z, 0-9, `-`, `_` and `.`, the first a letter or digit"
    )]
    Name { noun: &'static str, text: String },
    #[error("backup id {text:?}: expected a form such as 20261120T020000Z-daily-k3x9q2")]
    BackupId { text: String },
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $noun:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema)]
        pub struct $type(
            #[schemars(regex(pattern = r"^[a-z0-9][a-z0-9._-]{0,62}$"))] String,
        );

        impl $type {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self, Error> {
                if is_name(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(Error::Name { noun: $noun, text: text.to_owned() })
                }
            }
        }

        text_form!($type);
    };
}

/// Display, Serialize and Deserialize through the text form.
macro_rules! text_form {
    ($type:ident) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

name!(
    /// A Redis installation that is backed up. It is the first part of every key in a store.
    SourceName,
    "source"
);
name!(
    /// A place where backups live.
    StoreName,
    "store"
);
name!(
    /// What to capture when, where to keep it and how long.
    ScheduleName,
    "schedule"
);

/// Sorts by time: `20261120T020000Z-daily-k3x9q2` is UTC time, schedule or `manual`, 6 random characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackupId(String);

text_form!(BackupId);

/// The word that stands in a backup id where no schedule asked for the backup.
pub const MANUAL: &str = "manual";

const TIME_FORM: &str = "%Y%m%dT%H%M%SZ";
/// Length of what [`compact_time`] gives.
pub const COMPACT_TIME_BYTES: usize = 16;
const CHANCE_LENGTH: usize = 6;
const CHANCE_ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

impl BackupId {
    pub fn new(at: Timestamp, schedule: Option<&ScheduleName>, chance: u64) -> Self {
        let schedule = schedule.map_or(MANUAL, ScheduleName::as_str);
        Self(format!("{}-{schedule}-{}", compact_time(at), chance_text(chance)))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// When the backup began, to the second.
    pub fn begun(&self) -> Timestamp {
        parse_compact_time(&self.0[..COMPACT_TIME_BYTES]).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// The schedule's name, or `manual`.
    pub fn schedule(&self) -> &str {
        &self.0[COMPACT_TIME_BYTES + 1..self.0.len() - CHANCE_LENGTH - 1]
    }
}

impl FromStr for BackupId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parsed = || {
            let (time, rest) = text.split_at_checked(COMPACT_TIME_BYTES)?;
            parse_compact_time(time)?;
            let (schedule, chance) = rest.strip_prefix('-')?.rsplit_once('-')?;
            (is_name(schedule)
                && chance.len() == CHANCE_LENGTH
                && chance.bytes().all(|byte| CHANCE_ALPHABET.contains(&byte)))
            .then(|| Self(text.to_owned()))
        };
        parsed().ok_or_else(|| Error::BackupId { text: text.to_owned() })
    }
}

/// UTC time to the second as keys carry it: `20261120T020000Z`.
pub fn compact_time(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC).strftime(TIME_FORM).to_string()
}

/// The inverse of [`compact_time`].
pub fn parse_compact_time(text: &str) -> Option<Timestamp> {
    if text.len() != COMPACT_TIME_BYTES {
        return None;
    }
    let civil = jiff::civil::DateTime::strptime(TIME_FORM, text).ok()?;
    Some(civil.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

/// Six characters, none of which looks like another.
fn chance_text(chance: u64) -> String {
    chance
        .to_le_bytes()
        .iter()
        .take(CHANCE_LENGTH)
        .map(|byte| char::from(CHANCE_ALPHABET[usize::from(byte & 31)]))
        .collect()
}

fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_' | b'.')
    };
    (1..=63).contains(&text.len())
        && text.bytes().all(allowed)
        && text.as_bytes()[0].is_ascii_alphanumeric()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_id_tells_its_time_and_schedule() {
        let at: Timestamp = "2026-11-20T02:00:00.9Z".parse().unwrap();
        let schedule = "every-day".parse().unwrap();
        let id = BackupId::new(at, Some(&schedule), 0x1234_5678);
        assert_eq!(id.as_str().len(), 16 + 1 + 9 + 1 + 6);
        assert_eq!(id.as_str().parse::<BackupId>().unwrap(), id);
        assert_eq!(id.begun(), "2026-11-20T02:00:00Z".parse().unwrap());
        assert_eq!(id.schedule(), "every-day");
        assert_eq!(BackupId::new(at, None, 0).schedule(), "manual");
    }

    #[test]
    fn what_is_no_backup_id_is_refused() {
        for text in [
            "",
            "20261120T020000Z",
            "20261320T020000Z-daily-k3x9q2",
            "20261120T020000Z-daily-k3x9q",
            "20261120T020000Z-Daily-k3x9q2",
            "20261120T020000Z--k3x9q2",
            "../../../etc/passwd-a-k3x9q2",
        ] {
            assert!(text.parse::<BackupId>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_name_cannot_leave_its_folder() {
        for text in ["", ".", "..", "a/b", "A", "-a", "a b", &"a".repeat(64)] {
            assert!(text.parse::<SourceName>().is_err(), "{text:?}");
        }
        for text in ["a", "0", "sessions", "a.b-c_d"] {
            assert!(text.parse::<SourceName>().is_ok(), "{text:?}");
        }
    }
}
