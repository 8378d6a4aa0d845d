//! Whether each data directory of a source can be read and holds a save, and what to enlarge where it does not. Saves nothing.

use bytesize::ByteSize;

use super::Findings;
use crate::{
    domain::{
        bgsave::{self, Room, Shortage},
        capture::{Directories, FileAccess, MethodChoice},
        observation::NodeObservation,
        topology::{Shard, Topology},
        workload::Member,
    },
    flow::find::Found,
};

/// A line for each node whose directory was looked at.
pub(super) fn check(
    subject: &str,
    method: MethodChoice,
    (found, topology, directories): (&Found, &Topology, &Directories),
    findings: &mut Findings,
) {
    for node in topology.shards.iter().flat_map(Shard::observed) {
        let Some(directory) = directories.get(&node.address) else { continue };
        let subject = format!("{subject}: {}", node.address);
        let member = found.pods.as_ref().and_then(|pods| pods.reach.member(&node.address));
        match &directory.room {
            Ok(room) => {
                findings.good(&subject, seen(directory.access, room, node, member.as_ref()));
                for shortage in shortages(room, node) {
                    let fix = remedy(&shortage, member.as_ref());
                    findings.warning(&subject, shortage.to_string(), &fix);
                }
            }
            Err(reason) => {
                let finding = match method {
                    MethodChoice::Auto => format!("no BGSAVE, but replication: {reason}"),
                    MethodChoice::Bgsave | MethodChoice::Replication => reason.clone(),
                };
                findings.warning(&subject, finding, unreadable(directory.access));
            }
        }
    }
}

fn seen(
    access: FileAccess,
    room: &Room,
    node: &NodeObservation,
    member: Option<&Member>,
) -> String {
    let whose = member.map_or_else(String::new, |it| format!(" of pod {}", it.pod));
    let how = match access {
        FileAccess::Mounted => "is mounted here",
        FileAccess::Exec => "can be read by exec",
        FileAccess::Worker => {
            return format!(
                "the data directory{whose} can be mounted by a worker, which sees its room"
            );
        }
    };
    let needed = bgsave::disk_needed(room.last_dump_bytes, node.persistence.dataset_bytes);
    let memory = match room.memory_bytes {
        Some(left) => {
            let fork = bgsave::memory_needed(node.used_memory_bytes);
            format!("{} of memory left for a fork of {}", size(left), size(fork))
        }
        None => "its memory cannot be seen".to_owned(),
    };
    let disk = format!("{} free for a save of {}", size(room.disk_bytes), size(needed));
    format!("the data directory{whose} {how}; {disk}; {memory}")
}

fn shortages(room: &Room, node: &NodeObservation) -> impl Iterator<Item = Shortage> {
    let disk = bgsave::check_disk(room, node.persistence.dataset_bytes).err();
    let memory = bgsave::check_memory(room, node.used_memory_bytes).err();
    disk.into_iter().chain(memory)
}

fn remedy(shortage: &Shortage, member: Option<&Member>) -> String {
    match shortage {
        Shortage::Disk { available, needed } => {
            let claim = member.and_then(|it| it.data.as_ref()?.claim.as_deref());
            let what = claim.map_or("that filesystem".to_owned(), |it| format!("PVC {it}"));
            format!(
                "enlarge {what} by {}, or delete there what is not the server's",
                more(*available, *needed)
            )
        }
        Shortage::Memory { available, needed } => {
            let what = member.map_or_else(
                || "give its machine".to_owned(),
                |it| format!("raise the memory limit of container {} by", it.container),
            );
            let more = more(*available, *needed);
            format!(
                "{what} {more}, or lower `maxmemory`: a fork that outgrows it is killed, and may take the server along"
            )
        }
    }
}

const fn unreadable(access: FileAccess) -> &'static str {
    match access {
        FileAccess::Mounted => "let the user of this program read it, or leave `dataDir` out",
        FileAccess::Worker => {
            "keep its data in a PersistentVolumeClaim, or be content with `method: replication`"
        }
        FileAccess::Exec => {
            "give its image a shell with coreutils or busybox, and us the right to pods/exec; or be content with \
             `method: replication`"
        }
    }
}

fn more(available: u64, needed: u64) -> String {
    size(needed.saturating_sub(available))
}

fn size(bytes: u64) -> String {
    ByteSize(bytes).display().iec().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{source::NodeAddress, workload::DataVolume};

    fn member() -> Member {
        Member {
            pod: "redis-0".to_owned(),
            container: "redis".to_owned(),
            address: NodeAddress::new("10.0.0.5", 6379),
            names: std::collections::BTreeSet::default(),
            server_names: Vec::new(),
            machine: None,
            data: Some(DataVolume {
                volume: "data".to_owned(),
                path: "/data".to_owned(),
                sub_path: None,
                claim: Some("data-redis-0".to_owned()),
                template: None,
            }),
        }
    }

    #[test]
    fn what_is_short_is_named_with_what_to_enlarge_and_by_how_much() {
        let disk = Shortage::Disk { available: 1 << 20, needed: 5 << 20 };
        let fix = remedy(&disk, Some(&member()));
        assert!(fix.starts_with("enlarge PVC data-redis-0 by 4.0 MiB"), "{fix}");
        assert!(remedy(&disk, None).starts_with("enlarge that filesystem by 4.0 MiB"));
        let memory = Shortage::Memory { available: 0, needed: 3 << 20 };
        let fix = remedy(&memory, Some(&member()));
        assert!(fix.starts_with("raise the memory limit of container redis by 3.0 MiB"), "{fix}");
    }
}
