//! Append-only files for a server that reads none: a throw-away server makes an RDB of them. Never touches the data directory.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use super::target::{Wanted, misfit};
use crate::{
    cli::Restore as Arguments,
    domain::{
        archive::{Codec, Encryption},
        catalog::DUMP,
        compatibility::{self, Choice, ServerVersion, Target},
        dataset::Form,
        digest::{Digester, Digests},
        installation::ReadInstallation,
        manifest::{AofCapture, Archive},
        rdb::{self, Content, Expectations},
        verification,
    },
    edge::server_process::{self, Binary, Room},
    failure::Failure,
    flow::{Context, catalog::Located, load, pieces::Piece},
};

/// Bytes read from the disk at once.
const CHUNK_BYTES: usize = 1 << 20;

/// Which server makes the RDB, and for which one.
pub(super) struct Conversion {
    binary: Binary,
    choice: Choice,
    target: Target,
}

/// An RDB that is gone with its room.
pub(super) struct Made {
    pub(super) room: Room,
    pub(super) piece: Piece,
    pub(super) digests: Digests,
}

impl Conversion {
    /// None where no server is at hand that loads the append-only files, and no newer than the one that
    /// shall load the RDB.
    pub(super) async fn find(
        arguments: &Arguments,
        aof: &AofCapture,
        source: &ServerVersion,
        target: &Target,
        context: &Context,
    ) -> Result<Option<Self>, Failure> {
        let path = OsString::from(context.environment()("PATH").unwrap_or_default());
        let mut binaries = server_process::find(arguments.server_binary.as_deref(), &path)
            .await
            .map_err(Failure::Server)?;
        let Target { server, .. } = target;
        binaries.retain(|Binary { path: _, version }| {
            version.flavour == server.flavour
                && (version.major, version.minor) <= (server.major, server.minor)
        });
        let versions: Vec<ServerVersion> = binaries.iter().map(|binary| binary.version).collect();
        let Ok(choice) = compatibility::choose_for_aof(aof, source, &versions) else {
            return Ok(None);
        };
        let binary = binaries.into_iter().nth(choice.index);
        Ok(binary.map(|binary| Self { binary, choice, target: target.clone() }))
    }

    pub(super) const fn server(&self) -> ServerVersion {
        self.binary.version
    }

    /// The RDB, with as many keys as the append-only files make, and fit for the target.
    pub(super) async fn make(
        &self,
        located: &Located,
        installation: &ReadInstallation,
        wanted: &Wanted,
        context: &Context,
    ) -> Result<Made, Failure> {
        let Self { binary, choice, target } = self;
        let bytes = wanted.restore.bytes;
        // The append-only files, and the RDB beside them.
        let room = Room::new(&load::folder(2 * bytes, context)?).map_err(Failure::Server)?;
        let (pieces, path) = (&wanted.pieces, room.aof());
        let supplied = load::supply(located, installation, &wanted.shard, pieces, &path, context);
        super::fill::check(located, &supplied.await?)?;
        let bar = context.progress.bar("make an RDB of the append-only files", Some(bytes));
        let converted = room
            .convert(binary, load::loading(Form::Aof, *choice, bytes), |progress| {
                bar.add(progress.loaded_bytes.saturating_sub(bar.bytes()));
            })
            .await;
        let proof = converted.map_err(Failure::Server)?;
        bar.finish();
        let expectations = Expectations { slots: wanted.shard.slots.clone(), biggest_keys_max: 0 };
        let path = room.rdb();
        let scan = tokio::task::spawn_blocking(move || scan(&path, &expectations));
        let (held, digests) =
            scan.await.map_err(|_| Failure::Worker { attempt: "read the RDB that was made" })??;
        let facts = match &held {
            Content::Read(facts) => facts,
            Content::Unread(unread) => {
                return Err(Failure::Incompatible(format!(
                    "{} writes RDB version {}, which is newer than this program reads",
                    proof.server, unread.version
                )));
            }
        };
        let findings = verification::compare(facts, &proof.loaded);
        if !findings.is_empty() {
            let findings: Vec<String> = findings.iter().map(ToString::to_string).collect();
            return Err(Failure::Refused {
                finding: format!(
                    "the RDB that {} made of the append-only files is not what it loaded: {}",
                    proof.server,
                    findings.join("; ")
                ),
                hint: "start the server with appendonly yes, or give --from rdb".to_owned(),
            });
        }
        compatibility::check(&held, &proof.server, target)
            .map_err(|reasons| misfit(&located.backup, &reasons))?;
        let archive = Archive {
            name: DUMP.to_owned(),
            codec: Codec::None,
            encryption: Encryption::None,
            objects: Vec::new(),
        };
        let piece = Piece { archive, before: b"", plain_bytes: digests.bytes };
        Ok(Made { room, piece, digests })
    }
}

fn scan(path: &Path, expectations: &Expectations) -> Result<(Content, Digests), Failure> {
    let mut scanner = rdb::Scanner::new(expectations);
    let mut digester = Digester::default();
    let failed = |source| {
        let what = "the RDB that was made of the append-only files".to_owned();
        Failure::Scan { what, source }
    };
    read(path, |bytes| {
        digester.update(bytes);
        scanner.feed(bytes).map_err(failed)
    })?;
    let rdb::Scanned { content, private: _ } = scanner.finish().map_err(failed)?;
    Ok((content, digester.finish()))
}

/// Hands over a file, piece by piece. Blocks.
pub(super) fn read(
    path: &Path,
    mut take: impl FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let failed =
        |source: io::Error| Failure::Local { attempt: format!("read {}", path.display()), source };
    let mut file = File::open(path).map_err(failed)?;
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match file.read(&mut chunk).map_err(failed)? {
            0 => return Ok(()),
            length => take(&chunk[..length])?,
        }
    }
}
