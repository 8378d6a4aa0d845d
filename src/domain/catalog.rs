//! Where the parts of a backup lie in a store, and which backups exist.
//!
//! A backup exists exactly when its manifest does: the manifest is written last and deleted first.

use std::{fmt, str::FromStr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer, de};

use super::{
    archive::{Codec, Encryption},
    identity::{BackupId, COMPACT_TIME_BYTES, SourceName, compact_time, parse_compact_time},
};

/// A place in a store: parts of `A-Z a-z 0-9 . _ -` joined by `/`, none of them `.` or `..`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a key: use parts of A-Z, a-z, 0-9, `.`, `_`, `-` joined by `/`")]
pub struct NotAKey {
    text: String,
}

/// S3 takes keys of up to 1024 bytes; a configured prefix needs some of them.
const KEY_BYTES_MAX: usize = 700;

impl Key {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part behind the last `/`.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

impl FromStr for Key {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<Self, NotAKey> {
        let is_part = |part: &str| {
            !matches!(part, "" | "." | "..")
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
        };
        if text.len() <= KEY_BYTES_MAX && text.split('/').all(is_part) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NotAKey { text: text.to_owned() })
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// What `check` writes and deletes. No source's name begins with an underscore.
pub fn check_key(chance: u64) -> Key {
    Key(format!("_check/{chance:016x}"))
}

/// `<source>/origin.json`
pub fn origin_key(source: &SourceName) -> Key {
    Key(format!("{source}/origin.json"))
}

/// `<source>/origins/`: who took the prefix over since, one object each.
pub fn adopted_origins_prefix(source: &SourceName) -> String {
    format!("{source}/origins/")
}

pub fn adopted_origin_key(source: &SourceName, at: Timestamp, chance: u64) -> Key {
    Key(format!("{}{}.json", adopted_origins_prefix(source), unique_time(at, chance)))
}

/// `<source>/manifests/`: nothing but manifests lies here, so that listing names is listing backups.
pub fn manifests_prefix(source: &SourceName) -> String {
    format!("{source}/manifests/")
}

pub fn manifest_key(source: &SourceName, backup: &BackupId) -> Key {
    Key(format!("{}{backup}.json", manifests_prefix(source)))
}

/// The backup whose manifest lies at this key.
pub fn backup_of_manifest(key: &Key) -> Option<BackupId> {
    key.name().strip_suffix(".json")?.parse().ok()
}

/// `<source>/archives/`
pub fn all_archives_prefix(source: &SourceName) -> String {
    format!("{source}/archives/")
}

pub fn archives_prefix(source: &SourceName, backup: &BackupId) -> String {
    format!("{}{backup}/", all_archives_prefix(source))
}

pub fn shard_prefix(source: &SourceName, backup: &BackupId, shard: u32) -> String {
    format!("{}shard-{shard:04}/", archives_prefix(source, backup))
}

/// The backup to which an object below `archives/` belongs.
pub fn backup_of_archive(source: &SourceName, key: &Key) -> Option<BackupId> {
    let rest = key.as_str().strip_prefix(&all_archives_prefix(source))?;
    rest.split('/').next()?.parse().ok()
}

/// `…/shard-0000/dump.rdb.zst.000`, encrypted `…/dump.rdb.zst.age.000`: object `index` of a shard's archive.
pub fn archive_key(
    source: &SourceName,
    backup: &BackupId,
    shard: u32,
    name: &str,
    (codec, encryption): (Codec, Encryption),
    index: u32,
) -> Result<Key, NotAKey> {
    let prefix = shard_prefix(source, backup, shard);
    format!("{prefix}{name}{}{}.{index:03}", codec.extension(), encryption.extension()).parse()
}

/// `…/installation.json.zst.000`
pub fn installation_key(
    source: &SourceName,
    backup: &BackupId,
    (codec, encryption): (Codec, Encryption),
    index: u32,
) -> Key {
    let prefix = archives_prefix(source, backup);
    let (packed, sealed) = (codec.extension(), encryption.extension());
    Key(format!("{prefix}{INSTALLATION}{packed}{sealed}.{index:03}"))
}

/// `…/resealed-<chance>/`: all that one try to encrypt a copy to others stores. Each try has a folder of its
/// own, for no two give the same bytes, and what one left must not become a part of the next.
pub fn resealed_prefix(source: &SourceName, backup: &BackupId, chance: u64) -> String {
    format!("{}{RESEALED}{chance:016x}/", archives_prefix(source, backup))
}

/// As the archive's own key, below the folder of a try. The installation belongs to no shard.
pub fn resealed_key(
    prefix: &str,
    shard: Option<u32>,
    name: &str,
    (codec, encryption): (Codec, Encryption),
    index: u32,
) -> Result<Key, NotAKey> {
    let folder = shard.map(|shard| format!("shard-{shard:04}/")).unwrap_or_default();
    let (packed, sealed) = (codec.extension(), encryption.extension());
    format!("{prefix}{folder}{name}{packed}{sealed}.{index:03}").parse()
}

/// The folder of the try that stored an object below `archives/`, if one did.
pub fn resealed_folder<'a>(source: &SourceName, key: &'a Key) -> Option<&'a str> {
    let rest = key.as_str().strip_prefix(&all_archives_prefix(source))?;
    rest.split('/').nth(1).filter(|folder| folder.starts_with(RESEALED))
}

