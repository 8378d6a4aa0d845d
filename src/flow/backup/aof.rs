//! One shard's append-only files from its data directory. All of one moment, or nothing.

use super::{
    rdb::{expectations, refuse_unproven},
    shards::{Job, Way},
};
use crate::{
    domain::{
        aof::Scanned,
        capture::Candidate,
        catalog,
        digest::Digests,
        installation::PlainArchive,
        manifest::{self, AofCapture, Archive, Object, ReplicationPoint},
        rdb::{Expectations, Private, SlotRange},
    },
    edge::{
        live_directory::AofFile,
        redis_node::aof::{OpenedAof, open},
    },
    failure::Failure,
    flow::transfer::{CapturedAof, Origin, Pipeline, capture_aof},
    report::Bar,
    settings,
};

/// A captured set and what its parts of manifest and installation say.
pub(super) struct CapturedAofSet {
    pub(super) capture: AofCapture,
    pub(super) archives: Vec<(Archive, PlainArchive)>,
    /// Of the RDB that it begins with.
    pub(super) private: Private,
}

pub(super) async fn take(
    job: &Job<'_>,
    shard: u32,
    slots: &[SlotRange],
    way: Way<'_>,
) -> Result<CapturedAofSet, Failure> {
    let node = &way.candidate.address;
    let OpenedAof { set, before } = job.unless_ended(open_files(job, shard, way)).await?;
    let mut taken = CapturedAofSet {
        capture: AofCapture {
            captured_at: before.clock,
            captured_from: way.candidate.role,
            replication: ReplicationPoint {
                id: before.replication_id,
                offset: before.replication_offset,
            },
            files: Vec::new(),
        },
        archives: Vec::new(),
        private: Private::default(),
    };
    let last = set.files.len().saturating_sub(1);
    let name = format!("append-only files of shard {shard} from {node}");
    let bar = job.context.progress.bar(name, Some(set.bytes()));
    let origin = Origin { source: job.task.source.name.clone(), shard, node: node.clone() };
    let expected = expectations(slots);
    for (index, file) in set.files.into_iter().enumerate() {
        let one = OneFile {
            origin: &origin,
            archive: catalog::aof_archive(index),
            is_last: index == last,
        };
        let listed = file.listed.clone();
        let (scanned, plain, objects) = one.capture(job, file, &expected, &bar).await?;
        let Scanned { facts, private } = scanned;
        if let Some(content) = &facts.preamble {
            refuse_unproven(content)?;
        }
        if index == 0 {
            taken.private = private;
        }
        let archive = one.archive;
        let settings::Source { codec, recipients, .. } = &job.task.source;
        let (codec, encryption) = (*codec, recipients.encryption());
        taken.archives.push((
            Archive { name: archive.clone(), codec, encryption, objects },
            PlainArchive::new(&archive, &plain),
        ));
        taken.capture.files.push(manifest::AofFile {
            name: listed.name,
            sequence: listed.sequence,
            role: listed.role.into(),
            archive,
            facts,
        });
    }
    bar.finish();
    Ok(taken)
}

async fn open_files(job: &Job<'_>, shard: u32, way: Way<'_>) -> Result<OpenedAof, Failure> {
    let Candidate { address, names, server, run_id, .. } = way.candidate;
    let folder = way.folder("append-only files")?;
    let limits = job.task.source.timeouts.of_save();
    open(address, &job.access.nodes, server, run_id, folder, names, limits)
        .await
        .map_err(|source| Failure::Capture { shard, node: address.clone(), source })
}

struct OneFile<'a> {
    origin: &'a Origin,
    /// Name of the archive that will hold it.
    archive: String,
    is_last: bool,
}

impl OneFile<'_> {
    async fn capture(
        &self,
        job: &Job<'_>,
        file: AofFile,
        expected: &Expectations,
        bar: &Bar,
    ) -> Result<(Scanned, Digests, Vec<Object>), Failure> {
        let settings::Source { name: source, codec, level, recipients, .. } = &job.task.source;
        let form = (*codec, recipients.encryption());
        let (shard, archive) = (self.origin.shard, &self.archive);
        let key_of = |index| {
            catalog::archive_key(source, job.backup, shard, archive, form, index)
                .map_err(Failure::from)
        };
        let outlets = job.lanes.outlets();
        let pipeline = Pipeline {
            codec: *codec,
            level: *level,
            recipients,
            spool: job.spool,
            outlets: &outlets.all,
            key_of: &key_of,
        };
        let ended = job.ended();
        let captured = capture_aof(self.origin, file, self.is_last, expected, pipeline, bar, ended);
        let captured = Box::pin(captured).await;
        // Where no store is left, each of them says why.
        job.lanes.check()?;
        let CapturedAof { scanned, plain, stored } = captured?;
        Ok((scanned, plain, outlets.keep(stored)))
    }
}
