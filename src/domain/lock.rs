//! What forbids that a store deletes an object, and whether a lock fits how long backups are kept. Asks no store.

use std::fmt;

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{retention::Keep, schedule::Timetable};

/// Who may lift a retention before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LockMode {
    /// Whoever has the right to bypass it. This program never does.
    Governance,
    /// Nobody, not even the owner of the account.
    Compliance,
}

/// What a store says that protects one version of an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Protection {
    pub mode: Option<LockMode>,
    pub retain_until: Option<Timestamp>,
    pub legal_hold: bool,
}

/// Why a version cannot be deleted yet. Of two the greater one lasts longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lock {
    Until(Timestamp),
    /// Until somebody lifts it.
    LegalHold,
}

impl Protection {
    /// `now` is by the store's clock. A retention that ended forbids nothing.
    pub fn lock(&self, now: Timestamp) -> Option<Lock> {
        if self.legal_hold {
            return Some(Lock::LegalHold);
        }
        self.retain_until.filter(|until| *until > now).map(Lock::Until)
    }
}

impl fmt::Display for LockMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Governance => "governance",
            Self::Compliance => "compliance",
        })
    }
}

impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Until(until) => {
                write!(f, "locked until {}", until.strftime("%Y-%m-%d %H:%M:%S UTC"))
            }
            Self::LegalHold => f.write_str("under legal hold"),
        }
    }
}

/// The longest time for which a rule keeps a backup, as the timetable has it from `now` on. None
/// where no rule is given, which keeps for ever.
fn reach(keep: &Keep, timetable: &Timetable, now: Timestamp) -> Option<SignedDuration> {
    let Keep { last, within, hourly, daily, weekly, monthly, yearly } = keep;
    let mut times = (0..).scan(now, |at, _| {
        *at = timetable.next_due(*at)?;
        Some(*at)
    });
    let newest = usize::try_from(last.unwrap_or(0)).ok()?;
    // As many ticks as backups are kept; a rule beyond that many reaches further than any lock.
    let by_count = match newest {
        0 => None,
        count if count > TICKS_MAX => return None,
        count => Some(times.nth(count - 1)?.duration_since(now)),
    };
    let by_age = within.map(|age| now.duration_since(age.before(now, &TimeZone::UTC)));
    let by_calendar =
        [(hourly, 1), (daily, 24), (weekly, 168), (monthly, 31 * 24), (yearly, 366 * 24)].map(
            |(count, hours)| {
                count.map(|count| SignedDuration::from_hours(i64::from(count) * hours))
            },
        );
    by_calendar.into_iter().chain([by_count, by_age]).flatten().max()
}

/// Ticks of a timetable that are counted one by one.
const TICKS_MAX: usize = 10_000;

/// What is wrong with locking for `days` what `keep` wants to expire earlier. Deleting is then put off.
pub fn outlasts(days: u32, keep: &Keep, timetable: &Timetable, now: Timestamp) -> Option<String> {
    let locked = SignedDuration::from_hours(i64::from(days) * 24);
    let kept = reach(keep, timetable, now)?;
    (kept < locked).then(|| {
        format!(
            "`keep` lets backups go after {} days at the latest, but each is locked for {days}",
            kept.as_hours().div_euclid(24)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_hold_and_a_retention_that_has_not_ended_forbid() {
        let until = at("2026-03-01T00:00:00Z");
        let retained = Protection {
            mode: Some(LockMode::Compliance),
            retain_until: Some(until),
            legal_hold: false,
        };
        assert_eq!(retained.lock(at("2026-02-28T23:59:59Z")), Some(Lock::Until(until)));
        assert_eq!(retained.lock(until), None);
        let held = Protection { legal_hold: true, ..retained };
        assert_eq!(held.lock(at("2027-01-01T00:00:00Z")), Some(Lock::LegalHold));
        assert_eq!(Protection::default().lock(until), None);
        assert!(Lock::LegalHold > Lock::Until(Timestamp::MAX));
    }

    #[test]
    fn a_lock_that_outlasts_what_is_kept_is_told() {
        let now = at("2026-01-01T12:00:00Z");
        let hourly = Timetable::new("0 * * * *", "UTC").unwrap();
        let last = |count| Keep { last: Some(count), ..Keep::default() };
        let told = outlasts(30, &last(3), &hourly, now).unwrap();
        assert!(told.contains("after 0 days") && told.contains("locked for 30"), "{told}");
        assert_eq!(outlasts(1, &last(48), &hourly, now), None);
        let daily = Keep { daily: Some(7), ..last(3) };
        assert_eq!(outlasts(7, &daily, &hourly, now), None);
        assert!(outlasts(8, &daily, &hourly, now).is_some());
        let within = Keep { within: Some("10d".parse().unwrap()), ..Keep::default() };
        assert_eq!(outlasts(10, &within, &hourly, now), None);
        assert!(outlasts(11, &within, &hourly, now).is_some());
    }
}
