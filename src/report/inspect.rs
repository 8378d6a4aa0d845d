//! The doctor's word on an RDB file or append-only files.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use serde::Serialize;

use super::{
    show::{write_aof_file, write_facts},
    table::Table,
    text,
};
use crate::domain::{
    aof::FileFacts,
    manifest::AofRole,
    rdb::{Checksum, Facts, Private, Unread},
};

/// `valid`, `error` and `keys` stand at the top for scripts.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InspectReport {
    pub kind: &'static str,
    pub version: u32,
    pub file: PathBuf,
    pub valid: bool,
    pub error: Option<InspectFailure>,
    /// None for append-only files: how many keys commands make is known to a server only.
    pub keys: Option<InspectedKeys>,
    pub facts: Option<Facts>,
    /// Set instead of `facts` for an RDB version newer than this program.
    pub unread: Option<Unread>,
    /// Set instead of `facts` for append-only files.
    pub aof: Option<InspectedAof>,
    pub private: Option<Private>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InspectedAof {
    /// The file that names the others, where there is one.
    pub list: Option<PathBuf>,
    /// In the order in which a server loads them.
    pub files: Vec<InspectedAofFile>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InspectedAofFile {
    pub name: String,
    pub role: AofRole,
    pub facts: FileFacts,
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
        if let Some(aof) = &self.aof {
            let commands = aof.files.iter().map(|file| file.facts.commands).sum();
            writeln!(f, "{file}: sound append-only file, {}", text::counted(commands, "command"))?;
            for InspectedAofFile { name, role, facts } in &aof.files {
                write_aof_file(f, name, *role, facts)?;
            }
        }
        if let Some(keys) = &self.keys {
            writeln!(f, "{file}: sound, {}", text::counted(keys.total, "key"))?;
        }
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
