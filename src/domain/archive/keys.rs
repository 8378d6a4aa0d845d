//! Recipients, who may open what is encrypted to them, and identities, which do. Reads their texts and never repeats one.

use std::{fmt, sync::Arc};

use age::{
    ssh::{self, ParseRecipientKeyError, UnsupportedKey},
    x25519,
};

use super::Encryption;

/// Public keys: whoever has the secret half of one of them can open the archive.
#[derive(Clone, Default)]
pub struct Recipients(Vec<Recipient>);

#[derive(Clone)]
enum Recipient {
    X25519(x25519::Recipient),
    Ssh(ssh::Recipient),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotARecipient {
    #[error(
        "this is an identity, a secret key: it opens backups and must not lie where backups are taken; \
         name the public key that belongs to it (`age-keygen -y FILE`, `ssh-keygen -y -f FILE`)"
    )]
    Secret,
    #[error("this RSA key is too short to be safe; use one of 2048 bits or more, or ssh-ed25519")]
    RsaTooShort,
    #[error("this RSA key is longer than age takes; use ssh-ed25519")]
    RsaTooLong,
    #[error("age cannot encrypt to SSH keys of this type; use ssh-ed25519 or ssh-rsa")]
    SshType,
    #[error("this is no recipient; one begins with age1, ssh-ed25519 or ssh-rsa")]
    Unknown,
}

impl Recipients {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn encryption(&self) -> Encryption {
        if self.is_empty() { Encryption::None } else { Encryption::Age }
    }

    /// One recipient, as it stands in a line of a recipients file.
    pub fn add(&mut self, text: &str) -> Result<(), NotARecipient> {
        self.0.push(parse_recipient(text.trim())?);
        Ok(())
    }

    /// The lines of a recipients file; empty ones and those after `#` tell nothing. An error has its line.
    pub fn add_lines(&mut self, text: &str) -> Result<(), (usize, NotARecipient)> {
        for (line, number) in text.lines().zip(1..) {
            let line = line.trim();
            if !line.is_empty() && !line.starts_with('#') {
                self.add(line).map_err(|error| (number, error))?;
            }
        }
        Ok(())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &dyn age::Recipient> {
        self.0.iter().map(|recipient| match recipient {
            Recipient::X25519(recipient) => recipient as &dyn age::Recipient,
            Recipient::Ssh(recipient) => recipient,
        })
    }
}

impl fmt::Debug for Recipients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recipients({})", self.0.len())
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the age crate may add reasons of its own")]
fn parse_recipient(text: &str) -> Result<Recipient, NotARecipient> {
    let upper = text.to_ascii_uppercase();
    if ["AGE-SECRET-KEY-", "AGE-PLUGIN-", "PRIVATE KEY"].iter().any(|mark| upper.contains(mark)) {
        return Err(NotARecipient::Secret);
    }
    if let Ok(recipient) = text.parse() {
        return Ok(Recipient::X25519(recipient));
    }
    text.parse().map(Recipient::Ssh).map_err(|error| match error {
        ParseRecipientKeyError::RsaModulusTooSmall => NotARecipient::RsaTooShort,
        ParseRecipientKeyError::RsaModulusTooLarge => NotARecipient::RsaTooLong,
        ParseRecipientKeyError::Unsupported(_) => NotARecipient::SshType,
        _ => NotARecipient::Unknown,
    })
}

/// Secret keys. Their memory is overwritten when the last copy is dropped, as far as the age crate does so.
#[derive(Clone, Default)]
pub struct Identities(Vec<Identity>);

/// Shared, so that a copy is no second place in memory.
type Identity = Arc<dyn age::Identity + Send + Sync>;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAnIdentity {
    #[error(
        "the identity is itself encrypted with a passphrase, which nobody can type here: decrypt it to a \
         file that only you can read (`age -d`, for an SSH key a copy and `ssh-keygen -p`), and name that"
    )]
    Passphrase,
    #[error("the identity lies in a hardware token or needs a plugin of age: decrypt by `age -d`")]
    Plugin,
    #[error(
        "age cannot decrypt with SSH keys of this type; an ssh-ed25519 or ssh-rsa key is needed"
    )]
    SshType,
    #[error(
        "this is a recipient, a public key, which opens nothing: the identity that belongs to it is needed"
    )]
    Public,
    #[error(
        "line {line} is no identity; one begins with AGE-SECRET-KEY-1, or is an SSH private key"
    )]
    Unknown { line: usize },
    #[error("there is no identity in it")]
    Empty,
}

