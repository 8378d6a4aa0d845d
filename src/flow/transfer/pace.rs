//! How fast bytes may leave to one store. Only makes wait; never drops, and never slows what a server sends.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// What was not used for so long may be caught up with. Longer than a timer is late, and too short for a burst.
const CATCH_UP_MAX: Duration = Duration::from_millis(100);

/// The limit of one store, shared by everything that is sent to it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pace {
    limit: Option<Arc<Limit>>,
}

#[derive(Debug)]
struct Limit {
    bytes_per_second: u64,
    /// From when on more may be sent.
    free_at: Mutex<Instant>,
}

impl Pace {
    /// Without a limit nothing ever waits.
    pub(crate) fn new(bytes_per_second: Option<u64>) -> Self {
        let limit = bytes_per_second.map(|bytes_per_second| {
            let free_at = Mutex::new(Instant::now());
            Arc::new(Limit { bytes_per_second: bytes_per_second.max(1), free_at })
        });
        Self { limit }
    }

    /// Waits until so many bytes may go. Whoever does not wait to the end has used them up all the same.
    pub(crate) async fn wait_for(&self, bytes: usize) {
        if let Some(limit) = &self.limit {
            sleep_until(limit.reserve(bytes, Instant::now())).await;
        }
    }
}

impl Limit {
    /// When these bytes may go; those after them wait for as long as these take.
    fn reserve(&self, bytes: usize, now: Instant) -> Instant {
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let earliest = now.checked_sub(CATCH_UP_MAX).unwrap_or(now);
        let begin = (*free_at).max(earliest);
        let nanoseconds =
            u128::from(bytes as u64) * 1_000_000_000 / u128::from(self.bytes_per_second);
        *free_at = begin + Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        begin
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE: usize = 256 << 10;

    fn limit(bytes_per_second: u64, free_at: Instant) -> Limit {
        Limit { bytes_per_second, free_at: Mutex::new(free_at) }
    }

    /// How long so many pieces take, each of them late by what a timer may be late.
    fn took(limit: &Limit, pieces: u64, began: Instant, late: Duration) -> Duration {
        let mut now = began;
        for _ in 0..pieces {
            now = now.max(limit.reserve(PIECE, now) + late);
        }
        now - began
    }

    #[test]
    fn bytes_go_as_fast_as_the_limit_allows_and_no_faster() {
        let began = Instant::now();
        for rate in [64 << 10, 1 << 20, 50 << 20, 3 << 30_u64] {
            let pieces = rate * 20 / PIECE as u64;
            for late in [Duration::ZERO, Duration::from_millis(2)] {
                let took = took(&limit(rate, began), pieces, began, late);
                let last = Duration::from_nanos(PIECE as u64 * 1_000_000_000 / rate);
                let range = Duration::from_millis(19_800)..Duration::from_millis(20_100);
                assert!(range.contains(&(took + last)), "{rate}: {took:?}");
            }
        }
    }

    #[test]
    fn an_idle_hour_allows_no_burst() {
        let long_ago = Instant::now();
        let began = long_ago + Duration::from_hours(1);
        let took = took(&limit(1 << 20, long_ago), 40, began, Duration::ZERO);
        let range = Duration::from_millis(9_600)..Duration::from_secs(10);
        assert!(range.contains(&took), "{took:?}");
    }

    #[tokio::test]
    async fn all_who_send_to_a_store_share_its_limit() {
        let pace = Pace::new(Some(1 << 20));
        pace.clone().wait_for(100 << 20).await;
        let waits = tokio::time::timeout(Duration::from_millis(50), pace.wait_for(1)).await;
        assert!(waits.is_err(), "the bytes of the other do not count");
        Pace::new(None).wait_for(usize::MAX).await;
    }
}
