//! A child process with its log, and free ports. Ends only what it started.

use std::{
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{self, Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    thread,
};

use rustix::process::{Pid, Signal, kill_process};

use super::wait_for;

const LOG_TAIL_LINES: usize = 40;

/// A running program. Dropped, it is killed.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with its output in a new file `log`.
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let output = File::create(log).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap_or_else(|error| panic!("start {command:?}: {error}"));
        Self { child, log: log.to_owned() }
    }

    /// Waits until `is_ready`. The log, when it ends before.
    pub fn ready(
        &mut self,
        what: &str,
        mut is_ready: impl FnMut(&str) -> bool,
    ) -> Result<(), String> {
        wait_for(what, || {
            // The end is looked at before the log, so that a last word is not missed.
            let has_ended = self.child.try_wait().unwrap().is_some();
            let log = self.log();
            if is_ready(&log) { Some(Ok(())) } else { has_ended.then_some(Err(log)) }
        })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Sends the signal and waits for the end.
    pub fn end_by(&mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        wait_for("the end of a server", || self.child.try_wait().unwrap())
    }

    /// Such as `STOP` and `CONT`; does nothing to a process that has ended.
    pub fn signal(&mut self, signal: Signal) {
        if self.child.try_wait().unwrap().is_none() {
            let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
            kill_process(pid.unwrap(), signal).unwrap();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already: then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n");
            eprintln!("--- end of {}\n{tail}\n---", self.log.display());
        }
    }
}

/// A port of the loopback that is free, and whose Cluster bus port (10000 above) is free too.
///
/// Below the ports that the kernel gives to outgoing connections, so that none of these takes it before the server does;
/// never twice in one run.
pub fn free_port() -> u16 {
    const FIRST: u16 = 11_000;
    const COUNT: u16 = 9_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Another run of the tests at the same time starts elsewhere.
    let begin = u16::try_from(u64::from(process::id()) * 97 % u64::from(COUNT)).unwrap();
    for _ in 0..COUNT {
        let port = FIRST + (begin + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT;
        if [port, port + 10_000].iter().all(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        {
            return port;
        }
    }
    panic!("no free port");
}
