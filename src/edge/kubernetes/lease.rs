//! One run at a time for a workload, and so many streams for a namespace, wherever they run: Leases in that namespace. Who cannot renew it hears of it before it expires.
//!
//! Clocks of two machines may differ, so nobody's time is believed: a lease is free when nobody renewed it for as long as
//! it lasts, measured by who waits (as client-go's leader election does).

use std::{fmt, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease as Object, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};

use super::{Client, Error, Right};
use crate::domain::digest::Sha256;

/// How long a holder that is not heard of keeps it.
const LASTS: Duration = Duration::from_secs(30);
const RENEWED_EACH: Duration = Duration::from_secs(8);
/// Who could not renew it for so long lets go, so that its last acts end before another begins.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(22);
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

/// Names of objects are no longer than this.
const NAME_BYTES_MAX: usize = 63;

pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Who wants which lease.
#[derive(Clone)]
pub struct Claim {
    pub namespace: String,
    pub name: String,
    /// Unique for each run, and tells people which it is.
    pub holder: String,
    /// For the times that people read; nothing is decided by it.
    pub clock: Clock,
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim").field("name", &self.name).finish_non_exhaustive()
    }
}

#[derive(Debug)]
pub enum Taken {
    Held(Box<Held>),
    /// Somebody has it, and renews it.
    ByAnother {
        holder: String,
    },
}

/// A lease that is renewed until it is released, or dropped.
#[derive(Debug)]
pub struct Held {
    client: Client,
    claim: Claim,
    renewing: JoinHandle<()>,
    lost: watch::Receiver<bool>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}

/// The name of a workload's lease: two configs that name the same workload exclude each other.
pub fn name_of(kind: &str, workload: &str) -> String {
    let is_fine = |sign: char| sign.is_ascii_lowercase() || sign.is_ascii_digit() || sign == '-';
    let text = format!("redis-backup-{}-{workload}", kind.to_ascii_lowercase());
    if text.chars().all(is_fine) && text.len() <= NAME_BYTES_MAX {
        return text;
    }
    let digest = Sha256::of(text.as_bytes()).to_string();
    format!("redis-backup-{}-{}", kind.to_ascii_lowercase(), &digest[..16])
}

/// The name of one of the leases that limit how many files are read by exec at the same time in a namespace.
pub fn exec_stream(number: u32) -> String {
    format!("redis-backup-exec-{number}")
}

/// What a holder needs.
pub fn rights(namespace: &str) -> [Right; 3] {
    ["get", "create", "update"].map(|verb| right(verb, namespace))
}

fn right(verb: &'static str, namespace: &str) -> Right {
    Right::new(verb, "leases").of_group("coordination.k8s.io").in_namespace(namespace)
}

/// Takes the lease, waiting as long as a dead holder would keep it.
pub async fn take(client: &Client, claim: Claim) -> Result<Taken, Error> {
    let mut seen = None;
    loop {
        match attempt(client, &claim, &mut seen).await? {
            Attempted::Held(held) => return Ok(Taken::Held(held)),
            Attempted::Renewed { holder } => return Ok(Taken::ByAnother { holder }),
            Attempted::Kept => sleep(BETWEEN_LOOKS).await,
        }
    }
}

/// Takes one of the leases that these claims name, waiting until one is free.
pub async fn take_any(client: &Client, claims: Vec<Claim>) -> Result<Box<Held>, Error> {
    let mut claims: Vec<(Claim, Option<Seen>)> =
        claims.into_iter().map(|claim| (claim, None)).collect();
    let mut has_told = false;
    loop {
        for (claim, seen) in &mut claims {
            if let Attempted::Held(held) = attempt(client, claim, seen).await? {
                return Ok(held);
            }
        }
        if !has_told {
            let holders = claims.iter().filter_map(|(_, seen)| Some(&seen.as_ref()?.mark.holder));
            let holders: Vec<&str> = holders.map(String::as_str).collect();
            tracing::info!("waiting for one of: {}", holders.join("; "));
            has_told = true;
        }
        sleep(BETWEEN_LOOKS).await;
    }
}

/// What a lease said, and since when.
#[derive(Debug)]
struct Seen {
    mark: Mark,
    since: Instant,
}

/// What one look at a lease came to.
enum Attempted {
    Held(Box<Held>),
    /// Its holder lives.
    Renewed {
        holder: String,
    },
    /// Nobody knows yet whether its holder lives.
    Kept,
}

async fn attempt(
    client: &Client,
    claim: &Claim,
    seen: &mut Option<Seen>,
) -> Result<Attempted, Error> {
    let found = read(client, claim).await?;
    let begun = Instant::now();
    if let Some(lease) = found.as_ref().filter(|lease| !is_free(lease)) {
        let mark = Mark::of(lease);
        let before = seen.take();
        let is_known = before.as_ref().is_some_and(|seen| seen.mark.holder == mark.holder);
        match before {
            Some(before) if before.mark == mark => {
                if before.since.elapsed() < LASTS {
                    *seen = Some(before);
                    return Ok(Attempted::Kept);
                }
                tracing::warn!(holder = mark.holder, "its lease was not renewed: taken over");
            }
            Some(_) | None => {
                let holder = mark.holder.clone();
                *seen = Some(Seen { mark, since: begun });
                if is_known {
                    return Ok(Attempted::Renewed { holder });
                }
                tracing::info!(holder, "waiting whether its lease is renewed");
                return Ok(Attempted::Kept);
            }
        }
    }
    match write(client, claim, found).await {
        Ok(lease) => {
            let held = Held::new(client.clone(), claim.clone(), lease, begun);
            Ok(Attempted::Held(Box::new(held)))
        }
        // Another was quicker.
        Err(Error::Conflict { .. } | Error::AlreadyExists { .. }) => Ok(Attempted::Kept),
        Err(error) => Err(error),
    }
}

