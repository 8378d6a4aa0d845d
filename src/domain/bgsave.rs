//! When a BGSAVE may be asked for, when it has ended and which file is its own. Decides; never asks a server.
//!
//! What a server does: `rdbSaveBackground`, `backgroundSaveDoneHandler` and `killRDBChild` in `rdb.c`.

use std::{collections::BTreeMap, fmt};

use bytesize::ByteSize;
use jiff::{SignedDuration, Timestamp};

use super::{
    manifest::{Flavour, ReplicationPoint, Server},
    persistence::Persistence,
};

/// A save needs room for the whole new file beside the old one, and a dataset grows meanwhile.
const ROOM_TENTHS: u64 = 12;

/// A server tells the time by gettimeofday(2) and its child by time(2), which Linux only renews at each
/// tick of the kernel: every 10 ms at most (`CONFIG_HZ` of 100).
const CLOCK_LAG_MAX: SignedDuration = SignedDuration::from_millis(20);

/// A fork copies each page that is written to while it lives: so much of the memory, in hundredths.
const FORK_HUNDREDTHS: u64 = 25;

/// What can be seen of the disk and the memory that a save needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Bytes that may still be written to the filesystem of the data directory.
    pub disk_bytes: u64,
    /// Of the RDB that lies there; 0 where none does.
    pub last_dump_bytes: u64,
    /// Bytes of memory that the server's machine or container has left; none where it cannot be seen.
    pub memory_bytes: Option<u64>,
}

impl Room {
    /// Where it will be looked at only just before the save.
    pub const UNSEEN: Self = Self { disk_bytes: u64::MAX, last_dump_bytes: 0, memory_bytes: None };
}

/// Why a server should not be made to save now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Shortage {
    #[error(
        "the filesystem of its data directory has {} free, and a save may need {}",
        size(*available), size(*needed)
    )]
    Disk { available: u64, needed: u64 },
    #[error(
        "{} of memory are left beside it, and a fork of a server in use may need {}",
        size(*available), size(*needed)
    )]
    Memory { available: u64, needed: u64 },
}

fn size(bytes: u64) -> impl fmt::Display {
    ByteSize(bytes).display().iec()
}

/// Bytes that a save may write.
pub fn disk_needed(last_dump_bytes: u64, dataset_bytes: Option<u64>) -> u64 {
    last_dump_bytes.max(dataset_bytes.unwrap_or(0)).saturating_mul(ROOM_TENTHS) / 10
}

/// Whether the disk holds one more RDB.
pub fn check_disk(room: &Room, dataset_bytes: Option<u64>) -> Result<(), Shortage> {
    let (available, needed) = (room.disk_bytes, disk_needed(room.last_dump_bytes, dataset_bytes));
    if available >= needed { Ok(()) } else { Err(Shortage::Disk { available, needed }) }
}

/// Bytes that a fork may copy.
pub fn memory_needed(used_bytes: Option<u64>) -> u64 {
    used_bytes.unwrap_or(0).saturating_mul(FORK_HUNDREDTHS) / 100
}

/// Whether the memory that can be seen holds what a fork may copy.
pub fn check_memory(room: &Room, used_bytes: Option<u64>) -> Result<(), Shortage> {
    let needed = memory_needed(used_bytes);
    match room.memory_bytes {
        Some(available) if available < needed => Err(Shortage::Memory { available, needed }),
        Some(_) | None => Ok(()),
    }
}

/// What the server answered to BGSAVE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Started,
    /// It will begin once another child has ended.
    Scheduled,
    /// A save or another child of it runs already: ask again when it has ended.
    Busy,
}

/// `reply` without the `-` of an error; none for an error of another kind.
pub fn answer(reply: &str) -> Option<Answer> {
    if reply.contains("saving scheduled") {
        Some(Answer::Scheduled)
    } else if reply.contains("saving started") {
        Some(Answer::Started)
    } else if reply.contains("already in progress") || reply.contains("child process is active") {
        Some(Answer::Busy)
    } else {
        None
    }
}

/// Whether a save could be asked for now.
pub fn is_free(seen: &Persistence) -> bool {
    !seen.save_in_progress && !seen.aof.rewrite_in_progress && !seen.aof.rewrite_scheduled
}

/// A save that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The server's clock just before.
    pub at: Timestamp,
    pub answer: Answer,
    /// What it said just before.
    pub before: Persistence,
    /// Whether a child was seen since.
    pub was_seen: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    Waits,
    /// Its file may be looked for.
    Ended,
    /// The last save ended in the second in which ours began, be it ours or the one before (a start
    /// counts as one): only a new file tells.
    Unsure,
    /// It wrote nothing, though the server says `ok`: FLUSHALL, a full synchronisation and
    /// `BGSAVE CANCEL` kill the child by a signal that counts as no failure.
    Killed,
    Failed,
    /// Another process answers at that address.
    Restarted,
}

