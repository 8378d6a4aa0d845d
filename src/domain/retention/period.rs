//! Hours, days, weeks, months and years of a time zone, each known by the moment it began. Counts nothing.

use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    Hour,
    Day,
    Week,
    Month,
    Year,
}

impl Period {
    pub const ALL: [Self; 5] = [Self::Hour, Self::Day, Self::Week, Self::Month, Self::Year];

    /// The moment the period that contains `at` began. It names the period completely: two backups
    /// share a start exactly when they share the period, whatever year or offset it is in.
    pub fn start(self, at: Timestamp, zone: &TimeZone) -> Timestamp {
        let local = at.to_zoned(zone.clone());
        let date = local.date();
        let first = match self {
            Self::Hour => {
                // By the offset in force, so that an hour that comes twice in autumn is two hours.
                let begun = i64::from(local.minute()) * 60 + i64::from(local.second());
                let second = at.as_second() - begun;
                return Timestamp::from_second(second).unwrap_or(Timestamp::MIN);
            }
            Self::Day => date,
            Self::Week => monday_of(date),
            Self::Month => date.first_of_month(),
            Self::Year => date.first_of_year(),
        };
        // The first moment of that date, also where the clocks change at midnight.
        first.to_zoned(zone.clone()).map_or(Timestamp::MIN, |start| start.timestamp())
    }
}

fn monday_of(date: Date) -> Date {
    let days = i64::from(date.weekday().to_monday_zero_offset());
    date.checked_sub(SignedDuration::from_hours(24 * days)).unwrap_or(Date::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(period: Period, zone: &str, at: &str, start: &str) {
        let zone = TimeZone::get(zone).unwrap();
        let found = period.start(at.parse().unwrap(), &zone);
        assert_eq!(found, start.parse().unwrap(), "{found}");
    }

    #[test]
    fn an_hour_that_comes_twice_is_two_hours() {
        let hour = |at, start| check(Period::Hour, "Europe/Berlin", at, start);
        hour("2026-10-25T02:30:00+02:00", "2026-10-25T02:00:00+02:00");
        hour("2026-10-25T02:30:00+01:00", "2026-10-25T02:00:00+01:00");
        // Half an hour comes twice there: 01:30 to 02:00.
        check(
            Period::Hour,
            "Australia/Lord_Howe",
            "2026-04-05T01:45:00+11:00",
            "2026-04-05T01:00:00+11:00",
        );
        check(
            Period::Hour,
            "Australia/Lord_Howe",
            "2026-04-05T01:45:00+10:30",
            "2026-04-05T01:00:00+10:30",
        );
        check(
            Period::Hour,
            "Asia/Kolkata",
            "2026-04-05T01:15:00+05:30",
            "2026-04-05T01:00:00+05:30",
        );
    }

    #[test]
    fn a_day_begins_at_midnight_there_whatever_its_length() {
        let day = |at, start| check(Period::Day, "Europe/Berlin", at, start);
        day("2026-10-25T23:59:59+01:00", "2026-10-25T00:00:00+02:00");
        day("2026-03-29T23:59:59+02:00", "2026-03-29T00:00:00+01:00");
        day("2026-11-20T22:59:59Z", "2026-11-20T00:00:00+01:00");
        day("2026-11-20T23:00:00Z", "2026-11-21T00:00:00+01:00");
    }

    #[test]
    fn a_day_whose_midnight_is_skipped_begins_at_its_first_moment() {
        check(
            Period::Day,
            "America/Sao_Paulo",
            "2018-11-04T12:00:00-02:00",
            "2018-11-04T01:00:00-02:00",
        );
    }

    #[test]
    fn a_week_begins_on_monday_also_over_the_end_of_a_year() {
        check(Period::Week, "UTC", "2027-01-03T23:00:00Z", "2026-12-28T00:00:00Z");
        check(Period::Week, "UTC", "2027-01-04T00:00:00Z", "2027-01-04T00:00:00Z");
    }

    #[test]
    fn months_and_years_of_the_zone_are_not_those_of_utc() {
        let at = "2026-12-31T23:30:00Z";
        check(Period::Month, "UTC", at, "2026-12-01T00:00:00Z");
        check(Period::Month, "Europe/Berlin", at, "2027-01-01T00:00:00+01:00");
        check(Period::Year, "UTC", at, "2026-01-01T00:00:00Z");
        check(Period::Year, "Europe/Berlin", at, "2027-01-01T00:00:00+01:00");
    }
}
