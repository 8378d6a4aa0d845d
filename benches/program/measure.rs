//! Runs a program and tells what it took: time, processor seconds, memory. Judges nothing.

use std::{
    fs,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use crate::Result;

/// Between two looks at a running program.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// The unit of times in `/proc/PID/stat`: `USER_HZ`, 100 wherever Linux runs.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a run took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    pub(crate) seconds: f64,
    /// Of the program and of the children that it waited for.
    pub(crate) processor_seconds: f64,
    /// Of the program alone.
    pub(crate) peak_mib: f64,
}

/// Runs `command` to its end, which must be a success. Its output is thrown away.
pub(crate) fn run(command: &mut Command) -> Result<Usage> {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let begun = Instant::now();
    let mut child = command.spawn().map_err(|error| format!("start {command:?}: {error}"))?;
    let watched = watch(&child);
    let seconds = begun.elapsed().as_secs_f64();
    // Not yet waited for, it still tells its times.
    let processor_seconds = processor_seconds(child.id());
    let status: ExitStatus = child.wait()?;
    if !status.success() {
        return Err(format!("{command:?} ended with {status}").into());
    }
    Ok(Usage { seconds, processor_seconds: processor_seconds?, peak_mib: watched? })
}

/// Runs a line of shell.
pub(crate) fn shell(line: &str) -> Result<Usage> {
    run(Command::new("sh").args(["-euc", line]))
}

pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Until it ends; returns its highest resident memory.
fn watch(child: &Child) -> Result<f64> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or("no process id")?;
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    let mut peak_kib = 0.0_f64;
    loop {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id()))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|peak| peak.trim().strip_suffix(" kB")?.parse().ok());
        peak_kib = peak_kib.max(peak.unwrap_or(0.0));
        if waitid(WaitId::Pid(pid), options)?.is_some() {
            return Ok(peak_kib / 1024.0);
        }
        thread::sleep(LOOK_INTERVAL);
    }
}

/// utime, stime, cutime and cstime of proc(5), the 14th to the 17th field.
fn processor_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(") ").ok_or("no process state")?;
    let times = fields.split(' ').skip(11).take(4).map(str::parse::<f64>);
    Ok(times.sum::<std::result::Result<f64, _>>()? / TICKS_PER_SECOND)
}
