//! Retention beside a slow model that asks of each backup alone what the rules say of it. Shares no code with it but the age.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use proptest::{collection::vec, option, prelude::*, sample::select};

use super::{Age, Entry, Keep, Manifest, Period, Policy, Reason, Rule, decide};
use crate::domain::{identity::BackupId, record::Standing};

const ZONES: [&str; 9] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Sao_Paulo",
    "Australia/Lord_Howe",
    "Asia/Kolkata",
    "Pacific/Apia",
    "America/Havana",
    "Africa/Casablanca",
];

/// The first two have rules.
const SCHEDULES: [&str; 4] = ["daily", "hourly", "manual", "gone"];

#[derive(Clone, Debug)]
struct Case {
    entries: Vec<Entry>,
    policy: Policy,
    now: Timestamp,
}

fn keep() -> impl Strategy<Value = Keep> {
    let count = || option::weighted(0.4, 0..6_u32);
    let ages = ["36h", "7d", "4w", "6mo", "1y"].map(|age| age.parse::<Age>().unwrap());
    let within = option::weighted(0.3, select(ages.to_vec()));
    (count(), within, count(), count(), count(), count(), count()).prop_map(
        |(last, within, hourly, daily, weekly, monthly, yearly)| Keep {
            last,
            within,
            hourly,
            daily,
            weekly,
            monthly,
            yearly,
        },
    )
}

fn rule() -> impl Strategy<Value = Rule> {
    (option::weighted(0.9, keep()), select(ZONES.to_vec()))
        .prop_map(|(keep, zone)| Rule { keep, zone: TimeZone::get(zone).unwrap() })
}

fn standing() -> impl Strategy<Value = Standing> {
    (0..20_u8, prop::bool::weighted(0.05), prop::bool::weighted(0.02)).prop_map(
        |(chance, pinned, unknown)| Standing {
            pinned,
            unknown,
            suspect: chance < 2,
            accepted: chance == 2,
            broken: (1..4).contains(&chance),
        },
    )
}

fn manifest() -> impl Strategy<Value = Manifest> {
    prop_oneof![
        20 => Just(Manifest::Unread),
        10 => Just(Manifest::Known),
        1 => Just(Manifest::Newer(7)),
        1 => Just(Manifest::Unreadable),
    ]
}

/// Minutes, hours, days or weeks after the one before.
fn gap() -> impl Strategy<Value = i64> {
    prop_oneof![1..90_i64, 30..3000_i64, 1000..90_000_i64]
}

prop_compose! {
    /// Some of the backups may be of the future.
    fn case()(
        begun in 631_152_000..1_900_000_000_i64,
        backups in vec((gap(), select(SCHEDULES.to_vec()), standing(), manifest()), 1..50),
        rules in (rule(), rule()),
        keep_manual in option::of(select(vec!["1d", "30d", "1y"])),
        left in 0..20_usize,
        wait in gap(),
    ) -> Case {
        let mut at = Timestamp::from_second(begun).unwrap();
        let mut entries = Vec::new();
        let mut moments = vec![at];
        for (index, (minutes, schedule, standing, manifest)) in backups.into_iter().enumerate() {
            at += SignedDuration::from_mins(minutes);
            moments.push(at);
            let name = (schedule != "manual").then(|| schedule.parse().unwrap());
            let backup = BackupId::new(at, name.as_ref(), index as u64);
            entries.push(Entry { backup, standing, manifest });
        }
        let latest = moments[moments.len().saturating_sub(1 + left / 8)];
        let schedules = BTreeMap::from([
            ("daily".parse().unwrap(), rules.0),
            ("hourly".parse().unwrap(), rules.1),
        ]);
        let keep_manual = keep_manual.map(|age| age.parse().unwrap());
        Case {
            entries,
            policy: Policy { schedules, keep_manual },
            now: latest + SignedDuration::from_mins(wait),
        }
    }
}

