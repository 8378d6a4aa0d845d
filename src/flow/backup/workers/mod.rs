//! Shards captured by Jobs: an order to each, its report taken over as an own capture. Never touches their bytes.

#[cfg(test)]
mod simulation;

use std::{
    fmt,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use tokio::time::timeout;

use super::{Task, shards::Job};
use crate::{
    domain::{
        archive::Identities,
        capture::{Candidate, ShardPlan},
        identity::BackupId,
        manifest::Method,
        worker::{
            MendedBy, ORDER_VARIABLE, Order, PASSWORD_VARIABLE, Part, Report, ShardCapture, VERSION,
        },
        workload::Member,
    },
    edge::kubernetes::{
        self, Client,
        jobs::{self, Ended, Jobs, Mounted, Run, Wish},
        lease,
    },
    failure::{Failure, chain},
    flow::{
        Context,
        find::{self, Found, Pods},
    },
    settings::{self, Cluster, Location},
};

/// Where a worker finds the volume of the captured pod.
const DATA_PATH: &str = "/source-data";

/// For Jobs that are deleted when a run fails.
const FORGET_LIMIT: Duration = Duration::from_secs(5);

/// The workers of one run.
pub(super) struct Workers {
    jobs: Jobs,
    at_once: usize,
    /// What they report is sealed to us alone.
    identities: Identities,
    recipient: String,
    /// All attempts together.
    attempts: AtomicU32,
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workers").field("at_once", &self.at_once).finish_non_exhaustive()
    }
}

impl Workers {
    /// None where this process captures by itself.
    pub(super) async fn open(
        task: &Task,
        found: &Found,
        backup: &BackupId,
        context: &Context,
    ) -> Result<Option<Self>, Failure> {
        let Some(Pods { reach, cluster, .. }) = &found.pods else { return Ok(None) };
        let settings::Workers::Jobs { at_once, .. } = cluster.workers else { return Ok(None) };
        let client = reach.client();
        let own_pod = own_pod(client, cluster, context)?;
        let attempt = format!("start workers for source {}", task.source.name);
        let jobs = Jobs::open(client, &own_pod, run(cluster, backup)).await;
        let jobs = jobs.map_err(find::failed(attempt))?;
        tracing::info!(at_once, "shards are captured by Jobs");
        Ok(Some(Self::new(jobs, at_once)))
    }

    fn new(jobs: Jobs, at_once: usize) -> Self {
        let (identities, recipient) = Identities::fresh();
        Self { jobs, at_once, identities, recipient, attempts: AtomicU32::new(0) }
    }

    pub(super) const fn at_once(&self) -> usize {
        self.at_once
    }

    /// One attempt by one Job, which is gone afterwards.
    pub(super) async fn capture(
        &self,
        job: &Job<'_>,
        plan: &ShardPlan,
        candidate: &Candidate,
    ) -> Result<ShardCapture, Failure> {
        let attempt = self.attempts.fetch_add(1, Ordering::Relaxed) + 1;
        let name = self.jobs.run().name(plan.shard, attempt);
        let lost = |finding, mended_by| Failure::WorkerLost {
            shard: plan.shard,
            node: candidate.address.clone(),
            job: name.clone(),
            finding,
            mended_by,
        };
        let turn = job.hosts.turn(&candidate.address, &job.access.nodes);
        let _turn = job.unless_ended(turn).await?;
        let wish = self.wish(job, plan, candidate, &name)?;
        let Some(wish) = wish else {
            let finding = "no pod has its address any more".to_owned();
            return Err(lost(finding, MendedBy::OtherNode));
        };
        let node = &candidate.address;
        tracing::info!(%node, worker = name, "capture: {}", candidate.reason);
        job.lanes.begin_elsewhere();
        let failed = find::failed(format!("run worker {name}"));
        let end = async {
            self.jobs.start(&wish).await?;
            self.jobs.ended(&name).await
        };
        let ended = Box::pin(job.unless_ended(async { Ok(end.await) })).await;
        let is_over = matches!(ended, Ok(Ok(Ended::Said { .. })));
        // A request of ours that was dropped may still arrive; the Job goes with our own pod then.
        if let Err(error) = self.jobs.delete(&name).await {
            tracing::warn!("worker {name} stays until its limit of time: {}", chain(&error));
        }
        if !is_over {
            // What it stores after this would stand in the way of the next attempt.
            self.jobs.wait_until_gone(&name).await;
        }
        match ended? {
            Ok(Ended::Said { log, finding }) => match Report::open(&log, &self.identities) {
                Ok(Report::Captured(part)) => take_over(job, plan, *part).and_then(|part| {
                    part.ok_or_else(|| lost(OTHER_SHARD.to_owned(), MendedBy::Nothing))
                }),
                Ok(Report::Failed(fault)) => Err(Failure::OfWorker(fault)),
                Err(error) => {
                    let finding = format!("no report: {}; {finding}", chain(&error));
                    Err(lost(finding, MendedBy::OtherNode))
                }
            },
            Ok(Ended::NeverBegan { finding }) => Err(lost(finding, MendedBy::OtherMethod)),
            Ok(Ended::Lost { finding }) => Err(lost(finding, MendedBy::OtherNode)),
            Err(error) if is_transient(&error) => Err(lost(chain(&error), MendedBy::OtherMethod)),
            Err(error) => Err(failed(error)),
        }
    }

