//! One backup in full.

use std::fmt;

use serde::Serialize;

use super::{FailedStore, table::Table, text};
use crate::domain::{
    aof::FileFacts,
    archive::Encryption,
    manifest::{
        AofCapture, AofRole, Archive, Manifest, RdbCapture, ReplicationPoint, ShardManifest,
    },
    rdb::{Checksum, Content, Facts},
    record::Record,
    shrink_guard::ShrinkGuard,
};

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ShowReport {
    pub kind: &'static str,
    pub version: u32,
    pub store: String,
    /// Those that hold the same backup too.
    pub other_stores: Vec<String>,
    /// Stores that may hold it too, and cannot be asked.
    pub unanswered: Vec<FailedStore>,
    pub manifest: Manifest,
    /// What was noted beside the backup since, oldest first.
    pub records: Vec<Record>,
}

impl fmt::Display for ShowReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let manifest = &self.manifest;
        let schedule = manifest.schedule.as_ref().map_or("by hand".to_owned(), |schedule| {
            match manifest.scheduled_for {
                Some(at) => format!("by schedule {schedule} for {}", text::time(at)),
                None => format!("by schedule {schedule}"),
            }
        });
        writeln!(f, "backup   {}", manifest.backup)?;
        writeln!(f, "source   {} ({})", manifest.source, manifest.origin.identities.join(", "))?;
        writeln!(f, "store    {}", self.store)?;
        if !self.other_stores.is_empty() {
            writeln!(f, "also in  {}", self.other_stores.join(", "))?;
        }
        for FailedStore { store, error, .. } in &self.unanswered {
            writeln!(f, "unknown  whether it is in {store}: {error}")?;
        }
        writeln!(
            f,
            "taken    {} to {}, {schedule}",
            text::time(manifest.begun),
            text::time(manifest.ended)
        )?;
        writeln!(
            f,
            "server   {}, {}",
            manifest.server,
            manifest.topology.of(manifest.shards.len())
        )?;
        if manifest.shards.len() > 1 {
            writeln!(
                f,
                "skew     {}: consistent per shard, not one point in time",
                text::seconds(manifest.skew_seconds)
            )?;
        }
        writeln!(f, "stored   {}", text::bytes(manifest.stored_bytes()))?;
        match &manifest.shrink_guard {
            ShrinkGuard::NotChecked | ShrinkGuard::Passed(_) => {}
            ShrinkGuard::Suspect(comparison) => writeln!(f, "SUSPECT  {comparison}")?,
        }
        manifest.shards.iter().try_for_each(|shard| write_shard(f, shard))?;
        writeln!(f)?;
        write_archive(f, "installation", &manifest.installation)?;
        writeln!(f)?;
        if self.records.is_empty() {
            return writeln!(f, "proofs   none yet: run `redis-backup verify {}`", manifest.backup);
        }
        self.records.iter().try_for_each(|record| writeln!(f, "record   {record}"))
    }
}

fn write_shard(f: &mut fmt::Formatter<'_>, shard: &ShardManifest) -> fmt::Result {
    writeln!(f)?;
    let slots: Vec<String> = shard.slots.iter().map(ToString::to_string).collect();
    let slots =
        if slots.is_empty() { String::new() } else { format!(", slots {}", slots.join(",")) };
    writeln!(f, "shard {}{slots}", shard.shard)?;
    if let Some(rdb) = &shard.rdb {
        write_rdb(f, rdb)?;
    }
    if let Some(aof) = &shard.aof {
        write_aof(f, aof)?;
    }
    shard.archives.iter().try_for_each(|archive| write_archive(f, "  archive", archive))
}

fn write_aof(f: &mut fmt::Formatter<'_>, aof: &AofCapture) -> fmt::Result {
    let AofCapture { captured_at, captured_from, replication, files } = aof;
    let at = text::time(*captured_at);
    writeln!(f, "  append-only files captured {at} from a {captured_from}")?;
    let ReplicationPoint { id, offset } = replication;
    writeln!(f, "  all up to offset {offset} of replication {id}")?;
    files.iter().try_for_each(|file| write_aof_file(f, &file.name, file.role, &file.facts))
}

