//! One contract for every store: memory, a directory, S3.

use bytes::Bytes;
use redis_backup::{
    domain::{
        catalog::Key,
        digest::{Crc64Nvme, Digester, Digests},
        lock::Protection,
    },
    edge::store::{Directory, Error, Memory, PART_BYTES, Part, Store, Stored, Upload, Versioning},
};

/// What a store may do differently.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traits {
    pub(crate) versions: bool,
    pub(crate) checksums: bool,
}

/// Run on an empty store, which it leaves empty of objects.
pub(crate) async fn contract(store: &dyn Store, traits: Traits) {
    an_empty_store_holds_nothing(store).await;
    small_objects_are_written_once(store, traits).await;
    objects_of_any_length_come_back(store, traits).await;
    nothing_is_visible_before_the_end(store).await;
    what_differs_from_its_digests_stays_invisible(store).await;
    parts_of_wrong_length_are_refused(store).await;
    an_upload_never_replaces(store).await;
    of_many_writers_one_wins(store).await;
    listings_are_sorted_and_end_at_any_character(store).await;
    what_nobody_locked_can_be_purged(store, traits).await;
    assert_eq!(store.list("").await.unwrap(), []);
}

pub(crate) fn key(text: &str) -> Key {
    text.parse().unwrap()
}

pub(crate) fn digests(body: &[u8]) -> Digests {
    let mut digester = Digester::default();
    digester.update(body);
    digester.finish()
}

/// Bytes that no two offsets share for long.
pub(crate) fn noise(length: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.take(length.div_ceil(8)).flatten().take(length).collect()
}

pub(crate) async fn write_all(upload: &mut dyn Upload, body: &Bytes) -> Result<(), Error> {
    let mut rest = body.clone();
    while !rest.is_empty() {
        let body = rest.split_to(rest.len().min(PART_BYTES));
        upload.write(Part { body, budget: None }).await?;
    }
    Ok(())
}