/// What a calendar on the wall says.
fn label(period: Period, at: Timestamp, zone: &TimeZone) -> String {
    let local = at.to_zoned(zone.clone());
    let form = match period {
        Period::Hour => "%Y-%m-%d %H %:z",
        Period::Day => "%Y-%m-%d",
        Period::Week => "%G-W%V",
        Period::Month => "%Y-%m",
        Period::Year => "%Y",
    };
    local.strftime(form).to_string()
}

fn is_good(entry: &Entry) -> bool {
    !entry.standing.suspect
        && !entry.standing.broken
        && matches!(entry.manifest, Manifest::Unread | Manifest::Known)
}

impl Case {
    /// Present backups of the same schedule that are newer.
    fn newer<'a>(&'a self, entry: &'a Entry) -> impl Iterator<Item = &'a Entry> {
        self.entries.iter().filter(move |other| {
            other.backup.schedule() == entry.backup.schedule()
                && other.backup.begun() <= self.now
                && other.backup > entry.backup
        })
    }

    fn wanted(&self, entry: &Entry, keep: &Keep, zone: &TimeZone) -> BTreeSet<&'static str> {
        let begun = entry.backup.begun();
        let good: Vec<Timestamp> = self
            .newer(entry)
            .filter(|other| is_good(other))
            .map(|other| other.backup.begun())
            .collect();
        let mut wanted = BTreeSet::new();
        if good.len() < keep.last.unwrap_or(0) as usize {
            wanted.insert("last");
        }
        if keep.within.is_some_and(|age| begun >= age.before(self.now, zone)) {
            wanted.insert("within");
        }
        let counts = [
            (Period::Hour, keep.hourly, "hourly"),
            (Period::Day, keep.daily, "daily"),
            (Period::Week, keep.weekly, "weekly"),
            (Period::Month, keep.monthly, "monthly"),
            (Period::Year, keep.yearly, "yearly"),
        ];
        for (period, count, word) in counts {
            let taken: BTreeSet<String> = good.iter().map(|at| label(period, *at, zone)).collect();
            let own = label(period, begun, zone);
            if !taken.contains(&own) && taken.len() < count.unwrap_or(0) as usize {
                wanted.insert(word);
            }
        }
        wanted
    }

    /// Every reason to keep it, by looking at it alone.
    fn reasons(&self, entry: &Entry) -> BTreeSet<&'static str> {
        let mut reasons = BTreeSet::new();
        if entry.standing.pinned {
            reasons.insert("pinned");
        }
        if entry.standing.unknown {
            reasons.insert("newer-record");
        }
        match entry.manifest {
            Manifest::Unread | Manifest::Known => {}
            Manifest::Newer(_) => drop(reasons.insert("newer-manifest")),
            Manifest::Unreadable => drop(reasons.insert("unreadable-manifest")),
        }
        if entry.backup.begun() > self.now {
            reasons.insert("future-dated");
            return reasons;
        }
        if is_good(entry) && !self.newer(entry).any(is_good) {
            reasons.insert("newest-good");
        }
        let present: Vec<&Entry> =
            self.entries.iter().filter(|other| other.backup.begun() <= self.now).collect();
        let lane: Vec<&&Entry> = present
            .iter()
            .filter(|other| other.backup.schedule() == entry.backup.schedule())
            .collect();
        if !lane.iter().any(|other| is_good(other)) {
            reasons.insert("none-is-good");
        }
        let newest = present.iter().max_by_key(|other| &other.backup).unwrap();
        let newest_of_lane = lane.iter().max_by_key(|other| &other.backup).unwrap();
        if newest.standing.suspect || newest_of_lane.standing.suspect {
            reasons.insert("newest-is-suspect");
        }
        let rule = entry.backup.schedule().parse().ok();
        match (entry.backup.schedule(), rule.and_then(|name| self.policy.schedules.get(&name))) {
            ("manual", _) => match self.policy.keep_manual {
                None => drop(reasons.insert("manual-keeps-all")),
                Some(age) => {
                    let keep = Keep { within: Some(age), ..Keep::default() };
                    reasons.extend(self.wanted(entry, &keep, &TimeZone::UTC));
                }
            },
            (_, None) => drop(reasons.insert("unknown-schedule")),
            (_, Some(Rule { keep: None, .. })) => drop(reasons.insert("schedule-keeps-all")),
            (_, Some(Rule { keep: Some(keep), zone })) => {
                reasons.extend(self.wanted(entry, keep, zone));
            }
        }
        reasons
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn every_verdict_is_that_of_the_slow_model(case in case()) {
        let verdicts = decide(&case.entries, &case.policy, case.now);
        prop_assert_eq!(verdicts.len(), case.entries.len());
        for entry in &case.entries {
            let verdict = verdicts.iter().find(|verdict| verdict.backup == entry.backup).unwrap();
            let reasons: BTreeSet<&str> = verdict.reasons.iter().map(Reason::word).collect();
            prop_assert_eq!(reasons, case.reasons(entry), "{}", entry.backup);
        }
    }

    #[test]
    fn what_must_never_expire_does_not(case in case()) {
        let verdicts = decide(&case.entries, &case.policy, case.now);
        let is_kept = |entry: &Entry| {
            verdicts.iter().any(|verdict| verdict.backup == entry.backup && verdict.is_kept())
        };
        let present = || case.entries.iter().filter(|entry| entry.backup.begun() <= case.now);
        for schedule in SCHEDULES {
            let lane = || present().filter(|entry| entry.backup.schedule() == schedule);
            if let Some(newest) = lane().filter(|entry| is_good(entry)).max_by_key(|entry| &entry.backup) {
                prop_assert!(is_kept(newest), "the newest good one of {}", schedule);
            } else {
                prop_assert!(lane().all(is_kept), "none of {} is good", schedule);
            }
            if lane().max_by_key(|entry| &entry.backup).is_some_and(|newest| newest.standing.suspect) {
                prop_assert!(lane().all(is_kept), "the newest of {} is suspect", schedule);
            }
        }
        for entry in &case.entries {
            let Standing { pinned, unknown, .. } = entry.standing;
            let unread = !matches!(entry.manifest, Manifest::Unread | Manifest::Known);
            let future = entry.backup.begun() > case.now;
            let gone = entry.backup.schedule() == "gone";
            prop_assert!(is_kept(entry) || !(pinned || unknown || unread || future || gone));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Pruning after every backup loses nothing that the rules keep when asked at the end.
    #[test]
    fn pruning_for_years_loses_nothing_that_a_rule_keeps(
        rule in rule(),
        begun in 631_152_000..1_800_000_000_i64,
        gaps in vec((prop_oneof![5..120_i64, 600..3000_i64, 1000..30_000_i64], standing()), 1..400),
    ) {
        let schedules = BTreeMap::from([("daily".parse().unwrap(), rule)]);
        let policy = Policy { schedules, keep_manual: None };
        let name = "daily".parse().unwrap();
        let mut now = Timestamp::from_second(begun).unwrap();
        let (mut ever, mut kept) = (Vec::new(), Vec::<Entry>::new());
        for (index, (minutes, standing)) in gaps.into_iter().enumerate() {
            now += SignedDuration::from_mins(minutes);
            let backup = BackupId::new(now, Some(&name), index as u64);
            let entry = Entry { backup, standing, manifest: Manifest::Known };
            ever.push(entry.clone());
            kept.push(entry);
            let verdicts = decide(&kept, &policy, now);
            let stays = |entry: &Entry| {
                verdicts.iter().any(|verdict| verdict.backup == entry.backup && verdict.is_kept())
            };
            kept.retain(stays);
            prop_assert!(kept.iter().any(is_good) || !ever.iter().any(is_good));
        }
        let lasting = |reason: &Reason| {
            !matches!(reason, Reason::NewestIsSuspect(_) | Reason::NoneIsGood)
        };
        for verdict in decide(&ever, &policy, now) {
            if verdict.standing.is_good() && verdict.reasons.iter().any(lasting) {
                prop_assert!(kept.iter().any(|entry| entry.backup == verdict.backup), "{verdict:?}");
            }
        }
    }
}
