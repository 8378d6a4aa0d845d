//! What was proven of which backup.

use std::fmt;

use serde::Serialize;

use crate::domain::identity::{BackupId, SourceName};

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VerifyReport {
    pub kind: &'static str,
    pub version: u32,
    pub level: String,
    pub backups: Vec<VerifiedBackup>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VerifiedBackup {
    pub store: String,
    pub source: SourceName,
    pub backup: BackupId,
    /// True when there is no finding.
    pub proven: bool,
    /// What was compared, one sentence each.
    pub evidence: Vec<String>,
    /// What is wrong, one sentence each.
    pub findings: Vec<String>,
    /// Why it could be neither proven nor called broken.
    pub unjudged: Option<String>,
}

impl fmt::Display for VerifyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for backup in &self.backups {
            let verdict = if backup.proven { "proven" } else { "NOT PROVEN" };
            writeln!(
                f,
                "{} of {} in {}: {verdict} ({})",
                backup.backup, backup.source, backup.store, self.level
            )?;
            if let Some(reason) = &backup.unjudged {
                writeln!(f, "  could not be judged: {reason}")?;
            }
            backup.evidence.iter().try_for_each(|line| writeln!(f, "  {line}"))?;
            backup.findings.iter().try_for_each(|line| writeln!(f, "  BROKEN: {line}"))?;
        }
        Ok(())
    }
}
