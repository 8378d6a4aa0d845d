//! The stores of one run, a lane to each: one that fails drops out. Never lets it take the others with it.

use std::sync::{
    Mutex, OnceLock, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use futures_util::future::join_all;

use super::Task;
use crate::{
    domain::{
        catalog::Key,
        identity::BackupId,
        manifest::{Manifest, Object},
        shrink_guard::ShrinkGuard,
        worker::{Fault, MendedBy, StoreOutcome, StorePart},
    },
    failure::{Failure, LostStore},
    flow::{
        Context,
        catalog::Located,
        stores::{self, Opened},
        sweep,
        transfer::{Budget, Outlet, Packed, StoredEverywhere, Versions, upload_packed},
    },
};

/// Every store that the run was to write to.
#[derive(Debug)]
pub(super) struct Lanes {
    lanes: Vec<Lane>,
    unopened: Vec<LostStore>,
}

/// The way of one backup into one store.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) located: Located,
    budget: Budget,
    /// The source's last backup here.
    previous: OnceLock<Manifest>,
    versions: Mutex<Versions>,
    /// Against what is usual here.
    verdict: OnceLock<ShrinkGuard>,
    suspicion: OnceLock<String>,
    /// Something may have been sent.
    is_used: AtomicBool,
    is_committed: AtomicBool,
    lost: OnceLock<LostStore>,
}

impl Lanes {
    /// Opens all stores; fails when none can be.
    pub(super) async fn open(
        task: &Task,
        backup: &BackupId,
        context: &Context,
    ) -> Result<Self, Failure> {
        let opened = join_all(task.stores.iter().map(|store| stores::open(store, context))).await;
        let budgets = Budget::shared_by(task.stores.len());
        let mut all = Self { lanes: Vec::new(), unopened: Vec::new() };
        for ((store, opened), budget) in task.stores.iter().zip(opened).zip(budgets) {
            match opened {
                Ok(opened) => {
                    let (source, backup) = (task.source.name.clone(), backup.clone());
                    all.lanes.push(Lane::new(Located { opened, source, backup }, budget));
                }
                Err(failure) => all.unopened.push(LostStore::new(&store.name, &failure)),
            }
        }
        all.unopened.iter().for_each(tell);
        all.check().map(|()| all)
    }

    /// A failure when no store is left.
    pub(super) fn check(&self) -> Result<(), Failure> {
        if self.live().next().is_some() { Ok(()) } else { Err(Failure::Stores(self.lost())) }
    }

    /// Also those that were lost.
    pub(super) fn opened(&self) -> impl Iterator<Item = &Lane> {
        self.lanes.iter()
    }

    pub(super) fn live(&self) -> impl Iterator<Item = &Lane> {
        self.lanes.iter().filter(|lane| lane.lost.get().is_none())
    }

    pub(super) fn lost(&self) -> Vec<LostStore> {
        let lost = self.lanes.iter().filter_map(|lane| lane.lost.get());
        self.unopened.iter().chain(lost).cloned().collect()
    }

    /// Any store's last backup tells about how long this one will be.
    pub(super) fn previous(&self) -> Option<&Manifest> {
        self.live().find_map(|lane| lane.previous.get())
    }

    /// Runs `act` in all lanes at once. A lane whose act fails is lost; fails when none is left.
    pub(super) async fn each<'a, F>(&'a self, act: impl Fn(&'a Lane) -> F) -> Result<(), Failure>
    where
        F: Future<Output = Result<(), Failure>>,
    {
        let acts = self.live().map(|lane| {
            let acted = act(lane);
            async move {
                if let Err(failure) = acted.await {
                    lane.lose(&failure);
                }
            }
        });
        join_all(acts).await;
        self.check()
    }

    /// Stores one small archive in all lanes.
    pub(super) async fn store(&self, key: &Key, packed: &Packed) -> Result<(), Failure> {
        self.each(|lane| async move {
            lane.is_used.store(true, Ordering::Relaxed);
            let store = &*lane.located.opened.store;
            let object = upload_packed(store, key.clone(), packed).await?;
            lane.keep([(object.key, object.version_id)].into());
            Ok(())
        })
        .await
    }

    /// As if this process had sent there what a worker is about to send.
    pub(super) fn begin_elsewhere(&self) {
        self.live().for_each(|lane| lane.is_used.store(true, Ordering::Relaxed));
    }

    /// Takes over what a worker stored, or why it could not.
    pub(super) fn take_over(&self, parts: Vec<StorePart>) -> Result<(), Failure> {
        for StorePart { store, outcome } in parts {
            let Some(lane) = self.live().find(|lane| lane.name() == store) else { continue };
            match outcome {
                StoreOutcome::Stored(versions) => lane.keep(versions),
                StoreOutcome::Lost(fault) => lane.lose(&Failure::OfWorker(fault)),
            }
        }
        self.check()
    }

    /// What a worker has to tell of its stores.
    pub(super) fn parts(&self) -> Vec<StorePart> {
        let of_lane = |lane: &Lane| {
            let versions = lane.versions.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let outcome = lane.lost.get().map_or(StoreOutcome::Stored(versions), lost);
            StorePart { store: lane.name().to_owned(), outcome }
        };
        let unopened = self.unopened.iter();
        let unopened = unopened.map(|it| StorePart { store: it.store.clone(), outcome: lost(it) });
        self.lanes.iter().map(of_lane).chain(unopened).collect()
    }

    /// For one archive: where its bytes go.
    pub(super) fn outlets(&self) -> Outlets<'_> {
        let lanes: Vec<&Lane> = self.live().collect();
        let all = lanes.iter().map(|lane| lane.outlet()).collect();
        Outlets { lanes, all }
    }

