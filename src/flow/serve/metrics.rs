//! What is shown, as metrics for Prometheus. Made anew for each question, so that it tells what is, not what was counted.

use std::{fmt, sync::atomic::AtomicU64};

use jiff::Timestamp;
use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, info::Info},
    registry::Registry,
};

use super::board::{Line, Shown};

/// What the answer is, as Prometheus asks for it.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Names of the config, never anything that a server or a store said.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfSchedule {
    source: String,
    schedule: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfStore {
    source: String,
    schedule: String,
    store: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfProof {
    source: String,
    schedule: String,
    store: String,
    level: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfFailure {
    source: String,
    schedule: String,
    verb: &'static str,
    exit: u8,
}

type Gauges<L> = Family<L, Gauge<f64, AtomicU64>>;

pub(super) fn render(shown: &Shown, now: Timestamp) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("redis_backup");
    let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
    registry.register("build", "The program that answers", build);
    schedules(&mut registry, shown, now);
    stores(&mut registry, shown);
    newest(&mut registry, shown);
    failures(&mut registry, shown);
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

fn schedules(registry: &mut Registry, shown: &Shown, now: Timestamp) {
    let mut gauge = |name: &str, help: &str, value: &dyn Fn(&Line) -> Option<f64>| {
        let family = Gauges::<OfSchedule>::default();
        for (schedule, line) in &shown.schedules {
            if let Some(value) = value(line) {
                family.get_or_create(&of_schedule(schedule.as_str(), line)).set(value);
            }
        }
        registry.register(name, help, family);
    };
    let is_overdue = |line: &Line| line.entry.is_overdue(&line.past, shown.since, now);
    gauge("overdue", "1 when a backup is missing for more than an hour", &|line| {
        Some(flag(is_overdue(line)))
    });
    gauge("running", "1 while the schedule's backup is taken or proven", &|line| {
        Some(flag(line.running_since.is_some()))
    });
    gauge("next_start_timestamp_seconds", "When the next backup may start", &|line| {
        line.next.map(seconds)
    });
    gauge("last_attempt_timestamp_seconds", "When the last attempt ended, good or not", &|line| {
        line.attempted.map(seconds)
    });
}

fn stores(registry: &mut Registry, shown: &Shown) {
    let (up, retained) = (Gauges::<OfStore>::default(), Gauges::<OfStore>::default());
    let verified = Gauges::<OfProof>::default();
    for (schedule, line) in &shown.schedules {
        for (store, told) in &line.stores {
            let labels = of_store(schedule.as_str(), line, store.as_str());
            if let Some(answers) = told.answers {
                up.get_or_create(&labels).set(flag(answers));
            }
            let Some(found) = &told.found else { continue };
            retained.get_or_create(&labels).set(count(found.retained));
            for (level, at) in &found.verified {
                let OfStore { source, schedule, store } = labels.clone();
                let labels = OfProof { source, schedule, store, level: level.to_string() };
                verified.get_or_create(&labels).set(seconds(*at));
            }
        }
    }
    registry.register("store_up", "1 when the store answered the last look", up);
    registry.register("retained_backups", "The schedule's backups in the store", retained);
    let help = "When one of the newest backups was proven last";
    registry.register("last_verified_timestamp_seconds", help, verified);
}

/// Of the newest backup of each schedule in each store.
fn newest(registry: &mut Registry, shown: &Shown) {
    type Value = fn(&super::look::Facts) -> Option<f64>;
    let metrics: [(&str, &str, Value); 7] = [
        ("last_success_timestamp_seconds", "When the newest backup ended", |it| {
            Some(seconds(it.ended))
        }),
        ("last_duration_seconds", "How long the newest backup took", |it| Some(it.seconds)),
        ("last_stored_bytes", "What the newest backup takes in the store", |it| {
            Some(count(it.stored_bytes))
        }),
        ("last_plain_bytes", "The newest backup's RDB files, unpacked", |it| {
            it.plain_bytes.map(count)
        }),
        ("last_keys", "Keys in the newest backup", |it| it.keys.map(count)),
        ("last_shards", "Shards of the newest backup", |it| Some(count(it.shards))),
        ("last_suspect", "1 when the newest backup is suspect", |it| Some(flag(it.is_suspect))),
    ];
    for (name, help, value) in metrics {
        let family = Gauges::<OfStore>::default();
        for (schedule, line) in &shown.schedules {
            for (store, told) in &line.stores {
                let newest = told.found.as_ref().and_then(|found| found.newest.as_ref());
                let facts = newest.and_then(|newest| newest.facts.as_ref());
                if let Some(value) = facts.and_then(value) {
                    let labels = of_store(schedule.as_str(), line, store.as_str());
                    family.get_or_create(&labels).set(value);
                }
            }
        }
        registry.register(name, help, family);
    }
}

/// The only numbers that a restart begins anew, as counters do.
fn failures(registry: &mut Registry, shown: &Shown) {
    let family = Family::<OfFailure, Counter>::default();
    for (schedule, line) in &shown.schedules {
        for ((verb, exit), count) in &line.failures {
            let OfSchedule { source, schedule } = of_schedule(schedule.as_str(), line);
            let labels = OfFailure { source, schedule, verb: verb.word(), exit: *exit };
            family.get_or_create(&labels).inc_by(*count);
        }
    }
    registry.register("failures", "Runs since the start that did not end with exit 0", family);
}

fn of_schedule(schedule: &str, line: &Line) -> OfSchedule {
    OfSchedule { source: line.source.to_string(), schedule: schedule.to_owned() }
}

fn of_store(schedule: &str, line: &Line, store: &str) -> OfStore {
    let source = line.source.to_string();
    OfStore { source, schedule: schedule.to_owned(), store: store.to_owned() }
}

fn flag(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

fn seconds(at: Timestamp) -> f64 {
    at.as_duration().as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "2^53 bytes are 8 PiB")]
fn count(number: impl TryInto<u64>) -> f64 {
    number.try_into().unwrap_or(u64::MAX) as f64
}
