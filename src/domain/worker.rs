//! What is ordered of a worker, which captures one shard in a process of its own, and what it hands back. Plain data; starts nothing.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    archive::{self, Codec, Decoder, Encoder, Encryption, Identities, NotARecipient, Recipients},
    capture::{Candidate, Forms},
    catalog::Key,
    identity::{BackupId, SourceName},
    installation::{InstallationShard, PlainArchive},
    manifest::{Archive, Server, ShardManifest},
    rdb::SlotRange,
};

/// The variable of the environment that holds the order, as JSON.
pub const ORDER_VARIABLE: &str = "REDIS_BACKUP_ORDER";

/// The variable that holds the password, where the workload's own Secret has it.
pub const PASSWORD_VARIABLE: &str = "REDIS_BACKUP_WORKLOAD_PASSWORD";

/// Of the order and of what is handed back: both come from the same image.
pub const VERSION: u32 = 1;

/// What a line of a report begins with: a log has others before and between them.
const MARK: &str = "redis-backup-worker-report";

/// Runtimes of containers cut lines of 16 KiB, and put what another stream says between the pieces.
const LINE_BYTES_MAX: usize = 8 << 10;

/// More than the names of the biggest keys of a shard can take.
const REPORT_BYTES_MAX: usize = 8 << 20;

/// One shard, captured in one way. Holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Order {
    pub version: u32,
    pub backup: BackupId,
    pub source: SourceName,
    /// As the config or the command line names them.
    pub stores: Vec<String>,
    /// How many workers share what may be sent to each store.
    pub workers_at_once: u32,
    pub shard: u32,
    pub slots: Vec<SlotRange>,
    pub forms: Forms,
    pub candidate: Candidate,
    /// The IP of the candidate's pod: its address may be a name that only Redis knows.
    pub host: String,
    /// DNS names that its certificate may have.
    pub server_names: Vec<String>,
    /// Where its volume is mounted for the worker.
    pub data_dir: Option<PathBuf>,
    /// Where it is mounted for the captured server.
    pub data_path: Option<String>,
    /// To whom the report is sealed: it holds names of keys, and logs of pods are collected by others.
    pub recipient: String,
}

/// What a worker hands back, sealed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Report {
    Captured(Box<Part>),
    Failed(Fault),
}

/// One shard's part of a backup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Part {
    pub capture: ShardCapture,
    pub stores: Vec<StorePart>,
}

/// What became of the part in one store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StorePart {
    /// As the order names it.
    pub store: String,
    pub outcome: StoreOutcome,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum StoreOutcome {
    /// The id of each object's version, where the store keeps versions.
    Stored(BTreeMap<Key, Option<String>>),
    Lost(Fault),
}

/// A captured shard and what its parts of manifest and installation say.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ShardCapture {
    pub manifest: ShardManifest,
    pub installation: InstallationShard,
    pub plain_bytes: u64,
    pub server: Server,
    /// By the clock of the machine that captured it.
    pub began: Timestamp,
}

impl ShardCapture {
    pub fn add(&mut self, archive: Archive, plain: PlainArchive) {
        self.plain_bytes += plain.bytes;
        self.manifest.archives.push(archive);
        self.installation.archives.push(plain);
    }
}

/// A failure as it was told where it happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fault {
    /// The exit code.
    pub exit: u8,
    pub error: String,
    pub hint: String,
    pub mended_by: MendedBy,
}

/// What may do better than the attempt that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MendedBy {
    /// Another method with the same node, or another node.
    OtherMethod,
    OtherNode,
    Nothing,
}

