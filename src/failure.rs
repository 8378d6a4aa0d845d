//! What the process tells its caller when it fails: one message, one hint, one exit code.

use std::{error::Error, fmt::Write as _, io, path::PathBuf, process::ExitCode};

use crate::{
    domain::{
        aof, archive, capture, catalog,
        identity::{BackupId, SourceName},
        manifest, rdb, source,
        time_limit::TimeLimit,
        topology, workload,
    },
    edge::{data_directory, kubernetes, live_directory, redis_node, server_process, spool, store},
    settings,
};

/// Exit codes are an interface: Jobs retry or give up because of them. Never renumbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Exit {
    Done = 0,
    Unexpected = 1,
    /// Arguments, config, or the prefix of another installation.
    Usage = 2,
    SourceUnavailable = 10,
    StoreUnavailable = 11,
    /// Kubernetes unavailable or forbidden.
    KubernetesUnavailable = 12,
    /// Another run holds the lock, or an unfinished restore is there.
    Locked = 13,
    /// One store of several failed.
    Partial = 14,
    /// A backup or dump is corrupt or incomplete.
    Corrupt = 20,
    /// Stored, but the shrink guard calls it suspect.
    Suspect = 21,
    Incompatible = 22,
    /// Refused by a preflight; nothing was changed.
    Refused = 23,
    RestoreRolledBack = 30,
    RestoreNeedsPerson = 31,
    DrillFailed = 40,
    /// Ended by SIGINT.
    Interrupted = 130,
    /// Ended by SIGTERM.
    Terminated = 143,
}

impl Exit {
    pub const ALL: [Self; 17] = [
        Self::Done,
        Self::Unexpected,
        Self::Usage,
        Self::SourceUnavailable,
        Self::StoreUnavailable,
        Self::KubernetesUnavailable,
        Self::Locked,
        Self::Partial,
        Self::Corrupt,
        Self::Suspect,
        Self::Incompatible,
        Self::Refused,
        Self::RestoreRolledBack,
        Self::RestoreNeedsPerson,
        Self::DrillFailed,
        Self::Interrupted,
        Self::Terminated,
    ];
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// What made the process end early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    Interrupt,
    Terminate,
}

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
    #[error("{0}")]
    Incompatible(String),
    #[error("restore into {}", folder.display())]
    DataDirectory {
        folder: PathBuf,
        #[source]
        source: data_directory::Error,
    },
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

impl Failure {
    pub fn exit(&self) -> Exit {
        match self {
            Self::Settings(_)
            | Self::Usage { .. }
            | Self::Tls { .. }
            | Self::NoBackup { .. }
            | Self::OtherOrigin { .. } => Exit::Usage,
            Self::OpenStore { source, .. } | Self::Store { source, .. } => exit_of_store(source),
            Self::Stores(lost) => lost.first().map_or(Exit::StoreUnavailable, |first| first.exit),
            Self::Kubernetes { source, .. } => exit_of_kubernetes(source),
            Self::Workload { source, .. } => exit_of_workload(source),
            Self::Observe { .. }
            | Self::Topology { .. }
            | Self::Plan { .. }
            | Self::Capture { .. }
            | Self::CapturedFile { .. }
            | Self::Unsettled { .. }
            | Self::Overdue { .. } => Exit::SourceUnavailable,
            Self::Spool(source) => exit_of_spool(source),
            // Nothing is wrong with the backup, and the same call with another identity reads it.
            Self::Archive { source, .. } if source.is_of_the_identity() => Exit::Usage,
            Self::CapturedRdb { .. }
            | Self::Archive { .. }
            | Self::Scan { .. }
            | Self::ScanAof { .. }
            | Self::CapturedAof { .. }
            | Self::Corrupt { .. } => Exit::Corrupt,
            Self::Manifest { source, .. } => match source {
                manifest::Error::Newer { .. } => Exit::Incompatible,
                manifest::Error::Decode(_) | manifest::Error::Inconsistent(_) => Exit::Corrupt,
            },
            Self::Refused { .. } => Exit::Refused,
            Self::Locked { .. } | Self::LeaseHeld { .. } => Exit::Locked,
            Self::LeaseLost { .. } => Exit::KubernetesUnavailable,
            Self::Incompatible(_) => Exit::Incompatible,
            Self::DataDirectory { source, .. } => exit_of_data_directory(source),
            Self::Server(source) => exit_of_server(source),
            Self::Local { .. } | Self::Worker { .. } => Exit::Unexpected,
            Self::Ended { signal: Signal::Interrupt } => Exit::Interrupted,
            Self::Ended { signal: Signal::Terminate } => Exit::Terminated,
        }
    }

