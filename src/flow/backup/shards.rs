//! Capture every shard, at most so many at once; a failed node is replaced by the next, a moved slot is captured again.

use std::collections::BTreeMap;

use futures_util::{StreamExt as _, stream};
use jiff::Timestamp;
use tokio::sync::watch;

use super::{
    Task,
    lanes::{Lane, Lanes},
    prepare,
};
use crate::{
    domain::{
        capture::{Candidate, Plan, ShardPlan},
        catalog::{self, DUMP},
        digest::Digests,
        identity::BackupId,
        installation::{InstallationShard, PlainArchive},
        manifest::{Archive, Method, RdbCapture, ReplicationPoint, Server, ShardManifest},
        rdb::{Checksum, Content, Expectations, Scanned},
        topology::Topology,
    },
    edge::{
        redis_node::{Snapshot, inspect::SourceAccess, replication::Limits},
        spool,
    },
    failure::{Failure, chain},
    flow::{
        Context,
        transfer::{Captured, Outlet, Pipeline, capture},
    },
};

/// Rounds of captures until the slot map holds still.
const ROUNDS_MAX: u32 = 3;

/// The largest values of each shard that the installation archive names.
const BIGGEST_KEYS: usize = 20;

/// What every capture of one backup shares.
pub(super) struct Job<'a> {
    pub(super) task: &'a Task,
    pub(super) backup: &'a BackupId,
    pub(super) lanes: &'a Lanes,
    pub(super) access: &'a SourceAccess,
    pub(super) spool: &'a spool::Limits,
    pub(super) context: &'a Context,
    /// Set by the first capture that fails for good, for the others.
    pub(super) halt: watch::Sender<bool>,
}

impl Job<'_> {
    /// Never returns unless a signal came or another shard failed.
    async fn ended(&self) -> Failure {
        let mut halt = self.halt.subscribe();
        tokio::select! {
            biased;
            failure = self.context.ended() => failure,
            _ = halt.wait_for(|halt| *halt) => Failure::Unsettled {
                source_name: self.task.source.name.clone(),
                finding: "another shard failed".to_owned(),
            },
        }
    }

    /// Drops `act`, which writes to no store, as soon as it is of no more use.
    async fn unless_ended<T>(
        &self,
        act: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        tokio::select! {
            biased;
            failure = self.ended() => Err(failure),
            result = act => result,
        }
    }
}

/// A captured shard and what its parts of manifest and installation say.
#[derive(Clone, Debug)]
pub(super) struct ShardCapture {
    pub(super) manifest: ShardManifest,
    pub(super) installation: InstallationShard,
    pub(super) plain: Digests,
    pub(super) server: Server,
    /// By our own clock, which is the same for all shards.
    pub(super) began: Timestamp,
}

/// Captures until no slot moved between the look before the first and the look after the last.
pub(super) async fn capture_all(
    job: &Job<'_>,
    mut topology: Topology,
    mut plan: Plan,
    warnings: &mut Vec<String>,
) -> Result<(Topology, Vec<ShardCapture>), Failure> {
    let mut captured: BTreeMap<u32, ShardCapture> = BTreeMap::new();
    for round in 1..=ROUNDS_MAX {
        let missing = plan.shards.iter().filter(|shard| !captured.contains_key(&shard.shard));
        // Not dropped at the first failure: each takes back by itself what it sent.
        let done: Vec<Result<ShardCapture, Failure>> = stream::iter(missing)
            .map(|shard| async {
                let captured = capture_shard(job, shard).await;
                if captured.is_err() {
                    job.halt.send_replace(true);
                }
                captured
            })
            .buffer_unordered(job.task.source.captures_at_once)
            .collect()
            .await;
        let done: Vec<ShardCapture> = done.into_iter().collect::<Result<_, _>>()?;
        captured.extend(done.into_iter().map(|shard| (shard.manifest.shard, shard)));

        let Some(before) = &topology.slot_map else { break };
        let source = &job.task.source;
        let look = prepare::look(&source.name, &source.url.address, job.access);
        let after = job.unless_ended(look).await?;
        let Some(now) = &after.slot_map else { break };
        let moved = now.changed_since(before);
        if moved.is_empty() && now.0.len() == before.0.len() {
            break;
        }
        if round == ROUNDS_MAX {
            return Err(Failure::Unsettled {
                source_name: source.name.clone(),
                finding: format!("slots moved during each of {ROUNDS_MAX} rounds of captures"),
            });
        }
        tracing::warn!("slots moved between shards during the capture; capturing those again");
        forget_moved(job, &mut captured, before.0.len() == now.0.len(), &moved).await;
        plan = prepare::choose(source, &after)?;
        topology = after;
    }
    let shards: Vec<ShardCapture> = captured.into_values().collect();
    for shard in &shards {
        warnings.extend(shard_warnings(shard));
    }
    check_skew(job, &shards)?;
    Ok((topology, shards))
}