/// What became of a save, by what the server says now.
pub fn progress(asked: &Asked, now: &Persistence) -> Progress {
    let began = u64::try_from(asked.at.as_second()).unwrap_or(0);
    if now.run_id != asked.before.run_id {
        Progress::Restarted
    } else if now.save_in_progress {
        Progress::Waits
    } else if now.last_save_seconds >= began && now.last_save_ok {
        let has_moved = now.last_save_seconds != asked.before.last_save_seconds;
        if has_moved { Progress::Ended } else { Progress::Unsure }
    } else if !now.last_save_ok && (asked.was_seen || asked.answer == Answer::Started) {
        Progress::Failed
    } else if asked.answer == Answer::Started || asked.was_seen {
        Progress::Killed
    } else {
        // A scheduled save shows nowhere until it begins.
        Progress::Waits
    }
}

/// Why a file is not the RDB of our save.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Foreign {
    #[error("it was begun at {found}, before ours at {asked}")]
    Older { found: Timestamp, asked: Timestamp },
    #[error("it is of replication {found}, and the server of {expected}")]
    OtherReplication { found: String, expected: String },
    #[error("it was written by version {found}, and the server is {expected}")]
    OtherVersion { found: String, expected: String },
    #[error("it tells no time of its own")]
    NoTime,
}

/// To which moment an RDB reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    pub captured_at: Timestamp,
    pub replication: ReplicationPoint,
}

