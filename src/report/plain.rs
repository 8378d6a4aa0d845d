//! Reports with little to say: files that were fetched, and text that is the whole answer.

use std::{fmt, path::PathBuf};

use serde::Serialize;

use super::text;
use crate::domain::{digest::Sha256, identity::BackupId};

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FetchReport {
    pub kind: &'static str,
    pub version: u32,
    pub backup: BackupId,
    pub files: Vec<FetchedFile>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FetchedFile {
    pub path: PathBuf,
    pub bytes: u64,
    pub sha256: Sha256,
}

impl fmt::Display for FetchReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for file in &self.files {
            writeln!(
                f,
                "{}  {}, sha256 {}",
                file.path.display(),
                text::bytes(file.bytes),
                file.sha256
            )?;
        }
        Ok(())
    }
}

/// A schema, a completion script, a manual page.
#[derive(Clone, Debug, Serialize)]
pub struct PlainText {
    pub text: String,
}

impl fmt::Display for PlainText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
