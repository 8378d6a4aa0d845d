//! Which exit code a failure has. Never says anything to people.

use std::{error::Error, process::ExitCode};

use super::{Failure, of_kubernetes};
use crate::{
    domain::{manifest, workload},
    edge::{data_directory, kubernetes, program, server_process, spool, store},
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

    /// By its number, as another process of ours told it.
    pub fn of(code: u8) -> Self {
        Self::ALL.into_iter().find(|exit| *exit as u8 == code).unwrap_or(Self::Unexpected)
    }
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

impl Failure {
    pub fn exit(&self) -> Exit {
        match self {
            Self::Settings(_)
            | Self::Usage { .. }
            | Self::Tls { .. }
            | Self::NoBackup { .. }
            | Self::OtherOrigin { .. }
            | Self::Install(program::Error::Unsuitable { .. }) => Exit::Usage,
            Self::OpenStore { source, .. } | Self::Store { source, .. } => exit_of_store(source),
            Self::Stores(lost) => lost.first().map_or(Exit::StoreUnavailable, |first| first.exit),
            Self::Kubernetes { source, .. } => exit_of_kubernetes(source),
            Self::Workload { source, .. } => exit_of_workload(source),
            Self::Observe { source, .. } | Self::Capture { source, .. } => exit_of_way(source),
            Self::CapturedFile { source, .. } | Self::LiveDirectory { source, .. } => {
                exit_of_way(source)
            }
            Self::Topology { .. }
            | Self::Plan { .. }
            | Self::Unsettled { .. }
            | Self::Password { .. }
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
            Self::LeaseLost { .. } | Self::WorkerLost { .. } => Exit::KubernetesUnavailable,
            Self::OfWorker(fault) => Exit::of(fault.exit),
            Self::Incompatible(_) => Exit::Incompatible,
            Self::DataDirectory { source, .. } => exit_of_data_directory(source),
            Self::Server(source) => exit_of_server(source),
            Self::Install(program::Error::File { .. })
            | Self::Local { .. }
            | Self::Worker { .. } => Exit::Unexpected,
            Self::Ended { signal: Signal::Interrupt } => Exit::Interrupted,
            Self::Ended { signal: Signal::Terminate } => Exit::Terminated,
        }
    }

    /// Whether another identity is needed to go on.
    pub fn is_of_the_identity(&self) -> bool {
        matches!(self, Self::Archive { source, .. } if source.is_of_the_identity())
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

/// Of what failed between us and a node, or its files.
fn exit_of_way(error: &(dyn Error + 'static)) -> Exit {
    of_kubernetes(error).map_or(Exit::SourceUnavailable, exit_of_kubernetes)
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
