//! Which archives make the one file that a server loads, and what stands between them. Reads none of them.

use crate::{
    domain::{
        catalog::DUMP,
        dataset::Form,
        identity::BackupId,
        manifest::{Archive, ShardManifest},
        rdb::Content,
    },
    failure::Failure,
};

/// One archive's part of the one file that a server loads.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) archive: Archive,
    /// Written before it.
    pub(crate) before: &'static [u8],
    pub(crate) plain_bytes: u64,
}

impl Piece {
    pub(crate) fn bytes(&self) -> u64 {
        self.before.len() as u64 + self.plain_bytes
    }
}

/// A server begins each file of a set in database 0. Joined in one file, they must say so.
const SELECT_0: &[u8] = b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n";

/// What a server loads of a shard, in order: its RDB, or its append-only files joined.
pub(crate) fn of(
    form: Form,
    backup: &BackupId,
    shard: &ShardManifest,
) -> Result<Vec<Piece>, Failure> {
    let corrupt = |finding: String| Failure::Corrupt { backup: backup.clone(), finding };
    let archive = |name: &str| {
        let found = shard.archive(name).cloned();
        found.ok_or_else(|| corrupt(format!("shard {} has no archive {name}", shard.shard)))
    };
    let Some(aof) = shard.aof.as_ref().filter(|_| form == Form::Aof) else {
        let plain_bytes = rdb_content(backup, shard)?.bytes();
        return Ok(vec![Piece { archive: archive(DUMP)?, before: b"", plain_bytes }]);
    };
    let mut pieces = Vec::new();
    for (index, file) in aof.files.iter().enumerate() {
        if index > 0 && file.facts.preamble.is_some() {
            return Err(Failure::Incompatible(format!(
                "{} begins with an RDB, but only the first append-only file of a restore may; fetch the files and put them in by hand",
                file.name
            )));
        }
        let before = if index > 0 { SELECT_0 } else { b"" };
        let plain_bytes = file.facts.bytes;
        pieces.push(Piece { archive: archive(&file.archive)?, before, plain_bytes });
    }
    Ok(pieces)
}

/// What must be there to load or restore an RDB.
pub(crate) fn rdb_content<'a>(
    backup: &BackupId,
    shard: &'a ShardManifest,
) -> Result<&'a Content, Failure> {
    shard.rdb_content().ok_or_else(|| Failure::Corrupt {
        backup: backup.clone(),
        finding: format!("shard {} holds no RDB", shard.shard),
    })
}
