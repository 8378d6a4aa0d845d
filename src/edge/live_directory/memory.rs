//! How much memory is left beside a server, as far as /proc and its cgroup show. Guesses nothing.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::Identity;
use crate::domain::persistence::Persistence;

/// The least of what its machine and its control group have left; none where neither can be seen.
pub(super) fn left(folder: &Path, seen: &Persistence) -> Option<u64> {
    [of_machine(seen), of_group(folder, seen)].into_iter().flatten().min()
}

/// Only if the server tells the memory of this very machine.
fn of_machine(seen: &Persistence) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let bytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
    };
    let total = bytes("MemTotal:")?;
    (seen.machine_memory_bytes == Some(total)).then(|| bytes("MemAvailable:")).flatten()
}

/// Only if the process can be seen to work in that very folder. Files in the page cache can be given
/// up and do not count.
fn of_group(folder: &Path, seen: &Persistence) -> Option<u64> {
    let process = PathBuf::from(format!("/proc/{}", seen.process_id?));
    let works_in = fs::metadata(process.join("cwd")).ok()?;
    if Identity::of(&works_in) != Identity::of(&fs::metadata(folder).ok()?) {
        return None;
    }
    let groups = fs::read_to_string(process.join("cgroup")).ok()?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let group = Path::new("/sys/fs/cgroup").join(group);
    let limit: u64 = fs::read_to_string(group.join("memory.max")).ok()?.trim().parse().ok()?;
    let statistics = fs::read_to_string(group.join("memory.stat")).ok()?;
    let used = statistics.lines().find_map(|line| line.strip_prefix("anon "))?;
    Some(limit.saturating_sub(used.trim().parse().ok()?))
}