/// Why a log holds no report.
#[derive(Debug, thiserror::Error)]
pub enum NoReport {
    #[error("there is none in its log")]
    Missing,
    #[error("its log has {found} of the {all} lines of it")]
    Cut { found: usize, all: usize },
    #[error("a line of it is damaged")]
    Damaged,
    #[error("it cannot be opened")]
    Sealed(#[source] archive::Error),
    #[error("it cannot be read")]
    Unreadable(#[source] serde_json::Error),
}

impl Order {
    /// The data directory, for whom the server's `dir` is that; none where no volume is mounted.
    pub fn folder(&self, dir: Option<&str>) -> Option<PathBuf> {
        let mounted = self.data_dir.as_ref()?;
        let below = dir.zip(self.data_path.as_deref());
        let below = below.and_then(|(dir, path)| Path::new(dir).strip_prefix(path).ok());
        Some(below.map_or_else(|| mounted.clone(), |below| mounted.join(below)))
    }

    /// For whom the report is meant, and for nobody else.
    pub fn recipients(&self) -> Result<Recipients, NotARecipient> {
        let mut recipients = Recipients::default();
        recipients.add(&self.recipient)?;
        Ok(recipients)
    }
}

impl Report {
    /// Lines for a log.
    pub fn seal(&self, recipients: &Recipients) -> Result<String, archive::Error> {
        let codec = Codec::Zstd;
        let plain = serde_json::to_vec(self)
            .map_err(|error| archive::Error::Encode { codec, source: error.into() })?;
        let mut sealed = Vec::new();
        let mut encoder = Encoder::new(codec, codec.default_level(), recipients)?;
        encoder.feed(&plain, &mut sealed)?;
        encoder.finish(&mut sealed)?;
        let text = STANDARD.encode(sealed);
        let pieces: Vec<&str> = pieces(&text).collect();
        let mut lines = String::with_capacity(text.len() + 64 * pieces.len());
        for (piece, number) in pieces.iter().zip(1..) {
            // Never fails for a text.
            let _ = writeln!(lines, "{MARK} {number}/{} {piece}", pieces.len());
        }
        Ok(lines)
    }

    /// Finds the lines in a log, whatever stands between them.
    pub fn open(log: &str, identities: &Identities) -> Result<Self, NoReport> {
        let sealed = STANDARD.decode(joined(log)?).map_err(|_| NoReport::Damaged)?;
        let mut plain = Vec::new();
        let mut keep = |piece: &[u8]| {
            if plain.len() + piece.len() > REPORT_BYTES_MAX {
                return Err(NoReport::Damaged);
            }
            plain.extend_from_slice(piece);
            Ok(())
        };
        let mut decoder = Decoder::new(Codec::Zstd, Encryption::Age, identities)?;
        decoder.feed(&sealed, &mut keep)?;
        decoder.finish(&mut keep)?;
        serde_json::from_slice(&plain).map_err(NoReport::Unreadable)
    }
}

impl From<archive::Error> for NoReport {
    fn from(error: archive::Error) -> Self {
        Self::Sealed(error)
    }
}

/// Base64 has no sign of more than one byte.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let ends = (0..text.len()).step_by(LINE_BYTES_MAX);
    ends.filter_map(|from| text.get(from..(from + LINE_BYTES_MAX).min(text.len())))
}

fn joined(log: &str) -> Result<String, NoReport> {
    let (mut text, mut found, mut all) = (String::new(), 0, None);
    for line in log.lines() {
        let Some(rest) = line.strip_prefix(MARK) else { continue };
        let mut words = rest.split_ascii_whitespace();
        let (number, count) = words
            .next()
            .and_then(|place| place.split_once('/'))
            .and_then(|(number, count)| Some((number.parse().ok()?, count.parse().ok()?)))
            .ok_or(NoReport::Damaged)?;
        let (number, count): (usize, usize) = (number, count);
        if all.is_some_and(|all| all != count) || number != found + 1 {
            return Err(NoReport::Damaged);
        }
        all = Some(count);
        found = number;
        text.push_str(words.next().unwrap_or_default());
    }
    match all {
        None => Err(NoReport::Missing),
        Some(all) if found == all => Ok(text),
        Some(all) => Err(NoReport::Cut { found, all }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(error: &str) -> Report {
        let (error, hint) = (error.to_owned(), "run again".to_owned());
        Report::Failed(Fault { exit: 10, error, hint, mended_by: MendedBy::OtherNode })
    }

    fn pair() -> (Identities, Recipients) {
        let (identities, recipient) = Identities::fresh();
        let mut recipients = Recipients::default();
        recipients.add(&recipient).unwrap();
        (identities, recipients)
    }

    /// Text that no codec makes shorter.
    fn noise(bytes: usize) -> String {
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            char::from(b'!' + u8::try_from(state >> 58).unwrap())
        };
        (0..bytes).map(|_| next()).collect()
    }

    #[test]
    fn a_report_is_found_between_other_lines_and_told_to_its_recipient_only() {
        let (identities, recipients) = pair();
        let report = fault(&noise(40_000));
        let lines = report.seal(&recipients).unwrap();
        assert!(lines.lines().count() > 1, "as long as it is, it has several lines");
        assert!(lines.lines().all(|line| line.len() < 16 << 10));
        assert!(!lines.contains("run again"));
        let log: String =
            lines.lines().fold("begin\n".to_owned(), |log, line| log + line + "\nINFO other\n");
        assert_eq!(Report::open(&log, &identities).unwrap(), report);
        let error = Report::open(&log, &pair().0).unwrap_err();
        assert!(matches!(error, NoReport::Sealed(_)), "{error:?}");
    }

    #[test]
    fn a_report_that_is_not_whole_is_none() {
        let (identities, recipients) = pair();
        let lines = fault(&noise(40_000)).seal(&recipients).unwrap();
        let lines: Vec<&str> = lines.lines().collect();
        let open = |lines: &[&str]| Report::open(&lines.join("\n"), &identities).unwrap_err();
        assert!(matches!(open(&[]), NoReport::Missing));
        let all = lines.len();
        assert!(
            matches!(open(&lines[..all - 1]), NoReport::Cut { found, all: of } if found == all - 1 && of == all)
        );
        assert!(matches!(open(&lines[1..]), NoReport::Damaged));
        let last = lines[all - 1].split_at(lines[all - 1].len() - 8).0;
        let cut = [&lines[..all - 1], &[last]].concat();
        assert!(matches!(open(&cut), NoReport::Sealed(_) | NoReport::Damaged));
    }
}
