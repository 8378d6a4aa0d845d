//! Settings of a store into an open store.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::{Context, transfer::Pace};
use crate::{
    edge::store::{self, AsOf, Directory, LockOnPut, S3, S3Settings, Store},
    failure::Failure,
    settings::{self, Checksums, ObjectLock, ServerSideEncryption, StoreKind},
};

/// An open store and what people call it.
#[derive(Clone, Debug)]
pub(super) struct Opened {
    pub(super) name: String,
    pub(super) store: Arc<dyn Store>,
    /// How fast backups may be sent to it.
    pub(super) pace: Pace,
}

pub(super) async fn open(store: &settings::Store, context: &Context) -> Result<Opened, Failure> {
    let failed = |source| Failure::OpenStore { store: store.name.clone(), source };
    let opened: Arc<dyn Store> = match &store.kind {
        StoreKind::Directory(path) => Arc::new(Directory::new(path)),
        StoreKind::S3(s3) => {
            let connect = S3::connect(s3_settings(s3, context.chance(), context.now()));
            // The SDK's credential chain is a large future, and every verb would carry it.
            Arc::new(Box::pin(connect).await.map_err(failed)?)
        }
    };
    Ok(Opened {
        name: store.name.clone(),
        store: (context.over_store)(opened),
        pace: Pace::new(store.upload_max_per_second),
    })
}

/// The store as it was at that moment, or as it is. What is opened for the past can change nothing.
pub(super) async fn open_as_of(
    store: &settings::Store,
    as_of: Option<Timestamp>,
    context: &Context,
) -> Result<Opened, Failure> {
    let Opened { name, store, pace } = open(store, context).await?;
    let Some(at) = as_of else { return Ok(Opened { name, store, pace }) };
    let past = AsOf::new(store, at).await;
    let past = past.map_err(|source| Failure::OpenStore { store: name.clone(), source })?;
    Ok(Opened { name, store: Arc::new(past), pace })
}

/// All objects that are written through a store, once opened, are locked until the same moment.
fn s3_settings(config: &settings::S3, run: u64, now: Timestamp) -> S3Settings {
    let settings::S3 {
        bucket,
        prefix,
        region,
        endpoint,
        force_path_style,
        ca_file,
        storage_class,
        server_side_encryption,
        checksums,
        object_lock,
        upload_max_per_second: _,
    } = config.clone();
    S3Settings {
        prefix,
        region,
        // Servers of one's own rarely have a name for each bucket.
        force_path_style: force_path_style.unwrap_or(endpoint.is_some()),
        endpoint,
        ca_file,
        storage_class,
        encryption: server_side_encryption.map(|encryption| match encryption {
            ServerSideEncryption::SseS3 {} => store::Encryption::SseS3,
            ServerSideEncryption::SseKms { key_id } => store::Encryption::SseKms { key_id },
        }),
        checksums: match checksums {
            Checksums::WhenSupported => store::Checksums::WhenSupported,
            Checksums::WhenRequired => store::Checksums::WhenRequired,
        },
        lock: object_lock.map(|ObjectLock { mode, days }| LockOnPut {
            mode,
            retain_until: now + SignedDuration::from_hours(i64::from(days) * 24),
        }),
        run: format!("{run:016x}"),
        ..S3Settings::new(bucket)
    }
}