const RESEALED: &str = "resealed-";

/// Name of the archive that holds a shard's RDB.
pub const DUMP: &str = "dump.rdb";

/// Name of the archive that holds an append-only file, numbered in the order in which a server loads them.
pub fn aof_archive(index: usize) -> String {
    format!("{AOF}{index:03}")
}

/// Whether an archive of that name holds an append-only file.
pub fn is_aof_archive(name: &str) -> bool {
    name.starts_with(AOF)
}

const AOF: &str = "aof-";

/// Name of the archive that tells what the manifest must not.
pub const INSTALLATION: &str = "installation.json";

pub fn records_prefix(source: &SourceName, backup: &BackupId) -> String {
    format!("{}{backup}/", all_records_prefix(source))
}

/// `<source>/records/`
pub fn all_records_prefix(source: &SourceName) -> String {
    format!("{source}/records/")
}

/// The backup to which a record belongs.
pub fn backup_of_record(source: &SourceName, key: &Key) -> Option<BackupId> {
    let rest = key.as_str().strip_prefix(&all_records_prefix(source))?;
    rest.split('/').next()?.parse().ok()
}

/// What the name of a record or run tells of it: its kind.
pub fn kind_of(key: &Key) -> Option<&str> {
    key.name().strip_suffix(".json")?.splitn(3, '-').nth(2)
}

/// `<source>/records/<backup>/<time>-<fraction>-<kind>.json`: append-only, the last one counts.
pub fn record_key(
    source: &SourceName,
    backup: &BackupId,
    at: Timestamp,
    chance: u64,
    kind: &str,
) -> Result<Key, NotAKey> {
    format!("{}{}-{kind}.json", records_prefix(source, backup), unique_time(at, chance)).parse()
}

pub fn runs_prefix(source: &SourceName) -> String {
    format!("{source}/runs/")
}

/// `<source>/runs/<time>-<chance>-<kind>.json`: each run, also a failed one.
pub fn run_key(
    source: &SourceName,
    at: Timestamp,
    chance: u64,
    kind: &str,
) -> Result<Key, NotAKey> {
    format!("{}{}-{kind}.json", runs_prefix(source), unique_time(at, chance)).parse()
}

/// When the run began, or the record was noted, to the second.
pub fn time_of_key(key: &Key) -> Option<Timestamp> {
    parse_compact_time(key.name().get(..COMPACT_TIME_BYTES)?)
}

