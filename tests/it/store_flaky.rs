//! The wrapper that fails on demand fails as demanded, and otherwise keeps the contract.

use std::sync::Arc;

use bytes::Bytes;
use redis_backup::edge::store::{Error, Fault, Flaky, Memory, Operation, Store};

use crate::{
    crash::run_for,
    store_contract::{Traits, contract, digests, get, key, put},
};

#[tokio::test]
async fn without_faults_it_keeps_the_contract() {
    let store = Flaky::new(Arc::new(Memory::default()), []);
    contract(&store, Traits { versions: false, checksums: true }).await;
    for operation in Operation::ALL {
        assert!(store.calls().iter().any(|call| call.0 == operation), "{operation:?}");
    }
}

#[tokio::test]
async fn each_operation_fails_once_and_then_works() {
    for operation in Operation::ALL {
        let store = Flaky::new(Arc::new(Memory::default()), [Fault::once(operation)]);
        let failed = use_everything(&store).await;
        assert!(matches!(failed, Err(Error::Unavailable { .. })), "{operation:?}: {failed:?}");
        use_everything(&store).await.unwrap();
    }
}

#[tokio::test]
async fn a_lost_reply_has_acted() {
    let memory = Memory::default();
    let fault = Fault { after_acting: true, ..Fault::once(Operation::Create) };
    let store = Flaky::new(Arc::new(memory.clone()), [fault]);
    let object = key("a/b");
    assert!(store.create(&object, Bytes::from_static(b"body")).await.is_err());
    assert_eq!(&memory.read(&object, 4).await.unwrap()[..], b"body");
}

#[tokio::test]
async fn a_fault_counts_only_the_calls_that_it_is_for() {
    let fault = Fault {
        key_part: "b/".to_owned(),
        calls_before: 1,
        failures: usize::MAX,
        ..Fault::once(Operation::Create)
    };
    let store = Flaky::new(Arc::new(Memory::default()), [fault]);
    let outcome = async |text| store.create(&key(text), Bytes::new()).await.is_ok();
    assert!(outcome("a/1").await && outcome("b/1").await && outcome("a/2").await);
    assert!(!outcome("b/2").await && !outcome("b/3").await);
}

#[test]
fn it_can_be_crashed_before_and_after_an_operation() {
    let polls_to_finish = (1..9).find(|polls| crash_create_after(*polls).1).unwrap();
    assert_eq!(polls_to_finish, 3);
    assert_eq!(crash_create_after(1), (false, false), "before it acted");
    assert_eq!(crash_create_after(2), (true, false), "after it acted");
}

/// Whether the object is there, and whether the caller was told.
fn crash_create_after(polls: usize) -> (bool, bool) {
    let memory = Memory::default();
    let store = Flaky::new(Arc::new(memory.clone()), []);
    let told = run_for(polls, store.create(&key("a"), Bytes::new())).is_some();
    let found = run_for(1, memory.read(&key("a"), 0)).unwrap().is_ok();
    (found, told)
}

/// Each operation at least once, on keys of its own.
async fn use_everything(store: &dyn Store) -> Result<(), Error> {
    let (small, large) = (key("small"), key("large"));
    for object in [&small, &large] {
        store.delete(object).await?;
    }
    store.create(&small, Bytes::from_static(b"body")).await?;
    store.read(&small, 4).await?;
    let body = Bytes::from_static(b"large body");
    put(store, &large, &body).await?;
    assert_eq!(get(store, &large, None).await?, body);
    store.attributes(&large, None).await?;
    store.upload(&large).await?.abort().await?;
    drop(store.upload(&large).await?);
    for unfinished in store.unfinished("").await? {
        store.forget(&unfinished).await?;
    }
    assert_eq!(digests(&body).bytes, body.len() as u64);
    store.list("").await?;
    store.clock().await?;
    store.safeguards().await?;
    store.protection(&small, None).await?;
    for lacking in [store.hold(&small, None, true).await, store.versions("").await.map(drop)] {
        match lacking {
            // What memory answers.
            Err(Error::Unsupported { .. }) => {}
            other => return other,
        }
    }
    store.purge(&small).await?;
    Ok(())
}
