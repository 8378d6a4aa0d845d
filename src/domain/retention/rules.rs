//! One test for each rule of retention, told as backups and the reasons that keep them.

use std::collections::BTreeMap;

use jiff::{Timestamp, tz::TimeZone};

use super::{Entry, Expiry, Keep, Manifest, Policy, Reason, Rule, decide};
use crate::domain::{identity::BackupId, record::Standing};

const NOW: &str = "2026-11-20T12:00:00Z";

fn policy(keep: Keep, zone: &str) -> Policy {
    let rule = Rule { keep: Some(keep), zone: TimeZone::get(zone).unwrap() };
    Policy { schedules: BTreeMap::from([("daily".parse().unwrap(), rule)]), keep_manual: None }
}

/// `2026-11-20T02:00:00Z daily suspect`, written as times are, without the seconds of a key.
fn entry(text: &str) -> Entry {
    let mut words = text.split(' ');
    let begun: Timestamp = words.next().unwrap().parse().unwrap();
    let schedule = words.next().unwrap_or("daily");
    let name = (schedule != "manual").then(|| schedule.parse().unwrap());
    let mut entry = Entry {
        backup: BackupId::new(begun, name.as_ref(), 0),
        standing: Standing::default(),
        manifest: Manifest::Unread,
    };
    for word in words {
        match word {
            "suspect" => entry.standing.suspect = true,
            "broken" => entry.standing.broken = true,
            "pinned" => entry.standing.pinned = true,
            "noted" => entry.standing.unknown = true,
            "newer" => entry.manifest = Manifest::Newer(2),
            "unreadable" => entry.manifest = Manifest::Unreadable,
            _ => unreachable!("{word}"),
        }
    }
    entry
}

/// Each backup with the words of the reasons that keep it; `-` is one that expires.
#[track_caller]
fn check_policy(policy: &Policy, expected: &[(&str, &str)]) {
    let entries: Vec<Entry> = expected.iter().map(|(text, _)| entry(text)).collect();
    let verdicts = decide(&entries, policy, NOW.parse().unwrap());
    for (entry, (text, expected)) in entries.iter().zip(expected) {
        let verdict = verdicts.iter().find(|verdict| verdict.backup == entry.backup).unwrap();
        let words: Vec<&str> = verdict.reasons.iter().map(Reason::word).collect();
        let words = if words.is_empty() { "-".to_owned() } else { words.join(" ") };
        assert_eq!(words, *expected, "{text}");
    }
}

#[track_caller]
fn check(keep: Keep, expected: &[(&str, &str)]) {
    check_policy(&policy(keep, "Europe/Berlin"), expected);
}

fn last(count: u32) -> Keep {
    Keep { last: Some(count), ..Keep::default() }
}

fn daily(count: u32) -> Keep {
    Keep { daily: Some(count), ..Keep::default() }
}

#[test]
fn the_last_ones_stay() {
    check(
        last(2),
        &[
            ("2026-11-20T02:00:00Z", "last newest-good"),
            ("2026-11-19T02:00:00Z", "last"),
            ("2026-11-18T02:00:00Z", "-"),
        ],
    );
}

#[test]
fn what_began_within_an_age_stays() {
    check(
        Keep { within: Some("2d".parse().unwrap()), ..Keep::default() },
        &[
            ("2026-11-20T02:00:00Z", "within newest-good"),
            ("2026-11-18T12:00:00Z", "within"),
            ("2026-11-18T11:59:59Z", "-"),
        ],
    );
}

#[test]
fn the_newest_of_each_hour_stays_and_an_hour_that_comes_twice_is_two() {
    check(
        Keep { hourly: Some(3), ..Keep::default() },
        &[
            ("2026-10-25T03:10:00+01:00", "hourly newest-good"),
            ("2026-10-25T02:30:00+01:00", "hourly"),
            ("2026-10-25T02:30:00+02:00", "hourly"),
            ("2026-10-25T02:20:00+02:00", "-"),
            ("2026-10-25T01:30:00+02:00", "-"),
        ],
    );
}