/// The facts of one append-only file, as `show` and `inspect` print them.
pub(super) fn write_aof_file(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    role: AofRole,
    facts: &FileFacts,
) -> fmt::Result {
    let bytes = text::bytes(facts.bytes);
    writeln!(f, "  {role} {name}, {bytes}, {}", text::counted(facts.commands, "command"))?;
    if facts.tail_bytes() > 0 {
        writeln!(
            f,
            "  cut short: would be cut at byte {}, {} before its end",
            facts.whole_bytes,
            text::bytes(facts.tail_bytes())
        )?;
    }
    if let (Some(first), Some(last)) = (facts.first_timestamp, facts.last_timestamp) {
        writeln!(f, "  timestamps from {} to {}", text::time(first), text::time(last))?;
    }
    match &facts.preamble {
        Some(Content::Read(facts)) => write_facts(f, facts),
        Some(Content::Unread(unread)) => {
            writeln!(
                f,
                "  begins with an RDB of version {}, newer than this program",
                unread.version
            )
        }
        None => Ok(()),
    }
}

fn write_rdb(f: &mut fmt::Formatter<'_>, rdb: &RdbCapture) -> fmt::Result {
    let RdbCapture { method, captured_at, captured_from, replication, content } = rdb;
    let at = text::time(*captured_at);
    writeln!(f, "  RDB captured {at} from a {captured_from} by {method}")?;
    let ReplicationPoint { id, offset } = replication;
    writeln!(f, "  offset {offset} of replication {id}")?;
    match content {
        Content::Read(facts) => write_facts(f, facts),
        Content::Unread(unread) => writeln!(
            f,
            "  RDB version {} is newer than this program: its end and checksum are proven, its content only by a load",
            unread.version
        ),
    }
}

/// The public facts of one RDB, as `show` and `inspect` print them.
pub(super) fn write_facts(f: &mut fmt::Formatter<'_>, facts: &Facts) -> fmt::Result {
    let checksum = match facts.checksum {
        Checksum::Verified => "CRC-64 verified",
        Checksum::NotChecksummed => "not checksummed by the server",
        Checksum::Absent => "of a version without checksum",
    };
    writeln!(
        f,
        "  RDB {} {}, {}, {checksum}",
        facts.magic,
        facts.version,
        text::bytes(facts.bytes)
    )?;
    for (database, counts) in &facts.databases {
        writeln!(
            f,
            "  database {database}: {}, {} with a time to live",
            text::counted(counts.keys, "key"),
            text::count(counts.expires)
        )?;
    }
    if facts.databases.is_empty() {
        writeln!(f, "  no key")?;
    }
    let types: Vec<String> = facts
        .types
        .iter()
        .map(|(value_type, count)| format!("{} {value_type}", text::count(*count)))
        .collect();
    if !types.is_empty() {
        writeln!(f, "  types: {}", types.join(", "))?;
    }
    if facts.hashes_with_field_expiry > 0 {
        writeln!(f, "  hashes with field expiry: {}", text::count(facts.hashes_with_field_expiry))?;
    }
    for (name, names) in [("functions", &facts.functions), ("modules", &facts.modules)] {
        if !names.is_empty() {
            writeln!(f, "  {name}: {}", names.join(", "))?;
        }
    }
    if facts.keys_outside_slots > 0 {
        writeln!(f, "  keys outside the slots: {}", text::count(facts.keys_outside_slots))?;
    }
    Ok(())
}

fn write_archive(f: &mut fmt::Formatter<'_>, head: &str, archive: &Archive) -> fmt::Result {
    let encrypted = match archive.encryption {
        Encryption::None => "",
        Encryption::Age => ", encrypted by age",
    };
    writeln!(f, "{head} {}, {}{encrypted}", archive.name, archive.codec)?;
    let mut table = Table::default();
    for object in &archive.objects {
        table.row(["   ".to_owned(), object.key.to_string(), text::bytes(object.bytes)]);
    }
    write!(f, "{table}")
}