    /// None where the pod is gone.
    fn wish(
        &self,
        job: &Job<'_>,
        plan: &ShardPlan,
        candidate: &Candidate,
        name: &str,
    ) -> Result<Option<Wish>, Failure> {
        let Some(pods) = &job.found.pods else { return Ok(None) };
        let Some(member) = pods.reach.member(&candidate.address) else { return Ok(None) };
        let forms = job.task.forms;
        let needs_files = forms.aof || candidate.method == Some(Method::Bgsave);
        let mounted = needs_files.then(|| mounted(&member)).flatten();
        let data_path = member.data.as_ref().map(|data| data.path.clone());
        let order = Order {
            version: VERSION,
            backup: job.backup.clone(),
            source: job.task.source.name.clone(),
            stores: job.lanes.live().map(|lane| lane.name().to_owned()).collect(),
            workers_at_once: u32::try_from(self.at_once).unwrap_or(u32::MAX),
            shard: plan.shard,
            slots: plan.slots.clone(),
            forms,
            candidate: candidate.clone(),
            host: member.address.host().to_owned(),
            server_names: member.server_names.clone(),
            data_dir: mounted.as_ref().map(|mounted| mounted.path.clone().into()),
            data_path: data_path.filter(|_| mounted.is_some()),
            recipient: self.recipient.clone(),
        };
        let order = serde_json::to_string(&order).map_err(|error| Failure::Local {
            attempt: "write the order of a worker".to_owned(),
            source: error.into(),
        })?;
        let config = job.task.config.iter();
        let config = config.flat_map(|path| ["--config".to_owned(), path.display().to_string()]);
        let service_account = match &pods.cluster.workers {
            settings::Workers::Jobs { service_account, .. } => service_account.clone(),
            settings::Workers::Here => None,
        };
        let own_password = job.task.source.access.password.is_some();
        let password = pods.reach.workload().auth.filter(|_| !own_password);
        Ok(Some(Wish {
            name: name.to_owned(),
            shard: plan.shard,
            node: candidate.address.to_string(),
            arguments: config.chain(["worker".to_owned()]).collect(),
            variables: vec![(ORDER_VARIABLE, order)],
            password: password.map(|key| (PASSWORD_VARIABLE, key)),
            machine: member.machine,
            service_account,
            mounted,
            deadline: job.time_left(),
        }))
    }
}

const OTHER_SHARD: &str = "it reports another shard";

fn mounted(member: &Member) -> Option<Mounted> {
    let data = member.data.as_ref()?;
    Some(Mounted {
        pod: member.pod.clone(),
        container: member.container.clone(),
        claim: data.claim.clone()?,
        sub_path: data.sub_path.clone(),
        path: DATA_PATH.to_owned(),
    })
}

/// None where it is not what was ordered.
fn take_over(job: &Job<'_>, plan: &ShardPlan, part: Part) -> Result<Option<ShardCapture>, Failure> {
    let Part { capture, stores } = part;
    job.lanes.take_over(stores)?;
    Ok((capture.manifest.shard == plan.shard).then_some(capture))
}

/// What may pass by itself, or with another pod.
const fn is_transient(error: &kubernetes::Error) -> bool {
    matches!(
        error,
        kubernetes::Error::Unreachable { .. }
            | kubernetes::Error::Timeout { .. }
            | kubernetes::Error::NotFound { .. }
            | kubernetes::Error::Conflict { .. }
    )
}

fn run(cluster: &Cluster, backup: &BackupId) -> Run {
    Run {
        namespace: cluster.namespace.clone(),
        backup: backup.clone(),
        lease: lease::name_of(cluster.wanted.kind(), &cluster.wanted.name()),
    }
}

/// Workers are made of the pod that this runs in, and mount what is in its namespace.
pub(in crate::flow) fn own_pod(
    client: &Client,
    cluster: &Cluster,
    context: &Context,
) -> Result<String, Failure> {
    let Cluster { namespace, .. } = cluster;
    let refused = |finding: String, hint: String| Failure::Usage { finding, hint };
    let name = context.environment()("HOSTNAME").filter(|_| client.is_in_pod());
    let Some(name) = name else {
        return Err(refused(
            "`workers: jobs` needs a pod to make workers of, and this runs in none".to_owned(),
            format!("run it by a Job in namespace {namespace} (jobs/), or write `workers: here`"),
        ));
    };
    if client.namespace() != namespace {
        let own = client.namespace();
        return Err(refused(
            format!(
                "`workers: jobs` needs a pod in namespace {namespace}, where its volumes and Secrets are; this one is in {own}"
            ),
            format!("run it by a Job in namespace {namespace}, or write `workers: here`"),
        ));
    }
    Ok(name)
}

/// Ends what may be left of a run that failed. What cannot be ended now ends by its own limit of time.
pub(super) async fn forget(task: &Task, backup: &BackupId, context: &Context) {
    let Location::Kubernetes(cluster) = &task.source.location else { return };
    if cluster.workers == settings::Workers::Here {
        return;
    }
    let forget = async {
        let client = find::client(cluster.context.as_deref(), context).await?;
        let forgotten = jobs::forget(&client, &run(cluster, backup)).await;
        forgotten.map_err(find::failed("end the workers of this run".to_owned()))
    };
    match timeout(FORGET_LIMIT, Box::pin(forget)).await {
        Ok(Ok(())) => {}
        Ok(Err(failure)) => tracing::debug!("workers may be left: {}", chain(&failure)),
        Err(_) => tracing::debug!("workers may be left: the Kubernetes API is slow"),
    }
}
