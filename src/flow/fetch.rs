//! `fetch`: the plain files of a backup, for any other tool. Replaces nothing.

use std::{fs, io::Write as _, path::Path};

use super::{
    Context,
    catalog::{self, Located, Newest},
    transfer::{Sink, read_back},
    unlock::unlock,
};
use crate::{
    cli::Fetch,
    domain::{
        aof::list,
        digest::Sha256,
        identity::BackupId,
        manifest::{AofCapture, Archive},
        rdb::Expectations,
    },
    failure::Failure,
    report::{FetchReport, FetchedFile, Outcome},
    settings::Settings,
};

pub(super) async fn run(
    arguments: &Fetch,
    settings: &Settings,
    context: &Context,
) -> Result<Outcome, Failure> {
    let Fetch { which, place, past, into, shard, identity } = arguments;
    let located = catalog::locate(which, Newest::Good, place, *past, settings, context).await?;
    let manifest = catalog::read_manifest(&located).await?;
    let shards: Vec<_> =
        manifest.shards.iter().filter(|it| shard.is_none_or(|shard| shard == it.shard)).collect();
    if shards.is_empty() {
        return Err(Failure::Usage {
            finding: format!("{} has shards 0 to {}", manifest.backup, manifest.shards.len() - 1),
            hint: "`redis-backup show` tells which shard holds which slots".into(),
        });
    }
    let context = &unlock(&located, &manifest, identity, settings, context).await?;
    let mut files = Vec::new();
    for manifest_shard in &shards {
        let folder = if manifest.shards.len() > 1 {
            into.join(format!("shard-{:04}", manifest_shard.shard))
        } else {
            into.clone()
        };
        for archive in &manifest_shard.archives {
            let file = manifest_shard
                .aof
                .iter()
                .flat_map(|aof| &aof.files)
                .find(|file| file.archive == archive.name);
            files.push(match file {
                Some(file) => {
                    let folder = folder.join(AOF_FOLDER);
                    fetch_one(&located, archive, &folder, &file.name, context).await?
                }
                None => fetch_one(&located, archive, &folder, &archive.name, context).await?,
            });
        }
        if let Some(aof) = &manifest_shard.aof {
            files.push(write_list(aof, &folder.join(AOF_FOLDER), &manifest.backup)?);
        }
    }
    Ok(Outcome::done(FetchReport { kind: "fetch", version: 1, backup: manifest.backup, files }))
}

/// As Redis calls it where no config says otherwise; one for the set, so that no name meets dump.rdb.
const AOF_FOLDER: &str = "appendonlydir";

/// The list by which a server of the multi-part form loads the set: it must be named after `appendfilename`.
fn write_list(aof: &AofCapture, folder: &Path, backup: &BackupId) -> Result<FetchedFile, Failure> {
    let list = aof
        .file_list()
        .map_err(|error| Failure::Corrupt { backup: backup.clone(), finding: error.to_string() })?;
    let path = folder.join(format!("{}{}", aof.stem(), list::EXTENSION));
    refuse_existing(&path)?;
    let local = |source| Failure::Local { attempt: format!("write {}", path.display()), source };
    let text = list.encode();
    let mut file = fs::File::create_new(&path).map_err(local)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(local)?;
    Ok(FetchedFile { bytes: text.len() as u64, sha256: Sha256::of(text.as_bytes()), path })
}

fn refuse_existing(path: &Path) -> Result<(), Failure> {
    if path.symlink_metadata().is_err() {
        return Ok(());
    }
    Err(Failure::Refused {
        finding: format!("{} is there already; nothing was replaced", path.display()),
        hint: "name another folder by --into, or move the file away".to_owned(),
    })
}

async fn fetch_one(
    located: &Located,
    archive: &Archive,
    folder: &Path,
    name: &str,
    context: &Context,
) -> Result<FetchedFile, Failure> {
    let path = folder.join(name);
    let local = |source| Failure::Local { attempt: format!("write {}", path.display()), source };
    fs::create_dir_all(folder).map_err(local)?;
    refuse_existing(&path)?;
    // Under its own name only when it is whole; gone with this function where it is not.
    let partial = tempfile::Builder::new()
        .prefix(&format!(".{}.partial-", archive.name))
        .tempfile_in(folder)
        .map_err(local)?;
    let mut file = partial.reopen().map_err(local)?;
    let name = path.clone();
    let sink: Sink = Box::new(move |bytes| {
        file.write_all(bytes).map_err(|source| Failure::Local {
            attempt: format!("write {}", name.display()),
            source,
        })
    });
    let bar = context.progress.bar(archive.name.clone(), Some(archive.stored_bytes()));
    let scan = Some(Expectations::default());
    let store = &*located.opened.store;
    let plain =
        read_back(store, &context.identities, &located.backup, archive, scan, sink, &bar).await?;
    bar.finish();
    partial.as_file().sync_all().map_err(local)?;
    partial.persist_noclobber(&path).map_err(|error| local(error.error))?;
    Ok(FetchedFile { path, bytes: plain.digests.bytes, sha256: plain.digests.sha256 })
}
