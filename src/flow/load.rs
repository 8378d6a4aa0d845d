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
    verify::{self, Examined},
};
use crate::{
    domain::{
        compatibility::{self, Choice, ServerVersion},
        identity::BackupId,
        installation::ReadInstallation,
        manifest::{Archive, Manifest, Server, ShardManifest},
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
    let installation = match verify::read_installation(located, manifest, context).await {
        Ok(installation) => installation,
        Err(failure) => {
            let findings = vec![verify::finding_of(failure)?];
            return Ok(Examined { findings, ..Examined::default() });
        }
    };
    let mut result = Examined::default();
    for shard in &manifest.shards {
        for archive in &shard.archives {
            let (binary, choice) = choose(manifest, shard, &binaries)?;
            let load = Load { located, installation: &installation, shard, archive, context };
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
    manifest: &Manifest,
    shard: &ShardManifest,
    binaries: &'a [Binary],
) -> Result<(&'a Binary, Choice), Failure> {
    let source = server_version(&manifest.server)?;
    let versions: Vec<ServerVersion> = binaries.iter().map(|binary| binary.version).collect();
    let content = rdb_content(&manifest.backup, shard)?;
    let choice = compatibility::choose(content, &source, &versions).map_err(|refusals| {
        let reasons: Vec<String> = refusals
            .iter()
            .flat_map(|(_, reasons)| reasons)
            .map(ToString::to_string)
            .collect();
        Failure::Incompatible(if binaries.is_empty() {
            format!(
                "no redis-server or valkey-server is in PATH; one that loads an RDB of {} is needed",
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

/// What must be there to load or restore an RDB.
pub(super) fn rdb_content<'a>(
    backup: &BackupId,
    shard: &'a ShardManifest,
) -> Result<&'a Content, Failure> {
    shard.rdb_content().ok_or_else(|| Failure::Corrupt {
        backup: backup.clone(),
        finding: format!("shard {} holds no RDB", shard.shard),
    })
}

pub(super) fn server_version(server: &Server) -> Result<ServerVersion, Failure> {
    ServerVersion::of(server).map_err(|error| Failure::Incompatible(chain(&error)))
}

/// One archive on its way into a server.
struct Load<'a> {
    located: &'a Located,
    installation: &'a ReadInstallation,
    shard: &'a ShardManifest,
    archive: &'a Archive,
    context: &'a Context,
}

impl Load<'_> {
    async fn run(
        &self,
        binary: &Binary,
        choice: Choice,
        result: &mut Examined,
    ) -> Result<(), Failure> {
        let Self { located, installation, shard, archive, context } = self;
        let content = rdb_content(&located.backup, shard)?;
        let bytes = content.bytes();
        let room = Room::new(&folder(bytes, context)?).map_err(Failure::Server)?;
        let sink = file_sink(&room.rdb())?;
        let plain = verify::read_archive(located, shard, archive, sink, context).await?;
        result.findings.extend(verify::compare(installation, shard, archive, &plain));

        let loading = Loading {
            databases: choice.databases,
            version_check_relaxed: choice.version_check_relaxed,
            limit: LOAD_LIMIT_MIN + Duration::from_secs(bytes / LOAD_BYTES_PER_SECOND_MIN),
        };
        let bar = context.progress.bar(format!("load shard {}", shard.shard), Some(bytes));
        let proof = room
            .load(binary, loading, |progress| {
                bar.add(progress.loaded_bytes.saturating_sub(bar.bytes()));
            })
            .await;
        bar.finish();
        let Proof { server, loaded } = proof.map_err(Failure::Server)?;
        match content {
            Content::Read(facts) => result.findings.extend(
                verification::compare(facts, &loaded)
                    .iter()
                    .map(|finding| format!("shard {}: {finding}", shard.shard)),
            ),
            // The load itself is the proof of what this program cannot read.
            Content::Unread(_) => {}
        }
        let keys: u64 = loaded.databases.values().map(|database| database.keys).sum();
        result.evidence.push(format!("shard {}: {server} loaded {keys} keys", shard.shard));
        result.server = Some(server.server());
        Ok(())
    }
}

/// The first of the usual folders with room for the RDB.
fn folder(bytes: u64, context: &Context) -> Result<PathBuf, Failure> {
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
        finding: format!("no folder has room for an RDB of {bytes} bytes: {}", looked.join(", ")),
        hint: "make room, or name a folder by TMPDIR".to_owned(),
    })
}

/// Writes plain bytes to a new private file.
pub(super) fn file_sink(path: &Path) -> Result<super::transfer::Sink, Failure> {
    let path = path.to_owned();
    let failed = |path: &Path, source| Failure::Local {
        attempt: format!("write {}", path.display()),
        source,
    };
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
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
    verify::finding_of(failure)
}
