//! Jobs of workers: made, waited for, read and deleted. Each costs the API server a handful of calls, however long it runs.

mod template;
mod watching;

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::api::{Api, DeleteParams, ListParams, LogParams, ObjectList, PostParams};
use tokio::time::{Instant, timeout};

use self::watching::{Seen, Watching};
use super::{Client, Error, Right};
use crate::domain::{digest::Sha256, identity::BackupId, workload::facts::SecretKey};

/// For a pod to be made, scheduled and begun, its image pulled.
const START_LIMIT: Duration = Duration::from_mins(5);

/// For a pod whose Job was deleted to end.
const END_LIMIT: Duration = Duration::from_secs(8);

/// What its log may hold at its end: the report and what was said beside it.
const LOG_LINES: i64 = 4000;

/// The name of our container, in `jobs/` too.
const CONTAINER: &str = "redis-backup";

const COMPONENT: (&str, &str) = ("app.kubernetes.io/component", "worker");
const RUN_LABEL: &str = "redis-backup/run";
const WORKLOAD_LABEL: &str = "redis-backup/workload";

/// Whose workers they are.
#[derive(Clone, Debug)]
pub struct Run {
    pub namespace: String,
    pub backup: BackupId,
    /// The name of the workload's lease: who has it has no other's workers beside its own.
    pub lease: String,
}

/// One worker.
#[derive(Clone, Debug)]
pub struct Wish {
    pub name: String,
    pub shard: u32,
    /// The address of the node that it captures, for people.
    pub node: String,
    pub arguments: Vec<String>,
    pub variables: Vec<(&'static str, String)>,
    /// A variable from a Secret, which we need not read for it.
    pub password: Option<(&'static str, SecretKey)>,
    /// The Kubernetes node of the captured pod.
    pub machine: Option<String>,
    /// None for the namespace's default.
    pub service_account: Option<String>,
    pub mounted: Option<Mounted>,
    pub deadline: Duration,
}

/// The volume of the captured pod, to be read only.
#[derive(Clone, Debug)]
pub struct Mounted {
    pub pod: String,
    pub container: String,
    pub claim: String,
    pub sub_path: Option<String>,
    /// Where the worker finds it.
    pub path: String,
}

/// How a worker ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// What it said, and the cluster's words about its end.
    Said {
        log: String,
        finding: String,
    },
    NeverBegan {
        finding: String,
    },
    /// Nothing is left of it.
    Lost {
        finding: String,
    },
}

/// The workers of one run. They are seen as long as this lives.
#[derive(Debug)]
pub struct Jobs {
    client: Client,
    run: Run,
    /// Our own pod, of which each worker is made.
    own: Pod,
    watching: Watching,
}

/// What who starts workers needs.
pub fn rights(namespace: &str) -> Vec<Right> {
    let pods = [("get", "pods"), ("watch", "pods"), ("get", "pods/log")];
    let pods = pods.map(|(verb, resource)| Right::new(verb, resource).in_namespace(namespace));
    pods.into_iter()
        .chain(["create", "list", "delete"].map(|verb| of_jobs(verb, namespace)))
        .collect()
}

fn of_jobs(verb: &'static str, namespace: &str) -> Right {
    Right::new(verb, "jobs").of_group("batch").in_namespace(namespace)
}

impl Run {
    /// Short enough for the names of objects, and its own for each run.
    fn id(&self) -> String {
        Sha256::of(self.backup.to_string().as_bytes()).to_string()[..10].to_owned()
    }

    /// The name of the Job for an attempt at a shard.
    pub fn name(&self, shard: u32, attempt: u32) -> String {
        format!("redis-backup-{}-{shard}-{attempt}", self.id())
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let (component, worker) = COMPONENT;
        let labels = [
            (component, worker.to_owned()),
            (RUN_LABEL, self.id()),
            (WORKLOAD_LABEL, self.lease.clone()),
        ];
        labels.map(|(name, value)| (name.to_owned(), value)).into()
    }
}

impl Jobs {
    /// Looks at our own pod, and ends the workers of runs that died: the lease is ours.
    pub async fn open(client: &Client, own_pod: &str, run: Run) -> Result<Self, Error> {
        let own = pod(client, &run.namespace, own_pod).await?;
        let orphans = delete_all(client, &run.namespace, WORKLOAD_LABEL, &run.lease).await?;
        if orphans > 0 {
            tracing::warn!("{orphans} workers of a run that died were ended");
        }
        let selector = format!("{RUN_LABEL}={}", run.id());
        let watching = Watching::begin(client, &run.namespace, selector);
        Ok(Self { client: client.clone(), run, own, watching })
    }

    pub const fn run(&self) -> &Run {
        &self.run
    }

