//! Names of sources, stores, schedules, backups and runs. Checks them once; never generates chance or time.

use std::{cmp::Ordering, fmt, str::FromStr};

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

/// Sorts by time: `20261120T020000Z-daily-k3x9q2` is UTC time, schedule or `manual`, and 6 characters: 3 for
/// the part of the second, and 3 of chance.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BackupId(String);

text_form!(BackupId);

/// The word that stands in a backup id where no schedule asked for the backup.
pub const MANUAL: &str = "manual";

const TIME_FORM: &str = "%Y%m%dT%H%M%SZ";
/// Length of what [`compact_time`] gives.
pub const COMPACT_TIME_BYTES: usize = 16;
const ENDING_LENGTH: usize = 6;
/// In the order in which they sort; none looks like another.
const ENDING_ALPHABET: &[u8; 32] = b"23456789abcdefghijkmnpqrstuvwxyz";
const BITS_EACH: u32 = ENDING_ALPHABET.len().trailing_zeros();
/// Three characters: two runs on one host never begin so close to each other.
const PARTS_OF_A_SECOND: u64 = 1 << (3 * BITS_EACH);

impl BackupId {
    pub fn new(at: Timestamp, schedule: Option<&ScheduleName>, chance: u64) -> Self {
        let schedule = schedule.map_or(MANUAL, ScheduleName::as_str);
        Self(format!("{}-{schedule}-{}", compact_time(at), ending(at, chance)))
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
        &self.0[COMPACT_TIME_BYTES + 1..self.0.len() - ENDING_LENGTH - 1]
    }

    /// Time, part of the second and chance; the schedule's name says nothing of what is newer.
    fn order(&self) -> (&str, &str, &str) {
        let (rest, ending) = self.0.split_at(self.0.len() - ENDING_LENGTH);
        let (time, schedule) = rest.split_at(COMPACT_TIME_BYTES);
        (time, ending, schedule)
    }
}

impl Ord for BackupId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.order().cmp(&other.order())
    }
}

impl PartialOrd for BackupId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl FromStr for BackupId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parsed = || {
            let (time, rest) = text.split_at_checked(COMPACT_TIME_BYTES)?;
            parse_compact_time(time)?;
            let (schedule, ending) = rest.strip_prefix('-')?.rsplit_once('-')?;
            (is_name(schedule)
                && ending.len() == ENDING_LENGTH
                && ending.bytes().all(|byte| ENDING_ALPHABET.contains(&byte)))
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

/// Of two in the same second the newer sorts last.
fn ending(at: Timestamp, chance: u64) -> String {
    let nanosecond = u64::try_from(at.subsec_nanosecond()).unwrap_or(0);
    let part = nanosecond * PARTS_OF_A_SECOND / 1_000_000_000;
    let number = part * PARTS_OF_A_SECOND + chance % PARTS_OF_A_SECOND;
    let digit = |index: u32| {
        let digit = (number >> (index * BITS_EACH)) & 31;
        char::from(ENDING_ALPHABET[usize::try_from(digit).unwrap_or(0)])
    };
    (0..6).rev().map(digit).collect()
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
    fn of_two_backups_in_one_second_the_newer_sorts_last_whatever_chance_and_schedule() {
        let names = ["daily", "hourly", "zero"].map(|name| name.parse().unwrap());
        let schedules = [None].into_iter().chain(names.iter().map(Some));
        let kinds: Vec<_> = schedules.flat_map(|it| [(it, 0), (it, u64::MAX)]).collect();
        let moments: [Timestamp; 7] = [
            "2026-11-20T01:59:59.999999999Z",
            "2026-11-20T02:00:00Z",
            "2026-11-20T02:00:00.0001Z",
            "2026-11-20T02:00:00.001Z",
            "2026-11-20T02:00:00.5Z",
            "2026-11-20T02:00:00.999Z",
            "2026-11-20T02:00:01Z",
        ]
        .map(|text| text.parse().unwrap());
        for pair in moments.windows(2) {
            for (older, newer) in kinds.iter().flat_map(|a| kinds.iter().map(move |b| (a, b))) {
                let older = BackupId::new(pair[0], older.0, older.1);
                let newer = BackupId::new(pair[1], newer.0, newer.1);
                assert!(older < newer, "{older} {newer}");
                assert_eq!(newer.as_str().parse::<BackupId>().unwrap(), newer);
            }
        }
    }

    #[test]
    fn ids_of_one_moment_differ_by_chance() {
        let ids: std::collections::BTreeSet<BackupId> =
            (0..1000).map(|chance| BackupId::new(Timestamp::UNIX_EPOCH, None, chance)).collect();
        assert_eq!(ids.len(), 1000);
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
