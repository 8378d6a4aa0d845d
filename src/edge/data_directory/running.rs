//! Which processes use a data directory, as far as /proc shows. Never ends one.

use std::{collections::HashSet, fmt, fs, io, os::unix::fs::MetadataExt, path::Path};

use super::{Error, acts};
use crate::domain::dataset::WORK_FOLDER;

/// What could be seen, and what could not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// Processes that work in the directory or hold a file of it open.
    pub servers: Vec<Process>,
    /// What nobody could look at, in sentences for people.
    pub unseen: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pub id: u32,
    pub name: String,
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.id)
    }
}

/// A person's shell in the directory is no server; what it started is seen for itself.
const SHELLS: [&str; 12] = [
    "sh",
    "bash",
    "dash",
    "zsh",
    "fish",
    "ash",
    "ksh",
    "busybox",
    "tmux: server",
    "screen",
    "less",
    "vim",
];

/// The first process namespace of a host has this inode number (`proc_ns.h` of Linux).
const FIRST_NAMESPACE: u64 = 0xEFFF_FFFC;

type FileId = (u64, u64);

/// A server changes to its `dir` when it starts, so its working directory tells it, whatever its
/// name and through whatever mount it sees the directory.
pub fn look(dir: &Path) -> Result<Sight, Error> {
    let fail = |source| Error::Act { attempt: format!("look at {}", dir.display()), source };
    let directory = id(&fs::metadata(dir).map_err(fail)?);
    let files = files_of(dir)?;
    let own = own_line();
    let mut sight = Sight::default();
    let mut hidden = 0_usize;
    let processes = match fs::read_dir("/proc") {
        Ok(processes) => processes,
        Err(error) => {
            sight.unseen.push(format!("no process could be looked at: /proc: {error}"));
            return Ok(sight);
        }
    };
    for entry in processes.flatten() {
        let Some(process) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if own.first() == Some(&process) {
            continue;
        }
        let name = name_of(process);
        let works_here = match fs::metadata(entry.path().join("cwd")) {
            Ok(metadata) => id(&metadata) == directory,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                hidden += 1;
                false
            }
            // It ended meanwhile, or is a kernel thread.
            Err(_) => false,
        };
        let is_bystander = own.contains(&process) || SHELLS.contains(&name.as_str());
        let uses = (works_here && !is_bystander) || holds_open(&entry.path(), &files);
        if uses && !is_own_fork(process) {
            sight.servers.push(Process { id: process, name });
        }
    }
    sight.servers.sort_by_key(|process| process.id);
    if hidden > 0 {
        sight.unseen.push(format!(
            "{} could not be looked at",
            if hidden == 1 {
                "1 process of another user".to_owned()
            } else {
                format!("{hidden} processes of other users")
            }
        ));
    }
    let is_first = fs::metadata("/proc/self/ns/pid").is_ok_and(|ns| ns.ino() == FIRST_NAMESPACE);
    sight.unseen.push(
        if is_first {
            "processes of other hosts that share this volume cannot be seen"
        } else {
            "processes outside this container cannot be seen, nor those of other hosts that share this volume"
        }
        .to_owned(),
    );
    Ok(sight)
}

/// Files in the directory and one folder deep, our own apart.
fn files_of(dir: &Path) -> Result<HashSet<FileId>, Error> {
    let mut files = HashSet::new();
    for name in acts::names(dir)?.unwrap_or_default() {
        if name == WORK_FOLDER {
            continue;
        }
        let path = dir.join(name);
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if metadata.is_file() {
            files.insert(id(&metadata));
        } else if metadata.is_dir() {
            // A folder that we may not read is none of Redis's.
            let entries = fs::read_dir(&path).into_iter().flatten().flatten();
            files.extend(entries.filter_map(|entry| entry.metadata().ok()).map(|inner| id(&inner)));
        }
    }
    Ok(files)
}

fn holds_open(process: &Path, files: &HashSet<FileId>) -> bool {
    let open = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    open.filter_map(|entry| fs::metadata(entry.path()).ok()).any(|open| files.contains(&id(&open)))
}

/// A child of ours that has not yet become another program still holds all that we had open.
fn is_own_fork(process: u32) -> bool {
    let program =
        |process: &str| fs::metadata(format!("/proc/{process}/exe")).ok().map(|exe| id(&exe));
    parent_of(process) == Some(std::process::id())
        && program(&process.to_string()) == program("self")
}

fn name_of(process: u32) -> String {
    let comm = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
    comm.trim_end().to_owned()
}

/// This process and its ancestors: a shell, a script or a container runtime that started us here.
fn own_line() -> Vec<u32> {
    let mut line = vec![std::process::id()];
    while let Some(parent) = line.last().and_then(|&process| parent_of(process))
        && parent > 1
        && !line.contains(&parent)
    {
        line.push(parent);
    }
    line
}

fn parent_of(process: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok())
}

fn id(metadata: &fs::Metadata) -> FileId {
    (metadata.dev(), metadata.ino())
}

impl Sight {
    /// The directory is free, as far as could be seen.
    pub fn is_free(&self) -> bool {
        self.servers.is_empty()
    }
}
