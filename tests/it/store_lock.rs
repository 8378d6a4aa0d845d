//! Versions, retention and legal hold on a real S3 server: what is locked stays, and the past can be looked at.

use std::sync::Arc;

use aws_sdk_s3::types::{BucketVersioningStatus, VersioningConfiguration};
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use redis_backup::{
    domain::lock::{Lock, LockMode, Protection},
    edge::store::{
        AsOf, Directory, Error, LockOnPut, PART_BYTES, S3, S3Settings, Store, Versioning,
    },
};

use crate::{
    servers::s3::S3Server,
    store_contract::{get, key, noise, put},
    store_s3::{BUCKET, open, settings},
};

/// A bucket with Object Lock, and a store whose objects stay for a day.
async fn locked_for_a_day() -> (S3Server, S3) {
    let server = S3Server::start(false);
    server.create_locked_bucket(BUCKET);
    let until = in_days(1, now(&open(settings(server.endpoint())).await).await);
    let lock = LockOnPut { mode: LockMode::Governance, retain_until: until };
    let store = open(S3Settings { lock: Some(lock), ..settings(server.endpoint()) }).await;
    (server, store)
}

async fn now(store: &S3) -> Timestamp {
    store.clock().await.unwrap()
}

fn in_days(days: i64, from: Timestamp) -> Timestamp {
    from + SignedDuration::from_hours(24 * days)
}

/// What somebody with all rights but that to bypass a lock does.
async fn overwrite(server: &S3Server, object: &str, body: &'static [u8]) {
    let put = server.client().put_object().bucket(BUCKET).key(format!("some/prefix/{object}"));
    put.body(body.to_vec().into()).send().await.unwrap();
}

async fn hide(server: &S3Server, object: &str) {
    let delete = server.client().delete_object().bucket(BUCKET);
    delete.key(format!("some/prefix/{object}")).send().await.unwrap();
}

