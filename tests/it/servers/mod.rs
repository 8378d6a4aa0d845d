//! Real servers for the tests: processes of their own in private folders on free ports. Never a mock, never the system's.
//!
//! `tests/servers/fetch` brings the programs. A server dies with the value that stands for it; when a test fails, the
//! ends of its servers' logs are printed.

pub mod cluster;
pub mod dataset;
pub mod process;
pub mod redis;
pub mod replicated;
pub mod s3;
pub mod sentinel;
pub mod tls;
pub mod version;

pub use tls::Certificates;
pub use version::Version;

use std::{
    thread,
    time::{Duration, Instant},
};

/// Longer than any wait here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Returns what `attempt` gives once it gives something; fails after [`PATIENCE`].
#[track_caller]
pub fn wait_for<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = deadline();
    loop {
        if let Some(outcome) = attempt() {
            return outcome;
        }
        assert!(!deadline.is_past(), "gave up waiting for {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

struct Deadline(Instant);

impl Deadline {
    fn is_past(&self) -> bool {
        self.0.elapsed() > PATIENCE
    }
}

#[expect(clippy::disallowed_methods, reason = "real servers take real time")]
fn deadline() -> Deadline {
    Deadline(Instant::now())
}
