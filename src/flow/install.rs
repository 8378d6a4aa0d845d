//! `install`: this program where a container of another image can run it. Replaces nothing but an older copy.

use std::path::{Path, PathBuf};

use super::Context;
use crate::{
    cli::Install,
    edge::program::{self, Content, Placed},
    failure::Failure,
    report::{InstallReport, InstalledFile, Outcome},
};

pub(super) fn run(arguments: &Install, context: &Context) -> Result<Outcome, Failure> {
    let Install { path, authorities, dry_run } = arguments;
    let mut wanted = vec![(PathBuf::from(program::RUNNING), path, Content::Program)];
    if let Some(path) = authorities {
        let trusted = context.environment()("SSL_CERT_FILE");
        let trusted = trusted.map_or_else(|| program::AUTHORITIES.into(), PathBuf::from);
        wanted.push((trusted, path, Content::Authorities));
    }
    // Either both or none.
    let mut files = Vec::new();
    for (from, target, content) in &wanted {
        files.push(file(target, program::check(from, target, *content)?));
    }
    if !dry_run {
        for (from, target, content) in &wanted {
            program::place(from, target, *content)?;
        }
    }
    Ok(Outcome::done(InstallReport { kind: "install", version: 1, files, dry_run: *dry_run }))
}

fn file(path: &Path, placed: Placed) -> InstalledFile {
    let Placed { bytes, replaces } = placed;
    InstalledFile { path: path.to_owned(), bytes, replaces }
}