    /// Whether another identity is needed to go on.
    pub fn is_of_the_identity(&self) -> bool {
        matches!(self, Self::Archive { source, .. } if source.is_of_the_identity())
    }

    /// What the reader can do next.
    pub fn hint(&self) -> String {
        match self {
            Self::Settings(error) => error.hint().into(),
            Self::Usage { hint, .. } | Self::Refused { hint, .. } => hint.clone(),
            Self::OpenStore { source, .. } | Self::Store { source, .. } => hint_of_store(source).into(),
            Self::Stores(lost) => lost.first().map(|first| first.hint.clone()).unwrap_or_default(),
            Self::Tls { .. } => "name readable PEM files in `tls:` or by --tls-ca, --tls-cert, --tls-key".into(),
            Self::Kubernetes { source, .. } => hint_of_kubernetes(source),
            Self::Workload { source, .. } => hint_of_workload(source).into(),
            Self::Observe { source, .. } | Self::Capture { source, .. } => {
                hint_of_node(source).into()
            }
            Self::CapturedFile { .. } => {
                "run again; if it fails again, see what the disk and the log of the node say".into()
            }
            Self::Overdue { .. } => {
                "see what slows the source or the network down, or raise `timeouts.capture`".to_owned()
            }
            Self::Topology { .. } | Self::Unsettled { .. } => {
                "wait until the installation is settled (no failover, no slot migration), then run again".into()
            }
            Self::Plan { .. } => {
                "do what each reason asks: a replica that is up and follows its primary, room on the disk, the `dataDir` of a \
                 node; a primary is captured only as `primary:` allows, under Sentinel only by BGSAVE"
                    .into()
            }
            Self::CapturedRdb { .. } | Self::CapturedAof { .. } => {
                "the server or the network damages data: run again, and look at the server's memory and log".into()
            }
            Self::Spool(_) => {
                "give the spool a larger folder on a disk by `spool: {path, bytesMax}`, a faster store, or a higher uploadMaxPerSecond".into()
            }
            Self::Manifest { source: manifest::Error::Newer { .. }, .. } => {
                "the backup is as good as it was: read it with a redis-backup at least as new as the one that took it".into()
            }
            Self::Archive { source, .. } if source.is_of_the_identity() => {
                "nothing was changed; name the identity that opens it by --identity-from file:PATH, or by \
                 `encryption: {identityFrom: …}` in the config"
                    .into()
            }
            Self::Archive { .. } | Self::Manifest { .. } | Self::Corrupt { .. } => {
                "take the same backup from another store by --store, or the one before (`redis-backup list`); keep this one for a look".into()
            }
            Self::ScanAof { .. } => "the file is damaged or no append-only file; take another".into(),
            Self::Scan { .. } => "the file is damaged or no RDB file; take another".into(),
            Self::NoBackup { .. } => "`redis-backup list --store STORE` shows what there is; check the name of the store and of the source".into(),
            Self::OtherOrigin { .. } => {
                "choose another source name, or take the prefix over by `backup --adopt` if it is the same installation".into()
            }
            Self::LeaseHeld { .. } => "wait for it to end; nothing was changed. A holder that died is replaced by the next run".into(),
            Self::LeaseLost { .. } => "nothing was committed by this run; run again when the Kubernetes API answers".into(),
            Self::Locked { .. } => "wait for it to end; nothing was changed".into(),
            Self::Incompatible(_) => "nothing was changed; use a server that fits".into(),
            Self::DataDirectory { source, .. } => hint_of_data_directory(source).into(),
            Self::Server(source) => hint_of_server(source).into(),
            Self::Local { .. } => "look at the path, its permissions and the free space".into(),
            Self::Worker { .. } => "this is a bug; please report it with the log".into(),
            Self::Ended { .. } => "nothing is half done: run again".into(),
        }
    }
}

