//! Capture every shard, at most so many at once; a failed node is replaced by the next, a moved slot is captured again.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{
    Task,
    aof::{self, CapturedAofSet},
    hosts::Hosts,
    lanes::Lanes,
    prepare::{self, Chosen, Folders},
    rdb::{self, CapturedRdb},
    streams,
    workers::Workers,
};
use crate::{
    domain::{
        capture::{Candidate, ShardPlan},
        identity::BackupId,
        installation::InstallationShard,
        manifest::{Method, ShardManifest},
        rdb::{Checksum, Content, Private},
        topology::Topology,
        worker::ShardCapture,
    },
    edge::{live_directory::Folder, redis_node::inspect::SourceAccess, spool},
    failure::{Failure, chain},
    flow::{Context, find::Found, unless},
};

/// Rounds of captures until the slot map holds still.
const ROUNDS_MAX: u32 = 3;

/// What every capture of one backup shares.
pub(super) struct Job<'a> {
    pub(super) task: &'a Task,
    pub(super) backup: &'a BackupId,
    pub(super) lanes: &'a Lanes,
    pub(super) found: &'a Found,
    pub(super) access: &'a SourceAccess,
    pub(super) spool: &'a spool::Limits,
    pub(super) context: &'a Context,
    /// Set by the first capture that fails for good, for the others.
    pub(super) halt: watch::Sender<bool>,
    pub(super) hosts: &'a Hosts,
    /// Where shards are captured by Jobs.
    pub(super) workers: Option<&'a Workers>,
    /// When the capture of one shard must have ended.
    pub(super) overdue: Option<Overdue>,
}

/// A shard, and when its capture is given up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Overdue {
    shard: u32,
    at: Instant,
}

impl Job<'_> {
    /// Never returns unless a signal came or another shard failed.
    pub(super) async fn ended(&self) -> Failure {
        let mut halt = self.halt.subscribe();
        tokio::select! {
            biased;
            failure = self.context.ended() => failure,
            _ = halt.wait_for(|halt| *halt) => Failure::Unsettled {
                source_name: self.task.source.name.clone(),
                finding: "another shard failed".to_owned(),
            },
            failure = self.overdue() => failure,
        }
    }

    /// Never returns unless the shard took too long, whatever it may still send.
    async fn overdue(&self) -> Failure {
        let Some(Overdue { shard, at }) = self.overdue else { return std::future::pending().await };
        sleep_until(at).await;
        let limit = self.task.source.timeouts.capture;
        Failure::Overdue { source_name: self.task.source.name.clone(), shard, limit }
    }

    /// The same job for one shard, which has until then.
    pub(super) fn of_shard(&self, shard: u32) -> Job<'_> {
        let at = Instant::now() + self.task.source.timeouts.capture.get();
        let Self { task, backup, lanes, found, access, spool, context, halt, hosts, .. } = self;
        let (halt, overdue) = (halt.clone(), Some(Overdue { shard, at }));
        let workers = self.workers;
        Job { task, backup, lanes, found, access, spool, context, halt, hosts, workers, overdue }
    }

    /// How long the shard still has.
    pub(super) fn time_left(&self) -> Duration {
        let limit = self.task.source.timeouts.capture.get();
        self.overdue.map_or(limit, |overdue| overdue.at.saturating_duration_since(Instant::now()))
    }

    /// Drops `act`, which writes to no store, as soon as it is of no more use.
    pub(super) fn unless_ended<T>(
        &self,
        act: impl Future<Output = Result<T, Failure>>,
    ) -> impl Future<Output = Result<T, Failure>> {
        unless(self.ended(), act)
    }
}

/// A node to capture from, and its files where they are at hand.
#[derive(Clone, Copy)]
pub(super) struct Way<'a> {
    pub(super) candidate: &'a Candidate,
    pub(super) folder: Option<&'a Folder>,
}

impl<'a> Way<'a> {
    /// The data directory, which `purpose` cannot do without.
    pub(super) fn folder(&self, purpose: &str) -> Result<&'a Folder, Failure> {
        self.folder.ok_or_else(|| Failure::Usage {
            finding: format!("{purpose} of {} without its data directory", self.candidate.address),
            hint: "name it by `dataDir`".to_owned(),
        })
    }
}

