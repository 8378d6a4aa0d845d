//! `worker`: one shard of somebody else's backup, captured as any other and stored. Commits nothing and asks no API server.

use std::collections::BTreeMap;

use tokio::sync::watch;

use super::{
    Task,
    hosts::Hosts,
    lanes::Lanes,
    prepare,
    shards::{Job, Way, capture_from},
};
use crate::{
    domain::{
        capture::{MethodChoice, ShardPlan},
        observation::NodeObservation,
        secret::Secret,
        worker::{
            Fault, MendedBy, ORDER_VARIABLE, Order, PASSWORD_VARIABLE, Part, Report, ShardCapture,
            VERSION,
        },
    },
    edge::{
        kubernetes::OnePod,
        live_directory::Folder,
        redis_node::{self, SaveError, observe_node},
    },
    failure::{Exit, Failure, chain},
    flow::{Context, backup::guard, find},
    report::{Outcome, PlainText},
    settings::{self, Settings},
};

pub(in crate::flow) async fn run(
    settings: &Settings,
    context: &Context,
) -> Result<Outcome, Failure> {
    let order = order(context)?;
    let recipients = order.recipients().map_err(|error| not_for_people(error.to_string()))?;
    let captured = Box::pin(capture(&order, settings, context)).await;
    let (report, exit) = match captured {
        Ok(part) => (Report::Captured(Box::new(part)), Exit::Done),
        Err((failure, mended_by)) => {
            let (error, hint, exit) = (chain(&failure), failure.hint(), failure.exit());
            tracing::error!(hint, "{error}");
            (Report::Failed(Fault { exit: exit as u8, error, hint, mended_by }), exit)
        }
    };
    let text = report.seal(&recipients).map_err(|source| Failure::Archive {
        attempt: "seal the report of a worker".to_owned(),
        source,
    })?;
    Ok(Outcome { report: Box::new(PlainText { text }), exit })
}

fn order(context: &Context) -> Result<Order, Failure> {
    let text = context.environment()(ORDER_VARIABLE)
        .ok_or_else(|| not_for_people(format!("{ORDER_VARIABLE} is not set")))?;
    let order: Order = serde_json::from_str(&text)
        .map_err(|error| not_for_people(format!("{ORDER_VARIABLE} holds no order: {error}")))?;
    if order.version == VERSION {
        Ok(order)
    } else {
        let found = order.version;
        Err(not_for_people(format!("the order has version {found}, not {VERSION}")))
    }
}

fn not_for_people(finding: String) -> Failure {
    let hint = "run `redis-backup backup`, which starts workers by itself (`workers: jobs`)";
    Failure::Usage { finding, hint: hint.to_owned() }
}

/// What failed is taken back, and told with what may do better.
async fn capture(
    order: &Order,
    settings: &Settings,
    context: &Context,
) -> Result<Part, (Failure, MendedBy)> {
    let unmended = |failure| (failure, MendedBy::Nothing);
    let task = task(order, settings, context).map_err(unmended)?;
    let opened = context.unless_ended(Lanes::open(&task, &order.backup, context));
    let lanes = opened.await.map_err(|failure| {
        let mended_by = mended_by(&failure, None);
        (failure, mended_by)
    })?;
    let mut seen = None;
    let captured = Box::pin(capture_into(order, &task, &lanes, &mut seen, context)).await;
    match captured.and_then(|capture| context.check_not_ended().map(|()| capture)) {
        Ok(capture) => Ok(Part { capture, stores: lanes.parts() }),
        Err(failure) => {
            lanes.discard_shard(order.shard).await;
            let mended_by = mended_by(&failure, seen.as_ref());
            Err((failure, mended_by))
        }
    }
}

fn task(order: &Order, settings: &Settings, context: &Context) -> Result<Task, Failure> {
    let environment = context.environment();
    let mut source = settings.source(&order.source, environment)?;
    if source.access.password.is_none() {
        source.access.password = environment(PASSWORD_VARIABLE).map(|text| Secret::new(&text));
    }
    let stores = order.stores.iter().map(|store| {
        let mut store = settings.store(store)?;
        let share = |limit: u64| (limit / u64::from(order.workers_at_once.max(1))).max(1);
        store.upload_max_per_second = store.upload_max_per_second.map(share);
        Ok::<_, settings::Error>(store)
    });
    Ok(Task {
        source,
        stores: stores.collect::<Result<_, _>>()?,
        forms: order.forms,
        method: MethodChoice::Auto,
        schedule: None,
        scheduled_for: None,
        window: None,
        adopt: false,
        config: None,
        policies: BTreeMap::new(),
    })
}

async fn capture_into(
    order: &Order,
    task: &Task,
    lanes: &Lanes,
    seen: &mut Option<NodeObservation>,
    context: &Context,
) -> Result<ShardCapture, Failure> {
    let spool = guard::spool(&task.source.spool)?;
    let candidate = &order.candidate;
    let pod = OnePod { host: order.host.clone(), server_names: order.server_names.clone() };
    let found = find::one_node(&task.source, &candidate.address, pod)?;
    let job = Job {
        task,
        backup: &order.backup,
        lanes,
        found: &found,
        access: &found.access,
        spool: &spool,
        context,
        halt: watch::Sender::new(false),
        hosts: &Hosts::new(1),
        workers: None,
        overdue: None,
    };
    let job = job.of_shard(order.shard);
    let mut folder = None;
    if order.data_dir.is_some() {
        let node = &candidate.address;
        let observed = observe_node(node, &found.access.nodes);
        let failed = |source| Failure::Capture { shard: order.shard, node: node.clone(), source };
        let observed = job.unless_ended(async { observed.await.map_err(failed) }).await?;
        folder = order.folder(observed.settings.dir.as_deref()).map(Folder::Local);
        *seen = Some(observed);
    }
    let plan = ShardPlan {
        shard: order.shard,
        slots: order.slots.clone(),
        candidates: vec![candidate.clone()],
        passed_over: Vec::new(),
    };
    let way = Way { candidate, folder: folder.as_ref() };
    let captured = Box::pin(capture_from(&job, &plan, way));
    context.unless_ended_long_ago(captured).await
}

/// As `capture_shard` decides where it captures by itself.
fn mended_by(failure: &Failure, seen: Option<&NodeObservation>) -> MendedBy {
    // A pod that is told to end, by a drain of its node say, says nothing about the shard.
    if matches!(failure, Failure::Ended { .. }) {
        return MendedBy::OtherNode;
    }
    if !prepare::is_of_the_node(failure) {
        return MendedBy::Nothing;
    }
    let is_full = matches!(
        failure,
        Failure::Capture {
            source: redis_node::Error::Save { source: SaveError::NoRoom(_), .. },
            ..
        }
    );
    let is_diskless = seen.is_some_and(|node| node.settings.repl_diskless_sync == Some(true));
    if !prepare::is_of_any_method(failure) || (is_full && is_diskless) {
        MendedBy::OtherMethod
    } else {
        MendedBy::OtherNode
    }
}
