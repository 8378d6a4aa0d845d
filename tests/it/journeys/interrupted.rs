//! A node that dies, hangs or changes its role in the midst of a capture: another takes over, or the backup fails
//! and leaves nothing that could be mistaken for one.

use std::process::Child;

use super::{Listing, Tool, listing, tool::Run};
use crate::servers::{Version, dataset::fill, redis::Server, sentinel::SentinelGroup, wait_for};

const KEYS: usize = 1000;

/// So much for each key: a capture takes some seconds.
const DELAY_MICROSECONDS: u32 = 4000;

struct Interrupted {
    group: SentinelGroup,
    tool: Tool,
    backup: Child,
}

/// Returns as soon as one of the replicas is being captured.
fn begin() -> (Interrupted, usize) {
    let version = Version::usual();
    let group = SentinelGroup::start(&version);
    let mut connection = group.nodes.primary.connection();
    fill(&mut connection, 91, KEYS);
    let followed: u32 = redis::cmd("WAIT").arg(2).arg(60_000).query(&mut connection).unwrap();
    assert_eq!(followed, 2);
    for replica in &group.nodes.replicas {
        let () = replica.command(&format!("CONFIG SET rdb-key-save-delay {DELAY_MICROSECONDS}"));
    }
    let tool = Tool::new(&version);
    let backup = tool.start("backup", &["--source-url", &group.url()]);
    let captured =
        wait_for("the capture to begin", || group.nodes.replicas.iter().position(is_captured));
    (Interrupted { group, tool, backup }, captured)
}

fn is_captured(replica: &Server) -> bool {
    replica.info("rdb_bgsave_in_progress").as_deref() == Some("1")
}

/// A backup that is listed is whole; one that failed left no archive.
fn is_whole_or_absent(tool: &Tool, run: &Run) {
    if run.exit == Some(0) {
        assert_eq!(tool.backups().len(), 1, "{run:#?}");
        tool.verify_by_load();
        assert_eq!(tool.manifest()["shards"][0]["rdb"]["content"]["read"]["keysOutsideSlots"], 0);
    } else {
        assert_eq!(run.exit, Some(10), "{run:#?}");
        assert_eq!(tool.backups(), [] as [String; 0], "{run:#?}");
        let archives = tool.store().join("journey/archives");
        let left = if archives.exists() { listing(&archives) } else { Listing::new() };
        assert!(left.values().all(|told| told.ends_with(" folder")), "{left:#?}");
    }
}

#[test]
fn a_replica_killed_while_it_is_captured_is_replaced_by_the_other() {
    let (Interrupted { mut group, tool, backup }, captured) = begin();
    group.nodes.replicas[captured].kill9();
    let run = Run::of(&backup.wait_with_output().unwrap());
    assert_eq!(run.exit, Some(0), "{run:#?}");
    assert!(run.stderr.contains("trying the next way"), "{run:#?}");
    is_whole_or_absent(&tool, &run);
}

#[test]
fn without_another_replica_the_backup_fails_and_leaves_nothing() {
    let (Interrupted { mut group, tool, backup }, captured) = begin();
    group.nodes.replicas[1 - captured].kill9();
    group.nodes.replicas[captured].kill9();
    let run = Run::of(&backup.wait_with_output().unwrap());
    assert_eq!(run.exit, Some(10), "{run:#?}");
    is_whole_or_absent(&tool, &run);
}

#[test]
fn a_failover_in_mid_capture_ends_in_a_whole_backup_or_none() {
    let (Interrupted { group, tool, backup }, _) = begin();
    group.fail_over();
    let run = Run::of(&backup.wait_with_output().unwrap());
    is_whole_or_absent(&tool, &run);
}
