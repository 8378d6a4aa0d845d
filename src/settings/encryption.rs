//! Who can open backups and what opens them, read from config, files and flags. Never repeats what it read.

use std::{fs, io::Read as _, path::Path};

use super::{
    Environment, Error, Finding, SecretFrom, Settings,
    config::{Decryption, Encryption},
    secret,
};
use crate::{
    cli::IdentityFrom,
    domain::archive::{Identities, NotARecipient, Recipients},
};

/// Thousands of recipients.
const FILE_BYTES_MAX: u64 = 1 << 20;

impl Settings {
    /// What opens encrypted archives, by the flags or else by the config; nothing where neither tells.
    pub fn identities(
        &self,
        flags: &IdentityFrom,
        environment: Environment<'_>,
    ) -> Result<Identities, Error> {
        let IdentityFrom { identity_from } = flags;
        if !identity_from.is_empty() {
            return identities_of_flags(identity_from, environment);
        }
        let Some(Decryption { identity_from }) = &self.config.encryption else {
            return Ok(Identities::default());
        };
        identities(identity_from, environment).map_err(|error| match &self.file {
            Some(file) => Error::Secret {
                place: file.locate("encryption.identityFrom"),
                source: Box::new(error),
            },
            None => error,
        })
    }

    /// To whom flags encrypt; to nobody where there is none.
    pub fn recipients(
        &self,
        recipients: &[String],
        file: Option<&Path>,
    ) -> Result<Recipients, Error> {
        of_flags(recipients, file)
    }
}

/// What the config file itself can tell: the files that it names need not be on every machine.
pub(super) fn check(encryption: &Encryption) -> Result<(), Finding> {
    let Encryption { recipients, recipients_file } = encryption;
    if recipients.is_empty() && recipients_file.is_none() {
        let finding = "it names nobody who could open the backups; write `recipients: [age1…]`, \
                       or leave it out to store them in clear";
        return Err(("encryption", finding.to_owned()));
    }
    listed(recipients).map(drop).map_err(|(number, error)| {
        ("encryption.recipients", format!("recipient {number}: {error}"))
    })
}

pub(super) fn of_config(encryption: &Encryption) -> Result<Recipients, Error> {
    let Encryption { recipients, recipients_file } = encryption;
    all(recipients, recipients_file.as_deref(), "encryption.recipients")
}

pub(super) fn of_flags(recipients: &[String], file: Option<&Path>) -> Result<Recipients, Error> {
    all(recipients, file, "--recipient")
}

fn all(recipients: &[String], file: Option<&Path>, place: &str) -> Result<Recipients, Error> {
    let mut all = listed(recipients).map_err(|(number, source)| Error::Recipient {
        place: format!("{place}, number {number}"),
        source,
    })?;
    if let Some(path) = file {
        let text = read(path)?;
        let before = all.len();
        all.add_lines(&text).map_err(|(line, source)| Error::Recipient {
            place: format!("{}:{line}", path.display()),
            source,
        })?;
        if all.len() == before {
            return Err(Error::NoRecipient { path: path.to_owned() });
        }
    }
    Ok(all)
}

fn listed(texts: &[String]) -> Result<Recipients, (usize, NotARecipient)> {
    let mut recipients = Recipients::default();
    for (text, number) in texts.iter().zip(1..) {
        recipients.add(text).map_err(|error| (number, error))?;
    }
    Ok(recipients)
}

fn read(path: &Path) -> Result<String, Error> {
    let failed = |source| Error::RecipientsFile { path: path.to_owned(), source };
    let mut text = String::new();
    let file = fs::File::open(path).map_err(failed)?;
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

fn identities_of_flags(
    flags: &[String],
    environment: Environment<'_>,
) -> Result<Identities, Error> {
    let mut all = Identities::default();
    for flag in flags {
        let from = secret::parse(flag).map_err(|_| Error::IdentityFrom)?;
        all = all.and(identities(&from, environment)?);
    }
    Ok(all)
}

fn identities(from: &SecretFrom, environment: Environment<'_>) -> Result<Identities, Error> {
    let text = secret::read(from, "identity", environment)?;
    Identities::parse(text.expose())
        .map_err(|source| Error::Identity { from: from.clone(), source })
}
