//! Bytes between a node, the domain and a store, in constant memory. Decides nothing about what to move.

mod capture;
mod capture_aof;
mod pace;
mod read_back;
mod relay;
mod reseal;
mod sealing;
mod upload;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::{
    domain::catalog::Key,
    edge::{
        direct,
        store::{PART_BYTES, Share},
    },
    settings::STORES_MAX,
};

pub(crate) use self::{
    capture::{Captured, Origin, Pipeline, StoredEverywhere, capture, capture_file},
    capture_aof::{CapturedAof, capture_aof},
    pace::Pace,
    read_back::{Plain, Scanned, Scanner, Sink, read_back, unpack},
    relay::{Relay, Relayed, relay},
    reseal::{Keys, reseal},
    upload::{Outlet, Packed, pack, upload_packed},
};

/// Parts in flight in the whole process, of all shards and stores: 24 MiB.
const PARTS_IN_FLIGHT_MAX: usize = 3;

/// With more stores, one that hangs could take the part that another needs.
const _: () = assert!(STORES_MAX <= PARTS_IN_FLIGHT_MAX);

/// An object is cut here, so that no store's limit of size or of parts is ever met.
const OBJECT_BYTES_MAX: u64 = 64 << 30;

/// So that no part holds bytes of two objects.
const _: () = assert!(OBJECT_BYTES_MAX.is_multiple_of(PART_BYTES as u64));

/// The id of each object's version in one store, where it keeps versions.
pub(crate) type Versions = BTreeMap<Key, Option<String>>;

/// The process's memory for parts in flight, and how much of it one store may hold at once.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    process: Arc<Semaphore>,
    store: Arc<Semaphore>,
    /// Of parts that have arrived: an allocator would keep some for each thread that had one.
    idle: Idle,
}

type Idle = Arc<Mutex<Vec<direct::Buffer>>>;

impl Budget {
    /// One for each of so many stores. A store that hangs never holds what the others need: there is a
    /// part left for each of them.
    pub(crate) fn shared_by(stores: usize) -> Vec<Self> {
        let (process, idle) = (Arc::new(Semaphore::new(PARTS_IN_FLIGHT_MAX)), Idle::default());
        let others = stores.saturating_sub(1);
        let most = PARTS_IN_FLIGHT_MAX.saturating_sub(others).max(1);
        let budget = |_| Self {
            process: Arc::clone(&process),
            store: Arc::new(Semaphore::new(most)),
            idle: Arc::clone(&idle),
        };
        (0..stores).map(budget).collect()
    }

    /// Waits for the memory of one part. The semaphores are never closed.
    async fn part(&self) -> Option<Share> {
        let of_store = Arc::clone(&self.store).acquire_owned().await.ok()?;
        let of_process = Arc::clone(&self.process).acquire_owned().await.ok()?;
        Some([of_store, of_process])
    }

    /// An empty buffer for one part.
    fn buffer(&self) -> direct::Buffer {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.unwrap_or_else(|| direct::Buffer::new(PART_BYTES))
    }

    /// The buffer comes back when the last of its bytes is let go of.
    fn bytes(&self, buffer: direct::Buffer) -> Bytes {
        Bytes::from_owner(Filled { buffer: Some(buffer), idle: Arc::clone(&self.idle) })
    }
}

struct Filled {
    /// Until it is dropped.
    buffer: Option<direct::Buffer>,
    idle: Idle,
}

impl AsRef<[u8]> for Filled {
    fn as_ref(&self) -> &[u8] {
        self.buffer.as_ref().map_or(&[], direct::Buffer::as_slice)
    }
}

impl Drop for Filled {
    fn drop(&mut self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut buffer) = self.buffer.take()
            && idle.len() < PARTS_IN_FLIGHT_MAX
        {
            buffer.clear();
            idle.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_store_that_hangs_leaves_a_part_for_each_other_one() {
        for stores in 1..=STORES_MAX {
            let mut budgets = Budget::shared_by(stores);
            let last = budgets.pop().unwrap();
            let mut held = Vec::new();
            for budget in &budgets {
                let limit = std::time::Duration::from_millis(5);
                while let Ok(share) = tokio::time::timeout(limit, budget.part()).await {
                    held.push(share);
                }
            }
            assert!(last.part().await.is_some(), "{stores} stores");
            assert!(held.len() < PARTS_IN_FLIGHT_MAX);
        }
    }

    #[test]
    fn the_memory_of_a_part_is_used_again() {
        let budget = Budget::shared_by(1).remove(0);
        let mut buffer = budget.buffer();
        let place = buffer.as_slice().as_ptr();
        buffer.take(b"first");
        let bytes = budget.bytes(buffer);
        let clone = bytes.clone();
        drop(bytes);
        assert_eq!(clone, "first");
        assert!(budget.idle.lock().unwrap().is_empty());
        drop(clone);
        let buffer = budget.buffer();
        assert!(buffer.is_empty());
        assert_eq!(buffer.as_slice().as_ptr(), place);
    }
}
