//! Bytes between a node, the domain and a store, in constant memory. Decides nothing about what to move.

mod capture;
mod read_back;
mod upload;

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub(crate) use self::{
    capture::{Captured, Pipeline, capture},
    read_back::{Plain, Sink, read_back, unpack},
    upload::upload_bytes,
};

/// Parts in flight in the whole process, of all shards and stores: 24 MiB.
const PARTS_IN_FLIGHT_MAX: usize = 3;

/// An object is cut here, so that no store's limit of size or of parts is ever met.
const OBJECT_BYTES_MAX: u64 = 64 << 30;

/// The process's share of memory for parts in flight.
#[derive(Clone, Debug)]
pub(crate) struct Budget(Arc<Semaphore>);

impl Budget {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(PARTS_IN_FLIGHT_MAX)))
    }

    /// Waits for the memory of one part. The semaphore is never closed.
    async fn part(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0).acquire_owned().await.ok()
    }
}