impl Identities {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The text of a file that age reads by `-i`: any number of identities and SSH private keys.
    pub fn parse(text: &str) -> Result<Self, NotAnIdentity> {
        let mut identities = Vec::new();
        parse_identities(text, &mut identities)?;
        if identities.is_empty() { Err(NotAnIdentity::Empty) } else { Ok(Self(identities)) }
    }

    /// One that nobody else has, and the recipient that belongs to it.
    pub fn fresh() -> (Self, String) {
        let identity = x25519::Identity::generate();
        let recipient = identity.to_public().to_string();
        (Self(vec![Arc::new(identity)]), recipient)
    }

    /// Both these and those.
    #[must_use]
    pub fn and(mut self, those: Self) -> Self {
        self.0.extend(those.0);
        self
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &dyn age::Identity> {
        self.0.iter().map(|identity| &**identity as &dyn age::Identity)
    }
}

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identities({})", self.0.len())
    }
}

fn parse_identities(text: &str, found: &mut Vec<Identity>) -> Result<(), NotAnIdentity> {
    let mut lines = text.lines().zip(1..);
    while let Some((line, number)) = lines.next() {
        let line = line.trim();
        if line.starts_with("-----BEGIN AGE ENCRYPTED FILE")
            || line.starts_with("age-encryption.org/")
        {
            return Err(NotAnIdentity::Passphrase);
        }
        if line.starts_with("-----BEGIN ") {
            let mut key = zeroize::Zeroizing::new(format!("{line}\n"));
            for (line, _) in lines.by_ref() {
                key.push_str(line.trim());
                key.push('\n');
                if line.trim().starts_with("-----END ") {
                    break;
                }
            }
            found.push(ssh_identity(&key, number)?);
        } else if !line.is_empty() && !line.starts_with('#') {
            found.push(age_identity(line, number)?);
        }
    }
    Ok(())
}

fn age_identity(text: &str, line: usize) -> Result<Identity, NotAnIdentity> {
    if text.starts_with("AGE-PLUGIN-") || text.starts_with("AGE-SECRET-KEY-PQ-") {
        return Err(NotAnIdentity::Plugin);
    }
    if parse_recipient(text).is_ok() {
        return Err(NotAnIdentity::Public);
    }
    let identity: x25519::Identity = text.parse().map_err(|_| NotAnIdentity::Unknown { line })?;
    Ok(Arc::new(identity))
}

fn ssh_identity(pem: &str, line: usize) -> Result<Identity, NotAnIdentity> {
    let identity = ssh::Identity::from_buffer(pem.as_bytes(), None);
    match identity.map_err(|_| NotAnIdentity::Unknown { line })? {
        identity @ ssh::Identity::Unencrypted(_) => Ok(Arc::new(identity)),
        ssh::Identity::Encrypted(_)
        | ssh::Identity::Unsupported(
            UnsupportedKey::EncryptedPem | UnsupportedKey::EncryptedSsh(_),
        ) => Err(NotAnIdentity::Passphrase),
        ssh::Identity::Unsupported(UnsupportedKey::Hardware(_)) => Err(NotAnIdentity::Plugin),
        ssh::Identity::Unsupported(UnsupportedKey::Type(_)) => Err(NotAnIdentity::SshType),
    }
}
