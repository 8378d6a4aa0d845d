//! The catalog as a table.

use std::fmt;

use jiff::Timestamp;
use serde::Serialize;

use super::{table::Table, text};
use crate::domain::{
    identity::{BackupId, SourceName},
    manifest::Origin,
    record::Standing,
};

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListReport {
    pub kind: &'static str,
    pub version: u32,
    /// The moment that was looked back to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub as_of: Option<Timestamp>,
    /// Newest first.
    pub backups: Vec<ListedBackup>,
    /// Where was looked.
    pub stores: Vec<String>,
    /// The one source that was asked for.
    pub source: Option<SourceName>,
    /// The installation that each listed prefix belongs to.
    pub origins: Vec<ListedOrigin>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListedOrigin {
    pub store: String,
    pub source: SourceName,
    pub origin: Origin,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListedBackup {
    pub store: String,
    pub source: SourceName,
    pub backup: BackupId,
    pub begun: Timestamp,
    pub schedule: String,
    /// What was noted beside it.
    pub standing: Standing,
    /// From the manifest; only when it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<ListedDetails>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ListedDetails {
    #[serde(rename_all = "camelCase")]
    Read { keys: Option<u64>, stored_bytes: u64, seconds: f64, server: String, shards: usize },
    /// Of a newer version, or broken: it is listed all the same.
    Unreadable { reason: String },
}

impl ListReport {
    /// A backup that several stores hold alike is one row.
    fn rows(&self) -> Vec<(&ListedBackup, Vec<&str>)> {
        let mut rows: Vec<(&ListedBackup, Vec<&str>)> = Vec::new();
        for listed in &self.backups {
            match rows.last_mut() {
                Some((last, stores)) if last.is_copy_of(listed) => stores.push(&listed.store),
                Some(_) | None => rows.push((listed, vec![&listed.store])),
            }
        }
        rows
    }
}

impl ListedBackup {
    fn is_copy_of(&self, other: &Self) -> bool {
        self.backup == other.backup && self.source == other.source && self.details == other.details
    }
}

impl fmt::Display for ListReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(as_of) = self.as_of {
            writeln!(f, "as of {}:", text::time(as_of))?;
        }
        if self.backups.is_empty() {
            let of = self.source.as_ref().map_or(String::new(), |name| format!(" of {name}"));
            writeln!(f, "no backup{of} in {}", self.stores.join(", "))?;
            return writeln!(
                f,
                "  if there should be one, check the name of the store and of the source"
            );
        }
        let long = self.backups.iter().any(|backup| backup.details.is_some());
        let mut table = if long {
            Table::new(&[
                "BACKUP", "SOURCE", "STORE", "BEGUN", "NOTED", "KEYS", "STORED", "SHARDS", "TOOK",
                "SERVER",
            ])
        } else {
            Table::new(&["BACKUP", "SOURCE", "STORE", "BEGUN", "NOTED"])
        };
        for (backup, stores) in self.rows() {
            let mut cells = vec![
                backup.backup.to_string(),
                backup.source.to_string(),
                stores.join(", "),
                text::time(backup.begun),
                backup.standing.words(),
            ];
            match &backup.details {
                Some(ListedDetails::Read { keys, stored_bytes, seconds, server, shards }) => {
                    cells.extend([
                        keys.map_or("unread".to_owned(), text::count),
                        text::bytes(*stored_bytes),
                        shards.to_string(),
                        text::seconds(*seconds),
                        server.clone(),
                    ]);
                }
                Some(ListedDetails::Unreadable { reason }) => cells.push(reason.clone()),
                None => {}
            }
            table.row(cells);
        }
        write!(f, "{table}")?;
        for ListedOrigin { store, source, origin } in &self.origins {
            writeln!(f, "{source} in {store} is of {}", origin.identities.join(", "))?;
        }
        Ok(())
    }
}