#[test]
fn the_newest_of_each_day_of_the_zone_stays() {
    check(
        daily(2),
        &[
            // Already the 20th in Berlin.
            ("2026-11-19T23:30:00Z", "daily newest-good"),
            ("2026-11-19T22:30:00Z", "daily"),
            ("2026-11-19T02:00:00Z", "-"),
            ("2026-11-18T02:00:00Z", "-"),
        ],
    );
}

#[test]
fn the_newest_of_each_week_stays_also_where_a_year_ends_in_it() {
    check(
        Keep { weekly: Some(2), ..Keep::default() },
        &[
            ("2026-01-01T12:00:00Z", "weekly newest-good"),
            ("2025-12-29T12:00:00Z", "-"),
            ("2025-12-28T12:00:00Z", "weekly"),
        ],
    );
}

#[test]
fn the_newest_of_each_month_and_year_stays_and_the_same_month_of_another_year_is_another() {
    check(
        Keep { monthly: Some(2), yearly: Some(2), ..Keep::default() },
        &[
            ("2026-11-20T02:00:00Z", "monthly yearly newest-good"),
            ("2026-11-01T02:00:00Z", "-"),
            ("2025-11-20T02:00:00Z", "monthly yearly"),
            ("2025-10-20T02:00:00Z", "-"),
            ("2024-11-20T02:00:00Z", "-"),
        ],
    );
}

#[test]
fn what_is_not_good_takes_no_slot_and_stays_as_long_as_a_good_one_would() {
    check(
        last(2),
        &[
            ("2026-11-20T02:00:00Z", "last newest-good"),
            ("2026-11-19T02:00:00Z daily broken", "last"),
            ("2026-11-18T02:00:00Z daily suspect", "last"),
            ("2026-11-17T02:00:00Z", "last"),
            ("2026-11-16T02:00:00Z daily broken", "-"),
            ("2026-11-15T02:00:00Z", "-"),
        ],
    );
    check(
        daily(2),
        &[
            ("2026-11-20T02:00:00Z", "daily newest-good"),
            // The good one of that day is newer.
            ("2026-11-20T01:00:00Z daily broken", "-"),
            ("2026-11-19T02:00:00Z daily broken", "daily"),
            ("2026-11-19T01:00:00Z", "daily"),
        ],
    );
}

#[test]
fn the_newest_good_one_of_each_schedule_stays_whatever_the_rules_say() {
    let mut policy = policy(Keep { within: Some("1d".parse().unwrap()), ..Keep::default() }, "UTC");
    let hourly = Rule { keep: Some(last(1)), zone: TimeZone::UTC };
    policy.schedules.insert("hourly".parse().unwrap(), hourly);
    policy.keep_manual = Some("30d".parse().unwrap());
    check_policy(
        &policy,
        &[
            ("2026-11-20T02:00:00Z hourly", "last newest-good"),
            ("2026-11-20T01:00:00Z hourly", "-"),
            ("2026-10-20T02:00:00Z daily broken", "-"),
            ("2026-10-19T02:00:00Z daily", "newest-good"),
            ("2026-10-18T02:00:00Z daily", "-"),
            ("2026-06-19T02:00:00Z manual", "newest-good"),
            ("2026-06-18T02:00:00Z manual", "-"),
        ],
    );
}

#[test]
fn nothing_expires_while_the_newest_of_schedule_or_source_is_suspect() {
    check(
        last(1),
        &[
            ("2026-11-20T02:00:00Z daily suspect", "last newest-is-suspect"),
            ("2026-11-19T02:00:00Z", "last newest-good newest-is-suspect"),
            ("2026-11-18T02:00:00Z", "newest-is-suspect"),
        ],
    );
    check(
        last(1),
        &[
            (
                "2026-11-20T03:00:00Z hourly suspect",
                "newest-is-suspect none-is-good unknown-schedule",
            ),
            ("2026-11-20T02:00:00Z", "last newest-good newest-is-suspect"),
            ("2026-11-18T02:00:00Z", "newest-is-suspect"),
        ],
    );
}

