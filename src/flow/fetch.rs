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
    let Fetch { which, place, into, shard, identity } = arguments;
    let located = catalog::locate(which, Newest::Good, place, settings, context).await?;
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
    let scan = (archive.name == names::DUMP).then(Expectations::default);
    let store = &*located.opened.store;
    let plain =
        read_back(store, &context.identities, &located.backup, archive, scan, sink, &bar).await?;
    bar.finish();
    partial.as_file().sync_all().map_err(local)?;
    partial.persist_noclobber(&path).map_err(|error| local(error.error))?;
    Ok(FetchedFile { path, bytes: plain.digests.bytes, sha256: plain.digests.sha256 })
}
