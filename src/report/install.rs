//! What `install` put where.

use std::{fmt, path::PathBuf};

use serde::Serialize;

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InstallReport {
    pub kind: &'static str,
    pub version: u32,
    pub files: Vec<InstalledFile>,
    pub dry_run: bool,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InstalledFile {
    pub path: PathBuf,
    pub bytes: u64,
    /// An older copy was there.
    pub replaces: bool,
}

impl fmt::Display for InstallReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind: _, version: _, files, dry_run } = self;
        for InstalledFile { path, bytes, replaces } in files {
            let verb = if *dry_run { "would be installed" } else { "is installed" };
            let place = if *replaces { ", in the place of an older copy" } else { "" };
            writeln!(f, "{} {verb}: {bytes} bytes{place}", path.display())?;
        }
        Ok(())
    }
}
