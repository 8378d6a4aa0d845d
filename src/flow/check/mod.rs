//! `check`: the whole path of a backup, tried without taking one. Each finding comes with its fix.

mod captures;
mod kubernetes;
mod network;
mod permissions;
mod room;

use bytesize::ByteSize;

use super::{
    Context,
    backup::{self, guard, prepare},
    catalog, find,
    stores::{self, Opened},
};
use crate::{
    cli::Check,
    domain::{
        capture::Forms,
        catalog as names,
        clock::{self, Skew},
        identity::SourceName,
        lock::{Lock, outlasts},
        manifest::Origin,
        topology::{Shard, Topology},
    },
    edge::store::{self, Safeguards, Versioning},
    failure::{Exit, Failure, chain},
    report::{CheckReport, CheckedItem, Outcome, Verdict},
    settings::{self, ObjectLock, Settings, Spool, StoreKind},
};

pub(super) async fn run(
    arguments: &Check,
    settings: &Result<Settings, settings::Error>,
    context: &Context,
) -> Result<Outcome, Failure> {
    let mut findings = Findings::default();
    match settings {
        Ok(settings) => {
            findings.good("config", "read and checked".to_owned());
            let opened = check_stores(arguments, settings, context, &mut findings).await;
            check_sources(arguments, settings, context, &opened, &mut findings).await;
        }
        Err(error) => findings.failed(
            "config",
            chain(error),
            "correct the line; `redis-backup schema` prints what a config file may say".to_owned(),
        ),
    }
    let Findings { items, exit } = findings;
    let report = CheckReport { kind: "check", version: 1, items };
    Ok(Outcome { report: Box::new(report), exit })
}

/// The lines so far, and the exit code of the first that failed.
struct Findings {
    items: Vec<CheckedItem>,
    exit: Exit,
}

impl Default for Findings {
    fn default() -> Self {
        Self { items: Vec::new(), exit: Exit::Done }
    }
}

impl Findings {
    fn add(&mut self, subject: &str, verdict: Verdict, finding: String, fix: String) {
        self.items.push(CheckedItem { subject: subject.to_owned(), verdict, finding, fix });
    }

    fn good(&mut self, subject: &str, finding: String) {
        self.add(subject, Verdict::Good, finding, String::new());
    }

    fn warning(&mut self, subject: &str, finding: String, fix: &str) {
        self.add(subject, Verdict::Warning, finding, fix.to_owned());
    }

    fn failed(&mut self, subject: &str, finding: String, fix: String) {
        self.fail(subject, finding, fix, Exit::Usage);
    }

    fn fail(&mut self, subject: &str, finding: String, fix: String, exit: Exit) {
        if self.exit == Exit::Done {
            self.exit = exit;
        }
        self.add(subject, Verdict::Failed, finding, fix);
    }

    /// A clock that is right needs no line.
    fn clock(&mut self, subject: &str, skew: Skew) {
        let fix = "set the clocks (NTP)";
        match skew {
            Skew::Fine => {}
            Skew::Warn(finding) => self.warning(subject, finding, fix),
            Skew::Refuse(finding) => self.fail(subject, finding, fix.to_owned(), Exit::Refused),
        }
    }

    /// Notes a failure as a line, and hands on what succeeded.
    fn keep<T>(&mut self, subject: &str, result: Result<T, Failure>) -> Option<T> {
        result
            .map_err(|failure| {
                self.fail(subject, chain(&failure), failure.hint(), failure.exit());
            })
            .ok()
    }
}

async fn check_stores(
    arguments: &Check,
    settings: &Settings,
    context: &Context,
    findings: &mut Findings,
) -> Vec<Opened> {
    let stores = settings.stores(&arguments.place).map_err(Failure::from);
    let mut opened = Vec::new();
    for store in findings.keep("stores", stores).unwrap_or_default() {
        let subject = format!("store {}", store.name);
        let Some(one) = findings.keep(&subject, stores::open(&store, context).await) else {
            continue;
        };
        check_safeguards(&subject, &store, &one, findings).await;
        check_lock_fits(&subject, &store, settings, context, findings);
        let checked = check_store(&one, context).await;
        if let Some(StoreChecked { skew, kept, lock }) = findings.keep(&subject, checked) {
            let deleted = match (&kept, lock) {
                (Some(_), _) => String::new(),
                (None, Some(lock)) => format!("; the test object is {lock}"),
                (None, None) => ", delete".to_owned(),
            };
            findings.good(&subject, format!("{}: list, write, read{deleted}", one.store.address()));
            if let Some(kept) = kept {
                let fix =
                    "fine for credentials that shall only add; what failed runs leave stays, too";
                findings.warning(&subject, kept, fix);
            }
            findings.clock(&subject, skew);
            opened.push(one);
        }
    }
    opened
}

