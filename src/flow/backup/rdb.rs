//! One shard's RDB from one node, by the method that the plan chose. All of it or nothing.

use super::shards::{Job, Way};
use crate::{
    domain::{
        bgsave::{self, Asked, Reach},
        capture::Candidate,
        catalog::{self, DUMP},
        installation::PlainArchive,
        manifest::{Archive, Method, RdbCapture, ReplicationPoint},
        rdb::{Checksum, Content, Expectations, Private, Scanned, SlotRange},
    },
    edge::redis_node::{
        self, SaveError, Snapshot,
        bgsave::{Saved, save},
    },
    failure::Failure,
    flow::transfer::{Captured, Origin, Pipeline, capture, capture_file},
    settings,
};

/// The largest values of each shard that the installation archive names.
const BIGGEST_KEYS: usize = 20;

/// A captured RDB and what its parts of manifest and installation say.
pub(super) struct CapturedRdb {
    pub(super) capture: RdbCapture,
    pub(super) archive: Archive,
    pub(super) plain: PlainArchive,
    pub(super) private: Private,
}

/// The bytes, and to which moment they reach.
struct Taken {
    captured: Captured,
    reach: Reach,
}

pub(super) async fn take(
    job: &Job<'_>,
    shard: u32,
    slots: &[SlotRange],
    way: Way<'_>,
    method: Method,
) -> Result<CapturedRdb, Failure> {
    let candidate = way.candidate;
    let settings::Source { name: source, codec, level, recipients, .. } = &job.task.source;
    let (codec, encryption) = (*codec, recipients.encryption());
    let key_of = |index| {
        catalog::archive_key(source, job.backup, shard, DUMP, (codec, encryption), index)
            .map_err(Failure::from)
    };
    let outlets = job.lanes.outlets();
    let pipeline = Pipeline {
        codec,
        level: *level,
        recipients,
        spool: job.spool,
        outlets: &outlets.all,
        key_of: &key_of,
    };
    let expectations = expectations(slots);
    let origin = Origin { source: source.clone(), shard, node: candidate.address.clone() };
    let taken = match method {
        Method::Replication => {
            by_replication(job, &origin, candidate, &expectations, pipeline).await
        }
        Method::Bgsave => by_bgsave(job, &origin, way, &expectations, pipeline).await,
    };
    // Where no store is left, each of them says why.
    job.lanes.check()?;
    let Taken { captured, reach: Reach { captured_at, replication } } = taken?;
    let Captured { scanned: Scanned { content, private }, plain, stored } = captured;
    let objects = outlets.keep(stored);
    refuse_unproven(&content)?;
    Ok(CapturedRdb {
        capture: RdbCapture {
            method,
            captured_at,
            captured_from: candidate.role,
            replication,
            content,
        },
        archive: Archive { name: DUMP.to_owned(), codec, encryption, objects },
        plain: PlainArchive::new(DUMP, &plain),
        private,
    })
}

/// What the scan of a shard's RDB looks for.
pub(super) fn expectations(slots: &[SlotRange]) -> Expectations {
    Expectations { slots: slots.to_vec(), biggest_keys_max: BIGGEST_KEYS }
}

async fn by_replication(
    job: &Job<'_>,
    origin: &Origin,
    candidate: &Candidate,
    expectations: &Expectations,
    pipeline: Pipeline<'_>,
) -> Result<Taken, Failure> {
    let Origin { source: _, shard, node } = origin;
    let limits = job.task.source.timeouts.of_replication();
    let snapshot = async {
        let turn = job.hosts.turn(node, &job.access.nodes).await?;
        let snapshot = Snapshot::begin(node, &job.access.nodes, &candidate.server, limits).await;
        let failed = |source| Failure::Capture { shard: *shard, node: node.clone(), source };
        Ok((snapshot.map_err(failed)?, turn))
    };
    let (snapshot, turn) = job.unless_ended(snapshot).await?;
    let id = snapshot.replication_id().to_owned();
    let replication = ReplicationPoint { id, offset: snapshot.offset() };
    let reach = Reach { captured_at: snapshot.asked_at(), replication };
    let previous = job.lanes.previous();
    let previous = previous.and_then(|manifest| manifest.shards.get(*shard as usize));
    let about_bytes = previous.and_then(|shard| shard.rdb_content()).map(Content::bytes);
    let bar = job
        .context
        .progress
        .bar(format!("shard {shard} from {node}"), snapshot.length_hint().or(about_bytes));
    // Large as it is, it is kept out of what every caller carries.
    let captured =
        Box::pin(capture(origin, (snapshot, turn), expectations, pipeline, &bar, job.ended()))
            .await;
    bar.finish();
    Ok(Taken { captured: captured?, reach })
}

async fn by_bgsave(
    job: &Job<'_>,
    origin: &Origin,
    way: Way<'_>,
    expectations: &Expectations,
    pipeline: Pipeline<'_>,
) -> Result<Taken, Failure> {
    let Origin { source: _, shard, node } = origin;
    let failed = |source| Failure::Capture { shard: *shard, node: node.clone(), source };
    let (candidate, folder) = (way.candidate, way.folder("BGSAVE")?);
    let dbfilename = candidate.names.dbfilename.as_deref();
    let limits = job.task.source.timeouts.of_save();
    let saved = async {
        let _turn = job.hosts.turn(node, &job.access.nodes).await?;
        let saved = save(node, &job.access.nodes, &candidate.run_id, folder, dbfilename, limits);
        saved.await.map_err(failed)
    };
    let Saved { asked, dump } = job.unless_ended(saved).await?;
    tracing::info!(file = %dump.name.display(), bytes = dump.bytes, "saved");
    let bar = job.context.progress.bar(format!("shard {shard} saved by {node}"), Some(dump.bytes));
    // Large as it is, it is kept out of what every caller carries.
    let capture = capture_file(origin, dump.file, expectations, pipeline, &bar, job.ended());
    let captured = Box::pin(capture).await;
    bar.finish();
    let captured = captured?;
    tracing::debug!("the file is stored");
    let reach = judge(&asked, candidate, &captured.scanned).map_err(failed)?;
    Ok(Taken { captured, reach })
}

/// Only a file that says itself that it is of this save is the capture.
fn judge(
    asked: &Asked,
    candidate: &Candidate,
    scanned: &Scanned,
) -> Result<Reach, redis_node::Error> {
    let is_read = matches!(scanned.content, Content::Read(_));
    bgsave::accept(asked, &candidate.server, &scanned.private.aux, is_read).map_err(|source| {
        let address = candidate.address.clone();
        redis_node::Error::Save { address, source: SaveError::Foreign(source) }
    })
}

/// An RDB that is neither read nor checksummed is proven by nothing.
pub(super) fn refuse_unproven(content: &Content) -> Result<(), Failure> {
    match content {
        Content::Unread(unread) if unread.checksum != Checksum::Verified => {
            Err(Failure::Incompatible(format!(
                "RDB version {} is newer than this program, and the server writes no checksum that could prove it",
                unread.version
            )))
        }
        Content::Read(_) | Content::Unread(_) => Ok(()),
    }
}
