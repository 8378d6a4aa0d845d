//! A wrapper that makes chosen operations of a store fail, before or after they act. Never fails by chance.
//!
//! An operation that failed *after* it acted is a lost reply: the caller sees a failure, the store has
//! done it. Each operation has an await point before and after it acts, so that a test can also drop
//! the future there.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use tokio::task::yield_now;

use super::{
    Attributes, Download, Error, Listed, Part, Safeguards, Store, Stored, Unfinished, Upload,
    Version,
};
use crate::domain::{catalog::Key, digest::Digests, lock::Protection};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// Begin an upload.
    Upload,
    /// A part of an upload.
    Write,
    Finish,
    Abort,
    Create,
    Read,
    /// Begin a download.
    Download,
    /// A piece of a download.
    Next,
    Attributes,
    List,
    Delete,
    Purge,
    Protection,
    Hold,
    Versions,
    Safeguards,
    Unfinished,
    Forget,
    Clock,
}

impl Operation {
    pub const ALL: [Self; 19] = [
        Self::Upload,
        Self::Write,
        Self::Finish,
        Self::Abort,
        Self::Create,
        Self::Read,
        Self::Download,
        Self::Next,
        Self::Attributes,
        Self::List,
        Self::Delete,
        Self::Purge,
        Self::Protection,
        Self::Hold,
        Self::Versions,
        Self::Safeguards,
        Self::Unfinished,
        Self::Forget,
        Self::Clock,
    ];
}

/// Which call fails, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub operation: Operation,
    /// Calls whose key does not hold this text are left alone and not counted.
    pub key_part: String,
    /// So many calls succeed first.
    pub calls_before: usize,
    /// So many calls fail then; `usize::MAX` is for ever.
    pub failures: usize,
    /// The store acts, and the reply is lost.
    pub after_acting: bool,
}

impl Fault {
    /// The first call fails once, before it acts.
    pub fn once(operation: Operation) -> Self {
        Self {
            operation,
            key_part: String::new(),
            calls_before: 0,
            failures: 1,
            after_acting: false,
        }
    }
}

/// Fails as its faults say, and tells which calls came.
#[derive(Clone, Debug)]
pub struct Flaky {
    inner: Arc<dyn Store>,
    script: Script,
}

#[derive(Clone, Debug)]
struct Script {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    /// Each with the number of its calls so far.
    faults: Vec<(Fault, usize)>,
    calls: Vec<(Operation, String)>,
    has_failed: bool,
}

#[derive(Debug)]
struct FlakyUpload {
    inner: Box<dyn Upload>,
    key: Key,
    script: Script,
}

#[derive(Debug)]
struct FlakyDownload {
    inner: Box<dyn Download>,
    key: Key,
    script: Script,
}

impl Flaky {
    pub fn new(inner: Arc<dyn Store>, faults: impl IntoIterator<Item = Fault>) -> Self {
        let faults = faults.into_iter().map(|fault| (fault, 0)).collect();
        let state = Mutex::new(State { faults, calls: Vec::new(), has_failed: false });
        Self { inner, script: Script { state: Arc::new(state) } }
    }

    /// Whether any call met a fault.
    pub fn has_failed(&self) -> bool {
        self.script.state.lock().unwrap_or_else(PoisonError::into_inner).has_failed
    }

    /// Every call so far with its key, prefix or upload id, also the failed ones.
    pub fn calls(&self) -> Vec<(Operation, String)> {
        self.script.state.lock().unwrap_or_else(PoisonError::into_inner).calls.clone()
    }
}

impl Script {
    async fn run<T>(
        &self,
        operation: Operation,
        subject: &str,
        action: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let verdict = self.verdict(operation, subject);
        yield_now().await;
        let failure = || Error::Unavailable {
            attempt: format!("{operation:?} {subject}"),
            source: io::Error::other("a fault that was asked for").into(),
        };
        let result = match verdict {
            None => action.await,
            Some(false) => Err(failure()),
            Some(true) => action.await.and_then(|_| Err(failure())),
        };
        yield_now().await;
        result
    }

    /// Whether this call fails, and if so, whether after it acted.
    fn verdict(&self, operation: Operation, subject: &str) -> Option<bool> {
        let state = &mut *self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.calls.push((operation, subject.to_owned()));
        let mut verdict = None;
        for (fault, calls) in &mut state.faults {
            if fault.operation != operation || !subject.contains(&fault.key_part) {
                continue;
            }
            let failing = fault.calls_before..fault.calls_before.saturating_add(fault.failures);
            if failing.contains(calls) {
                verdict = Some(fault.after_acting);
            }
            *calls += 1;
        }
        state.has_failed |= verdict.is_some();
        verdict
    }
}