#[test]
fn where_nothing_is_good_nothing_expires() {
    check(
        last(1),
        &[
            ("2026-11-20T02:00:00Z daily broken", "last none-is-good"),
            ("2026-11-19T02:00:00Z daily suspect", "last none-is-good"),
            ("2026-11-18T02:00:00Z daily broken", "last none-is-good"),
        ],
    );
}

#[test]
fn a_pin_keeps_and_what_is_pinned_takes_its_slot_as_others_do() {
    check(
        last(1),
        &[
            ("2026-11-20T02:00:00Z daily pinned", "last pinned newest-good"),
            ("2026-11-19T02:00:00Z daily pinned", "pinned"),
            ("2026-11-18T02:00:00Z", "-"),
        ],
    );
}

#[test]
fn a_backup_of_the_future_is_kept_and_is_never_the_newest() {
    check(
        last(1),
        &[
            ("2026-11-20T12:00:01Z daily suspect", "future-dated"),
            ("2026-11-20T12:00:00Z", "last newest-good"),
            ("2026-11-18T02:00:00Z", "-"),
        ],
    );
}

#[test]
fn what_this_program_cannot_read_is_kept_and_counts_for_nothing() {
    check(
        last(1),
        &[
            ("2026-11-20T02:00:00Z daily newer", "last newer-manifest"),
            ("2026-11-19T02:00:00Z daily unreadable", "last unreadable-manifest"),
            ("2026-11-18T02:00:00Z", "last newest-good"),
            ("2026-11-17T02:00:00Z daily newer", "newer-manifest"),
            ("2026-11-16T02:00:00Z daily noted", "newer-record"),
            ("2026-11-15T02:00:00Z", "-"),
        ],
    );
}

#[test]
fn without_a_rule_nothing_expires() {
    let mut policy = policy(last(1), "UTC");
    policy.schedules.insert("weekly".parse().unwrap(), Rule { keep: None, zone: TimeZone::UTC });
    check_policy(
        &policy,
        &[
            ("2026-11-20T02:00:00Z manual", "newest-good manual-keeps-all"),
            ("2020-11-20T02:00:00Z manual", "manual-keeps-all"),
            ("2020-11-19T02:00:00Z weekly", "newest-good schedule-keeps-all"),
            ("2020-11-18T02:00:00Z weekly", "schedule-keeps-all"),
            ("2020-11-17T02:00:00Z gone", "newest-good unknown-schedule"),
            ("2020-11-16T02:00:00Z gone", "unknown-schedule"),
        ],
    );
}

#[test]
fn what_was_taken_by_hand_counts_in_no_schedule() {
    check(
        last(1),
        &[
            ("2026-11-20T03:00:00Z manual", "newest-good manual-keeps-all"),
            ("2026-11-20T02:00:00Z", "last newest-good"),
            ("2026-11-19T02:00:00Z", "-"),
        ],
    );
}

#[test]
fn what_expires_tells_why() {
    let texts =
        ["2026-11-20T02:00:00Z", "2026-11-19T02:00:00Z", "2026-11-18T02:00:00Z daily broken"];
    let entries: Vec<Entry> = texts.into_iter().map(entry).collect();
    let verdicts = decide(&entries, &policy(last(1), "UTC"), NOW.parse().unwrap());
    let expiries: Vec<Option<Expiry>> = verdicts.iter().map(super::Verdict::expiry).collect();
    let expected = [None, Some(Expiry::NoRuleWantsIt), Some(Expiry::NotGoodAndNoRuleWouldWantIt)];
    assert_eq!(expiries, expected);
}