/// By what the file says of itself, whether it is the asked save's. `aux` is empty where the RDB is
/// of a version newer than this program: then the new inode and its checksum speak for it.
pub fn accept(
    asked: &Asked,
    server: &Server,
    aux: &BTreeMap<String, String>,
    is_read: bool,
) -> Result<Reach, Foreign> {
    let before = &asked.before;
    let known =
        ReplicationPoint { id: before.replication_id.clone(), offset: before.replication_offset };
    if !is_read {
        return Ok(Reach { captured_at: asked.at, replication: known });
    }
    let seconds = aux.get("ctime").and_then(|text| text.parse::<i64>().ok());
    let found = seconds.and_then(|seconds| Timestamp::from_second(seconds).ok());
    let found = found.ok_or(Foreign::NoTime)?;
    // The child writes whole seconds, by a clock that may lag behind that of TIME.
    let since = asked.at.checked_sub(CLOCK_LAG_MAX).unwrap_or(asked.at);
    if found.as_second() < since.as_second() {
        return Err(Foreign::Older { found, asked: asked.at });
    }
    // The first Valkeys write the version of Redis that they descend from.
    let written_by = aux.get(match server.flavour {
        Flavour::Redis => "redis-ver",
        Flavour::Valkey => "valkey-ver",
    });
    if let Some(found) = written_by.filter(|found| **found != server.version) {
        let (found, expected) = (found.clone(), server.version.clone());
        return Err(Foreign::OtherVersion { found, expected });
    }
    let replication = match aux.get("repl-id").zip(aux.get("repl-offset")) {
        // A server that never had a replica writes none.
        None => known,
        Some((id, offset)) => {
            if *id != known.id && !known.id.is_empty() {
                let (found, expected) = (id.clone(), known.id);
                return Err(Foreign::OtherReplication { found, expected });
            }
            let offset = offset.parse().unwrap_or(known.offset);
            ReplicationPoint { id: id.clone(), offset }
        }
    };
    Ok(Reach { captured_at: found, replication })
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: i64 = 1_700_000_000;

    fn seen(change: impl FnOnce(&mut Persistence)) -> Persistence {
        let mut seen = Persistence {
            run_id: "aa".to_owned(),
            last_save_ok: true,
            last_save_seconds: 1_600_000_000,
            replication_id: "8de1".to_owned(),
            replication_offset: 10,
            ..Persistence::default()
        };
        change(&mut seen);
        seen
    }

    fn asked(answer: Answer) -> Asked {
        let at = Timestamp::new(T0, 900_000_000).unwrap();
        Asked { at, answer, before: seen(|_| {}), was_seen: false }
    }

    #[test]
    fn a_killed_save_is_told_from_one_that_ended_and_one_that_failed() {
        let started = asked(Answer::Started);
        let second = u64::try_from(T0).unwrap();
        assert_eq!(progress(&started, &seen(|it| it.save_in_progress = true)), Progress::Waits);
        assert_eq!(
            progress(&started, &seen(|it| it.last_save_seconds = second)),
            Progress::Ended,
            "the clock of a save has whole seconds",
        );
        let just_before = seen(|it| it.last_save_seconds = second);
        let soon = Asked { before: just_before.clone(), ..started.clone() };
        assert_eq!(progress(&soon, &just_before), Progress::Unsure);
        assert_eq!(progress(&started, &seen(|_| {})), Progress::Killed);
        assert_eq!(progress(&started, &seen(|it| it.last_save_ok = false)), Progress::Failed);
        let restarted = seen(|it| "bb".clone_into(&mut it.run_id));
        assert_eq!(progress(&started, &restarted), Progress::Restarted);
    }

    #[test]
    fn a_scheduled_save_is_waited_for_until_it_was_seen() {
        let scheduled = asked(Answer::Scheduled);
        assert_eq!(progress(&scheduled, &seen(|_| {})), Progress::Waits);
        let failed_before = seen(|it| it.last_save_ok = false);
        assert_eq!(progress(&scheduled, &failed_before), Progress::Waits);
        let begun = Asked { was_seen: true, ..scheduled };
        assert_eq!(progress(&begun, &seen(|_| {})), Progress::Killed);
    }

    #[test]
    fn every_answer_to_bgsave_is_known() {
        for (reply, expected) in [
            ("Background saving started", Some(Answer::Started)),
            ("Background saving scheduled", Some(Answer::Scheduled)),
            ("ERR Background save already in progress", Some(Answer::Busy)),
            (
                "ERR Another child process is active (AOF?): can't BGSAVE right now. Use BGSAVE SCHEDULE",
                Some(Answer::Busy),
            ),
            ("ERR", None),
        ] {
            assert_eq!(answer(reply), expected, "{reply}");
        }
    }

    #[test]
    fn a_file_of_another_save_or_server_is_foreign() {
        let aux = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let server = Server { flavour: Flavour::Redis, version: "7.0.15".to_owned() };
        let judge =
            |pairs: &[(&str, &str)]| accept(&asked(Answer::Started), &server, &aux(pairs), true);
        let (now, before) = (T0.to_string(), (T0 - 1).to_string());
        let reach = judge(&[("ctime", &now), ("redis-ver", "7.0.15")]).unwrap();
        assert_eq!((reach.captured_at.as_second(), reach.replication.offset), (T0, 10));
        let reach = judge(&[("ctime", &now), ("repl-id", "8de1"), ("repl-offset", "44")]).unwrap();
        assert_eq!(reach.replication.offset, 44);
        assert!(matches!(judge(&[("ctime", &before)]), Err(Foreign::Older { .. })));
        assert_eq!(judge(&[]), Err(Foreign::NoTime));
        let other = judge(&[("ctime", &now), ("repl-id", "ffff"), ("repl-offset", "1")]);
        assert!(matches!(other, Err(Foreign::OtherReplication { .. })));
        let other = judge(&[("ctime", &now), ("redis-ver", "7.0.14")]);
        assert!(matches!(other, Err(Foreign::OtherVersion { .. })));
    }

    #[test]
    fn a_child_whose_clock_has_not_ticked_yet_is_not_taken_for_an_older_save() {
        let server = Server { flavour: Flavour::Redis, version: "7.0.15".to_owned() };
        let aux = BTreeMap::from([("ctime".to_owned(), (T0 - 1).to_string())]);
        let asked_after = |milliseconds: i32| {
            let at = Timestamp::new(T0, milliseconds * 1_000_000).unwrap();
            let asked = Asked { at, ..asked(Answer::Started) };
            accept(&asked, &server, &aux, true)
        };
        assert!(asked_after(2).is_ok());
        assert!(matches!(asked_after(21), Err(Foreign::Older { .. })));
    }

    #[test]
    fn room_is_a_fifth_more_than_the_larger_of_file_and_dataset() {
        let room = Room { disk_bytes: 1199, last_dump_bytes: 1000, memory_bytes: Some(24) };
        assert!(matches!(check_disk(&room, None), Err(Shortage::Disk { needed: 1200, .. })));
        assert!(check_disk(&Room { disk_bytes: 1200, ..room.clone() }, Some(999)).is_ok());
        assert!(check_disk(&Room { disk_bytes: 1200, ..room.clone() }, Some(1001)).is_err());
        assert!(matches!(check_memory(&room, Some(100)), Err(Shortage::Memory { needed: 25, .. })));
        assert!(check_memory(&Room { memory_bytes: None, ..room }, Some(100)).is_ok());
    }
}
