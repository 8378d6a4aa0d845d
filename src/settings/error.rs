//! What is wrong with config or flags, with file and line and the name that was probably meant.

use std::{
    fmt::{Display, Write as _},
    io,
    path::{Path, PathBuf},
};

use super::SecretFrom;
use crate::domain::{
    archive::{NotARecipient, NotAnIdentity},
    identity::{ScheduleName, SourceName, StoreName},
};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("read the config file {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{}:{line}:{column}: {finding}", path.display())]
    Syntax { path: PathBuf, line: u64, column: u64, finding: String },
    /// `place` is the file with line and column, and the key.
    #[error("{place}: {finding}")]
    Config { place: String, finding: String },
    #[error("{place}")]
    Secret {
        place: String,
        #[source]
        source: Box<Error>,
    },
    #[error("{}", unknown("source", .name.as_str(), .known.iter()))]
    UnknownSource { name: SourceName, known: Vec<SourceName> },
    #[error("{}", unknown("schedule", .name.as_str(), .known.iter()))]
    UnknownSchedule { name: ScheduleName, known: Vec<ScheduleName> },
    #[error("{}", unknown("store", .name, .known.iter()))]
    UnknownStore { name: String, known: Vec<StoreName> },
    #[error("no store is named: use --store DIR, --store s3://bucket/prefix, or a config file")]
    NoStore,
    #[error("{} are more than the {most} stores that one backup goes to", join(.known.iter()))]
    TooManyStores { known: Vec<String>, most: usize },
    #[error("store {name} is named twice")]
    StoreTwice { name: String },
    #[error("prune applies the config's rules, and no config names a source: give --config FILE")]
    NoRules,
    #[error("no source is named: use --source-url URL with --source-name NAME, or a config file")]
    NoSource,
    #[error("there are several sources ({}): choose one by --source-name NAME", join(.known.iter()))]
    SeveralSources { known: Vec<SourceName> },
    #[error("--source-url of source `{name}`: {finding}")]
    SourceUrl { name: SourceName, finding: String },
    #[error("store {text:?}: {finding}")]
    StoreText { text: String, finding: String },
    #[error(
        "--password-from takes the place of the password, env:NAME or file:PATH, not the password"
    )]
    PasswordFrom,
    #[error("the environment variable {name} that should hold the {what} is not set")]
    SecretVariable { what: &'static str, name: String },
    #[error("read the {what} file {}", path.display())]
    SecretFile {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the {what} file {} is larger than 64 KiB: is it the right file?", path.display())]
    SecretSize { what: &'static str, path: PathBuf },
    #[error("the {what} from {} is empty", origin(.from))]
    SecretEmpty { what: &'static str, from: SecretFrom },
    #[error(
        "--identity-from takes the place of the identity, env:NAME or file:PATH, not the identity"
    )]
    IdentityFrom,
    #[error("read the identity from {}", origin(.from))]
    Identity {
        from: SecretFrom,
        #[source]
        source: NotAnIdentity,
    },
    #[error("read the recipients file {}", path.display())]
    RecipientsFile {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{place}")]
    Recipient {
        place: String,
        #[source]
        source: NotARecipient,
    },
    #[error("the recipients file {} names nobody", path.display())]
    NoRecipient { path: PathBuf },
}

impl Error {
    /// What the reader can do next.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Read { .. } => {
                "name the file by --config or REDIS_BACKUP_CONFIG; all verbs work without one, by --store and --source-url"
            }
            Self::Syntax { .. } | Self::Config { .. } => {
                "correct that line; `redis-backup schema` prints every key that a config file may have"
            }
            Self::Secret { source, .. } => source.hint(),
            Self::UnknownSource { .. } | Self::UnknownSchedule { .. } => {
                "correct the name, or add it to the config file"
            }
            Self::UnknownStore { .. } => {
                "correct the name; a directory is written with a `/`, such as ./backups, a bucket as s3://bucket/prefix"
            }
            Self::NoStore | Self::NoSource | Self::NoRules => {
                "a config file is read from ./redis-backup.yaml, or where --config or REDIS_BACKUP_CONFIG says"
            }
            Self::SeveralSources { .. } => "nothing was changed; run again with one of these names",
            Self::TooManyStores { .. } => {
                "name some of them, each by --store NAME; `redis-backup copy` fills the others"
            }
            Self::StoreTwice { .. } => "nothing was changed; name each store once",
            Self::SourceUrl { .. } => {
                "such as redis://host:6379, rediss://host:6379 for TLS, sentinel://host:26379/mymaster"
            }
            Self::StoreText { .. } => "such as ./backups, or s3://bucket/prefix?region=eu-west-1",
            Self::PasswordFrom => {
                "such as --password-from env:REDIS_PASSWORD or --password-from file:/run/secrets/redis"
            }
            Self::SecretVariable { .. } => {
                "set and export the variable where redis-backup runs, or use {file: PATH} (file:PATH)"
            }
            Self::SecretFile { .. } => {
                "check the path, and that the user who runs redis-backup may read it"
            }
            Self::SecretSize { .. } => "name a file that holds the secret and nothing else",
            Self::SecretEmpty { .. } => "fill it, or leave it out where none is needed",
            Self::IdentityFrom => {
                "such as --identity-from file:/run/secrets/identity or --identity-from env:IDENTITY"
            }
            Self::Identity { .. } => {
                "an identity is what `age-keygen` writes to a file, or an SSH private key without passphrase"
            }
            Self::RecipientsFile { .. } | Self::NoRecipient { .. } => {
                "name a text file with a recipient in each line, which the user who runs redis-backup may read"
            }
            Self::Recipient { .. } => {
                "a recipient is the public key that `age-keygen` prints (age1…), or the line of an SSH .pub file"
            }
        }
    }
}

