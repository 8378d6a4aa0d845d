//! Bytes between a node, the domain and a store, in constant memory. Decides nothing about what to move.

mod capture;
mod read_back;
mod relay;
mod upload;

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::Semaphore;

use crate::{domain::catalog::Key, edge::store::Share, settings::STORES_MAX};

pub(crate) use self::{
    capture::{Captured, Pipeline, capture},
    read_back::{Plain, Sink, read_back, unpack},
    relay::{Relay, Relayed, relay},
    upload::{Outlet, Packed, pack, upload_packed},
};

/// Parts in flight in the whole process, of all shards and stores: 24 MiB.
const PARTS_IN_FLIGHT_MAX: usize = 3;

/// With more stores, one that hangs could take the part that another needs.
const _: () = assert!(STORES_MAX <= PARTS_IN_FLIGHT_MAX);

/// An object is cut here, so that no store's limit of size or of parts is ever met.
const OBJECT_BYTES_MAX: u64 = 64 << 30;

/// The id of each object's version in one store, where it keeps versions.
pub(crate) type Versions = BTreeMap<Key, Option<String>>;

/// The process's memory for parts in flight, and how much of it one store may hold at once.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    process: Arc<Semaphore>,
    store: Arc<Semaphore>,
}

impl Budget {
    /// One for each of so many stores. A store that hangs never holds what the others need: there is a
    /// part left for each of them.
    pub(crate) fn shared_by(stores: usize) -> Vec<Self> {
        let process = Arc::new(Semaphore::new(PARTS_IN_FLIGHT_MAX));
        let others = stores.saturating_sub(1);
        let most = PARTS_IN_FLIGHT_MAX.saturating_sub(others).max(1);
        let budget =
            |_| Self { process: Arc::clone(&process), store: Arc::new(Semaphore::new(most)) };
        (0..stores).map(budget).collect()
    }

    /// Waits for the memory of one part. The semaphores are never closed.
    async fn part(&self) -> Option<Share> {
        let of_store = Arc::clone(&self.store).acquire_owned().await.ok()?;
        let of_process = Arc::clone(&self.process).acquire_owned().await.ok()?;
        Some([of_store, of_process])
    }
}
