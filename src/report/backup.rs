//! What a backup run did, or would do.

use std::fmt;

use jiff::Timestamp;
use serde::Serialize;

use super::text;
use crate::{
    domain::{
        identity::{BackupId, SourceName},
        manifest::{Flavour, Method},
        rdb::SlotRange,
    },
    failure::LostStore,
};

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupReport {
    pub kind: &'static str,
    pub version: u32,
    pub backups: Vec<BackedUp>,
    /// Sources of which another run stored the backup that this one was for.
    pub already_done: Vec<AlreadyDone>,
    /// Sources without a backup, where several were asked for.
    pub failures: Vec<FailedSource>,
}

impl Default for BackupReport {
    fn default() -> Self {
        let (backups, already_done, failures) = (Vec::new(), Vec::new(), Vec::new());
        Self { kind: "backup", version: 1, backups, already_done, failures }
    }
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AlreadyDone {
    pub source: SourceName,
    pub scheduled_for: Option<Timestamp>,
    pub backup: BackupId,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FailedSource {
    pub source: SourceName,
    /// As the process would have ended for this source alone.
    pub exit: u8,
    pub error: String,
    pub hint: String,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackedUp {
    pub source: SourceName,
    /// That hold it now.
    pub stores: Vec<String>,
    /// That were to hold it and do not.
    pub lost_stores: Vec<FailedStore>,
    pub backup: BackupId,
    pub shards: usize,
    /// None when a shard's RDB is newer than this program.
    pub keys: Option<u64>,
    pub plain_bytes: u64,
    pub stored_bytes: u64,
    pub seconds: f64,
    /// Between the first and the last shard's capture.
    pub skew_seconds: f64,
    pub warnings: Vec<String>,
    /// What the shrink guard doubts.
    pub suspect: Option<String>,
    /// What was deleted after this backup; nothing where `prune` does that.
    pub retention: Vec<AppliedRetention>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AppliedRetention {
    pub store: String,
    pub expired: Vec<BackupId>,
    pub error: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FailedStore {
    pub store: String,
    /// As the process would have ended with this store alone.
    pub exit: u8,
    pub error: String,
    pub hint: String,
}

impl From<LostStore> for FailedStore {
    fn from(lost: LostStore) -> Self {
        let LostStore { store, exit, error, hint } = lost;
        Self { store, exit: exit as u8, error, hint }
    }
}

impl fmt::Display for BackupReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for backup in &self.backups {
            let keys = text::keys(backup.keys);
            let stores = backup.stores.join(", ");
            writeln!(f, "{} of {} is in {stores}", backup.backup, backup.source)?;
            writeln!(
                f,
                "  {keys} in {} shard{}, {} stored as {}, {}",
                backup.shards,
                if backup.shards == 1 { "" } else { "s" },
                text::bytes(backup.plain_bytes),
                text::bytes(backup.stored_bytes),
                text::seconds(backup.seconds),
            )?;
            if backup.shards > 1 {
                writeln!(
                    f,
                    "  consistent per shard; first and last shard are {} apart",
                    text::seconds(backup.skew_seconds),
                )?;
            }
            backup.warnings.iter().try_for_each(|warning| writeln!(f, "  warning: {warning}"))?;
            for FailedStore { store, exit: _, error, hint } in &backup.lost_stores {
                writeln!(f, "  NOT in {store}: {error}")?;
                writeln!(f, "  hint: {hint}")?;
                let id = &backup.backup;
                writeln!(f, "  later: redis-backup copy {id} --to {store}")?;
            }
            if let Some(suspicion) = &backup.suspect {
                writeln!(f, "  SUSPECT: {suspicion}")?;
            }
            backup.retention.iter().try_for_each(|applied| write_retention(f, applied))?;
        }
        for AlreadyDone { source, scheduled_for, backup } in &self.already_done {
            let moment = scheduled_for.map(|moment| format!(" for {moment}")).unwrap_or_default();
            writeln!(
                f,
                "{source} was done by another run{moment}: {backup}; nothing was captured"
            )?;
        }
        for FailedSource { source, exit: _, error, hint } in &self.failures {
            writeln!(f, "NO BACKUP of {source}: {error}")?;
            writeln!(f, "  hint: {hint}")?;
        }
        Ok(())
    }
}

fn write_retention(f: &mut fmt::Formatter<'_>, applied: &AppliedRetention) -> fmt::Result {
    let AppliedRetention { store, expired, error } = applied;
    if !expired.is_empty() {
        let expired: Vec<&str> = expired.iter().map(BackupId::as_str).collect();
        writeln!(f, "  expired in {store}: {}", expired.join(", "))?;
    }
    match error {
        Some(error) => writeln!(f, "  RETENTION FAILED in {store}: {error}"),
        None => Ok(()),
    }
}

/// `backup --dry-run`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanReport {
    pub kind: &'static str,
    pub version: u32,
    pub source: SourceName,
    pub stores: Vec<String>,
    pub flavour: Flavour,
    pub server_version: String,
    pub shards: Vec<PlannedShard>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedShard {
    pub shard: u32,
    pub slots: Vec<SlotRange>,
    /// The node to capture from first.
    pub node: String,
    /// Of its RDB; none where no RDB is wanted.
    pub method: Option<Method>,
    pub reason: String,
    /// Who takes its place if it fails, in order.
    pub next: Vec<String>,
    /// Each node that is not captured, with the reason.
    pub passed_over: Vec<String>,
}

impl fmt::Display for PlanReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} ({} {}) would be backed up to {}; nothing was changed",
            self.source,
            self.flavour,
            self.server_version,
            self.stores.join(", "),
        )?;
        for shard in &self.shards {
            let slots: Vec<String> = shard.slots.iter().map(ToString::to_string).collect();
            let slots = if slots.is_empty() {
                String::new()
            } else {
                format!(", slots {}", slots.join(","))
            };
            writeln!(f, "shard {}{slots}: from {} ({})", shard.shard, shard.node, shard.reason)?;
            if !shard.next.is_empty() {
                writeln!(f, "  if that fails: {}", shard.next.join(", "))?;
            }
            shard.passed_over.iter().try_for_each(|node| writeln!(f, "  not from {node}"))?;
        }
        Ok(())
    }
}