    /// Makes the Job. What it mounts is looked up first, for who may read it.
    pub async fn start(&self, wish: &Wish) -> Result<(), Error> {
        let namespace = &self.run.namespace;
        let captured = match &wish.mounted {
            Some(mounted) => Some(pod(&self.client, namespace, &mounted.pod).await?),
            None => None,
        };
        let attempt = format!("make the Job {namespace}/{}", wish.name);
        let job = template::job(&self.own, &self.run, wish, captured.as_ref());
        let job = job.ok_or_else(|| Error::Protocol {
            attempt: attempt.clone(),
            source: "our own pod has no name, no UID or no container".into(),
        })?;
        let right = of_jobs("create", namespace);
        let create = async { self.jobs().create(&PostParams::default(), &job).await };
        match self.client.ask(&attempt, &right, create).await {
            // Its name is of this run and attempt alone: the answer to our own request was lost.
            Ok(_) | Err(Error::AlreadyExists { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Waits for the end of a worker.
    pub async fn ended(&self, name: &str) -> Result<Ended, Error> {
        let begun_by = Instant::now() + START_LIMIT;
        let mut states = self.watching.states.clone();
        loop {
            let seen = match &*states.borrow_and_update() {
                Ok(states) => states.get(name).cloned(),
                Err((right, finding)) => {
                    let attempt = "watch the pods of workers".to_owned();
                    let (right, finding) = (right.clone(), finding.clone());
                    return Err(Error::Forbidden { attempt, right, finding });
                }
            };
            let (waits_for, is_begun) = match seen {
                Some(Seen::Exited { pod, finding }) => return self.said(&pod, finding).await,
                Some(Seen::Lost(finding)) => return Ok(Ended::Lost { finding }),
                Some(Seen::Runs) => (String::new(), true),
                Some(Seen::Waits(why)) => (why, false),
                None => ("it has no pod".to_owned(), false),
            };
            let changed = states.changed();
            let changed = if is_begun {
                changed.await
            } else {
                let left = begun_by.saturating_duration_since(Instant::now());
                let Ok(changed) = timeout(left, changed).await else {
                    let limit = START_LIMIT.as_secs();
                    let finding = format!("it did not begin within {limit} s: {waits_for}");
                    return Ok(Ended::NeverBegan { finding });
                };
                changed
            };
            if changed.is_err() {
                return Ok(Ended::Lost { finding: "it is not watched any more".to_owned() });
            }
        }
    }

    /// Deletes the Job with its pod.
    pub async fn delete(&self, name: &str) -> Result<(), Error> {
        delete(&self.client, &self.run.namespace, name).await
    }

    /// Waits, not for long, until the pod of a deleted Job writes nothing more.
    pub async fn wait_until_gone(&self, name: &str) {
        let mut states = self.watching.states.clone();
        let is_over = |states: &watching::States| match states {
            Ok(states) => match states.get(name) {
                Some(Seen::Waits(_) | Seen::Runs) => false,
                Some(Seen::Exited { .. } | Seen::Lost(_)) | None => true,
            },
            Err(_) => true,
        };
        let _ = timeout(END_LIMIT, states.wait_for(is_over)).await;
    }

    async fn said(&self, pod: &str, finding: String) -> Result<Ended, Error> {
        let namespace = &self.run.namespace;
        let attempt = format!("read the log of worker {namespace}/{pod}");
        let right = Right::new("get", "pods/log").in_namespace(namespace);
        let api: Api<Pod> = Api::namespaced(self.client.kube(), namespace);
        let parameters = LogParams {
            container: Some(CONTAINER.to_owned()),
            tail_lines: Some(LOG_LINES),
            ..LogParams::default()
        };
        match self.client.ask(&attempt, &right, api.logs(pod, &parameters)).await {
            Ok(log) => Ok(Ended::Said { log, finding }),
            Err(Error::NotFound { .. }) => {
                Ok(Ended::Lost { finding: format!("its log is gone; {finding}") })
            }
            Err(error) => Err(error),
        }
    }

    fn jobs(&self) -> Api<Job> {
        Api::namespaced(self.client.kube(), &self.run.namespace)
    }
}

/// Ends all workers of a run, of which nobody knows any more.
pub async fn forget(client: &Client, run: &Run) -> Result<(), Error> {
    delete_all(client, &run.namespace, RUN_LABEL, &run.id()).await.map(|_| ())
}

async fn pod(client: &Client, namespace: &str, name: &str) -> Result<Pod, Error> {
    let attempt = format!("look at pod {namespace}/{name}");
    let right = Right::new("get", "pods").in_namespace(namespace);
    let api: Api<Pod> = Api::namespaced(client.kube(), namespace);
    client.ask(&attempt, &right, api.get(name)).await
}

/// How many there were.
async fn delete_all(
    client: &Client,
    namespace: &str,
    label: &str,
    value: &str,
) -> Result<usize, Error> {
    let jobs: Api<Job> = Api::namespaced(client.kube(), namespace);
    let parameters = ListParams::default().labels(&format!("{label}={value}"));
    let attempt = format!("list the Jobs of workers in namespace {namespace}");
    let right = of_jobs("list", namespace);
    let listed = client.ask(&attempt, &right, jobs.list(&parameters)).await?;
    let ObjectList { items, .. } = listed;
    let names: Vec<String> = items.into_iter().filter_map(|job| job.metadata.name).collect();
    for name in &names {
        delete(client, namespace, name).await?;
    }
    Ok(names.len())
}

async fn delete(client: &Client, namespace: &str, name: &str) -> Result<(), Error> {
    let jobs: Api<Job> = Api::namespaced(client.kube(), namespace);
    let attempt = format!("delete the Job {namespace}/{name}");
    let right = of_jobs("delete", namespace);
    // In the foreground of nobody: its pod is told to end at once.
    let parameters = DeleteParams::background();
    match client.ask(&attempt, &right, jobs.delete(name, &parameters)).await {
        Ok(_) | Err(Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}
