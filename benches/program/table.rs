//! Figures beside their targets, as text and as a part of `docs/BENCHMARKS.md`. Measures nothing.

use std::fs;

use crate::{Result, document};

#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    AtMost(f64),
    AtLeast(f64),
    None,
}

#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) what: &'static str,
    pub(crate) measured: f64,
    pub(crate) target: Target,
    pub(crate) unit: &'static str,
    pub(crate) detail: String,
}

impl Target {
    pub(crate) fn is_missed(self, measured: f64) -> bool {
        match self {
            Self::AtMost(limit) => measured > limit,
            Self::AtLeast(limit) => measured < limit,
            Self::None => false,
        }
    }

    fn text(self, unit: &str) -> String {
        match self {
            Self::AtMost(limit) => format!("≤ {limit} {unit}"),
            Self::AtLeast(limit) => format!("≥ {limit} {unit}"),
            Self::None => "–".to_owned(),
        }
    }

    fn verdict(self, measured: f64) -> &'static str {
        match self {
            Self::AtMost(_) | Self::AtLeast(_) if self.is_missed(measured) => "**no**",
            Self::AtMost(_) | Self::AtLeast(_) => "yes",
            Self::None => "–",
        }
    }
}

pub(crate) fn text(about: &str, rounds: usize, rows: &[Row]) -> String {
    let mut lines = vec![
        format!("{about}; medians of {rounds} runs.\n"),
        "| what | target | measured | holds | |".to_owned(),
        "|---|---|---|---|---|".to_owned(),
    ];
    lines.extend(rows.iter().map(|row| {
        let Row { what, measured, target, unit, detail } = row;
        let (wanted, verdict) = (target.text(unit), target.verdict(*measured));
        format!("| {what} | {wanted} | {measured:.2} {unit} | {verdict} | {detail} |")
    }));
    lines.join("\n")
}

/// Puts the text between the two marks that bear this title.
pub(crate) fn write(title: &str, text: &str) -> Result<()> {
    let (begin, end) = (format!("<!-- {title}: written by make bench -->"), "<!-- end -->");
    let document = document();
    let old = fs::read_to_string(&document)?;
    let (before, rest) = old.split_once(&begin).ok_or("docs/BENCHMARKS.md has lost its marks")?;
    let (_, after) = rest.split_once(end).ok_or("docs/BENCHMARKS.md has lost its marks")?;
    fs::write(&document, format!("{before}{begin}\n{text}\n{end}{after}"))?;
    Ok(())
}
