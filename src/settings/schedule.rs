//! What a schedule and the service may say. Checks; reads no clock and asks no store.

use jiff::SignedDuration;

use super::{
    CaptureKind, Config, Finding, STORES_MAX, Schedule, ScheduleStore, Serve,
    config::{self, VerifyAfter},
    error,
};
use crate::domain::{
    agenda::Lapse,
    capture::Forms,
    identity::{MANUAL, ScheduleName},
    record::Level,
    retention::Keep,
    schedule::{self, Timetable},
};

/// What one schedule says, as far as the rest of the config bears it out.
pub(super) fn check(
    config: &Config,
    name: &ScheduleName,
    schedule: &config::Schedule,
) -> Result<Schedule, Finding> {
    let config::Schedule {
        source,
        cron,
        timezone,
        capture,
        stores,
        keep,
        jitter,
        start_deadline,
        verify,
    } = schedule;
    if name.as_str() == MANUAL {
        return Err((
            "source",
            "the name `manual` is that of backups without a schedule".to_owned(),
        ));
    }
    let timetable = timetable(cron, timezone)?;
    if !config.sources.contains_key(source) {
        return Err(("source", error::unknown("source", source.as_str(), config.sources.keys())));
    }
    if capture.is_empty() {
        return Err(("capture", "nothing is named to capture; write `capture: [rdb]`".to_owned()));
    }
    let forms = forms(capture);
    let has_files = |source: &config::Source| {
        source.kubernetes.is_some() || source.data_dir.is_some() || !source.data_dirs.is_empty()
    };
    if forms.aof && !config.sources.get(source).is_some_and(has_files) {
        return Err((
            "capture",
            format!(
                "`aof` needs `dataDir` of source {source}: append-only files are read from there"
            ),
        ));
    }
    let stores = check_stores(config, stores, keep.as_ref())?;
    let jitter = check_jitter(*jitter, &timetable)?;
    Ok(Schedule {
        name: name.clone(),
        source: source.clone(),
        timetable,
        forms,
        stores,
        jitter,
        start_deadline: start_deadline.map(Lapse::duration),
        verify: match verify {
            VerifyAfter::None => None,
            VerifyAfter::Stored => Some(Level::Stored),
            VerifyAfter::Content => Some(Level::Content),
            VerifyAfter::Load => Some(Level::Load),
        },
    })
}

fn timetable(cron: &str, timezone: &str) -> Result<Timetable, Finding> {
    Timetable::new(cron, timezone).map_err(|error| {
        let key = match error {
            schedule::Error::Expression { .. } => "cron",
            schedule::Error::Timezone { .. } => "timezone",
        };
        (key, error.to_string())
    })
}

fn check_stores(
    config: &Config,
    stores: &[config::ScheduleStore],
    keep: Option<&Keep>,
) -> Result<Vec<ScheduleStore>, Finding> {
    if stores.is_empty() || stores.len() > STORES_MAX {
        let count = stores.len();
        return Err((
            "stores",
            format!(
                "{count} stores are named; a schedule has 1 to {STORES_MAX}, and `copy` fills more"
            ),
        ));
    }
    for (index, entry) in stores.iter().enumerate() {
        let store = &entry.store;
        if !config.stores.contains_key(store) {
            return Err(("stores", error::unknown("store", store.as_str(), config.stores.keys())));
        }
        if stores.iter().take(index).any(|other| other.store == *store) {
            return Err(("stores", format!("store `{store}` is named twice")));
        }
    }
    let rules = stores.iter().map(|entry| ("stores", entry.keep.as_ref()));
    for (key, rule) in rules.chain([("keep", keep)]) {
        if rule.is_some_and(Keep::wants_nothing) {
            return Err((key, "`keep` names no rule, which would expire everything; write one, such as `{last: 7}`, or leave it out to keep all".to_owned()));
        }
    }
    let stores = stores.iter().map(|entry| ScheduleStore {
        store: entry.store.clone(),
        keep: entry.keep.clone().or_else(|| keep.cloned()),
    });
    Ok(stores.collect())
}

/// Starts that are spread further than their moments lie apart would overtake one another.
fn check_jitter(jitter: Option<Lapse>, timetable: &Timetable) -> Result<SignedDuration, Finding> {
    let Some(jitter) = jitter else { return Ok(SignedDuration::ZERO) };
    let gap = timetable.least_gap();
    if gap.is_some_and(|gap| jitter.duration() > gap) {
        let minutes = gap.map_or(0, |gap| gap.as_mins());
        let finding = format!("{jitter} is longer than the {minutes} min between two moments");
        return Err(("jitter", finding));
    }
    Ok(jitter.duration())
}

/// What the service does besides.
pub(super) fn check_serve(serve: &config::Serve) -> Result<Serve, Finding> {
    let config::Serve { listen, backups_at_once } = serve;
    let default = Serve::default();
    let listen = match listen {
        None => default.listen,
        Some(text) => text.parse().map_err(|_| {
            ("listen", format!("{text:?} is no address with a port: write `0.0.0.0:8080`, `127.0.0.1:8080` or `[::]:8080`"))
        })?,
    };
    let backups_at_once = match backups_at_once {
        None => default.backups_at_once,
        Some(0) => return Err(("backupsAtOnce", "0 backs up nothing; write 1 or more".to_owned())),
        Some(number) => usize::try_from(*number).unwrap_or(default.backups_at_once),
    };
    Ok(Serve { listen, backups_at_once })
}

fn forms(capture: &[CaptureKind]) -> Forms {
    Forms { rdb: capture.contains(&CaptureKind::Rdb), aof: capture.contains(&CaptureKind::Aof) }
}
