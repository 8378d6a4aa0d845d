//! `verify --level load`: a throw-away server loads each shard, and its counts must be the manifest's.

use std::{
    ffi::OsString,
    fs::OpenOptions,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Context,
    catalog::Located,
    examine::{self, Examined},
    pieces::{self, Piece},
};
use crate::{
    domain::{
        compatibility::{self, Choice, ServerVersion},
        dataset::Form,
        installation::ReadInstallation,
        manifest::{Manifest, Server, ShardManifest},
        rdb::Content,
        verification,
    },
    edge::{
        server_process::{self, Binary, Loading, Proof, Room},
        spool,
    },
    failure::{Failure, chain},
};

/// A server reads some hundred MiB a second; this is a hundred times as long, and an hour.
const LOAD_BYTES_PER_SECOND_MIN: u64 = 2 << 20;
const LOAD_LIMIT_MIN: Duration = Duration::from_hours(1);

pub(super) async fn run(
    located: &Located,
    manifest: &Manifest,
    server_binary: Option<&Path>,
    context: &Context,
) -> Result<Examined, Failure> {
    let path = OsString::from(context.environment()("PATH").unwrap_or_default());
    let binaries = server_process::find(server_binary, &path).await.map_err(Failure::Server)?;
    let installation = match examine::read_installation(located, manifest, context).await {
        Ok(installation) => installation,
        Err(failure) => {
            let findings = vec![examine::finding_of(failure)?];
            return Ok(Examined { findings, ..Examined::default() });
        }
    };
    let mut result = Examined::default();
    for shard in &manifest.shards {
        let captured = [(Form::Rdb, shard.rdb.is_some()), (Form::Aof, shard.aof.is_some())];
        for (form, _) in captured.into_iter().filter(|(_, is_there)| *is_there) {
            let (binary, choice) = choose(form, manifest, shard, &binaries)?;
            let load = Load { located, installation: &installation, shard, form, context };
            match load.run(binary, choice, &mut result).await {
                Ok(()) => {}
                Err(failure) => result.findings.push(finding_of_load(failure)?),
            }
        }
    }
    Ok(result)
}

/// The installed server that proves the shard best.
fn choose<'a>(
    form: Form,
    manifest: &Manifest,
    shard: &ShardManifest,
    binaries: &'a [Binary],
) -> Result<(&'a Binary, Choice), Failure> {
    let source = server_version(&manifest.server)?;
    let versions: Vec<ServerVersion> = binaries.iter().map(|binary| binary.version).collect();
    let chosen = match (form, &shard.aof) {
        (Form::Aof, Some(aof)) => compatibility::choose_for_aof(aof, &source, &versions),
        (Form::Rdb, _) | (Form::Aof, None) => {
            let content = pieces::rdb_content(&manifest.backup, shard)?;
            compatibility::choose(content, &source, &versions)
        }
    };
    let choice = chosen.map_err(|refusals| {
        let reasons: Vec<String> = refusals
            .iter()
            .flat_map(|(_, reasons)| reasons)
            .map(ToString::to_string)
            .collect();
        Failure::Incompatible(if binaries.is_empty() {
            format!(
                "no redis-server or valkey-server is in PATH; one that loads a backup of {} is needed",
                manifest.server
            )
        } else {
            format!("no installed server loads shard {}: {}", shard.shard, reasons.join("; "))
        })
    })?;
    let binary = binaries.get(choice.index).ok_or_else(|| {
        Failure::Incompatible("the chosen server is not among those found".to_owned())
    })?;
    Ok((binary, choice))
}

pub(super) fn server_version(server: &Server) -> Result<ServerVersion, Failure> {
    ServerVersion::of(server).map_err(|error| Failure::Incompatible(chain(&error)))
}

/// One capture on its way into a server.
struct Load<'a> {
    located: &'a Located,
    installation: &'a ReadInstallation,
    shard: &'a ShardManifest,
    form: Form,
    context: &'a Context,
}