#[async_trait]
impl Store for Flaky {
    fn address(&self) -> String {
        self.inner.address()
    }

    async fn upload(&self, key: &Key) -> Result<Box<dyn Upload>, Error> {
        let action = self.inner.upload(key);
        let inner = self.script.run(Operation::Upload, key.as_str(), action).await?;
        Ok(Box::new(FlakyUpload { inner, key: key.clone(), script: self.script.clone() }))
    }

    async fn create(&self, key: &Key, body: Bytes) -> Result<Stored, Error> {
        let action = self.inner.create(key, body);
        self.script.run(Operation::Create, key.as_str(), action).await
    }

    async fn read(&self, key: &Key, bytes_max: usize) -> Result<Bytes, Error> {
        let action = self.inner.read(key, bytes_max);
        self.script.run(Operation::Read, key.as_str(), action).await
    }

    async fn download(
        &self,
        key: &Key,
        version_id: Option<&str>,
    ) -> Result<Box<dyn Download>, Error> {
        let action = self.inner.download(key, version_id);
        let inner = self.script.run(Operation::Download, key.as_str(), action).await?;
        Ok(Box::new(FlakyDownload { inner, key: key.clone(), script: self.script.clone() }))
    }

    async fn attributes(&self, key: &Key, version_id: Option<&str>) -> Result<Attributes, Error> {
        let action = self.inner.attributes(key, version_id);
        self.script.run(Operation::Attributes, key.as_str(), action).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, Error> {
        self.script.run(Operation::List, prefix, self.inner.list(prefix)).await
    }

    async fn folders(&self) -> Result<Vec<String>, Error> {
        self.script.run(Operation::List, "", self.inner.folders()).await
    }

    async fn delete(&self, key: &Key) -> Result<(), Error> {
        self.script.run(Operation::Delete, key.as_str(), self.inner.delete(key)).await
    }

    async fn purge(&self, key: &Key) -> Result<(), Error> {
        self.script.run(Operation::Purge, key.as_str(), self.inner.purge(key)).await
    }

    async fn protection(&self, key: &Key, version_id: Option<&str>) -> Result<Protection, Error> {
        let action = self.inner.protection(key, version_id);
        self.script.run(Operation::Protection, key.as_str(), action).await
    }

    async fn hold(&self, key: &Key, version_id: Option<&str>, is_held: bool) -> Result<(), Error> {
        let action = self.inner.hold(key, version_id, is_held);
        self.script.run(Operation::Hold, key.as_str(), action).await
    }

    async fn versions(&self, prefix: &str) -> Result<Vec<Version>, Error> {
        self.script.run(Operation::Versions, prefix, self.inner.versions(prefix)).await
    }

    async fn safeguards(&self) -> Result<Safeguards, Error> {
        self.script.run(Operation::Safeguards, "", self.inner.safeguards()).await
    }

    async fn unfinished(&self, prefix: &str) -> Result<Vec<Unfinished>, Error> {
        self.script.run(Operation::Unfinished, prefix, self.inner.unfinished(prefix)).await
    }

    async fn forget(&self, unfinished: &Unfinished) -> Result<(), Error> {
        let action = self.inner.forget(unfinished);
        self.script.run(Operation::Forget, &unfinished.id, action).await
    }

    async fn clock(&self) -> Result<Timestamp, Error> {
        self.script.run(Operation::Clock, "", self.inner.clock()).await
    }
}

#[async_trait]
impl Upload for FlakyUpload {
    async fn write(&mut self, part: Part) -> Result<(), Error> {
        let action = self.inner.write(part);
        self.script.run(Operation::Write, self.key.as_str(), action).await
    }

    async fn finish(self: Box<Self>, digests: Digests) -> Result<Stored, Error> {
        let Self { inner, key, script } = *self;
        script.run(Operation::Finish, key.as_str(), inner.finish(digests)).await
    }

    async fn abort(self: Box<Self>) -> Result<(), Error> {
        let Self { inner, key, script } = *self;
        script.run(Operation::Abort, key.as_str(), inner.abort()).await
    }
}

#[async_trait]
impl Download for FlakyDownload {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let action = self.inner.next();
        self.script.run(Operation::Next, self.key.as_str(), action).await
    }
}
