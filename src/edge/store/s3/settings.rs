//! What is to be known of a bucket and of its server. Asks neither.

use std::{path::PathBuf, time::Duration};

use super::LockOnPut;

/// Everything about a bucket but its credentials, which come from AWS's usual chain: environment,
/// profile, SSO, process, web identity, container, instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Settings {
    pub bucket: String,
    /// Comes before every key, joined by `/`. May be empty.
    pub prefix: String,
    /// Without it the usual chain is asked; with an endpoint of one's own it does not matter.
    pub region: Option<String>,
    /// `https://host:port` of a server other than AWS.
    pub endpoint: Option<String>,
    /// `https://host/bucket/key` instead of `https://bucket.host/key`.
    pub force_path_style: bool,
    /// Certificates to trust besides those of the system, in PEM.
    pub ca_file: Option<PathBuf>,
    /// Such as `STANDARD_IA`.
    pub storage_class: Option<String>,
    pub encryption: Option<Encryption>,
    pub checksums: Checksums,
    /// For every object that is written. The bucket must have Object Lock, and S3 asks for checksums then.
    pub lock: Option<LockOnPut>,
    /// Of the run that writes, noted in each object's metadata for people.
    pub run: String,
    /// Tries of each request, the first one included.
    pub attempts_max: u32,
    /// The longest wait between two tries.
    pub backoff_max: Duration,
    /// After how long no more is tried while no answer has ever come.
    pub reach_patience: Duration,
    /// For sending one part of eight MiB and getting the answer.
    pub response_timeout: Duration,
    /// How long a transfer may stand still.
    pub stall_timeout: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Encryption {
    SseS3,
    SseKms {
        /// Without it the bucket's or the account's own key.
        key_id: Option<String>,
    },
}

/// Whether the server takes and returns CRC-64/NVME.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksums {
    #[default]
    WhenSupported,
    /// For servers that know none: nothing but sizes is confirmed by the store then.
    WhenRequired,
}

impl S3Settings {
    pub fn new(bucket: impl Into<String>) -> Self {
        Self {
            bucket: bucket.into(),
            prefix: String::new(),
            region: None,
            endpoint: None,
            force_path_style: false,
            ca_file: None,
            storage_class: None,
            encryption: None,
            checksums: Checksums::default(),
            lock: None,
            run: String::new(),
            attempts_max: 8,
            backoff_max: Duration::from_secs(20),
            // The wait before the last try begins sooner and is at most eight seconds.
            reach_patience: Duration::from_secs(5),
            response_timeout: Duration::from_mins(2),
            stall_timeout: Duration::from_secs(20),
        }
    }
}