/// A server may still be at work on a part of an upload that was dropped, and bring it back.
pub(crate) async fn forget_all(store: &dyn Store) {
    for _ in 0..200 {
        let unfinished = store.unfinished("").await.unwrap();
        if unfinished.is_empty() {
            return;
        }
        for upload in &unfinished {
            store.forget(upload).await.unwrap();
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("uploads cannot be forgotten: {:?}", store.unfinished("").await);
}

pub(crate) async fn put(store: &dyn Store, key: &Key, body: &Bytes) -> Result<Stored, Error> {
    let mut upload = store.upload(key).await?;
    write_all(&mut *upload, body).await?;
    upload.finish(digests(body)).await
}

pub(crate) async fn get(
    store: &dyn Store,
    key: &Key,
    version_id: Option<&str>,
) -> Result<Vec<u8>, Error> {
    let mut download = store.download(key, version_id).await?;
    let mut body = Vec::new();
    while let Some(piece) = download.next().await? {
        assert!(!piece.is_empty(), "a piece without bytes");
        body.extend_from_slice(&piece);
    }
    assert_eq!(download.next().await?, None, "an end is an end");
    Ok(body)
}

async fn keys(store: &dyn Store, prefix: &str) -> Vec<String> {
    store.list(prefix).await.unwrap().into_iter().map(|listed| listed.key.to_string()).collect()
}

async fn an_empty_store_holds_nothing(store: &dyn Store) {
    let absent = key("absent/object");
    assert_eq!(store.list("").await.unwrap(), []);
    assert_eq!(store.list("absent/").await.unwrap(), []);
    assert_eq!(store.unfinished("").await.unwrap(), []);
    assert!(matches!(store.read(&absent, 1).await, Err(Error::NotFound { .. })));
    assert!(matches!(store.attributes(&absent, None).await, Err(Error::NotFound { .. })));
    assert!(matches!(store.download(&absent, None).await, Err(Error::NotFound { .. })));
    store.delete(&absent).await.unwrap();
    store.clock().await.unwrap();
    assert_eq!(store.list("").await.unwrap(), [], "reading the clock leaves nothing");
}

async fn small_objects_are_written_once(store: &dyn Store, traits: Traits) {
    let small = key("a/small.json");
    let before = store.clock().await.unwrap();
    let stored = store.create(&small, Bytes::from_static(b"first")).await.unwrap();
    assert_eq!(stored.version_id.is_some(), traits.versions);
    for body in ["second", "first"] {
        let again = store.create(&small, Bytes::from(body)).await;
        assert!(matches!(again, Err(Error::AlreadyExists { .. })), "{again:?}");
    }
    assert_eq!(&store.read(&small, 5).await.unwrap()[..], b"first");
    assert!(matches!(store.read(&small, 4).await, Err(Error::Corrupt { .. })));

    let attributes = store.attributes(&small, stored.version_id.as_deref()).await.unwrap();
    assert_eq!(attributes.bytes, 5);
    assert_eq!(attributes.crc64nvme, traits.checksums.then(|| Crc64Nvme::of(b"first")));
    let after = store.clock().await.unwrap();
    // To the second, and a file system's stamp may lag a little behind its clock.
    assert!(attributes.modified.as_second() >= before.as_second() - 1, "{attributes:?} {before}");
    assert!(attributes.modified.as_second() <= after.as_second() + 1, "{attributes:?} {after}");

    let empty = key("a/empty");
    store.create(&empty, Bytes::new()).await.unwrap();
    assert_eq!(&store.read(&empty, 0).await.unwrap()[..], b"");
    for key in [small, empty] {
        store.delete(&key).await.unwrap();
        store.delete(&key).await.unwrap();
        assert!(matches!(store.read(&key, 9).await, Err(Error::NotFound { .. })));
    }
}

async fn objects_of_any_length_come_back(store: &dyn Store, traits: Traits) {
    for length in [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES + 77] {
        let (object, body) = (key(&format!("lengths/{length}/object")), noise(length));
        let stored = put(store, &object, &body).await.unwrap();
        assert_eq!(stored.version_id.is_some(), traits.versions);
        let version_id = stored.version_id.as_deref();
        let attributes = store.attributes(&object, version_id).await.unwrap();
        assert_eq!(attributes.bytes, length as u64);
        assert_eq!(attributes.crc64nvme, traits.checksums.then(|| Crc64Nvme::of(&body)));
        for version_id in [None, version_id] {
            let found = get(store, &object, version_id).await.unwrap();
            assert!(found == body, "{length} bytes, {} came back", found.len());
        }
        store.delete(&object).await.unwrap();
        if traits.versions {
            let found = get(store, &object, version_id).await.unwrap();
            assert!(found == body, "a deleted version of {length} bytes");
        }
    }
    assert_eq!(store.unfinished("").await.unwrap(), []);
}

async fn nothing_is_visible_before_the_end(store: &dyn Store) {
    let (object, body) = (key("hidden/object"), noise(2 * PART_BYTES));
    let mut finished = store.upload(&object).await.unwrap();
    write_all(&mut *finished, &body).await.unwrap();
    let mut dropped = store.upload(&object).await.unwrap();
    write_all(&mut *dropped, &body).await.unwrap();
    let mut aborted = store.upload(&object).await.unwrap();
    write_all(&mut *aborted, &body).await.unwrap();
    assert_eq!(store.list("").await.unwrap(), []);
    assert!(matches!(store.read(&object, 1).await, Err(Error::NotFound { .. })));

    let unfinished = store.unfinished("hidden/").await.unwrap();
    assert_eq!(unfinished.len(), 3, "{unfinished:?}");
    assert!(unfinished.iter().all(|upload| upload.key.as_ref() == Some(&object)));
    assert_eq!(store.unfinished("other/").await.unwrap(), []);

    finished.finish(digests(&body)).await.unwrap();
    aborted.abort().await.unwrap();
    drop(dropped);
    assert_eq!(keys(store, "").await, ["hidden/object"]);
    let unfinished = store.unfinished("").await.unwrap();
    assert_eq!(unfinished.len(), 1, "only the dropped one: {unfinished:?}");
    let now = store.clock().await.unwrap();
    assert!((now.as_second() - unfinished[0].begun.as_second()).abs() < 600, "{unfinished:?}");
    forget_all(store).await;
    store.forget(&unfinished[0]).await.unwrap();
    assert!(get(store, &object, None).await.unwrap() == body);
    store.delete(&object).await.unwrap();
}

async fn what_differs_from_its_digests_stays_invisible(store: &dyn Store) {
    for length in [5, PART_BYTES + 5] {
        let (object, body) = (key("differs/object"), noise(length));
        let flipped: Bytes =
            body.iter().enumerate().map(|(at, byte)| byte ^ u8::from(at == 3)).collect();
        for told in [digests(&body[1..]), digests(&flipped)] {
            let mut upload = store.upload(&object).await.unwrap();
            write_all(&mut *upload, &body).await.unwrap();
            let finished = upload.finish(told).await;
            assert!(matches!(finished, Err(Error::Corrupt { .. })), "{finished:?}");
            assert_eq!(store.list("").await.unwrap(), []);
            assert_eq!(store.unfinished("").await.unwrap(), []);
        }
    }
}

async fn parts_of_wrong_length_are_refused(store: &dyn Store) {
    let part = |length| Part { body: noise(length), budget: None };
    for lengths in [[PART_BYTES - 1, 1], [1, PART_BYTES], [PART_BYTES, 0]] {
        let mut upload = store.upload(&key("parts/object")).await.unwrap();
        upload.write(part(lengths[0])).await.unwrap();
        let refused = upload.write(part(lengths[1])).await;
        assert!(matches!(refused, Err(Error::Corrupt { .. })), "{lengths:?}: {refused:?}");
        upload.abort().await.unwrap();
    }
    assert_eq!(store.unfinished("").await.unwrap(), []);
}

async fn an_upload_never_replaces(store: &dyn Store) {
    for length in [9, PART_BYTES + 9] {
        let (object, body) = (key(&format!("once/{length}")), noise(length));
        put(store, &object, &body).await.unwrap();
        for other in [noise(length + 1), body.clone()] {
            let again = put(store, &object, &other).await;
            assert!(matches!(again, Err(Error::AlreadyExists { .. })), "{again:?}");
        }
        assert!(get(store, &object, None).await.unwrap() == body);
        store.delete(&object).await.unwrap();
    }
    assert_eq!(store.unfinished("").await.unwrap(), [], "a refused upload leaves nothing");
}

async fn of_many_writers_one_wins(store: &dyn Store) {
    let object = key("race/object");
    let bodies: Vec<Bytes> = (0..8).map(|writer| Bytes::from(format!("writer {writer}"))).collect();
    let writers = bodies.iter().map(|body| store.create(&object, body.clone()));
    let outcomes = futures_util::future::join_all(writers).await;
    let won: Vec<&Bytes> = outcomes
        .iter()
        .zip(&bodies)
        .filter(|(outcome, _)| outcome.is_ok())
        .map(|won| won.1)
        .collect();
    let refused =
        outcomes.iter().filter(|outcome| matches!(outcome, Err(Error::AlreadyExists { .. })));
    assert_eq!((won.len(), refused.count()), (1, 7), "{outcomes:?}");
    assert_eq!(&store.read(&object, 99).await.unwrap(), won[0]);
    store.delete(&object).await.unwrap();
}

async fn listings_are_sorted_and_end_at_any_character(store: &dyn Store) {
    let written = ["s/m/20260102", "s/m/20260101", "s/m-x", "s/m.x", "sx/m/1", "s/m/2026/deep/er"];
    for text in written {
        store.create(&key(text), Bytes::from_static(b"body")).await.unwrap();
    }
    let mut sorted = written;
    sorted.sort_unstable();
    assert_eq!(keys(store, "").await, sorted);
    assert_eq!(keys(store, "s/m/").await, ["s/m/2026/deep/er", "s/m/20260101", "s/m/20260102"]);
    assert_eq!(keys(store, "s/m/202601").await, ["s/m/20260101", "s/m/20260102"]);
    assert_eq!(keys(store, "s/m").await.len(), 5);
    assert_eq!(keys(store, "s/m/2026/deep/er/").await, Vec::<String>::new());
    assert_eq!(keys(store, "../").await, Vec::<String>::new());
    assert!(store.list("s").await.unwrap().iter().all(|listed| listed.bytes == 4));
    for text in written {
        store.delete(&key(text)).await.unwrap();
    }
}

async fn what_nobody_locked_can_be_purged(store: &dyn Store, traits: Traits) {
    let object = key("purged/object");
    let neighbour = key("purged/object2");
    for key in [&object, &neighbour] {
        store.create(key, Bytes::from_static(b"body")).await.unwrap();
    }
    let versions = store.safeguards().await.unwrap().versions;
    assert_eq!(versions == Versioning::Enabled, traits.versions);
    assert_eq!(store.protection(&object, None).await.unwrap(), Protection::default());
    let held = store.hold(&object, None, true).await;
    assert!(matches!(held, Err(Error::Unsupported { .. })), "{held:?}");
    let versions = async || match store.versions("purged/").await {
        Ok(versions) => Some(versions.len()),
        Err(Error::Unsupported { .. }) => None,
        Err(error) => panic!("{error:?}"),
    };
    if traits.versions {
        assert_eq!(versions().await, Some(2));
    }
    for _ in 0..2 {
        store.purge(&object).await.unwrap();
        assert_eq!(keys(store, "purged/").await, ["purged/object2"]);
    }
    assert!(matches!(versions().await, None | Some(1)), "versions stay");
    store.purge(&neighbour).await.unwrap();
    assert!(matches!(versions().await, None | Some(0)), "versions stay");
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_keeps_the_contract() {
    contract(&Memory::default(), Traits { versions: false, checksums: true }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_keeps_the_contract() {
    let parent = tempfile::tempdir().unwrap();
    let store = Directory::new(parent.path().join("made/by/the/store"));
    contract(&store, Traits { versions: false, checksums: false }).await;
}