    /// Takes back what was sent, so that nothing is left of a backup that will not be.
    pub(super) async fn discard(&self) {
        join_all(self.lanes.iter().map(Lane::discard)).await;
    }

    /// The same of the stores that were lost. Before the others commit: from then on a copy may come.
    pub(super) async fn discard_lost(&self) {
        let lost = self.lanes.iter().filter(|lane| lane.lost.get().is_some());
        join_all(lost.map(Lane::discard)).await;
    }

    /// Takes one shard's part back everywhere, so that it can be captured again.
    pub(super) async fn discard_shard(&self, shard: u32) {
        let discard = self.live().map(|lane| {
            let Located { opened, source, backup } = &lane.located;
            sweep::discard_shard(opened, source, backup, shard)
        });
        join_all(discard).await;
    }
}

/// The stores that were left when an archive was begun.
pub(super) struct Outlets<'a> {
    lanes: Vec<&'a Lane>,
    pub(super) all: Vec<Outlet<'a>>,
}

impl Outlets<'_> {
    /// Remembers each store's own versions. Returns what all hold alike.
    pub(super) fn keep(&self, stored: StoredEverywhere) -> Vec<Object> {
        let StoredEverywhere { objects, versions } = stored;
        for (lane, versions) in self.lanes.iter().zip(versions) {
            lane.keep(versions.unwrap_or_default());
        }
        objects
    }
}

impl Lane {
    const fn new(located: Located, budget: Budget) -> Self {
        Self {
            located,
            budget,
            previous: OnceLock::new(),
            versions: Mutex::new(Versions::new()),
            verdict: OnceLock::new(),
            suspicion: OnceLock::new(),
            is_used: AtomicBool::new(false),
            is_committed: AtomicBool::new(false),
            lost: OnceLock::new(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.located.opened.name
    }

    /// The first failure counts.
    pub(super) fn lose(&self, failure: &Failure) {
        let lost = LostStore::new(self.name(), failure);
        if self.lost.set(lost.clone()).is_ok() {
            tell(&lost);
        }
    }

    pub(super) fn loss(&self) -> Option<&LostStore> {
        self.lost.get()
    }

    pub(super) fn remember_previous(&self, previous: Option<Manifest>) {
        if let Some(previous) = previous {
            let _ = self.previous.set(previous);
        }
    }

    fn keep(&self, versions: Versions) {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner).extend(versions);
    }

    /// The manifest that this store gets: with the versions of its own objects, and the verdict on what is usual here.
    pub(super) fn manifest(&self, shared: &Manifest) -> Manifest {
        let versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        let shrink_guard = self.verdict.get().unwrap_or(&shared.shrink_guard).clone();
        Manifest { shrink_guard, ..shared.clone().with_versions(&versions) }
    }

    pub(super) fn set_verdict(&self, verdict: ShrinkGuard) {
        let _ = self.verdict.set(verdict);
    }

    /// The verdict is noted, in these words.
    pub(super) fn suspect(&self, suspicion: String) {
        let _ = self.suspicion.set(suspicion);
    }

    pub(super) fn suspicion(&self) -> Option<&str> {
        self.suspicion.get().map(String::as_str)
    }

    pub(super) fn is_committed(&self) -> bool {
        self.is_committed.load(Ordering::Relaxed)
    }

    pub(super) fn set_committed(&self) {
        self.is_committed.store(true, Ordering::Relaxed);
    }

    /// Takes back what was sent here, if anything was.
    pub(super) async fn discard(&self) {
        if self.is_used.swap(false, Ordering::Relaxed) {
            let Located { opened, source, backup } = &self.located;
            sweep::discard(opened, source, backup).await;
        }
    }

    /// Where a capture sends its bytes.
    fn outlet(&self) -> Outlet<'_> {
        self.is_used.store(true, Ordering::Relaxed);
        let lose = Box::new(|failure| self.lose(&failure));
        let Opened { name: _, store, pace } = &self.located.opened;
        Outlet { store: &**store, budget: &self.budget, pace, lose }
    }
}

fn lost(lost: &LostStore) -> StoreOutcome {
    let LostStore { store: _, exit, error, hint } = lost.clone();
    StoreOutcome::Lost(Fault { exit: exit as u8, error, hint, mended_by: MendedBy::Nothing })
}

fn tell(lost: &LostStore) {
    let LostStore { store, exit: _, error, hint } = lost;
    tracing::warn!(%store, hint, "store dropped out: {error}");
}
