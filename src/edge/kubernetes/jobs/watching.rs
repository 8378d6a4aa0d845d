//! What became of the pods of one run's workers: one watch for all of them. Tells; never judges.

use std::{collections::BTreeMap, pin::pin, time::Duration};

use futures_util::TryStreamExt as _;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::api::{Api, ListParams, ResourceExt as _, WatchEvent, WatchParams};
use tokio::{sync::watch, task::JoinHandle, time::sleep};

use super::super::{Client, Error, Right};

/// Before an API server that did not answer is asked again.
const BETWEEN_TRIES: Duration = Duration::from_secs(1);

const JOB_LABEL: &str = "batch.kubernetes.io/job-name";

/// Where a worker's pod is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Not yet begun; why, as far as it is told.
    Waits(String),
    Runs,
    /// Its container ended, and its log can be read.
    Exited {
        pod: String,
        finding: String,
    },
    /// It ended and left nothing, or it is not there any more.
    Lost(String),
}

/// By the names of their Jobs. An error is one that will not pass.
pub(super) type States = Result<BTreeMap<String, Seen>, (Right, String)>;

/// Ends when it is dropped.
#[derive(Debug)]
pub(super) struct Watching {
    pub(super) states: watch::Receiver<States>,
    task: JoinHandle<()>,
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watching {
    pub(super) fn begin(client: &Client, namespace: &str, selector: String) -> Self {
        let (sender, states) = watch::channel(Ok(BTreeMap::new()));
        let api = Api::namespaced(client.kube(), namespace);
        let rights = ["list", "watch"].map(|verb| Right::new(verb, "pods").in_namespace(namespace));
        let task = Pods { client: client.clone(), api, selector, rights, sender };
        let task = tokio::spawn(async move { task.follow().await });
        Self { states, task }
    }
}

struct Pods {
    client: Client,
    api: Api<Pod>,
    selector: String,
    /// To list and to watch them.
    rights: [Right; 2],
    sender: watch::Sender<States>,
}

impl Pods {
    async fn follow(&self) {
        let mut version = None;
        loop {
            let followed = match version.take() {
                None => match self.list().await {
                    Ok(listed) => self.watch(listed).await,
                    Err(error) => Err(error),
                },
                Some(version) => self.watch(version).await,
            };
            match followed {
                Ok(next) => version = next,
                Err(Error::Forbidden { right, finding, .. }) => {
                    self.sender.send_modify(|states| *states = Err((right, finding)));
                    return;
                }
                Err(error) => tracing::debug!("workers are not seen for now: {error}"),
            }
            // Also after a watch that ended well: some end theirs at once.
            sleep(BETWEEN_TRIES).await;
        }
    }

    /// All of them, and the version from which changes are told.
    async fn list(&self) -> Result<String, Error> {
        let parameters = ListParams::default().labels(&self.selector);
        let [right, _] = &self.rights;
        let listed = self.api.list(&parameters);
        let listed = self.client.ask("list the pods of workers", right, listed).await?;
        let found: BTreeMap<String, Seen> = listed.items.iter().filter_map(told).collect();
        self.sender.send_modify(|states| {
            let Ok(states) = states else { return };
            for (job, seen) in states.iter_mut() {
                if !found.contains_key(job) && !matches!(seen, Seen::Exited { .. }) {
                    *seen = Seen::Lost("its pod is gone".to_owned());
                }
            }
            states.extend(found);
        });
        Ok(listed.metadata.resource_version.unwrap_or_default())
    }

    /// Follows changes until the API server ends it. None when they must be listed again.
    async fn watch(&self, mut version: String) -> Result<Option<String>, Error> {
        let parameters = WatchParams::default().labels(&self.selector);
        let [_, right] = &self.rights;
        let attempt = "watch the pods of workers";
        let events = self.client.ask(attempt, right, self.api.watch(&parameters, &version));
        let mut events = pin!(events.await?);
        while let Some(event) =
            events.try_next().await.map_err(|error| Error::of(attempt, right, error))?
        {
            let (pod, is_gone) = match event {
                WatchEvent::Added(pod) | WatchEvent::Modified(pod) => (pod, false),
                WatchEvent::Deleted(pod) => (pod, true),
                WatchEvent::Bookmark(mark) => {
                    version = mark.metadata.resource_version;
                    continue;
                }
                // The version is too old.
                WatchEvent::Error(_) => return Ok(None),
            };
            version = pod.resource_version().unwrap_or(version);
            let Some((job, seen)) = told(&pod) else { continue };
            self.sender.send_modify(|states| {
                let Ok(states) = states else { return };
                let seen = match seen {
                    Seen::Waits(_) | Seen::Runs if is_gone => {
                        Seen::Lost("its pod was deleted".to_owned())
                    }
                    // Nothing is left that could be read.
                    Seen::Exited { finding, .. } if is_gone => {
                        Seen::Lost(format!("its pod was deleted; {finding}"))
                    }
                    seen @ (Seen::Waits(_) | Seen::Runs | Seen::Exited { .. } | Seen::Lost(_)) => {
                        seen
                    }
                };
                states.insert(job, seen);
            });
        }
        Ok(Some(version))
    }
}

/// The Job of a pod, and where the pod is.
fn told(pod: &Pod) -> Option<(String, Seen)> {
    Some((pod.labels().get(JOB_LABEL)?.clone(), seen(pod)))
}

fn seen(pod: &Pod) -> Seen {
    let status = pod.status.clone().unwrap_or_default();
    let containers = status.container_statuses.clone().unwrap_or_default();
    let state = containers.first().and_then(|container| container.state.clone());
    let ended = state.as_ref().and_then(|state| state.terminated.clone());
    let reason = [status.reason, status.message].into_iter().flatten().collect::<Vec<_>>();
    let reason = reason.join(": ");
    match (status.phase.as_deref(), ended) {
        (_, Some(ended)) => {
            let why = ended.reason.unwrap_or_default();
            let mut finding = format!("it ended with exit code {} ({why})", ended.exit_code);
            if !reason.is_empty() {
                finding = format!("{finding}, {reason}");
            }
            Seen::Exited { pod: pod.name_any(), finding }
        }
        (Some("Failed" | "Succeeded"), None) => Seen::Lost(format!("its pod failed: {reason}")),
        (Some("Running"), None) => Seen::Runs,
        (Some(_) | None, None) => Seen::Waits(waiting_for(pod, containers.first())),
    }
}

/// Why it has not begun, in the cluster's own words.
fn waiting_for(pod: &Pod, container: Option<&ContainerStatus>) -> String {
    let waiting = container.and_then(|it| it.state.as_ref()?.waiting.as_ref());
    let of_container = waiting.map(|it| (it.reason.clone(), it.message.clone()));
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let scheduled = conditions.into_iter().flatten().find(|it| it.type_ == "PodScheduled");
    let unscheduled = scheduled.filter(|it| it.status == "False");
    let of_pod = unscheduled.map(|it| (it.reason.clone(), it.message.clone()));
    let (reason, message) = of_container.or(of_pod).unwrap_or_default();
    [reason, message].into_iter().flatten().collect::<Vec<_>>().join(": ")
}