const fn exit_of_store(error: &store::Error) -> Exit {
    match error {
        store::Error::Corrupt { .. } => Exit::Corrupt,
        store::Error::Locked { .. } => Exit::Refused,
        store::Error::Unsupported { .. } => Exit::Usage,
        store::Error::NotFound { .. }
        | store::Error::AlreadyExists { .. }
        | store::Error::Denied { .. }
        | store::Error::Full { .. }
        | store::Error::Unavailable { .. }
        | store::Error::Permanent { .. } => Exit::StoreUnavailable,
    }
}

const fn hint_of_store(error: &store::Error) -> &'static str {
    match error {
        store::Error::NotFound { .. } => {
            "the object is gone: `redis-backup verify --level stored` names all that is missing"
        }
        store::Error::AlreadyExists { .. } => "another run wrote it; run again",
        store::Error::Denied { .. } => "grant what the message names",
        store::Error::Full { .. } => "make room in the store, or choose another",
        store::Error::Locked { .. } => {
            "nothing was deleted: run again after that date, or lift the hold by `unpin`"
        }
        store::Error::Unsupported { .. } => {
            "a bucket with versioning has it (docs/RUNBOOK.md); a directory has neither versions nor locks"
        }
        store::Error::Corrupt { .. } => {
            "the store or the network damages data: verify other backups too"
        }
        store::Error::Unavailable { .. } => {
            "run again when the store answers; nothing is half done"
        }
        store::Error::Permanent { .. } => {
            "check the store's address, region and credentials by `redis-backup check`"
        }
    }
}

const fn exit_of_kubernetes(error: &kubernetes::Error) -> Exit {
    match error {
        kubernetes::Error::NoCluster { .. }
        | kubernetes::Error::ReadKubeconfig { .. }
        | kubernetes::Error::Kubeconfig { .. } => Exit::Usage,
        kubernetes::Error::ServiceAccount { .. }
        | kubernetes::Error::Unauthorized { .. }
        | kubernetes::Error::Forbidden { .. }
        | kubernetes::Error::NotFound { .. }
        | kubernetes::Error::AlreadyExists { .. }
        | kubernetes::Error::Conflict { .. }
        | kubernetes::Error::Unreachable { .. }
        | kubernetes::Error::Timeout { .. }
        | kubernetes::Error::Refused { .. }
        | kubernetes::Error::Protocol { .. } => Exit::KubernetesUnavailable,
    }
}

const fn exit_of_workload(error: &workload::Error) -> Exit {
    match error {
        workload::Error::NotThere { .. } | workload::Error::NothingRuns { .. } => {
            Exit::SourceUnavailable
        }
        workload::Error::NoRedis { .. }
        | workload::Error::SeveralRedis { .. }
        | workload::Error::NoContainer { .. } => Exit::Usage,
    }
}

const fn hint_of_workload(error: &workload::Error) -> &'static str {
    match error {
        workload::Error::NotThere { .. } => {
            "correct the name or the namespace: `redis-backup discover -n NAMESPACE` shows what is there"
        }
        workload::Error::NothingRuns { .. } => {
            "see why by `kubectl describe pod`; a backup needs one pod of each shard"
        }
        workload::Error::NoRedis { .. }
        | workload::Error::SeveralRedis { .. }
        | workload::Error::NoContainer { .. } => {
            "name the container of the server by `kubernetes: {container: NAME}`"
        }
    }
}

