//! A store that forgets when it is dropped, for tests and simulations. Its clock moves only by hand.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use jiff::Timestamp;

use super::{
    Attributes, Download, Error, Listed, NO_LOCKS, NO_VERSIONS, Part, Safeguards, Store, Stored,
    Unfinished, Upload, Version, received::Received,
};
use crate::domain::{
    catalog::Key,
    digest::{Crc64Nvme, Digests},
    lock::Protection,
};

/// Clones share their content.
#[derive(Clone, Debug)]
pub struct Memory {
    content: Arc<Mutex<Content>>,
}

#[derive(Debug)]
struct Content {
    now: Timestamp,
    objects: BTreeMap<Key, Object>,
    uploads: BTreeMap<u64, (Key, Timestamp)>,
    uploads_begun: u64,
}

#[derive(Clone, Debug)]
struct Object {
    body: Bytes,
    modified: Timestamp,
}

#[derive(Debug)]
struct MemoryUpload {
    store: Memory,
    id: u64,
    key: Key,
    body: BytesMut,
    received: Received,
}

#[derive(Debug)]
struct MemoryDownload {
    rest: Bytes,
}

/// Small enough that tests see more than one piece.
const DOWNLOAD_BYTES: usize = 64 << 10;

impl Memory {
    pub fn new(now: Timestamp) -> Self {
        let content =
            Content { now, objects: BTreeMap::new(), uploads: BTreeMap::new(), uploads_begun: 0 };
        Self { content: Arc::new(Mutex::new(content)) }
    }

    /// Let time pass: from here on the store's clock says `now`.
    pub fn set_clock(&self, now: Timestamp) {
        self.content().now = now;
    }

    /// Damage an object behind the store's back.
    pub fn tamper(&self, key: &Key, body: Bytes) {
        if let Some(object) = self.content().objects.get_mut(key) {
            object.body = body;
        }
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&self, key: &Key, body: Bytes) -> Result<Stored, Error> {
        let mut content = self.content();
        let modified = content.now;
        match content.objects.entry(key.clone()) {
            Entry::Vacant(slot) => {
                slot.insert(Object { body, modified });
                Ok(Stored { version_id: None })
            }
            Entry::Occupied(_) => Err(Error::AlreadyExists { attempt: attempt("write", key) }),
        }
    }

    fn object(&self, verb: &str, key: &Key) -> Result<Object, Error> {
        let object = self.content().objects.get(key).cloned();
        object.ok_or_else(|| Error::NotFound { attempt: attempt(verb, key) })
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new(Timestamp::UNIX_EPOCH)
    }
}

#[async_trait]
impl Store for Memory {
    fn address(&self) -> String {
        "memory".to_owned()
    }

    async fn upload(&self, key: &Key) -> Result<Box<dyn Upload>, Error> {
        let mut content = self.content();
        content.uploads_begun += 1;
        let (id, now) = (content.uploads_begun, content.now);
        content.uploads.insert(id, (key.clone(), now));
        Ok(Box::new(MemoryUpload {
            store: self.clone(),
            id,
            key: key.clone(),
            body: BytesMut::new(),
            received: Received::new(),
        }))
    }

    async fn create(&self, key: &Key, body: Bytes) -> Result<Stored, Error> {
        self.insert(key, body)
    }

    async fn read(&self, key: &Key, bytes_max: usize) -> Result<Bytes, Error> {
        let body = self.object("read", key)?.body;
        if body.len() > bytes_max {
            let finding = format!("{} bytes are more than {bytes_max}", body.len());
            return Err(Error::Corrupt { attempt: attempt("read", key), finding });
        }
        Ok(body)
    }

    async fn download(&self, key: &Key, _: Option<&str>) -> Result<Box<dyn Download>, Error> {
        Ok(Box::new(MemoryDownload { rest: self.object("read", key)?.body }))
    }

    async fn attributes(&self, key: &Key, _: Option<&str>) -> Result<Attributes, Error> {
        let Object { body, modified } = self.object("look at", key)?;
        let crc64nvme = Some(Crc64Nvme::of(&body));
        Ok(Attributes { bytes: body.len() as u64, crc64nvme, modified, version_id: None })
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, Error> {
        let content = self.content();
        let below = content.objects.iter().filter(|(key, _)| key.as_str().starts_with(prefix));
        let listed = below.map(|(key, Object { body, modified })| Listed {
            key: key.clone(),
            bytes: body.len() as u64,
            modified: *modified,
        });
        Ok(listed.collect())
    }

    async fn folders(&self) -> Result<Vec<String>, Error> {
        let content = self.content();
        let firsts = content.objects.keys().filter_map(|key| key.as_str().split('/').next());
        let firsts: BTreeSet<String> = firsts.map(str::to_owned).collect();
        Ok(firsts.into_iter().collect())
    }

    async fn delete(&self, key: &Key) -> Result<(), Error> {
        self.content().objects.remove(key);
        Ok(())
    }

    async fn purge(&self, key: &Key) -> Result<(), Error> {
        self.delete(key).await
    }

    async fn protection(&self, key: &Key, _: Option<&str>) -> Result<Protection, Error> {
        self.object("look at", key).map(|_| Protection::default())
    }

    async fn hold(&self, key: &Key, _: Option<&str>, _: bool) -> Result<(), Error> {
        Err(Error::Unsupported { attempt: attempt("hold", key), finding: NO_LOCKS })
    }

    async fn versions(&self, prefix: &str) -> Result<Vec<Version>, Error> {
        let attempt = format!("list the versions of {prefix} in memory");
        Err(Error::Unsupported { attempt, finding: NO_VERSIONS })
    }

    async fn safeguards(&self) -> Result<Safeguards, Error> {
        Ok(Safeguards::default())
    }

    async fn unfinished(&self, prefix: &str) -> Result<Vec<Unfinished>, Error> {
        let content = self.content();
        let below = content.uploads.iter().filter(|(_, (key, _))| key.as_str().starts_with(prefix));
        let unfinished = below.map(|(id, (key, begun))| Unfinished {
            id: id.to_string(),
            key: Some(key.clone()),
            begun: *begun,
        });
        Ok(unfinished.collect())
    }

    async fn forget(&self, unfinished: &Unfinished) -> Result<(), Error> {
        if let Ok(id) = unfinished.id.parse() {
            self.content().uploads.remove(&id);
        }
        Ok(())
    }

    async fn clock(&self) -> Result<Timestamp, Error> {
        Ok(self.content().now)
    }
}

#[async_trait]
impl Upload for MemoryUpload {
    async fn write(&mut self, part: Part) -> Result<(), Error> {
        self.received.take(&part, || attempt("write", &self.key))?;
        self.body.extend_from_slice(&part.body);
        Ok(())
    }

    async fn finish(self: Box<Self>, digests: Digests) -> Result<Stored, Error> {
        let Self { store, id, key, body, received } = *self;
        store.content().uploads.remove(&id);
        received.check(&digests, || attempt("write", &key))?;
        store.insert(&key, body.freeze())
    }

    async fn abort(self: Box<Self>) -> Result<(), Error> {
        self.store.content().uploads.remove(&self.id);
        Ok(())
    }
}

#[async_trait]
impl Download for MemoryDownload {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let length = self.rest.len().min(DOWNLOAD_BYTES);
        Ok(Some(self.rest.split_to(length)))
    }
}

fn attempt(verb: &str, key: &Key) -> String {
    format!("{verb} {key} in memory")
}