/// Shards whose slots changed are captured again; with another number of shards, all of them.
async fn forget_moved(
    job: &Job<'_>,
    captured: &mut BTreeMap<u32, ShardCapture>,
    same_shards: bool,
    moved: &[usize],
) {
    let is_moved = |shard: u32| !same_shards || moved.contains(&(shard as usize));
    let again: Vec<u32> = captured.keys().copied().filter(|shard| is_moved(*shard)).collect();
    for shard in again {
        captured.remove(&shard);
        job.lanes.discard_shard(shard).await;
    }
}

fn shard_warnings(shard: &ShardCapture) -> Vec<String> {
    let number = shard.manifest.shard;
    match shard.manifest.rdb_content() {
        None => Vec::new(),
        Some(Content::Read(facts)) => {
            let mut warnings = Vec::new();
            if facts.keys_outside_slots > 0 {
                warnings.push(format!(
                    "shard {number} holds {} keys outside its slots, which a restore will not serve",
                    facts.keys_outside_slots
                ));
            }
            if facts.checksum == Checksum::NotChecksummed {
                warnings.push(format!(
                    "shard {number}: the server writes no checksum (rdbchecksum no): its structure was checked, single flipped bits in values cannot be seen"
                ));
            }
            warnings
        }
        Some(Content::Unread(unread)) => vec![format!(
            "shard {number}: RDB version {} is newer than this program: its end and checksum are proven, its content only by `verify --level load`",
            unread.version
        )],
    }
}

fn check_skew(job: &Job<'_>, shards: &[ShardCapture]) -> Result<(), Failure> {
    let skew = skew_seconds(shards);
    match job.task.source.skew_seconds_max {
        Some(limit) if skew > f64::from(limit) => Err(Failure::Refused {
            finding: format!(
                "the shards were captured {skew:.0} s apart, more than skewMaxSeconds {limit}"
            ),
            hint: "raise capturesAtOnce or skewMaxSeconds".to_owned(),
        }),
        Some(_) | None => Ok(()),
    }
}

pub(super) fn skew_seconds(shards: &[ShardCapture]) -> f64 {
    let first = shards.iter().map(|shard| shard.began).min();
    let last = shards.iter().map(|shard| shard.began).max();
    first.zip(last).map_or(0.0, |(first, last)| last.duration_since(first).as_secs_f64())
}

/// Tries the shard's candidates in order.
#[tracing::instrument(skip_all, fields(shard = plan.shard))]
async fn capture_shard(job: &Job<'_>, plan: &ShardPlan) -> Result<ShardCapture, Failure> {
    let mut candidates = plan.candidates.iter().peekable();
    loop {
        let Some(candidate) = candidates.next() else {
            return Err(Failure::Unsettled {
                source_name: job.task.source.name.clone(),
                finding: format!("shard {} has no node to capture from", plan.shard),
            });
        };
        match capture_from(job, plan, candidate).await {
            Err(failure) if prepare::is_of_the_node(&failure) && candidates.peek().is_some() => {
                tracing::warn!("{}; trying the next node", chain(&failure));
                job.lanes.discard_shard(plan.shard).await;
            }
            result => return result,
        }
    }
}