fn hint_of_kubernetes(error: &kubernetes::Error) -> String {
    match error {
        kubernetes::Error::NoCluster { .. }
        | kubernetes::Error::ReadKubeconfig { .. }
        | kubernetes::Error::Kubeconfig { .. } => {
            "name a kubeconfig by KUBECONFIG and its context by `kubernetes: {context: NAME}`, or run in a pod with a service account"
        }
        kubernetes::Error::ServiceAccount { .. } => {
            "mount a service account's token (automountServiceAccountToken: true)"
        }
        kubernetes::Error::Unauthorized { .. } => {
            "the token or certificate may have expired: try `kubectl get pods` with the same kubeconfig"
        }
        kubernetes::Error::Forbidden { right, .. } => {
            return format!(
                "grant {right}: add {} to a Role that is bound to whoever runs this; deploy/rbac.yaml has all of them",
                right.rule(),
            );
        }
        kubernetes::Error::NotFound { .. } => {
            "check the name and the namespace: `redis-backup discover -n NAMESPACE` shows what is there"
        }
        kubernetes::Error::AlreadyExists { .. } | kubernetes::Error::Conflict { .. } => "run again",
        kubernetes::Error::Unreachable { .. } | kubernetes::Error::Timeout { .. } => {
            "run again when the API server answers: try `kubectl version` with the same kubeconfig"
        }
        kubernetes::Error::Refused { .. } => "the message is the API server's own and says why",
        kubernetes::Error::Protocol { .. } => {
            "check that a Kubernetes API answers there, and no proxy between cuts WebSockets"
        }
    }
    .to_owned()
}

const fn hint_of_node(error: &redis_node::Error) -> &'static str {
    match error {
        redis_node::Error::Unreachable { .. } => {
            "check host and port, that the server is up, and that it and the firewalls let this machine in"
        }
        redis_node::Error::Cut { .. } => {
            "run again; if it is cut again, the server's log says why (memory, client-output-buffer-limit)"
        }
        redis_node::Error::Timeout { .. } => {
            "the server is too busy, or a firewall swallows packets: try `redis-cli ping` from here; `timeouts:` of the source has the limits"
        }
        redis_node::Error::Late { .. } => {
            "the server may save slowly, or wait for its disk: see its log, or raise `timeouts.begin`"
        }
        redis_node::Error::AuthenticationRefused { .. } => {
            "give the password by --password-from or `auth:`, the ACL user in the URL (redis://user@host) or `auth:`"
        }
        redis_node::Error::PermissionDenied { .. } => {
            "docs/RUNBOOK.md has the whole rule of a user that takes backups"
        }
        redis_node::Error::Tls { .. } => {
            "rediss:// or `tls:` for a server with TLS, redis:// for one without; --tls-ca for an own authority"
        }
        redis_node::Error::Loading { .. } => "wait until it has loaded, then run again",
        redis_node::Error::NoPrimaryLink { .. } => {
            "see why the replica has lost its primary, or wait for it"
        }
        redis_node::Error::Save { source, .. } => hint_of_save(source),
        redis_node::Error::Aof { source, .. } => hint_of_aof(source),
        redis_node::Error::Refused { .. } => "the server's log may say more",
        redis_node::Error::Protocol { .. } => {
            "check that a Redis or Valkey listens there, and nothing else"
        }
    }
}

const fn hint_of_aof(error: &redis_node::AofError) -> &'static str {
    match error {
        redis_node::AofError::Closed(_) => {
            "mend what it says (CONFIG SET appendonly yes, or BGREWRITEAOF), or capture the RDB alone"
        }
        redis_node::AofError::Restarted => "run again: the node restarted meanwhile",
        redis_node::AofError::Directory(_) => {
            "let the user of this program read the data directory and what is in it"
        }
        redis_node::AofError::Unsteady { .. } => "run again when it rewrites its files less often",
        redis_node::AofError::OfAnother { .. } => {
            "name the data directory of this very node; if it is, BGREWRITEAOF sets its count right"
        }
    }
}

