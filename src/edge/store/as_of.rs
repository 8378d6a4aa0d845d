//! A store as it was at a moment, behind the markers and versions that came later. Changes nothing.

use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

use super::{
    Attributes, Download, Error, Listed, Safeguards, Store, Stored, Unfinished, Upload, Version,
    Versioning, read_whole,
};
use crate::domain::{catalog::Key, lock::Protection};

/// Looks into a store that keeps versions.
#[derive(Clone, Debug)]
pub struct AsOf {
    inner: Arc<dyn Store>,
    at: Timestamp,
}

const PAST: &str = "the past cannot be changed; leave --as-of out";

impl AsOf {
    /// Fails where the store keeps no versions.
    pub async fn new(inner: Arc<dyn Store>, at: Timestamp) -> Result<Self, Error> {
        match inner.safeguards().await {
            // Without the right to ask, the versions themselves tell.
            Ok(Safeguards { versions: Versioning::Enabled | Versioning::Suspended, .. })
            | Err(Error::Denied { .. }) => Ok(Self { inner, at }),
            Ok(Safeguards { versions: Versioning::Never, .. }) => Err(Error::Unsupported {
                attempt: format!("look into the past of {}", inner.address()),
                finding: super::NO_VERSIONS,
            }),
            Err(error) => Err(error),
        }
    }

    /// Of each key that was to be seen then, its first version: we overwrite nothing.
    async fn seen(&self, prefix: &str) -> Result<Vec<Version>, Error> {
        let mut versions = self.inner.versions(prefix).await?;
        versions.retain(|version| version.modified <= self.at);
        let of_one_key = versions.chunk_by(|one, other| one.key == other.key);
        let seen = of_one_key.filter(|versions| versions.first().is_some_and(|it| !it.is_marker));
        Ok(seen.filter_map(|versions| versions.iter().rfind(|it| !it.is_marker)).cloned().collect())
    }

    async fn seen_one(&self, verb: &str, key: &Key) -> Result<Version, Error> {
        let seen = self.seen(key.as_str()).await?.into_iter().find(|version| version.key == *key);
        seen.ok_or_else(|| Error::NotFound {
            attempt: format!("{verb} {key} in {} as of {}", self.inner.address(), self.at),
        })
    }

    async fn version_id(
        &self,
        verb: &str,
        key: &Key,
        given: Option<&str>,
    ) -> Result<String, Error> {
        if let Some(version_id) = given {
            return Ok(version_id.to_owned());
        }
        Ok(self.seen_one(verb, key).await?.version_id)
    }

    fn unchangeable<T>(&self, verb: &str, subject: &str) -> Result<T, Error> {
        let attempt = format!("{verb} {subject} in {}", self.inner.address());
        Err(Error::Unsupported { attempt, finding: PAST })
    }
}

#[async_trait]
impl Store for AsOf {
    fn address(&self) -> String {
        self.inner.address()
    }

    async fn upload(&self, key: &Key) -> Result<Box<dyn Upload>, Error> {
        self.unchangeable("write", key.as_str())
    }

    async fn create(&self, key: &Key, _: Bytes) -> Result<Stored, Error> {
        self.unchangeable("write", key.as_str())
    }

    async fn read(&self, key: &Key, bytes_max: usize) -> Result<Bytes, Error> {
        let attempt = || format!("read {key} in {}", self.inner.address());
        read_whole(&mut *self.download(key, None).await?, bytes_max, attempt).await
    }

    async fn download(
        &self,
        key: &Key,
        version_id: Option<&str>,
    ) -> Result<Box<dyn Download>, Error> {
        let version_id = self.version_id("read", key, version_id).await?;
        self.inner.download(key, Some(&version_id)).await
    }

    async fn attributes(&self, key: &Key, version_id: Option<&str>) -> Result<Attributes, Error> {
        let version_id = self.version_id("look at", key, version_id).await?;
        self.inner.attributes(key, Some(&version_id)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, Error> {
        let seen = self.seen(prefix).await?.into_iter();
        let listed = seen.map(|Version { key, version_id: _, is_marker: _, bytes, modified }| {
            Listed { key, bytes, modified }
        });
        Ok(listed.collect())
    }

    async fn folders(&self) -> Result<Vec<String>, Error> {
        let seen = self.seen("").await?;
        let firsts = seen.iter().filter_map(|version| version.key.as_str().split('/').next());
        let firsts: BTreeSet<String> = firsts.map(str::to_owned).collect();
        Ok(firsts.into_iter().collect())
    }

    async fn delete(&self, key: &Key) -> Result<(), Error> {
        self.unchangeable("delete", key.as_str())
    }

    async fn purge(&self, key: &Key) -> Result<(), Error> {
        self.unchangeable("delete", key.as_str())
    }

    async fn protection(&self, key: &Key, version_id: Option<&str>) -> Result<Protection, Error> {
        let version_id = self.version_id("look at", key, version_id).await?;
        self.inner.protection(key, Some(&version_id)).await
    }

    async fn hold(&self, key: &Key, _: Option<&str>, _: bool) -> Result<(), Error> {
        self.unchangeable("hold", key.as_str())
    }

    async fn versions(&self, prefix: &str) -> Result<Vec<Version>, Error> {
        let mut versions = self.inner.versions(prefix).await?;
        versions.retain(|version| version.modified <= self.at);
        Ok(versions)
    }

    async fn safeguards(&self) -> Result<Safeguards, Error> {
        self.inner.safeguards().await
    }

    /// Nobody remembers which uploads were under way then.
    async fn unfinished(&self, _: &str) -> Result<Vec<Unfinished>, Error> {
        Ok(Vec::new())
    }

    async fn forget(&self, unfinished: &Unfinished) -> Result<(), Error> {
        self.unchangeable("forget upload", &unfinished.id)
    }

    async fn clock(&self) -> Result<Timestamp, Error> {
        self.inner.clock().await
    }
}
