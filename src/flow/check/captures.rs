//! Whether each shard can be captured as planned, tried as far as its first byte. Stores nothing.

use bytesize::ByteSize;

use super::Findings;
use crate::{
    domain::{
        capture::{Candidate, Forms},
        manifest::Method,
    },
    edge::{
        live_directory::Folder,
        redis_node::{Snapshot, aof, bgsave, inspect::SourceAccess},
    },
    failure::{Failure, chain},
    flow::backup::{self, prepare::Chosen},
    settings::Timeouts,
};

/// Asks the first candidate of each shard for its dataset and lets go once it begins: this proves
/// the right to it, and costs one fork.
pub(super) async fn check(
    subject: &str,
    Chosen { plan, folders }: &Chosen,
    forms: Forms,
    (access, timeouts): (&SourceAccess, &Timeouts),
    findings: &mut Findings,
) {
    for shard in &plan.shards {
        let subject = format!("{subject}: shard {}", shard.shard);
        for passed in &shard.passed_over {
            findings.warning(&subject, format!("not from {passed}"), "look at that node");
        }
        let mut candidates = shard.candidates.iter().peekable();
        while let Some(candidate) = candidates.next() {
            let folder = folders.get(&candidate.address);
            let begun = begin(shard.shard, (candidate, folder), (access, timeouts)).await;
            let Err(failure) = begun else {
                findings.good(&subject, proven(candidate));
                if forms.aof {
                    let opened =
                        open_aof(shard.shard, (candidate, folder), (access, timeouts)).await;
                    if let Some(text) = findings.keep(&subject, opened) {
                        findings.good(&subject, text);
                    }
                }
                break;
            };
            let other = candidates.peek().filter(|next| next.address == candidate.address);
            if other.is_none() || backup::is_of_any_method(&failure) {
                findings.keep(&subject, Err::<(), _>(failure));
                break;
            }
            let finding = format!("{}; the next way is tried", chain(&failure));
            findings.warning(&subject, finding, &failure.hint());
        }
    }
}

fn proven(candidate: &Candidate) -> String {
    let Candidate { address, method, reason, .. } = candidate;
    match method {
        Some(Method::Replication) => format!("{address} sends its RDB ({reason})"),
        Some(Method::Bgsave) => format!("{address} saves into its data directory ({reason})"),
        None => format!("{address} is chosen ({reason})"),
    }
}

/// Opens the append-only files as a capture does, and tells what was found.
async fn open_aof(
    shard: u32,
    (candidate, folder): (&Candidate, Option<&Folder>),
    (access, timeouts): (&SourceAccess, &Timeouts),
) -> Result<String, Failure> {
    let Candidate { address, names, server, run_id, .. } = candidate;
    let Some(folder) = folder else { return Ok("no data directory".to_owned()) };
    let limits = timeouts.of_save();
    let opened = aof::open(address, &access.nodes, server, run_id, folder, names, limits)
        .await
        .map_err(|source| Failure::Capture { shard, node: address.clone(), source })?;
    let bytes = ByteSize(opened.set.bytes());
    let files = opened.set.files.len();
    Ok(format!("{address} keeps {files} append-only files of {}", bytes.display().iec()))
}

async fn begin(
    shard: u32,
    (candidate, folder): (&Candidate, Option<&Folder>),
    (access, timeouts): (&SourceAccess, &Timeouts),
) -> Result<(), Failure> {
    let Candidate { address, method, names, server, run_id, .. } = candidate;
    let begun = match (method, folder) {
        (Some(Method::Bgsave), Some(folder)) => {
            let (name, limits) = (names.dbfilename.as_deref(), timeouts.of_save());
            bgsave::save(address, &access.nodes, run_id, folder, name, limits).await.map(drop)
        }
        (Some(_), _) => {
            let limits = timeouts.of_replication();
            Snapshot::begin(address, &access.nodes, server, limits).await.map(drop)
        }
        (None, _) => Ok(()),
    };
    begun.map_err(|source| Failure::Capture { shard, node: address.clone(), source })
}