struct StoreChecked {
    skew: Skew,
    /// Why the test object could not be deleted.
    kept: Option<String>,
    /// It was written as every object is.
    lock: Option<Lock>,
}

/// What protects a bucket against whoever may delete. A directory has no such thing.
async fn check_safeguards(
    subject: &str,
    store: &settings::Store,
    opened: &Opened,
    findings: &mut Findings,
) {
    let StoreKind::S3(s3) = &store.kind else { return };
    let subject = format!("{subject}: versions");
    let lock = match opened.store.safeguards().await {
        Ok(Safeguards { versions: Versioning::Enabled, object_lock: true }) => "Object Lock is on",
        Ok(Safeguards { versions, object_lock: _ }) if s3.object_lock.is_some() => {
            let lack = match versions {
                Versioning::Enabled => "Object Lock",
                Versioning::Suspended | Versioning::Never => "versions and Object Lock",
            };
            let finding = format!("the bucket lacks {lack}, which `objectLock` needs");
            let fix = "make a bucket with Object Lock (docs/RUNBOOK.md), or leave `objectLock` out";
            return findings.failed(&subject, finding, fix.to_owned());
        }
        Ok(Safeguards { versions: Versioning::Enabled, object_lock: false }) => "no Object Lock",
        Ok(Safeguards { versions: Versioning::Suspended, object_lock: _ }) => {
            let finding = "suspended: what is overwritten from now on is gone".to_owned();
            let fix = "turn them on again, and look who turned them off";
            return findings.warning(&subject, finding, fix);
        }
        Ok(Safeguards { versions: Versioning::Never, object_lock: _ }) => {
            let finding = "not kept: what is deleted or overwritten is gone".to_owned();
            return findings.good(&subject, finding);
        }
        Err(error) => {
            let fix = "allow s3:GetBucketVersioning and s3:GetBucketObjectLockConfiguration";
            return findings.warning(&subject, chain(&error), fix);
        }
    };
    let each = match s3.object_lock {
        Some(ObjectLock { mode, days }) => {
            format!("each object is locked for {days} days ({mode})")
        }
        None => "objects are not locked by us".to_owned(),
    };
    findings.good(&subject, format!("kept; {lock}, {each}"));
}

/// A lock that outlasts what a schedule keeps puts every deletion off.
fn check_lock_fits(
    subject: &str,
    store: &settings::Store,
    settings: &Settings,
    context: &Context,
    findings: &mut Findings,
) {
    let StoreKind::S3(settings::S3 { object_lock: Some(ObjectLock { days, .. }), .. }) =
        &store.kind
    else {
        return;
    };
    for schedule in settings.schedules() {
        let entries = schedule.stores.iter().filter(|entry| entry.store.as_str() == store.name);
        for keep in entries.filter_map(|entry| entry.keep.as_ref()) {
            if let Some(finding) = outlasts(*days, keep, &schedule.timetable, context.now()) {
                let fix = "fewer `days`, or keep more; until then deleting is put off";
                let subject = format!("{subject}: schedule {}", schedule.name);
                findings.warning(&subject, finding, fix);
            }
        }
    }
}

/// A small object comes and goes under a name that no source can have.
async fn check_store(opened: &Opened, context: &Context) -> Result<StoreChecked, Failure> {
    let failed = |attempt: &str| {
        let attempt = format!("{attempt} in {}", opened.name);
        move |source| Failure::Store { attempt: attempt.clone(), source }
    };
    let store = &opened.store;
    store.folders().await.map_err(failed("list"))?;
    let key = names::check_key(context.chance());
    store
        .create(&key, "redis-backup check\n".into())
        .await
        .map_err(failed("write a test object"))?;
    let read = store.read(&key, 1 << 10).await.map_err(failed("read the test object"));
    let (kept, lock) = match store.delete(&key).await {
        Ok(()) => (None, None),
        Err(store::Error::Locked { lock, .. }) => (None, Some(lock)),
        Err(error @ store::Error::Denied { .. }) => (Some(chain(&error)), None),
        Err(source) => return Err(failed("delete the test object")(source)),
    };
    read?;
    let theirs = store.clock().await.map_err(failed("ask for the time"))?;
    let skew = clock::compare(&format!("store {}", opened.name), theirs, context.now());
    Ok(StoreChecked { skew, kept, lock })
}

