//! From the store to the stage, and once more from the disk: what will be swapped in is what was captured.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
};

use rustix::fs::{Advice, fadvise};

use super::{
    checks::Checks,
    convert::{self, Made},
    failed,
    target::Wanted,
};
use crate::{
    domain::{manifest::Manifest, rdb::Expectations},
    edge::{data_directory::Stage, direct},
    failure::Failure,
    flow::{
        Context,
        catalog::Located,
        examine,
        pieces::Piece,
        transfer::{Plain, Sink, unpack},
    },
    report::Bar,
};

/// Bytes read from the disk at once.
const CHUNK_BYTES: usize = 1 << 20;

/// Chunks between the disk and the checks. They go round and round.
const CHUNKS: usize = 3;

pub(super) async fn fill(
    folder: &Path,
    stage: Stage,
    located: &Located,
    manifest: &Manifest,
    wanted: &Wanted,
    context: &Context,
) -> Result<(), Failure> {
    let installation = examine::read_installation(located, manifest, context).await?;
    if let Some(conversion) = &wanted.conversion {
        let made = conversion.make(located, &installation, wanted, context).await?;
        return copy(folder, stage, located, wanted, made, context).await;
    }
    let path = write(folder, stage, located, wanted, context).await?;
    let on_disk = read_back(path, located, wanted, wanted.pieces.clone(), context).await?;
    let findings: Vec<String> = wanted
        .pieces
        .iter()
        .zip(&on_disk)
        .flat_map(|(piece, plain)| {
            examine::compare(&installation, &wanted.shard, &piece.archive, plain)
        })
        .collect();
    check(located, &findings)
}

/// Of what was made of the backup: what is on the disk must be that.
async fn copy(
    folder: &Path,
    mut stage: Stage,
    located: &Located,
    wanted: &Wanted,
    made: Made,
    context: &Context,
) -> Result<(), Failure> {
    let Made { room, piece, digests } = made;
    let failed_to_write = failed(folder);
    let write = tokio::task::spawn_blocking(move || {
        convert::read(&room.rdb(), |bytes| stage.write(bytes).map_err(&failed_to_write))?;
        stage.seal().map_err(&failed_to_write)
    });
    let path = write.await.map_err(|_| Failure::Worker { attempt: "write the stage" })??;
    let on_disk = read_back(path, located, wanted, vec![piece], context).await?;
    if on_disk.iter().map(|plain| plain.digests).eq([digests]) {
        return Ok(());
    }
    check(located, &["what was staged is not what was made of the append-only files".to_owned()])
}

async fn read_back(
    path: PathBuf,
    located: &Located,
    wanted: &Wanted,
    pieces: Vec<Piece>,
    context: &Context,
) -> Result<Vec<Plain>, Failure> {
    let bytes = pieces.iter().map(Piece::bytes).sum();
    let bar = context.progress.bar("read back from disk", Some(bytes));
    let expectations = Expectations { slots: wanted.shard.slots.clone(), biggest_keys_max: 0 };
    let checks = Checks::new(located.backup.clone(), expectations, pieces);
    let counted = bar.clone();
    let read = tokio::task::spawn_blocking(move || read_from_disk(&path, checks, &counted));
    let on_disk = read.await.map_err(|_| Failure::Worker { attempt: "read the stage back" })??;
    bar.finish();
    Ok(on_disk)
}

/// Checks what came from the store; what it became is proven from the disk.
async fn write(
    folder: &Path,
    stage: Stage,
    located: &Located,
    wanted: &Wanted,
    context: &Context,
) -> Result<PathBuf, Failure> {
    let shared = Arc::new(Mutex::new(Some(stage)));
    let Located { opened, source: _, backup } = located;
    for Piece { archive, before, plain_bytes: _ } in &wanted.pieces {
        let mut sink = sink(folder, Arc::clone(&shared));
        sink(before)?;
        let name = format!("shard {} {}", wanted.shard.shard, archive.name);
        let bar = context.progress.bar(name, Some(archive.stored_bytes()));
        let unpacked =
            unpack(&*opened.store, &context.identities, backup, archive, sink, &bar).await;
        bar.finish();
        unpacked?;
    }
    let failed_to_seal = failed(folder);
    let seal = tokio::task::spawn_blocking(move || {
        let stage = shared.lock().unwrap_or_else(PoisonError::into_inner).take();
        match stage {
            Some(stage) => stage.seal().map_err(failed_to_seal),
            None => Err(Failure::Worker { attempt: "seal the stage" }),
        }
    });
    seal.await.map_err(|_| Failure::Worker { attempt: "seal the stage" })?
}

fn sink(folder: &Path, stage: Arc<Mutex<Option<Stage>>>) -> Sink {
    let failed_to_write = failed(folder);
    Box::new(move |bytes| match &mut *stage.lock().unwrap_or_else(PoisonError::into_inner) {
        Some(stage) => stage.write(bytes).map_err(&failed_to_write),
        None => Err(Failure::Worker { attempt: "write the stage" }),
    })
}

/// The disk itself is read: past the page cache, or after that was asked to forget the file.
fn read_from_disk(path: &Path, mut checks: Checks, bar: &Bar) -> Result<Vec<Plain>, Failure> {
    let local = |source: io::Error| Failure::Local {
        attempt: format!("read {} back", path.display()),
        source,
    };
    let file = File::open(path).map_err(local)?;
    // Advice: where it is not taken, the cache is read.
    let _ = fadvise(&file, 0, None, Advice::DontNeed);
    direct::prefer(&file);
    let (filled, to_check) = mpsc::sync_channel(CHUNKS);
    let (emptied, to_fill) = mpsc::sync_channel(CHUNKS);
    for _ in 0..CHUNKS {
        let _ = emptied.send(direct::Buffer::new(CHUNK_BYTES));
    }
    thread::scope(|scope| {
        // Given up with the checks, so that the reader never waits for them in vain.
        let emptied = emptied;
        scope.spawn(move || read_all(&file, &to_fill, &filled));
        for chunk in to_check {
            let chunk: direct::Buffer = chunk.map_err(local)?;
            checks.feed(chunk.as_slice())?;
            bar.add(chunk.len() as u64);
            let _ = emptied.send(chunk);
        }
        checks.finish()
    })
}

/// Reads ahead of the checks, so that disk and processor work at the same time.
fn read_all(
    file: &File,
    to_fill: &mpsc::Receiver<direct::Buffer>,
    filled: &mpsc::SyncSender<io::Result<direct::Buffer>>,
) {
    while let Ok(mut chunk) = to_fill.recv() {
        let read = match chunk.read(file) {
            Ok(0) => return,
            Ok(_) => Ok(chunk),
            Err(error) => Err(error),
        };
        let has_failed = read.is_err();
        if filled.send(read).is_err() || has_failed {
            return;
        }
    }
}

pub(super) fn check(located: &Located, findings: &[String]) -> Result<(), Failure> {
    if findings.is_empty() {
        return Ok(());
    }
    Err(Failure::Corrupt { backup: located.backup.clone(), finding: findings.join("; ") })
}
