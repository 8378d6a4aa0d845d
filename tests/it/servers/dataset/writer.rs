//! Writes without a pause until stopped, so that a capture meets a dataset that changes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use redis::{Connection, ConnectionLike, Pipeline};

const BATCH: u64 = 16;

/// In the year 2100.
const EXPIRES_AT_MILLISECONDS: u64 = 4_102_444_800_000;

#[derive(Debug)]
pub struct Writer {
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl Writer {
    /// Writes to each connection in turn. On a Cluster give one for each primary: each keeps the keys that are its own.
    pub fn start(mut connections: Vec<Connection>) -> Self {
        let stopped = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stopped);
        let thread = thread::spawn(move || {
            let mut written = 0;
            while !seen.load(Ordering::Relaxed) {
                for connection in &mut connections {
                    // A server that a test has killed takes no more: the writer has then done its work.
                    if connection.req_packed_commands(&batch(written), 0, commands()).is_err() {
                        return written;
                    }
                }
                written += BATCH;
                thread::sleep(Duration::from_millis(1));
            }
            written
        });
        Self { stopped, thread: Some(thread) }
    }

    /// How many rounds of writes were answered.
    pub fn stop(mut self) -> u64 {
        self.end()
    }

    fn end(&mut self) -> u64 {
        self.stopped.store(true, Ordering::Relaxed);
        self.thread.take().map_or(0, |thread| thread.join().expect("the writer writes"))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.end();
    }
}

fn commands() -> usize {
    usize::try_from(BATCH).unwrap() * 5
}

fn batch(written: u64) -> Vec<u8> {
    let mut pipeline = Pipeline::new();
    for round in written..written + BATCH {
        let name = |kind: &str, modulus: u64| format!("writer:{kind}:{}", round % modulus);
        pipeline
            .cmd("SET")
            .arg(name("string", 5000))
            .arg(round)
            .arg("PXAT")
            .arg(EXPIRES_AT_MILLISECONDS);
        pipeline.cmd("HINCRBY").arg(name("hash", 200)).arg(round % 50).arg(1);
        pipeline.cmd("RPUSH").arg(name("list", 100)).arg(format!("element {round}"));
        pipeline.cmd("LTRIM").arg(name("list", 100)).arg(-20).arg(-1);
        pipeline.cmd("DEL").arg(format!("writer:string:{}", (round * 7) % 5000));
    }
    pipeline.get_packed_pipeline()
}