/// Captures until no slot moved between the look before the first and the look after the last.
pub(super) async fn capture_all(
    job: &Job<'_>,
    mut topology: Topology,
    mut chosen: Chosen,
    warnings: &mut Vec<String>,
) -> Result<(Topology, Vec<ShardCapture>), Failure> {
    let mut captured: BTreeMap<u32, ShardCapture> = BTreeMap::new();
    let mut has_moved = false;
    for round in 1..=ROUNDS_MAX {
        let Chosen { plan, folders } = &chosen;
        let missing = plan.shards.iter().filter(|shard| !captured.contains_key(&shard.shard));
        // Not dropped at the first failure: each takes back by itself what it sent.
        let done: Vec<Result<ShardCapture, Failure>> = stream::iter(missing)
            .map(|shard| async {
                let captured = capture_shard(job, shard, folders).await;
                if captured.is_err() {
                    job.halt.send_replace(true);
                }
                captured
            })
            .buffer_unordered(
                job.workers.map_or(job.task.source.captures_at_once, Workers::at_once),
            )
            .collect()
            .await;
        let done: Vec<ShardCapture> = done.into_iter().collect::<Result<_, _>>()?;
        captured.extend(done.into_iter().map(|shard| (shard.manifest.shard, shard)));

        let Some(before) = &topology.slot_map else { break };
        let source = &job.task.source;
        let look = prepare::look(job.found);
        let after = job.unless_ended(look).await?;
        let Some(now) = &after.slot_map else { break };
        let mut moved = now.changed_since(before);
        let is_still = moved.is_empty() && now.0.len() == before.0.len();
        if is_still && !(has_moved && round < ROUNDS_MAX && captured.values().any(has_strays)) {
            break;
        }
        if is_still {
            // Who got the slots may lack what the other one still has.
            tracing::warn!(
                "a replica had not yet heard that slots moved; capturing all shards again"
            );
            moved = (0..now.0.len()).collect();
        } else {
            tracing::warn!("slots moved between shards during the capture; capturing those again");
        }
        has_moved = true;
        if round == ROUNDS_MAX {
            return Err(Failure::Unsettled {
                source_name: source.name.clone(),
                finding: format!("slots moved during each of {ROUNDS_MAX} rounds of captures"),
            });
        }
        forget_moved(job, &mut captured, before.0.len() == now.0.len(), &moved).await;
        chosen = job.unless_ended(prepare::choose(job.task, job.found, &after)).await?;
        topology = after;
    }
    let shards: Vec<ShardCapture> = captured.into_values().collect();
    for shard in &shards {
        warnings.extend(shard_warnings(shard));
    }
    check_skew(job, &shards)?;
    Ok((topology, shards))
}

/// Keys of slots that another shard has.
fn has_strays(shard: &ShardCapture) -> bool {
    match shard.manifest.rdb_content() {
        Some(Content::Read(facts)) => facts.keys_outside_slots > 0,
        Some(Content::Unread(_)) | None => false,
    }
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
async fn capture_shard(
    job: &Job<'_>,
    plan: &ShardPlan,
    folders: &Folders,
) -> Result<ShardCapture, Failure> {
    let job = &job.of_shard(plan.shard);
    let mut candidates: VecDeque<&Candidate> = plan.candidates.iter().collect();
    let mut was_lost = false;
    loop {
        let Some(candidate) = candidates.pop_front() else {
            return Err(Failure::Unsettled {
                source_name: job.task.source.name.clone(),
                finding: format!("shard {} has no node to capture from", plan.shard),
            });
        };
        let node = Way { candidate, folder: folders.get(&candidate.address) };
        let captured = match job.workers {
            Some(workers) => Box::pin(workers.capture(job, plan, candidate)).await,
            None => capture_in_turn(job, plan, node).await,
        };
        match captured {
            Err(failure) if prepare::is_of_the_node(&failure) => {
                if prepare::is_of_any_method(&failure) {
                    candidates.retain(|other| other.address != candidate.address);
                }
                if let (Failure::WorkerLost { .. }, false) = (&failure, was_lost) {
                    // The node itself may be well: it comes again, once and after all others.
                    was_lost = true;
                    candidates.push_back(candidate);
                }
                if candidates.is_empty() {
                    return Err(failure);
                }
                tracing::warn!("{}; trying the next way", chain(&failure));
                job.lanes.discard_shard(plan.shard).await;
            }
            result => return result,
        }
    }
}

/// Files that come by exec take one of the namespace's streams.
async fn capture_in_turn(
    job: &Job<'_>,
    plan: &ShardPlan,
    node: Way<'_>,
) -> Result<ShardCapture, Failure> {
    let is_of_files = node.candidate.method == Some(Method::Bgsave) || job.task.forms.aof;
    if !is_of_files || !matches!(node.folder, Some(Folder::Container(_))) {
        return capture_from(job, plan, node).await;
    }
    let stream = streams::turn(job, plan.shard).await?;
    let captured = Box::pin(capture_from(job, plan, node)).await;
    if let Some(stream) = stream {
        stream.release().await;
    }
    captured
}

pub(super) async fn capture_from(
    job: &Job<'_>,
    plan: &ShardPlan,
    node: Way<'_>,
) -> Result<ShardCapture, Failure> {
    let ShardPlan { shard, slots, candidates: _, passed_over: _ } = plan;
    let candidate = node.candidate;
    tracing::info!(node = %candidate.address, "capture: {}", candidate.reason);
    let began = job.context.now();
    let mut capture = ShardCapture {
        manifest: ShardManifest {
            shard: *shard,
            slots: slots.clone(),
            rdb: None,
            aof: None,
            archives: Vec::new(),
        },
        installation: InstallationShard {
            shard: *shard,
            archives: Vec::new(),
            rdb: Private::default(),
        },
        plain_bytes: 0,
        server: candidate.server.clone(),
        began,
    };
    if let Some(method) = candidate.method {
        let taken = rdb::take(job, *shard, slots, node, method).await?;
        let CapturedRdb { capture: rdb, archive, plain, private } = taken;
        capture.manifest.rdb = Some(rdb);
        capture.installation.rdb = private;
        capture.add(archive, plain);
    }
    if job.task.forms.aof {
        let taken = aof::take(job, *shard, slots, node).await?;
        let CapturedAofSet { capture: aof, archives, private } = taken;
        if capture.manifest.rdb.is_none() {
            capture.installation.rdb = private;
        }
        capture.manifest.aof = Some(aof);
        for (archive, plain) in archives {
            capture.add(archive, plain);
        }
    }
    Ok(capture)
}