/// Until the server's clock, which tells seconds, has gone on.
async fn next_second(store: &S3) -> Timestamp {
    let begun = now(store).await;
    for _ in 0..200 {
        let at = now(store).await;
        if at > begun {
            return at;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("the server's clock stands still");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_under_a_lock_is_kept_by_the_store_and_never_hidden_by_us() {
    let server = S3Server::start(false);
    server.create_locked_bucket(BUCKET);
    let until = in_days(30, now(&open(settings(server.endpoint())).await).await);
    for mode in [LockMode::Governance, LockMode::Compliance] {
        let lock = Some(LockOnPut { mode, retain_until: until });
        let store = open(S3Settings { lock, ..settings(server.endpoint()) }).await;
        for length in [9, PART_BYTES + 9] {
            let object = key(&format!("s/{mode}/{length}"));
            let stored = put(&store, &object, &noise(length)).await.unwrap();
            let version_id = stored.version_id.as_deref();
            let expected =
                Protection { mode: Some(mode), retain_until: Some(until), legal_hold: false };
            for version_id in [None, version_id] {
                assert_eq!(store.protection(&object, version_id).await.unwrap(), expected);
            }
            for refused in [store.delete(&object).await, store.purge(&object).await] {
                let Err(Error::Locked { lock, .. }) = refused else { panic!("{refused:?}") };
                assert_eq!(lock, Lock::Until(until));
            }
            assert_eq!(store.list(object.as_str()).await.unwrap().len(), 1, "it was hidden");
            let versions = store.versions(object.as_str()).await.unwrap();
            assert_eq!(versions.len(), 1, "{versions:?}");

            // Not even the server lets a version go.
            let delete = server.client().delete_object().bucket(BUCKET);
            let delete = delete.key(format!("some/prefix/{object}"));
            assert!(delete.set_version_id(stored.version_id).send().await.is_err());
            assert!(get(&store, &object, None).await.unwrap() == noise(length));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_legal_hold_is_put_and_lifted_and_an_ended_retention_forbids_nothing() {
    let server = S3Server::start(false);
    server.create_locked_bucket(BUCKET);
    let store = open(settings(server.endpoint())).await;
    let soon = now(&store).await + SignedDuration::from_secs(3);
    let lock = LockOnPut { mode: LockMode::Governance, retain_until: soon };
    let store = open(S3Settings { lock: Some(lock), ..settings(server.endpoint()) }).await;
    let object = key("s/object");
    let stored = store.create(&object, Bytes::from_static(b"body")).await.unwrap();
    let version_id = stored.version_id.as_deref();
    store.hold(&object, version_id, true).await.unwrap();
    while now(&store).await <= soon {
        next_second(&store).await;
    }
    let refused = store.delete(&object).await;
    assert!(matches!(refused, Err(Error::Locked { lock: Lock::LegalHold, .. })), "{refused:?}");
    let refused = store.purge(&object).await;
    assert!(matches!(refused, Err(Error::Locked { lock: Lock::LegalHold, .. })), "{refused:?}");
    store.hold(&object, version_id, false).await.unwrap();
    store.purge(&object).await.unwrap();
    assert_eq!(store.versions("").await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_overwritten_is_read_as_it_was_written_first() {
    let (server, store) = locked_for_a_day().await;
    let object = key("s/manifest.json");
    store.create(&object, Bytes::from_static(b"ours")).await.unwrap();
    overwrite(&server, "s/manifest.json", b"theirs").await;
    assert_eq!(&store.read(&object, 99).await.unwrap()[..], b"ours");
    hide(&server, "s/manifest.json").await;
    assert!(matches!(store.read(&object, 99).await, Err(Error::NotFound { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_past_lies_behind_markers_and_later_versions() {
    let (server, store) = locked_for_a_day().await;
    let before = now(&store).await - SignedDuration::from_secs(1);
    for text in ["s/hidden", "s/replaced", "t/kept"] {
        store.create(&key(text), Bytes::from(text)).await.unwrap();
    }
    let good = now(&store).await;
    next_second(&store).await;
    hide(&server, "s/hidden").await;
    overwrite(&server, "s/replaced", b"theirs").await;
    overwrite(&server, "s/new", b"theirs").await;
    server.tell_when_versions_were_written();
    let inner: Arc<dyn Store> = Arc::new(store.clone());
    let past = AsOf::new(Arc::clone(&inner), good).await.unwrap();
    let keys = |listed: Vec<redis_backup::edge::store::Listed>| {
        listed.into_iter().map(|it| it.key.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(keys(past.list("").await.unwrap()), ["s/hidden", "s/replaced", "t/kept"]);
    assert_eq!(keys(past.list("s/h").await.unwrap()), ["s/hidden"]);
    assert_eq!(past.folders().await.unwrap(), ["s", "t"]);
    for text in ["s/hidden", "s/replaced", "t/kept"] {
        let object = key(text);
        assert_eq!(&past.read(&object, 99).await.unwrap()[..], text.as_bytes());
        assert_eq!(get(&past, &object, None).await.unwrap(), text.as_bytes());
        assert_eq!(past.attributes(&object, None).await.unwrap().bytes, text.len() as u64);
    }
    assert!(matches!(past.read(&key("s/new"), 9).await, Err(Error::NotFound { .. })));
    assert!(matches!(past.read(&key("t/kept"), 3).await, Err(Error::Corrupt { .. })));
    assert_eq!(keys(store.list("").await.unwrap()), ["s/new", "s/replaced", "t/kept"]);

    let earlier = AsOf::new(inner, before).await.unwrap();
    assert_eq!(earlier.list("").await.unwrap(), []);
    for refused in [
        past.delete(&key("t/kept")).await,
        past.purge(&key("t/kept")).await,
        past.create(&key("t/new"), Bytes::new()).await.map(drop),
        past.hold(&key("t/kept"), None, true).await,
    ] {
        assert!(matches!(refused, Err(Error::Unsupported { .. })), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_past_is_not_lost_by_suspending_versions() {
    let server = S3Server::start(false);
    server.create_bucket(BUCKET, true);
    let store = open(settings(server.endpoint())).await;
    store.create(&key("s/object"), Bytes::from_static(b"ours")).await.unwrap();
    let good = now(&store).await;
    next_second(&store).await;
    let suspended =
        VersioningConfiguration::builder().status(BucketVersioningStatus::Suspended).build();
    let request = server.client().put_bucket_versioning().bucket(BUCKET);
    request.versioning_configuration(suspended).send().await.unwrap();
    overwrite(&server, "s/object", b"theirs").await;
    server.tell_when_versions_were_written();
    assert_eq!(store.safeguards().await.unwrap().versions, Versioning::Suspended);
    let past = AsOf::new(Arc::new(store), good).await.unwrap();
    assert_eq!(&past.read(&key("s/object"), 99).await.unwrap()[..], b"ours");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_versions_has_no_past() {
    let server = S3Server::start(false);
    server.create_bucket(BUCKET, false);
    let folder = tempfile::tempdir().unwrap();
    let stores: [Arc<dyn Store>; 2] = [
        Arc::new(open(settings(server.endpoint())).await),
        Arc::new(Directory::new(folder.path())),
    ];
    for store in stores {
        let refused = AsOf::new(store, Timestamp::UNIX_EPOCH).await;
        assert!(matches!(refused, Err(Error::Unsupported { .. })), "{refused:?}");
    }
}
