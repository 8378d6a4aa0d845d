//! From the backups of a source in one store, the rules and the moment to a verdict on each. Never asks a store.
//!
//! Only good backups take the slots of a rule. One that is suspect or broken takes none; it stays as long
//! as a good one in its place would.

use std::collections::BTreeMap;

use jiff::{Timestamp, tz::TimeZone};

use super::{Age, Keep, Period, Reason, Verdict};
use crate::domain::{
    identity::{BackupId, MANUAL, ScheduleName},
    record::Standing,
};

/// One backup as far as it must be known to decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub backup: BackupId,
    pub standing: Standing,
    pub manifest: Manifest,
}

/// What is known of a manifest. Names and records decide; manifests are read only of what would expire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Manifest {
    #[default]
    Unread,
    Known,
    /// Of a version that this program cannot read.
    Newer(u32),
    Unreadable,
}

impl Manifest {
    const fn reason(self) -> Option<Reason> {
        match self {
            Self::Unread | Self::Known => None,
            Self::Newer(version) => Some(Reason::NewerManifest(version)),
            Self::Unreadable => Some(Reason::UnreadableManifest),
        }
    }
}

impl Entry {
    /// What this program cannot read counts for nothing.
    fn is_good(&self) -> bool {
        self.standing.is_good() && self.manifest.reason().is_none()
    }
}

/// What the config says of a source in one store.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    pub schedules: BTreeMap<ScheduleName, Rule>,
    /// How long what no schedule took stays; none keeps it for ever.
    pub keep_manual: Option<Age>,
}

/// How a schedule's backups are kept in one store.
#[derive(Clone, Debug)]
pub struct Rule {
    /// None keeps all.
    pub keep: Option<Keep>,
    pub zone: TimeZone,
}

/// What holds for a schedule's backups, or for those by hand.
enum Lane {
    Rule(Keep, TimeZone),
    NoRule(Reason),
}

impl Policy {
    fn lane(&self, schedule: &str) -> Lane {
        if schedule == MANUAL {
            return match self.keep_manual {
                Some(age) => {
                    let keep = Keep { within: Some(age), ..Keep::default() };
                    Lane::Rule(keep, TimeZone::UTC)
                }
                None => Lane::NoRule(Reason::ManualKeepsAll),
            };
        }
        let rule = schedule.parse().ok().and_then(|name: ScheduleName| self.schedules.get(&name));
        match rule {
            None => Lane::NoRule(Reason::UnknownSchedule),
            Some(Rule { keep: None, zone: _ }) => Lane::NoRule(Reason::ScheduleKeepsAll),
            Some(Rule { keep: Some(keep), zone }) => Lane::Rule(keep.clone(), zone.clone()),
        }
    }
}

/// A verdict on each, newest first.
pub fn decide(entries: &[Entry], policy: &Policy, now: Timestamp) -> Vec<Verdict> {
    let mut entries: Vec<(Timestamp, &Entry)> =
        entries.iter().map(|entry| (entry.backup.begun(), entry)).collect();
    entries.sort_unstable_by(|(_, left), (_, right)| right.backup.cmp(&left.backup));
    let mut reasons: Vec<Vec<Reason>> =
        entries.iter().map(|(begun, entry)| own_reasons(entry, *begun, now)).collect();

    // A clock that ran ahead must not make its backup the newest.
    let present = || entries.iter().enumerate().filter(|(_, (begun, _))| *begun <= now);
    let mut lanes: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, (_, entry)) in present() {
        lanes.entry(entry.backup.schedule()).or_default().push(index);
    }
    let newest = present().next().map(|(_, (_, entry))| *entry);
    for (schedule, members) in lanes {
        let lane = members.iter().map(|index| (*index, entries[*index]));
        let newest_of_lane = lane.clone().next().map(|(_, (_, entry))| entry);
        match lane.clone().find(|(_, (_, entry))| entry.is_good()) {
            Some((index, _)) => reasons[index].push(Reason::NewestGood),
            None => lane.clone().for_each(|(index, _)| reasons[index].push(Reason::NoneIsGood)),
        }
        // What shrank here may have shrunk for the other schedules of the source too.
        let suspect = [newest_of_lane, newest].into_iter().flatten();
        if let Some(suspect) = suspect.into_iter().find(|entry| entry.standing.suspect) {
            let reason = Reason::NewestIsSuspect(suspect.backup.clone());
            lane.clone().for_each(|(index, _)| reasons[index].push(reason.clone()));
        }
        match policy.lane(schedule) {
            Lane::NoRule(reason) => {
                lane.for_each(|(index, _)| reasons[index].push(reason.clone()));
            }
            Lane::Rule(keep, zone) => {
                let mut rules = Rules::new(&keep, &zone, now);
                lane.for_each(|(index, (begun, entry))| {
                    reasons[index].extend(rules.wanting(begun, entry.is_good(), &zone));
                });
            }
        }
    }
    let verdicts = entries.into_iter().zip(reasons).map(|((_, entry), mut reasons)| {
        reasons.sort_unstable();
        Verdict { backup: entry.backup.clone(), standing: entry.standing, reasons }
    });
    verdicts.collect()
}

/// Reasons that ask for no other backup.
fn own_reasons(entry: &Entry, begun: Timestamp, now: Timestamp) -> Vec<Reason> {
    let Standing { pinned, suspect: _, accepted: _, broken: _, unknown } = entry.standing;
    [
        pinned.then_some(Reason::Pinned),
        (begun > now).then_some(Reason::FutureDated(begun)),
        entry.manifest.reason(),
        unknown.then_some(Reason::NewerRecord),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The rules of one schedule, asked from its newest backup to its oldest.
struct Rules {
    last: Slots,
    /// Since when.
    within: Option<Timestamp>,
    periods: Vec<(Period, Slots)>,
}

/// So many are still wanted.
struct Slots {
    left: u32,
    /// Of the good backup that took a slot last.
    taken: Option<Timestamp>,
}

impl Rules {
    fn new(keep: &Keep, zone: &TimeZone, now: Timestamp) -> Self {
        let Keep { last, within, hourly, daily, weekly, monthly, yearly } = keep;
        let slots = |count: &Option<u32>| Slots { left: count.unwrap_or(0), taken: None };
        let periods = [
            (Period::Hour, slots(hourly)),
            (Period::Day, slots(daily)),
            (Period::Week, slots(weekly)),
            (Period::Month, slots(monthly)),
            (Period::Year, slots(yearly)),
        ];
        let within = within.map(|age| age.before(now, zone));
        Self { last: slots(last), within, periods: periods.into() }
    }

    /// The rules that want the next older backup, or would if it were good.
    fn wanting(&mut self, begun: Timestamp, is_good: bool, zone: &TimeZone) -> Vec<Reason> {
        let mut reasons = Vec::new();
        if self.last.left > 0 {
            reasons.push(Reason::Last);
            self.last.left -= u32::from(is_good);
        }
        if self.within.is_some_and(|since| begun >= since) {
            reasons.push(Reason::Within);
        }
        for (period, slots) in &mut self.periods {
            if slots.left == 0 {
                continue;
            }
            let start = period.start(begun, zone);
            if slots.taken == Some(start) {
                continue;
            }
            reasons.push(Reason::of_period(*period));
            if is_good {
                slots.left -= 1;
                slots.taken = Some(start);
            }
        }
        reasons
    }
}
