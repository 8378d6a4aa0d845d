//! The doctor's word on an RDB file.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use serde::Serialize;

use super::{show::write_facts, table::Table, text};
use crate::domain::rdb::{Checksum, Facts, Private, Unread};

/// `valid`, `error` and `keys` stand at the top for scripts.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InspectReport {
    pub kind: &'static str,
    pub version: u32,
    pub file: PathBuf,
    pub valid: bool,
    pub error: Option<InspectFailure>,
    pub keys: InspectedKeys,
    pub facts: Option<Facts>,
    /// Set instead of `facts` for an RDB version newer than this program.
    pub unread: Option<Unread>,
    pub private: Option<Private>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InspectFailure {
    pub message: String,
    /// Where in the file, where one place can be named.
    pub offset: Option<u64>,
}

#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InspectedKeys {
    pub total: u64,
    pub databases: BTreeMap<u32, u64>,
}

impl fmt::Display for InspectReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        if let Some(error) = &self.error {
            return writeln!(f, "{file}: BROKEN: {}", error.message);
        }
        if let Some(unread) = &self.unread {
            writeln!(
                f,
                "{file}: not read: RDB version {} is newer than this program",
                unread.version
            )?;
            let checked = match unread.checksum {
                Checksum::Verified => "its end and checksum are right",
                Checksum::NotChecksummed | Checksum::Absent => {
                    "its end is there; it carries no checksum"
                }
            };
            return writeln!(f, "  {}; {checked}", text::bytes(unread.bytes));
        }
        writeln!(f, "{file}: sound, {}", text::counted(self.keys.total, "key"))?;
        if let Some(facts) = &self.facts {
            write_facts(f, facts)?;
        }
        if let Some(private) = &self.private {
            for (name, value) in &private.aux {
                writeln!(f, "  {name}: {value}")?;
            }
            if !private.biggest_keys.is_empty() {
                writeln!(f, "  biggest values:")?;
                let mut table = Table::default();
                for key in &private.biggest_keys {
                    table.row([
                        "   ".to_owned(),
                        text::bytes(key.bytes),
                        key.value_type.to_string(),
                        format!("db{}", key.database),
                        key.key.clone(),
                    ]);
                }
                write!(f, "{table}")?;
            }
        }
        Ok(())
    }
}
