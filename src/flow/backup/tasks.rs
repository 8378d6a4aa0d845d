//! What a run is asked for: which sources, to which stores, in which forms. Reads the config; asks no server and no store.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use jiff::Timestamp;

use crate::{
    cli::{Backup, CaptureForm, CaptureMethod},
    domain::{
        agenda::Window,
        capture::{Forms, MethodChoice},
        identity::{ScheduleName, SourceName},
        retention::Policy,
    },
    failure::Failure,
    flow::Context,
    settings::{self, Error, Retention, Settings},
};

/// What one run shall back up, and where to.
pub(super) struct Task {
    pub(super) source: settings::Source,
    pub(super) stores: Vec<settings::Store>,
    pub(super) forms: Forms,
    pub(super) method: MethodChoice,
    pub(super) schedule: Option<ScheduleName>,
    pub(super) scheduled_for: Option<Timestamp>,
    /// Of a scheduled run; any other begins at once and waits for nobody.
    pub(super) window: Option<Window>,
    pub(super) adopt: bool,
    /// The file that names the source, for workers, which read it too.
    pub(super) config: Option<PathBuf>,
    /// By the names of stores: what stays there, applied after the backup.
    pub(super) policies: BTreeMap<String, Policy>,
}

/// A source that cannot be read, for want of its password say, has a failure in the place of its task.
pub(super) type Tasks = Vec<(SourceName, Result<Task, Failure>)>;

pub(super) fn tasks(
    arguments: &Backup,
    settings: &Settings,
    context: &Context,
) -> Result<Tasks, Failure> {
    let Backup {
        sources,
        schedule,
        scheduled_for,
        method,
        capture,
        source,
        stores,
        source_name,
        adopt,
        dry_run: _,
    } = arguments;
    let environment = context.environment();
    let forms = forms(capture);
    let task = |source: settings::Source, stores| Task {
        method: method.map_or(source.method, method_choice),
        source,
        stores,
        forms: forms.unwrap_or(Forms::RDB),
        schedule: None,
        scheduled_for: None,
        window: None,
        adopt: *adopt,
        config: settings.path().map(Path::to_owned),
        policies: BTreeMap::new(),
    };
    if let Some(name) = schedule {
        let schedule = settings.schedule(name)?;
        let named = if stores.is_empty() { schedule.store_names() } else { stores.clone() };
        let stores = settings.stores_to_write(&named)?;
        let moment = scheduled_for.or_else(|| schedule.timetable.last_due(context.now()));
        let task = Task {
            policies: policies(name, &schedule.source, &stores, settings),
            schedule: Some(name.clone()),
            forms: forms.unwrap_or(schedule.forms),
            scheduled_for: moment,
            window: moment.map(|moment| schedule.entry().window(moment)),
            ..task(settings.source(&schedule.source, environment)?, stores)
        };
        return Ok(vec![(schedule.source.clone(), Ok(task))]);
    }
    let stores = settings.stores_to_write(stores)?;
    if let (false, Some(name)) = (source.source_url.is_empty(), source_name) {
        let source = settings.ad_hoc_source(source, name, environment)?;
        return Ok(vec![(name.clone(), Ok(task(source, stores)))]);
    }
    let names = named_sources(sources, source_name.as_ref(), settings);
    if names.is_empty() {
        return Err(Error::NoSource.into());
    }
    let tasks = names.into_iter().map(|name| {
        let source = settings.source(&name, environment).map_err(Failure::from);
        (name, source.map(|source| task(source, stores.clone())))
    });
    Ok(tasks.collect())
}

/// What is applied in each store after the backup.
fn policies(
    schedule: &ScheduleName,
    source: &SourceName,
    stores: &[settings::Store],
    settings: &Settings,
) -> BTreeMap<String, Policy> {
    if settings.retention() == Retention::Separate {
        return BTreeMap::new();
    }
    let policies = stores.iter().map(|store| (&store.name, settings.policy(source, &store.name)));
    let has_rule =
        |policy: &Policy| policy.schedules.get(schedule).is_some_and(|rule| rule.keep.is_some());
    let ruled = policies.filter(|(_, policy)| has_rule(policy));
    ruled.map(|(name, policy)| (name.clone(), policy)).collect()
}

/// None when no form is named.
fn forms(capture: &[CaptureForm]) -> Option<Forms> {
    let forms = Forms {
        rdb: capture.contains(&CaptureForm::Rdb),
        aof: capture.contains(&CaptureForm::Aof),
    };
    (!capture.is_empty()).then_some(forms)
}

const fn method_choice(method: CaptureMethod) -> MethodChoice {
    match method {
        CaptureMethod::Auto => MethodChoice::Auto,
        CaptureMethod::Bgsave => MethodChoice::Bgsave,
        CaptureMethod::Replication => MethodChoice::Replication,
    }
}

/// The sources of the config that are meant: those that are named, or else all.
pub(in crate::flow) fn named_sources(
    sources: &[SourceName],
    source_name: Option<&SourceName>,
    settings: &Settings,
) -> Vec<SourceName> {
    match (sources, source_name) {
        ([], Some(name)) => vec![name.clone()],
        ([], None) => settings.source_names(),
        (named, _) => named.to_vec(),
    }
}