fn origin(from: &SecretFrom) -> String {
    match from {
        SecretFrom::Env(name) => format!("the environment variable {name}"),
        SecretFrom::File(path) => format!("the file {}", path.display()),
    }
}

/// `source "sesions" is not in the config; did you mean "sessions"?`
pub(super) fn unknown<'a, T: Display + 'a>(
    noun: &str,
    name: &str,
    known: impl Iterator<Item = &'a T>,
) -> String {
    let known: Vec<String> = known.map(ToString::to_string).collect();
    let mut text = format!("{noun} `{name}` is not in the config");
    let _ = match nearest(name, known.iter().map(String::as_str)) {
        Some(nearest) => write!(text, "; did you mean `{nearest}`?"),
        None if known.is_empty() => write!(text, ", which has no {noun}"),
        None => write!(text, ", which has {}", known.join(", ")),
    };
    text
}

fn join<'a, T: Display + 'a>(names: impl Iterator<Item = &'a T>) -> String {
    names.map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// An error of the YAML reader, under the name of our file and with the key probably meant.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the reader has a hundred variants, few of them ours to word"
)]
pub(super) fn in_file(path: &Path, error: &serde_saphyr::Error) -> Error {
    let error = error.without_snippet();
    let (line, column) =
        error.location().map_or((1, 1), |location| (location.line(), location.column()));
    let finding = match error {
        serde_saphyr::Error::SerdeUnknownField { field, expected, .. } => {
            misspelt("key", field, expected)
        }
        // What stands here may be the password itself, so the error does not repeat it.
        serde_saphyr::Error::SerdeUnknownVariant { expected, .. }
            if expected.as_slice() == ["env", "file"] =>
        {
            "expected {env: NAME} or {file: PATH}, never the password itself".to_owned()
        }
        serde_saphyr::Error::SerdeUnknownVariant { variant, expected, .. } => {
            misspelt("value", variant, expected)
        }
        serde_saphyr::Error::SerdeMissingField { field, .. } => format!("key `{field}` is missing"),
        serde_saphyr::Error::SerdeInvalidType { unexpected, expected, .. }
        | serde_saphyr::Error::SerdeInvalidValue { unexpected, expected, .. } => {
            // Only a number of bytes is read from a string with a form of its own.
            let expected = expected.replace("parsable string", "a size such as 8GiB");
            format!("found {unexpected}, expected {expected}")
        }
        other => plain_words(&other.to_string()),
    };
    Error::Syntax { path: path.to_owned(), line, column, finding }
}

fn misspelt(noun: &str, found: &str, expected: &[&'static str]) -> String {
    match nearest(found, expected.iter().copied()) {
        Some(nearest) => format!("unknown {noun} `{found}`; did you mean `{nearest}`?"),
        None => format!("unknown {noun} `{found}`; expected one of {}", expected.join(", ")),
    }
}

fn nearest<'a>(found: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const ALIKE_MIN: f64 = 0.75;
    known
        .map(|name| (strsim::jaro_winkler(&found.to_lowercase(), &name.to_lowercase()), name))
        .filter(|(likeness, _)| *likeness >= ALIKE_MIN)
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, name)| name)
}

/// The YAML reader's own words, for those who do not know its terms. The place stands before it already.
fn plain_words(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let line = line.split(" at line ").next().unwrap_or_default();
    let line = line.split(", set DuplicateKeyPolicy").next().unwrap_or_default();
    match line {
        "expected sequence start" => "expected a list, such as [first, second]".to_owned(),
        "expected mapping start" => "expected keys with values, such as {key: value}".to_owned(),
        "expected end of mapping after enum variant value" => {
            "one key is expected here, and another follows it".to_owned()
        }
        number if number.starts_with("invalid i") || number.starts_with("invalid u") => {
            "expected a whole number".to_owned()
        }
        other => {
            other.replace("duplicate mapping key:", "this key stands here for the second time:")
        }
    }
}