const fn hint_of_save(error: &redis_node::SaveError) -> &'static str {
    match error {
        redis_node::SaveError::Failed { .. } => {
            "free space or memory on its host, then let one BGSAVE succeed at once: that ends MISCONF; \
             docs/RUNBOOK.md tells more"
        }
        redis_node::SaveError::Killed { .. } => {
            "run again when nobody flushes it and no full synchronisation is under way"
        }
        redis_node::SaveError::Restarted => "run again: the node restarted meanwhile",
        redis_node::SaveError::NoRoom(_) => {
            "make room on the filesystem of its data directory; nothing was changed"
        }
        redis_node::SaveError::Directory(_) => {
            "let the user of this program read the data directory and what is in it"
        }
        redis_node::SaveError::OtherDirectory { .. } | redis_node::SaveError::Foreign(_) => {
            "name the data directory of this very node by `dataDir` or --data-dir"
        }
    }
}

const fn exit_of_spool(error: &spool::Error) -> Exit {
    match error {
        spool::Error::InMemory { .. }
        | spool::Error::TooSmall { .. }
        | spool::Error::Look { .. } => Exit::Refused,
        spool::Error::Full { .. } | spool::Error::Write { .. } | spool::Error::Read { .. } => {
            Exit::StoreUnavailable
        }
        spool::Error::Broken => Exit::Unexpected,
    }
}

const fn exit_of_data_directory(error: &data_directory::Error) -> Exit {
    match error {
        data_directory::Error::Locked { .. } | data_directory::Error::Unfinished { .. } => {
            Exit::Locked
        }
        data_directory::Error::NotADirectory { .. } => Exit::Usage,
        data_directory::Error::ServerRuns { .. }
        | data_directory::Error::NoSpace { .. }
        | data_directory::Error::Unsuitable { .. } => Exit::Refused,
        data_directory::Error::Act { .. } | data_directory::Error::Marker { .. } => {
            Exit::Unexpected
        }
    }
}

const fn hint_of_data_directory(error: &data_directory::Error) -> &'static str {
    match error {
        data_directory::Error::Locked { .. } => "wait for the other run to end",
        data_directory::Error::Unfinished { .. } => {
            "run the same restore again to go on with it, or --undo, or --finish"
        }
        data_directory::Error::NotADirectory { .. } => "name the folder in which the server starts",
        data_directory::Error::ServerRuns { .. } => "stop the server; nothing was changed",
        data_directory::Error::NoSpace { .. } => "make room on the volume; nothing was changed",
        data_directory::Error::Unsuitable { .. } => {
            "make it as the message asks; nothing was changed"
        }
        data_directory::Error::Act { .. } => {
            "the old or the new dataset is in place, never neither: mend the cause and run it again, or --undo"
        }
        data_directory::Error::Marker { .. } => {
            "keep .redis-backup in the folder as it is: it holds the previous dataset"
        }
    }
}

const fn exit_of_server(error: &server_process::Error) -> Exit {
    match error {
        server_process::Error::Run { .. } | server_process::Error::Version { .. } => Exit::Usage,
        server_process::Error::Refused { .. } => Exit::Corrupt,
        server_process::Error::File { .. }
        | server_process::Error::Killed { .. }
        | server_process::Error::TooSlow { .. }
        | server_process::Error::Ask { .. }
        | server_process::Error::Reply { .. } => Exit::Unexpected,
    }
}

const fn hint_of_server(error: &server_process::Error) -> &'static str {
    match error {
        server_process::Error::Run { .. } | server_process::Error::Version { .. } => {
            "name a redis-server or valkey-server that fits by --server-binary or `serverBinary:`; \
             `--level content` needs none"
        }
        server_process::Error::Refused { .. } => {
            "its words say why: damage, or a module that it lacks; `--level content` tells damage"
        }
        server_process::Error::File { .. } => {
            "look at the free space and the permissions of the temporary folder (TMPDIR)"
        }
        server_process::Error::Killed { .. } | server_process::Error::TooSlow { .. } => {
            "a load needs as much memory as the dataset: use a larger machine, or `--level content`, which needs none"
        }
        server_process::Error::Ask { .. } | server_process::Error::Reply { .. } => {
            "run again; if it fails again, name another server by --server-binary"
        }
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

/// The error and all its causes on one line. The only place that walks a chain.
pub fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(line, ": {error}");
        cause = error.source();
    }
    line
}
