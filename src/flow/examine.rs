//! A backup read back and compared with what its manifest and its installation say. Notes nothing; `verify` does.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{StreamExt as _, stream};

use super::{
    Context,
    catalog::Located,
    transfer::{Plain, Scanned, Sink, read_back},
};
use crate::{
    domain::{
        aof::FileFacts,
        installation::{self, ReadInstallation},
        manifest::{self, AofFile, Archive, Manifest, Object, Server, ShardManifest},
        rdb::{self, Content, Expectations},
    },
    edge::store::{self, Store},
    failure::{Exit, Failure, chain},
};

/// Objects asked for at the same time.
const OBJECTS_AT_ONCE: usize = 8;

/// What a level found; without findings the backup is proven at that level.
#[derive(Debug, Default)]
pub(super) struct Examined {
    pub(super) evidence: Vec<String>,
    pub(super) findings: Vec<String>,
    pub(super) server: Option<Server>,
}

/// Sizes and checksums as the store tells them.
pub(super) async fn stored(store: &dyn Store, manifest: &Manifest) -> Result<Examined, Failure> {
    let objects: Vec<&Object> = manifest.archives().flat_map(|archive| &archive.objects).collect();
    let mut looks = stream::iter(&objects)
        .map(|object| async {
            (*object, store.attributes(&object.key, object.version_id.as_deref()).await)
        })
        .buffered(OBJECTS_AT_ONCE);
    let (mut findings, mut sizes_only) = (Vec::new(), 0);
    while let Some((object, attributes)) = looks.next().await {
        match attributes {
            Ok(found) => {
                findings.extend(object.difference(found.bytes, found.crc64nvme));
                sizes_only += usize::from(found.crc64nvme.is_none());
            }
            Err(store::Error::NotFound { .. }) => findings.push(format!("{} is gone", object.key)),
            Err(source) => {
                return Err(Failure::Store { attempt: format!("look at {}", object.key), source });
            }
        }
    }
    let compared = if sizes_only == 0 {
        "size and CRC-64/NVME".to_owned()
    } else {
        format!(
            "size only for {sizes_only}, as the store keeps no checksums; `--level content` reads them"
        )
    };
    let evidence = vec![format!("{} objects compared with the store: {compared}", objects.len())];
    Ok(Examined { evidence, findings, server: None })
}

/// Every byte read back: stored and plain digests, codec, RDB, facts.
pub(super) async fn content(
    located: &Located,
    manifest: &Manifest,
    context: &Context,
) -> Result<Examined, Failure> {
    let mut result = Examined::default();
    let installation = match read_installation(located, manifest, context).await {
        Ok(installation) => installation,
        Err(failure) => {
            result.findings.push(finding_of(failure)?);
            return Ok(result);
        }
    };
    for shard in &manifest.shards {
        for archive in &shard.archives {
            let discard: Sink = Box::new(|_| Ok(()));
            match read_archive(located, shard, archive, discard, context).await {
                Ok(plain) => {
                    result.findings.extend(compare(&installation, shard, archive, &plain));
                    let form = match plain.scanned {
                        Some(Scanned::Rdb(_)) | None => "RDB",
                        Some(Scanned::Aof(_)) => "append-only file",
                    };
                    result.evidence.push(format!(
                        "shard {} {}: {} bytes read back, digests and {form} sound",
                        shard.shard, archive.name, plain.digests.bytes
                    ));
                }
                Err(failure) => result.findings.push(finding_of(failure)?),
            }
        }
    }
    Ok(result)
}

/// One archive of a shard through every check, its plain bytes into `sink`.
pub(super) async fn read_archive(
    located: &Located,
    shard: &ShardManifest,
    archive: &Archive,
    sink: Sink,
    context: &Context,
) -> Result<Plain, Failure> {
    let name = format!("shard {} {}", shard.shard, archive.name);
    let bar = context.progress.bar(name, Some(archive.stored_bytes()));
    let expectations = Expectations { slots: shard.slots.clone(), biggest_keys_max: 0 };
    let store = &*located.opened.store;
    let plain = read_back(
        store,
        &context.identities,
        &located.backup,
        archive,
        Some(expectations),
        sink,
        &bar,
    )
    .await;
    bar.finish();
    plain
}

