//! Which servers are installed, asked of the programs themselves. Never trusts a program's name.

use std::{
    env,
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{process::Command, time::timeout};

use super::Error;
use crate::domain::compatibility::ServerVersion;

/// A server program that starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binary {
    pub path: PathBuf,
    pub version: ServerVersion,
}

const NAMES: [&str; 2] = ["redis-server", "valkey-server"];
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// The given program alone, or else each `redis-server` and `valkey-server` of a search path such as
/// `$PATH`. Empty if there is none; a given one that does not answer is an error.
pub async fn find(given: Option<&Path>, search_path: &OsStr) -> Result<Vec<Binary>, Error> {
    if let Some(path) = given {
        return Ok(vec![ask(path.to_owned()).await?]);
    }
    let mut found: Vec<Binary> = Vec::new();
    for folder in env::split_paths(search_path).filter(|folder| folder.is_absolute()) {
        for name in NAMES {
            let path = folder.join(name);
            if !path.is_file() {
                continue;
            }
            // What lies in the path and does not start is no server that could help.
            if let Ok(binary) = ask(path).await
                && !found.iter().any(|known| known.version == binary.version)
            {
                found.push(binary);
            }
        }
    }
    Ok(found)
}

async fn ask(path: PathBuf) -> Result<Binary, Error> {
    let mut command = Command::new(&path);
    command.arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let output = timeout(ANSWER_LIMIT, command.output())
        .await
        .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut)))
        .map_err(|source| Error::Run { path: path.clone(), source })?;
    match ServerVersion::from_version_output(&String::from_utf8_lossy(&output.stdout)) {
        Ok(version) => Ok(Binary { path, version }),
        Err(source) => Err(Error::Version { path, source }),
    }
}
