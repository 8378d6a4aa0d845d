//! How a healthy node is captured: by BGSAVE, by replication, from its append-only files, or not, and why. Never picks the node.

use bytesize::ByteSize;

use super::{Candidate, Directory, FileAccess, FileNames, MethodChoice, Preference};
use crate::domain::{
    bgsave,
    manifest::{Method, NodeRole, TopologyKind},
    observation::NodeObservation,
};

/// The ways in which one healthy node can be captured, best first, and why not in others.
#[derive(Default)]
pub(super) struct Ways {
    pub(super) candidates: Vec<Candidate>,
    pub(super) refused: Vec<String>,
}

pub(super) fn ways(
    kind: TopologyKind,
    node: &NodeObservation,
    preference: &Preference,
    directory: Option<&Directory>,
    reason: &str,
) -> Ways {
    let Preference { forms, method, .. } = *preference;
    let mut ways = Ways::default();
    if forms.aof
        && let Err(fault) = judge_aof(node, preference, directory)
    {
        ways.refused.push(fault);
        return ways;
    }
    let has_files = directory.is_some_and(|directory| directory.room.is_ok());
    let mut add = |method, why: &str| {
        let reason = format!("{reason}; {why}");
        ways.candidates.push(candidate(node, method, has_files, reason));
    };
    if !forms.rdb {
        add(None, "its append-only files are at hand");
        return ways;
    }
    let by_bgsave = judge_bgsave(node, preference, directory);
    let by_replication = judge_replication(kind, node, directory);
    match (method, by_bgsave, by_replication) {
        (MethodChoice::Auto, Ok(why), Ok(less)) => {
            add(Some(Method::Bgsave), &why);
            add(Some(Method::Replication), &format!("{less}, should BGSAVE not be permitted"));
        }
        (MethodChoice::Auto | MethodChoice::Bgsave, Ok(why), _) => {
            add(Some(Method::Bgsave), &why);
        }
        (MethodChoice::Auto, Err(fault), Ok(why)) => {
            add(Some(Method::Replication), &format!("{why}, for {fault}"));
        }
        (MethodChoice::Replication, _, Ok(why)) => add(Some(Method::Replication), &why),
        (MethodChoice::Auto, Err(fault), Err(other)) => {
            ways.refused.push(format!("{other}, and {fault}"));
        }
        (MethodChoice::Bgsave, Err(fault), _) | (MethodChoice::Replication, _, Err(fault)) => {
            ways.refused.push(fault);
        }
    }
    ways
}

fn candidate(
    node: &NodeObservation,
    method: Option<Method>,
    has_files: bool,
    reason: String,
) -> Candidate {
    let settings = &node.settings;
    Candidate {
        address: node.address.clone(),
        role: node.role,
        method,
        has_files,
        names: FileNames {
            dbfilename: settings.dbfilename.clone(),
            appendfilename: settings.appendfilename.clone(),
            appenddirname: settings.appenddirname.clone(),
        },
        server: node.server.clone(),
        run_id: node.run_id.clone(),
        reason,
    }
}

/// Whether the node's files can be read, and its disk and memory hold a save.
fn judge_bgsave(
    node: &NodeObservation,
    preference: &Preference,
    directory: Option<&Directory>,
) -> Result<String, String> {
    let Some(directory) = directory else {
        return Err("its data directory is not at hand (`dataDir`)".to_owned());
    };
    let room = directory.room.as_ref().map_err(Clone::clone)?;
    let about = node.persistence.dataset_bytes.unwrap_or(0).max(room.last_dump_bytes);
    check_exec(directory, preference, about)?;
    bgsave::check_disk(room, node.persistence.dataset_bytes).map_err(|error| error.to_string())?;
    bgsave::check_memory(room, node.used_memory_bytes).map_err(|error| error.to_string())?;
    let found = match directory.access {
        FileAccess::Mounted => "is at hand and has room",
        FileAccess::Exec => "can be read by exec and has room",
        FileAccess::Worker => "can be mounted by a worker",
    };
    Ok(format!("by BGSAVE, for its data directory {found}"))
}

fn check_exec(directory: &Directory, preference: &Preference, bytes: u64) -> Result<(), String> {
    let most = preference.exec_bytes_max;
    match directory.access {
        FileAccess::Exec if bytes > most => {
            let size = |bytes| ByteSize(bytes).display().iec();
            let (bytes, most) = (size(bytes), size(most));
            Err(format!("its {bytes} are more than {most} (`execBytesMax`), too much for exec"))
        }
        FileAccess::Exec | FileAccess::Mounted | FileAccess::Worker => Ok(()),
    }
}

fn judge_replication(
    kind: TopologyKind,
    node: &NodeObservation,
    directory: Option<&Directory>,
) -> Result<String, String> {
    // Each sentinel would record us as a replica without a port, and keep it in its file for ever.
    let is_watched = kind == TopologyKind::Sentinel || node.sentinel_watched == Some(true);
    if node.role == NodeRole::Primary && is_watched {
        return Err(
            "it is a primary watched by sentinels, which replication would confuse".to_owned()
        );
    }
    let room = directory.and_then(|directory| directory.room.as_ref().ok());
    if let Some(room) = room {
        bgsave::check_memory(room, node.used_memory_bytes).map_err(|error| error.to_string())?;
        if !is_surely_diskless(node) {
            bgsave::check_disk(room, node.persistence.dataset_bytes).map_err(|error| {
                format!("{error}: it may write its RDB there before it sends it")
            })?;
        }
    }
    Ok("by replication".to_owned())
}

/// Before 7.0 a server writes its RDB to disk for a replica unless told otherwise, and any may be
/// told so; without the right to CONFIG GET it stays unknown.
fn is_surely_diskless(node: &NodeObservation) -> bool {
    node.settings.repl_diskless_sync == Some(true)
}

/// The manifest of a server whose file is being re-made names files of before.
fn judge_aof(
    node: &NodeObservation,
    preference: &Preference,
    directory: Option<&Directory>,
) -> Result<(), String> {
    let Some(directory) = directory else {
        return Err(
            "its data directory is not at hand (`dataDir`), where its append-only files lie"
                .to_owned(),
        );
    };
    directory.room.as_ref().map_err(Clone::clone)?;
    check_exec(directory, preference, node.persistence.aof.bytes.unwrap_or(0))?;
    if node.persistence.aof.enabled {
        Ok(())
    } else {
        Err("it keeps no append-only file (aof_enabled:0)".to_owned())
    }
}