/// Differences between what was captured and what was read back.
pub(super) fn compare(
    installation: &ReadInstallation,
    shard: &ShardManifest,
    archive: &Archive,
    plain: &Plain,
) -> Vec<String> {
    let mut findings = Vec::new();
    match installation.plain(shard.shard, &archive.name) {
        Some(expected) => findings.extend(expected.difference(&plain.digests)),
        None => findings.push(format!(
            "installation.json does not tell the digest of shard {} {}",
            shard.shard, archive.name
        )),
    }
    match &plain.scanned {
        Some(Scanned::Rdb(scanned)) => {
            let rdb::Scanned { content, private: _ } = &**scanned;
            if let Some(expected) = shard.rdb_content()
                && !same_content(content, expected)
            {
                findings.push(format!(
                    "the facts of shard {} are not those of the manifest: {} keys, not {}",
                    shard.shard,
                    keys_text(content),
                    keys_text(expected),
                ));
            }
        }
        Some(Scanned::Aof(scanned)) => {
            let files = shard.aof.iter().flat_map(|aof| &aof.files);
            for AofFile { facts, name, .. } in files.filter(|file| file.archive == archive.name) {
                findings.extend(difference_of_aof(shard.shard, name, &scanned.facts, facts));
            }
        }
        None => {}
    }
    findings
}

fn difference_of_aof(
    shard: u32,
    name: &str,
    found: &FileFacts,
    expected: &FileFacts,
) -> Option<String> {
    let same_preamble = match (&found.preamble, &expected.preamble) {
        (Some(found), Some(expected)) => same_content(found, expected),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    };
    let preamble = found.preamble.clone();
    if same_preamble && *found == (FileFacts { preamble, ..expected.clone() }) {
        return None;
    }
    Some(format!(
        "the facts of {name} of shard {shard} are not those of the manifest: {} commands up to byte {}, not {} up to {}",
        found.commands, found.whole_bytes, expected.commands, expected.whole_bytes,
    ))
}

/// A newer program reads what an older one could not; that is no difference.
fn same_content(found: &Content, expected: &Content) -> bool {
    match (found, expected) {
        (Content::Read(_), Content::Unread(_)) => found.bytes() == expected.bytes(),
        (Content::Read(_) | Content::Unread(_), _) => found == expected,
    }
}

fn keys_text(content: &Content) -> String {
    match content {
        Content::Read(facts) => facts.keys().to_string(),
        Content::Unread(_) => "unread".to_owned(),
    }
}

pub(super) async fn read_installation(
    located: &Located,
    manifest: &Manifest,
    context: &Context,
) -> Result<ReadInstallation, Failure> {
    let Located { opened, source: _, backup } = located;
    let text: Arc<Mutex<Vec<u8>>> = Arc::default();
    let (shared, owner) = (Arc::clone(&text), backup.clone());
    let sink: Sink = Box::new(move |bytes| {
        let mut text = shared.lock().unwrap_or_else(PoisonError::into_inner);
        text.extend_from_slice(bytes);
        if text.len() as u64 > installation::BYTES_MAX {
            let finding = "installation.json is larger than any installation's".to_owned();
            return Err(Failure::Corrupt { backup: owner.clone(), finding });
        }
        Ok(())
    });
    let bar = context.progress.bar("installation", Some(manifest.installation.stored_bytes()));
    let read = read_back(
        &*opened.store,
        &context.identities,
        backup,
        &manifest.installation,
        None,
        sink,
        &bar,
    )
    .await;
    bar.finish();
    read?;
    let text = std::mem::take(&mut *text.lock().unwrap_or_else(PoisonError::into_inner));
    let installation: ReadInstallation =
        serde_json::from_slice(&text).map_err(|error| Failure::Manifest {
            attempt: format!("read installation.json of {backup}"),
            source: manifest::Error::Decode(error),
        })?;
    if installation.backup != *backup {
        let finding = format!("its installation.json is that of {}", installation.backup);
        return Err(Failure::Corrupt { backup: backup.clone(), finding });
    }
    Ok(installation)
}

/// What is wrong with the backup becomes a finding; what is wrong with the way to it stays a failure.
pub(super) fn finding_of(failure: Failure) -> Result<String, Failure> {
    let missing = matches!(
        &failure,
        Failure::Store { source: store::Error::NotFound { .. } | store::Error::Corrupt { .. }, .. }
    );
    if missing || failure.exit() == Exit::Corrupt { Ok(chain(&failure)) } else { Err(failure) }
}
