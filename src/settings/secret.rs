//! Where a secret is, and reading it. Never takes the secret itself from an argument or the config.

use std::{fs, path::PathBuf};

use super::{Environment, Error, SecretFrom};
use crate::domain::secret::Secret;

/// More than any password or identity; a larger file is neither.
const BYTES_MAX: u64 = 64 << 10;

/// `env:NAME` or `file:PATH`.
pub(super) fn parse(text: &str) -> Result<SecretFrom, Error> {
    // What stands here may be the password itself, so the error does not repeat it.
    match text.split_once(':') {
        Some(("env", name)) if !name.is_empty() => Ok(SecretFrom::Env(name.to_owned())),
        Some(("file", path)) if !path.is_empty() => Ok(SecretFrom::File(PathBuf::from(path))),
        Some(_) | None => Err(Error::PasswordFrom),
    }
}

/// `what` is the secret's name in errors.
pub(super) fn read(
    from: &SecretFrom,
    what: &'static str,
    environment: Environment<'_>,
) -> Result<Secret, Error> {
    let text = match from {
        SecretFrom::Env(name) => {
            environment(name).ok_or_else(|| Error::SecretVariable { what, name: name.clone() })?
        }
        SecretFrom::File(path) => {
            let failed = |source| Error::SecretFile { what, path: path.clone(), source };
            if fs::metadata(path).map_err(failed)?.len() > BYTES_MAX {
                return Err(Error::SecretSize { what, path: path.clone() });
            }
            let mut text = fs::read_to_string(path).map_err(failed)?;
            if text.ends_with('\n') {
                text.truncate(text.trim_end_matches(['\n', '\r']).len());
            }
            text
        }
    };
    if text.is_empty() {
        Err(Error::SecretEmpty { what, from: from.clone() })
    } else {
        Ok(Secret::new(text))
    }
}
