//! What the reader of a failure can do next, in words.

use super::{Failure, of_kubernetes};
use crate::{
    domain::{manifest, workload},
    edge::{data_directory, kubernetes, program, redis_node, server_process, store},
};

impl Failure {
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
            Self::Observe { source, .. } | Self::Capture { source, .. } => of_kubernetes(source)
                .map_or_else(|| hint_of_node(source).to_owned(), hint_of_kubernetes),
            Self::CapturedFile { source, .. } | Self::LiveDirectory { source, .. } => {
                let usual =
                    || "run again; if it fails again, see what the disk and the log of the node say".to_owned();
                of_kubernetes(source).map_or_else(usual, hint_of_kubernetes)
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
            Self::OfWorker(fault) => fault.hint.clone(),
            Self::WorkerLost { job, .. } => {
                format!("nothing was committed: run again; `kubectl get events` and the quotas of the namespace tell more of {job}")
            }
            Self::Incompatible(_) => "nothing was changed; use a server that fits".into(),
            Self::DataDirectory { source, .. } => hint_of_data_directory(source).into(),
            Self::Install(error) => hint_of_install(error).into(),
            Self::Server(source) => hint_of_server(source).into(),
            Self::Local { .. } => HINT_OF_PATH.into(),
            Self::Worker { .. } => "this is a bug; please report it with the log".into(),
            Self::Password { .. } => {
                "a Secret that changed is not what a running server has: set one right, or restart the pods; \
                 another password is named by `auth: {passwordFrom: …}`"
                    .into()
            }
            Self::Ended { .. } => "nothing is half done: run again".into(),
        }
    }
}

const HINT_OF_PATH: &str = "look at the path, its permissions and the free space";

const fn hint_of_install(error: &program::Error) -> &'static str {
    match error {
        program::Error::Unsuitable { .. } => {
            "nothing was changed; name a new file in a folder that is there, such as an emptyDir"
        }
        program::Error::File { .. } => HINT_OF_PATH,
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
