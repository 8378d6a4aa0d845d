//! The path of a backup, tried step by step: one line each, with the fix.

use std::fmt;

use serde::Serialize;

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckReport {
    pub kind: &'static str,
    pub version: u32,
    pub items: Vec<CheckedItem>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckedItem {
    /// What was looked at, such as `source sessions: topology`.
    pub subject: String,
    pub verdict: Verdict,
    pub finding: String,
    /// What to do about it; empty when nothing is.
    pub fix: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    Good,
    Warning,
    Failed,
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for item in &self.items {
            let verdict = match item.verdict {
                Verdict::Good => "ok  ",
                Verdict::Warning => "warn",
                Verdict::Failed => "FAIL",
            };
            writeln!(f, "{verdict}  {}: {}", item.subject, item.finding)?;
            if !item.fix.is_empty() {
                writeln!(f, "      fix: {}", item.fix)?;
            }
        }
        Ok(())
    }
}
