//! `fetch`: the plain files of a backup, for any other tool. Replaces nothing.

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    Context,
    catalog::{self, Located},
    transfer::{Sink, read_back},
};
use crate::{
    cli::Fetch,
    domain::{catalog as names, manifest::Archive, rdb::Expectations},
    failure::Failure,
    report::{FetchReport, FetchedFile, Outcome},
    settings::Settings,
};

pub(super) async fn run(
    arguments: &Fetch,
    settings: &Settings,
    context: &Context,
) -> Result<Outcome, Failure> {
    let Fetch { which, place, into, shard } = arguments;
    let located = catalog::locate(which, place, settings, context).await?;
    let manifest = catalog::read_manifest(&located).await?;
    let shards: Vec<_> =
        manifest.shards.iter().filter(|it| shard.is_none_or(|shard| shard == it.shard)).collect();
    if shards.is_empty() {
        return Err(Failure::Usage {
            finding: format!("{} has shards 0 to {}", manifest.backup, manifest.shards.len() - 1),
            hint: "`redis-backup show` tells which shard holds which slots".into(),
        });
    }
    let mut files = Vec::new();
    for manifest_shard in &shards {
        let folder = if manifest.shards.len() > 1 {
            into.join(format!("shard-{:04}", manifest_shard.shard))
        } else {
            into.clone()
        };
        for archive in &manifest_shard.archives {
            files.push(fetch_one(&located, archive, &folder, context).await?);
        }
    }
    Ok(Outcome::done(FetchReport { kind: "fetch", version: 1, backup: manifest.backup, files }))
}

async fn fetch_one(
    located: &Located,
    archive: &Archive,
    folder: &Path,
    context: &Context,
) -> Result<FetchedFile, Failure> {
    let path = folder.join(&archive.name);
    let local = |source| Failure::Local { attempt: format!("write {}", path.display()), source };
    fs::create_dir_all(folder).map_err(local)?;
    if path.symlink_metadata().is_ok() {
        return Err(Failure::Refused {
            finding: format!("{} is there already; nothing was replaced", path.display()),
            hint: "name another folder by --into, or move the file away".to_owned(),
        });
    }
    // Under its own name only when it is whole.
    let partial = folder.join(format!(".{}.partial-{:016x}", archive.name, context.chance()));
    let file: File = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&partial)
        .map_err(local)?;
    let fetched = write_whole(located, archive, file, &path, &partial, context).await;
    if fetched.is_err() {
        let _ = fs::remove_file(&partial);
    }
    fetched
}

async fn write_whole(
    located: &Located,
    archive: &Archive,
    file: File,
    path: &Path,
    partial: &Path,
    context: &Context,
) -> Result<FetchedFile, Failure> {
    let local = |source| Failure::Local { attempt: format!("write {}", path.display()), source };
    let shared = Arc::new(Mutex::new(file));
    let (writer, name) = (Arc::clone(&shared), path.to_owned());
    let sink: Sink = Box::new(move |bytes| {
        let mut file = writer.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(bytes).map_err(|source| Failure::Local {
            attempt: format!("write {}", name.display()),
            source,
        })
    });
    let bar = context.progress.bar(archive.name.clone(), Some(archive.stored_bytes()));
    let scan = (archive.name == names::DUMP).then(Expectations::default);
    let plain =
        read_back(&*located.opened.store, &located.backup, archive, scan, sink, &bar).await?;
    bar.finish();
    shared.lock().unwrap_or_else(PoisonError::into_inner).sync_all().map_err(local)?;
    fs::hard_link(partial, path).or_else(|_| fs::rename(partial, path)).map_err(local)?;
    let _ = fs::remove_file(partial);
    Ok(FetchedFile {
        path: path.to_owned(),
        bytes: plain.digests.bytes,
        sha256: plain.digests.sha256,
    })
}