async fn capture_from(
    job: &Job<'_>,
    plan: &ShardPlan,
    candidate: &Candidate,
) -> Result<ShardCapture, Failure> {
    let Candidate { address, role, server, run_id: _, reason } = candidate;
    tracing::info!(node = %address, "capture: {reason}");
    let began = job.context.now();
    let snapshot = Snapshot::begin(address, &job.access.nodes, server, Limits::default());
    let failed = |source| Failure::Capture { shard: plan.shard, node: address.clone(), source };
    let snapshot = job.unless_ended(async { snapshot.await.map_err(failed) }).await?;
    let point =
        ReplicationPoint { id: snapshot.replication_id().to_owned(), offset: snapshot.offset() };
    let captured_at = snapshot.asked_at();
    let previous =
        job.lanes.previous().and_then(|manifest| manifest.shards.get(plan.shard as usize));
    let about_bytes = previous.and_then(|shard| shard.rdb_content()).map(Content::bytes);
    let bar = job.context.progress.bar(
        format!("shard {} from {address}", plan.shard),
        snapshot.length_hint().or(about_bytes),
    );
    let codec = job.task.source.codec;
    let encryption = job.task.source.recipients.encryption();
    let key_of = |index| {
        let form = (codec, encryption);
        catalog::archive_key(&job.task.source.name, job.backup, plan.shard, DUMP, form, index)
            .map_err(|error| Failure::Usage { finding: error.to_string(), hint: String::new() })
    };
    let expectations = Expectations { slots: plan.slots.clone(), biggest_keys_max: BIGGEST_KEYS };
    let lanes: Vec<&Lane> = job.lanes.live().collect();
    let losses: Vec<_> = lanes.iter().map(|lane| |failure: Failure| lane.lose(&failure)).collect();
    let outlets: Vec<Outlet<'_>> =
        lanes.iter().zip(&losses).map(|(lane, lose)| lane.outlet(lose)).collect();
    let pipeline = Pipeline {
        expectations: &expectations,
        codec,
        level: job.task.source.level,
        recipients: &job.task.source.recipients,
        spool: job.spool,
        outlets: &outlets,
        key_of: &key_of,
    };
    let captured = capture(plan.shard, address, snapshot, pipeline, &bar, job.ended()).await;
    bar.finish();
    // Where no store is left, each of them says why.
    job.lanes.check()?;
    let Captured { scanned: Scanned { content, private }, plain, objects, versions } = captured?;
    for (lane, versions) in lanes.iter().zip(versions) {
        lane.keep(versions.unwrap_or_default());
    }
    refuse_unproven(&content)?;
    Ok(ShardCapture {
        manifest: ShardManifest {
            shard: plan.shard,
            slots: plan.slots.clone(),
            rdb: Some(RdbCapture {
                method: Method::Replication,
                captured_at,
                captured_from: *role,
                replication: point,
                content,
            }),
            aof: None,
            archives: vec![Archive { name: DUMP.to_owned(), codec, encryption, objects }],
        },
        installation: InstallationShard {
            shard: plan.shard,
            archives: vec![PlainArchive::new(DUMP, &plain)],
            rdb: private,
        },
        plain,
        server: server.clone(),
        began,
    })
}

/// An RDB that is neither read nor checksummed is proven by nothing.
fn refuse_unproven(content: &Content) -> Result<(), Failure> {
    match content {
        Content::Unread(unread) if unread.checksum != Checksum::Verified => {
            Err(Failure::Incompatible(format!(
                "RDB version {} is newer than this program, and the server writes no checksum that could prove it",
                unread.version
            )))
        }
        Content::Read(_) | Content::Unread(_) => Ok(()),
    }
}