/// Sorts by time to the microsecond, so that of two records of one second the later one counts; two
/// of one microsecond still differ.
fn unique_time(at: Timestamp, chance: u64) -> String {
    let microsecond = at.subsec_nanosecond().max(0) / 1000;
    format!("{}-{:05x}{:05x}", compact_time(at), microsecond, chance & 0xf_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_lead_back_to_their_backup() {
        let source: SourceName = "sessions".parse().unwrap();
        let backup: BackupId = "20261120T020000Z-daily-k3x9q2".parse().unwrap();
        let manifest = manifest_key(&source, &backup);
        assert_eq!(manifest.as_str(), "sessions/manifests/20261120T020000Z-daily-k3x9q2.json");
        assert_eq!(backup_of_manifest(&manifest), Some(backup.clone()));
        let clear = (Codec::Zstd, Encryption::None);
        let archive = archive_key(&source, &backup, 3, "dump.rdb", clear, 0).unwrap();
        assert_eq!(
            archive.as_str(),
            "sessions/archives/20261120T020000Z-daily-k3x9q2/shard-0003/dump.rdb.zst.000",
        );
        assert_eq!(backup_of_archive(&source, &archive), Some(backup.clone()));
        let sealed = (Codec::Zstd, Encryption::Age);
        let archive = archive_key(&source, &backup, 0, "dump.rdb", sealed, 1).unwrap();
        assert_eq!(archive.name(), "dump.rdb.zst.age.001");
        let installation = installation_key(&source, &backup, sealed, 0);
        assert_eq!(installation.name(), "installation.json.zst.age.000");
    }

    #[test]
    fn each_try_to_reseal_has_a_folder_of_its_own() {
        let source: SourceName = "sessions".parse().unwrap();
        let backup: BackupId = "20261120T020000Z-daily-k3x9q2".parse().unwrap();
        let sealed = (Codec::Zstd, Encryption::Age);
        let prefix = resealed_prefix(&source, &backup, 7);
        let dump = resealed_key(&prefix, Some(3), DUMP, sealed, 0).unwrap();
        assert_eq!(
            dump.as_str(),
            "sessions/archives/20261120T020000Z-daily-k3x9q2/resealed-0000000000000007/shard-0003/dump.rdb.zst.age.000",
        );
        let installation = resealed_key(&prefix, None, INSTALLATION, sealed, 0).unwrap();
        assert_eq!(installation.as_str(), format!("{prefix}installation.json.zst.age.000"));
        for key in [&dump, &installation] {
            assert_eq!(resealed_folder(&source, key), Some("resealed-0000000000000007"));
            assert_eq!(backup_of_archive(&source, key), Some(backup.clone()));
        }
        let plain = archive_key(&source, &backup, 3, DUMP, sealed, 0).unwrap();
        assert_eq!(resealed_folder(&source, &plain), None);
    }

    #[test]
    fn records_sort_by_time_and_lead_back_to_backup_and_kind() {
        let source: SourceName = "sessions".parse().unwrap();
        let backup: BackupId = "20261120T020000Z-daily-k3x9q2".parse().unwrap();
        let key = |at: &str, chance, kind| {
            record_key(&source, &backup, at.parse().unwrap(), chance, kind).unwrap()
        };
        let first = key("2026-11-20T02:00:00.000001Z", u64::MAX, "pinned");
        let second = key("2026-11-20T02:00:00.000002Z", 0, "unpinned");
        let third = key("2026-11-20T02:00:00.999999Z", 0, "broken-load");
        assert!(first < second && second < third, "{first} {second} {third}");
        assert_eq!(backup_of_record(&source, &first), Some(backup.clone()));
        assert_eq!(kind_of(&third), Some("broken-load"));
    }

    #[test]
    fn a_key_cannot_leave_its_store() {
        for text in ["", "/a", "a/", "a//b", "../a", "a/../b", "a/./b", "a b", "a\\b", "a\0"] {
            assert!(text.parse::<Key>().is_err(), "{text:?}");
        }
    }
}