async fn check_sources(
    arguments: &Check,
    settings: &Settings,
    context: &Context,
    opened: &[Opened],
    findings: &mut Findings,
) {
    let Check { sources, source, place } = arguments;
    let environment = context.environment();
    let resolved: Vec<Result<settings::Source, settings::Error>> =
        match (source.source_url.is_empty(), &place.source_name) {
            (false, Some(name)) => vec![settings.ad_hoc_source(source, name, environment)],
            _ => backup::named_sources(sources, place.source_name.as_ref(), settings)
                .iter()
                .map(|name| settings.source(name, environment))
                .collect(),
        };
    if resolved.is_empty() {
        let fix = "give --source-url and --source-name, or a config file".to_owned();
        findings.failed("sources", "no source is named".to_owned(), fix);
    }
    for source in resolved {
        if let Some(source) = findings.keep("sources", source.map_err(Failure::from)) {
            let forms = settings.forms_of(&source.name);
            check_source(&source, forms, opened, context, findings).await;
        }
    }
}

async fn check_source(
    source: &settings::Source,
    forms: Forms,
    opened: &[Opened],
    context: &Context,
    findings: &mut Findings,
) {
    let subject = format!("source {}", source.name);
    check_spool(&subject, &source.spool, findings);
    kubernetes::check(&subject, source, context, findings).await;
    let found = find::find(source, context).await;
    let Some(found) = findings.keep(&subject, found) else { return };
    let topology = prepare::look(&found).await;
    permissions::check(&subject, source, (&found, topology.as_ref().ok()), findings).await;
    let Some(topology) = findings.keep(&subject, topology) else { return };
    for note in found.notes(&topology) {
        findings.warning(&subject, note, "see `redis-backup discover`");
    }
    let access = &found.access;
    let now = context.now();
    for node in topology.shards.iter().flat_map(Shard::observed) {
        let skew = clock::compare(&node.address.to_string(), node.clock, now);
        findings.clock(&format!("{subject}: {}", node.address), skew);
    }
    let (observed, nodes) = find::answered(&topology);
    let kind = topology.kind.of(topology.shards.len());
    let text = format!("{kind}, {observed} of {nodes} nodes answered");
    findings.good(&format!("{subject}: topology"), text);
    for node in topology.shards.iter().flat_map(|shard| &shard.nodes) {
        if let Err(reason) = &node.outcome {
            let fix = "a backup goes on without this node as long as its shard has another";
            findings.warning(&format!("{subject}: {}", node.address), reason.clone(), fix);
        }
    }
    for opened in opened {
        let origin = check_origin(&source.name, &topology, opened).await;
        findings.keep(&format!("{subject}: origin"), origin);
    }
    if !source.recipients.is_empty() {
        let count = source.recipients.len();
        findings.good(&format!("{subject}: encryption"), format!("{count} can open its backups"));
    }
    for finding in prepare::unknown_directories(source, &topology) {
        let fix = "name the address under which the node is found";
        findings.warning(&format!("{subject}: dataDir"), finding, fix);
    }
    let preference = prepare::preference(source, source.method, forms, &found);
    let at_hand = Box::pin(prepare::at_hand(source, &preference, (&found, &topology))).await;
    let seen = (&found, &topology, &at_hand.directories);
    room::check(&subject, source.method, seen, findings);
    let chosen = prepare::settle(source, &preference, &topology, at_hand);
    if let Some(chosen) = findings.keep(&format!("{subject}: plan"), chosen) {
        captures::check(&subject, &chosen, forms, (access, &source.timeouts), findings).await;
    }
}

fn check_spool(subject: &str, spool: &Spool, findings: &mut Findings) {
    let subject = format!("{subject}: spool");
    if let Some(limits) = findings.keep(&subject, guard::spool(spool)) {
        let (folder, bytes_max) = (limits.folder.display(), ByteSize(limits.bytes_max));
        findings.good(&subject, format!("{folder}, up to {}", bytes_max.display().iec()));
    }
}

async fn check_origin(
    name: &SourceName,
    topology: &Topology,
    opened: &Opened,
) -> Result<(), Failure> {
    let ours = Origin { identities: topology.identities.clone(), addresses: Vec::new() };
    match catalog::origin(opened, name).await? {
        Some(owner) if !owner.overlaps(&ours) => Err(Failure::OtherOrigin {
            store: opened.name.clone(),
            prefix: name.clone(),
            owner: owner.identities.join(", "),
            ours: ours.identities.join(", "),
        }),
        Some(_) | None => Ok(()),
    }
}