impl Held {
    fn new(client: Client, claim: Claim, lease: Object, begun: Instant) -> Self {
        let (tell, lost) = watch::channel(false);
        let (of_task, claim_of_task) = (client.clone(), claim.clone());
        let renewing = tokio::spawn(async move {
            renew(&of_task, &claim_of_task, lease, begun).await;
            tell.send_replace(true);
        });
        Self { client, claim, renewing, lost }
    }

    /// Returns when the lease could not be renewed and will soon be another's.
    pub async fn lost(&self) {
        let mut lost = self.lost.clone();
        // Without a sender the task is gone, and with it the lease.
        let _ = lost.wait_for(|lost| *lost).await;
    }

    /// Lets the next one in at once. What fails here, time heals.
    pub async fn release(self) {
        self.renewing.abort();
        if *self.lost.borrow() {
            return;
        }
        let free = async {
            let lease =
                read(&self.client, &self.claim).await?.filter(|it| is_ours(it, &self.claim));
            match lease {
                Some(lease) => {
                    let nobody = Claim { holder: String::new(), ..self.claim.clone() };
                    write(&self.client, &nobody, Some(lease)).await.map(drop)
                }
                None => Ok(()),
            }
        };
        if let Err(error) = free.await {
            tracing::warn!("the lease is not released and expires by itself: {error}");
        }
    }
}

/// Renews the lease as long as that works.
async fn renew(client: &Client, claim: &Claim, mut lease: Object, mut renewed: Instant) {
    loop {
        sleep(RENEWED_EACH).await;
        let until = renewed + GIVEN_UP_AFTER;
        let begun = Instant::now();
        let again = async {
            loop {
                match write(client, claim, Some(lease.clone())).await {
                    Ok(lease) => return Some(lease),
                    // Our own write may have arrived without its reply.
                    Err(Error::Conflict { .. }) => match read(client, claim).await {
                        Ok(Some(found)) if is_ours(&found, claim) => lease = found,
                        Ok(_) => return None,
                        Err(error) => tracing::warn!("the lease is not renewed: {error}"),
                    },
                    Err(error) => tracing::warn!("the lease is not renewed: {error}"),
                }
                sleep(BETWEEN_LOOKS).await;
            }
        };
        let written = tokio::select! {
            written = again => written,
            () = sleep_until(until) => None,
        };
        let Some(written) = written else { return };
        (lease, renewed) = (written, begun);
    }
}

/// What changes whenever a holder shows that it lives.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mark {
    holder: String,
    renewed: Option<Timestamp>,
    version: Option<String>,
}

impl Mark {
    fn of(lease: &Object) -> Self {
        let spec = lease.spec.clone().unwrap_or_default();
        Self {
            holder: spec.holder_identity.unwrap_or_default(),
            renewed: spec.renew_time.map(|MicroTime(time)| time),
            version: lease.metadata.resource_version.clone(),
        }
    }
}

fn is_free(lease: &Object) -> bool {
    Mark::of(lease).holder.is_empty()
}

fn is_ours(lease: &Object, claim: &Claim) -> bool {
    Mark::of(lease).holder == claim.holder
}

async fn read(client: &Client, claim: &Claim) -> Result<Option<Object>, Error> {
    let Claim { namespace, name, .. } = claim;
    let api: Api<Object> = Api::namespaced(client.kube(), namespace);
    let attempt = format!("read the lease {namespace}/{name}");
    client.ask(&attempt, &right("get", namespace), api.get_opt(name)).await
}

/// Over `before` only as it was read.
async fn write(client: &Client, claim: &Claim, before: Option<Object>) -> Result<Object, Error> {
    let Claim { namespace, name, holder, clock } = claim;
    let api: Api<Object> = Api::namespaced(client.kube(), namespace);
    let now = Some(MicroTime(clock()));
    let old = before.as_ref().and_then(|lease| lease.spec.clone()).unwrap_or_default();
    let is_same = old.holder_identity.as_deref() == Some(holder);
    let spec = LeaseSpec {
        holder_identity: Some(holder.clone()),
        lease_duration_seconds: i32::try_from(LASTS.as_secs()).ok(),
        acquire_time: if is_same { old.acquire_time } else { now.clone() },
        renew_time: now,
        lease_transitions: Some(old.lease_transitions.unwrap_or(0) + i32::from(!is_same)),
        ..LeaseSpec::default()
    };
    let parameters = PostParams::default();
    if let Some(before) = before {
        let lease = Object { spec: Some(spec), ..before };
        let attempt = format!("renew the lease {namespace}/{name}");
        let replace = api.replace(name, &parameters, &lease);
        return client.ask(&attempt, &right("update", namespace), replace).await;
    }
    let metadata = ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() };
    let lease = Object { metadata, spec: Some(spec) };
    let attempt = format!("create the lease {namespace}/{name}");
    client.ask(&attempt, &right("create", namespace), api.create(&parameters, &lease)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_named_by_kind_and_workload_and_always_a_name() {
        assert_eq!(name_of("StatefulSet", "redis"), "redis-backup-statefulset-redis");
        let odd = name_of("selector", "app=redis,tier=a");
        assert!(odd.starts_with("redis-backup-selector-") && !odd.contains('='), "{odd}");
        assert_ne!(odd, name_of("selector", "app=redis,tier=b"));
        assert!(name_of("StatefulSet", &"x".repeat(100)).len() <= NAME_BYTES_MAX);
    }
}
