//! What the process tells its caller when it fails: one message, one hint, one exit code.

mod exit;
mod hint;

use std::{error::Error, fmt::Write as _, io, path::PathBuf};

pub use self::exit::{Exit, Signal};

use crate::{
    domain::{
        aof, archive, capture, catalog,
        identity::{BackupId, SourceName},
        manifest, rdb, source,
        time_limit::TimeLimit,
        topology, worker, workload,
    },
    edge::{
        data_directory, kubernetes, live_directory, program, redis_node, server_process, spool,
        store,
    },
    settings,
};

/// A store that dropped out of a run, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostStore {
    pub store: String,
    /// As the process would have ended with this store alone.
    pub exit: Exit,
    /// The chain of causes, on one line.
    pub error: String,
    pub hint: String,
}

impl LostStore {
    pub fn new(store: &str, failure: &Failure) -> Self {
        let (exit, error, hint) = (failure.exit(), chain(failure), failure.hint());
        Self { store: store.to_owned(), exit, error, hint }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Settings(#[from] settings::Error),
    #[error("{finding}")]
    Usage { finding: String, hint: String },
    #[error("open store {store}")]
    OpenStore {
        store: String,
        #[source]
        source: store::Error,
    },
    /// `attempt` is the step of the flow, such as "commit backup …".
    #[error("{attempt}")]
    Store {
        attempt: String,
        #[source]
        source: store::Error,
    },
    /// None of the run's stores is left.
    #[error("{}", errors_of(.0))]
    Stores(Vec<LostStore>),
    #[error("load the TLS files of source {source_name}")]
    Tls {
        source_name: SourceName,
        #[source]
        source: redis_node::tls::Error,
    },
    /// `attempt` is the step of the flow, such as "discover source …".
    #[error("{attempt}")]
    Kubernetes {
        attempt: String,
        #[source]
        source: kubernetes::Error,
    },
    #[error("find source {source_name}")]
    Workload {
        source_name: SourceName,
        #[source]
        source: workload::Error,
    },
    #[error("observe source {source_name}")]
    Observe {
        source_name: SourceName,
        #[source]
        source: redis_node::Error,
    },
    #[error(
        "log in to source {source_name} with the password of its pods, {:?} of Secret {}",
        entry.key, entry.secret
    )]
    Password {
        source_name: SourceName,
        entry: workload::facts::SecretKey,
        #[source]
        source: redis_node::Error,
    },
    #[error("resolve the topology of source {source_name}")]
    Topology {
        source_name: SourceName,
        #[source]
        source: topology::Error,
    },
    #[error("choose the nodes to capture of source {source_name}")]
    Plan {
        source_name: SourceName,
        #[source]
        source: capture::Refusal,
    },
    #[error("capture shard {shard} from {node}")]
    Capture {
        shard: u32,
        node: source::NodeAddress,
        #[source]
        source: redis_node::Error,
    },
    #[error("capture shard {shard} from {node}: what it sent is no sound RDB")]
    CapturedRdb {
        shard: u32,
        node: source::NodeAddress,
        #[source]
        source: rdb::Error,
    },
    #[error("capture shard {shard} from {node}: an append-only file of it is broken")]
    CapturedAof {
        shard: u32,
        node: source::NodeAddress,
        #[source]
        source: aof::Error,
    },
    #[error("capture shard {shard} from {node}: read a file of it")]
    CapturedFile {
        shard: u32,
        node: source::NodeAddress,
        #[source]
        source: live_directory::Error,
    },
    /// Where no other way to capture the node is left.
    #[error("look into the data directory of {node}")]
    LiveDirectory {
        node: source::NodeAddress,
        #[source]
        source: live_directory::Error,
    },
    #[error("source {source_name}: {finding}")]
    Unsettled { source_name: SourceName, finding: String },
    #[error(
        "capture shard {shard} of source {source_name}: not done within {limit} (`timeouts.capture`)"
    )]
    Overdue { source_name: SourceName, shard: u32, limit: TimeLimit },
    #[error("spool what the store does not take at once")]
    Spool(#[source] spool::Error),
    #[error("{attempt}")]
    Archive {
        attempt: String,
        #[source]
        source: archive::Error,
    },
    #[error("{attempt}")]
    Manifest {
        attempt: String,
        #[source]
        source: manifest::Error,
    },
    #[error("scan {what}")]
    Scan {
        what: String,
        #[source]
        source: rdb::Error,
    },
    #[error("scan {what}")]
    ScanAof {
        what: String,
        #[source]
        source: aof::Error,
    },
    /// A backup that is not what its manifest says.
    #[error("{backup}: {finding}")]
    Corrupt { backup: BackupId, finding: String },
    #[error("no backup {which}")]
    NoBackup { which: String },
    #[error("prefix {prefix} of {store} belongs to another installation: {owner}, not {ours}")]
    OtherOrigin { store: String, prefix: SourceName, owner: String, ours: String },
    #[error("{finding}")]
    Refused { finding: String, hint: String },
    #[error("another run backs up source {source_name} on this host")]
    Locked { source_name: SourceName },
    #[error("{holder} has the lease of source {source_name}")]
    LeaseHeld { source_name: SourceName, holder: String },
    #[error("the lease of source {source_name} could not be renewed: another run may begin")]
    LeaseLost { source_name: SourceName },
    /// As a worker in a pod of its own told it.
    #[error("{}", .0.error)]
    OfWorker(worker::Fault),
    #[error("capture shard {shard} from {node} by worker {job}: {finding}")]
    WorkerLost {
        shard: u32,
        node: source::NodeAddress,
        job: String,
        finding: String,
        mended_by: worker::MendedBy,
    },
    #[error("{0}")]
    Incompatible(String),
    #[error("restore into {}", folder.display())]
    DataDirectory {
        folder: PathBuf,
        #[source]
        source: data_directory::Error,
    },
    #[error(transparent)]
    Install(#[from] program::Error),
    #[error("load a backup in a throw-away server")]
    Server(#[source] server_process::Error),
    #[error("{attempt}")]
    Local {
        attempt: String,
        #[source]
        source: io::Error,
    },
    /// A task of ours ended without a result.
    #[error("{attempt}: a worker of this process died")]
    Worker { attempt: &'static str },
    #[error("ended by {}", match signal { Signal::Interrupt => "SIGINT", Signal::Terminate => "SIGTERM" })]
    Ended { signal: Signal },
}

/// Keys are made of names, so it is a name that does not do.
impl From<catalog::NotAKey> for Failure {
    fn from(error: catalog::NotAKey) -> Self {
        let hint = "give the source and its schedule shorter names".to_owned();
        Self::Usage { finding: error.to_string(), hint }
    }
}

/// With one store there is no need to name it.
fn errors_of(lost: &[LostStore]) -> String {
    match lost {
        [only] => only.error.clone(),
        several => {
            let told = several.iter().map(|lost| format!("{}: {}", lost.store, lost.error));
            format!("no store is left: {}", told.collect::<Vec<_>>().join("; "))
        }
    }
}

/// What Kubernetes said, where it stands between us and a node or its files.
pub(crate) fn of_kubernetes<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a kubernetes::Error> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let carried = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let carried = carried.and_then(|carried| carried.downcast_ref());
        if let Some(found) = error.downcast_ref().or(carried) {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

/// The error and all its causes on one line. Nothing else walks a chain for its words.
pub fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(line, ": {error}");
        cause = error.source();
    }
    line
}