impl Load<'_> {
    async fn run(
        &self,
        binary: &Binary,
        choice: Choice,
        result: &mut Examined,
    ) -> Result<(), Failure> {
        let Self { located, installation, shard, form, context } = self;
        let pieces = pieces::of(*form, &located.backup, shard)?;
        let bytes = pieces.iter().map(Piece::bytes).sum();
        let room = Room::new(&folder(bytes, context)?).map_err(Failure::Server)?;
        let path = match form {
            Form::Rdb => room.rdb(),
            Form::Aof => room.aof(),
        };
        let findings = supply(located, installation, shard, &pieces, &path, context).await?;
        result.findings.extend(findings);
        let bar = context.progress.bar(format!("load shard {}", shard.shard), Some(bytes));
        let proof = room
            .load(binary, loading(*form, choice, bytes), |progress| {
                bar.add(progress.loaded_bytes.saturating_sub(bar.bytes()));
            })
            .await;
        bar.finish();
        self.judge(&proof.map_err(Failure::Server)?, result);
        Ok(())
    }

    /// Counts are compared where they are known before: commands make keys that only a server can count.
    fn judge(&self, proof: &Proof, result: &mut Examined) {
        let Self { located: _, installation: _, shard, form, context: _ } = self;
        let Proof { server, loaded } = proof;
        let expected = match (form, &shard.aof) {
            (Form::Aof, Some(aof)) => aof.preamble().filter(|_| aof.commands() == 0),
            (Form::Rdb, _) | (Form::Aof, None) => shard.rdb_content(),
        };
        match expected {
            Some(Content::Read(facts)) => result.findings.extend(
                verification::compare(facts, loaded)
                    .iter()
                    .map(|finding| format!("shard {}: {finding}", shard.shard)),
            ),
            // The load itself is the proof of what this program cannot read or count.
            Some(Content::Unread(_)) | None => {}
        }
        let keys: u64 = loaded.databases.values().map(|database| database.keys).sum();
        let what = match (form, &shard.aof) {
            (Form::Aof, Some(aof)) => format!(
                "every one of {} commands of the append-only files, which make {keys} keys",
                aof.commands()
            ),
            (Form::Rdb, _) | (Form::Aof, None) => format!("{keys} keys"),
        };
        result.evidence.push(format!("shard {}: {server} loaded {what}", shard.shard));
        result.server = Some(server.server());
    }
}

/// Writes what a server loads of a shard. Returns what is not as it was captured.
pub(super) async fn supply(
    located: &Located,
    installation: &ReadInstallation,
    shard: &ShardManifest,
    pieces: &[Piece],
    path: &Path,
    context: &Context,
) -> Result<Vec<String>, Failure> {
    let mut findings = Vec::new();
    for Piece { archive, before, plain_bytes: _ } in pieces {
        let mut sink = file_sink(path)?;
        sink(before)?;
        let plain = examine::read_archive(located, shard, archive, sink, context).await?;
        findings.extend(examine::compare(installation, shard, archive, &plain));
    }
    Ok(findings)
}

pub(super) fn loading(form: Form, choice: Choice, bytes: u64) -> Loading {
    Loading {
        append_only: form == Form::Aof,
        databases: choice.databases,
        version_check_relaxed: choice.version_check_relaxed,
        limit: LOAD_LIMIT_MIN + Duration::from_secs(bytes / LOAD_BYTES_PER_SECOND_MIN),
    }
}

/// The first of the usual folders with room for so much.
pub(super) fn folder(bytes: u64, context: &Context) -> Result<PathBuf, Failure> {
    let folders = context.environment()("TMPDIR").map(PathBuf::from).into_iter().chain([
        "/var/tmp".into(),
        "/tmp".into(),
        ".".into(),
    ]);
    let mut looked = Vec::new();
    for folder in folders {
        match spool::available_bytes(&folder) {
            Ok(available) if available > bytes => return Ok(folder),
            Ok(available) => {
                looked.push(format!("{} has {available} bytes free", folder.display()));
            }
            Err(_) => {}
        }
    }
    Err(Failure::Refused {
        finding: format!("no folder has room for {bytes} bytes to load: {}", looked.join(", ")),
        hint: "make room, or name a folder by TMPDIR".to_owned(),
    })
}

/// Writes plain bytes to a private file, behind what is there.
pub(super) fn file_sink(path: &Path) -> Result<super::transfer::Sink, Failure> {
    let path = path.to_owned();
    let failed = |path: &Path, source| Failure::Local {
        attempt: format!("write {}", path.display()),
        source,
    };
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&path)
        .map_err(|source| failed(&path, source))?;
    Ok(Box::new(move |bytes| file.write_all(bytes).map_err(|source| failed(&path, source))))
}

/// A server that refuses an RDB that should fit it says something about the RDB.
fn finding_of_load(failure: Failure) -> Result<String, Failure> {
    if let Failure::Server(error @ server_process::Error::Refused { .. }) = &failure {
        return Ok(chain(error));
    }
    examine::finding_of(failure)
}
