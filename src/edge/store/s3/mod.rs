//! S3 and servers that speak it, through AWS's own client. Writes no object that exists, keeps no credentials.

mod client;
mod download;
mod error;
mod lock;
mod settings;
mod upload;

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use async_trait::async_trait;
use aws_sdk_s3::{
    Client,
    config::SharedCredentialsProvider,
    operation::{get_object::GetObjectOutput, head_object::HeadObjectOutput},
    primitives::DateTime,
    types::ChecksumMode,
};
use bytes::Bytes;
use jiff::Timestamp;

use self::{
    client::ServerClock,
    download::S3Download,
    error::{Action, failed},
    upload::S3Upload,
};
use super::{
    Attributes, Download, Error, LISTED_MAX, Listed, Safeguards, Store, Stored, Unfinished, Upload,
    Version, read_whole, write_whole,
};
use crate::domain::{catalog::Key, lock::Protection};

pub use self::{
    lock::LockOnPut,
    settings::{Checksums, Encryption, S3Settings},
};

/// A bucket, or what lies below a prefix of it.
#[derive(Clone, Debug)]
pub struct S3 {
    bucket: Arc<Bucket>,
}

struct Bucket {
    client: Client,
    settings: S3Settings,
    /// Set once the bucket has said that it knows no locks.
    lockless: OnceLock<()>,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client: _, settings, lockless: _ } = self;
        f.debug_tuple("Bucket").field(settings).finish()
    }
}

impl S3 {
    /// Find credentials and region, and make a client. Sends no request to the bucket.
    pub async fn connect(settings: S3Settings) -> Result<Self, Error> {
        Self::connect_as(settings, None).await
    }

    /// The same, with credentials of the caller's instead of those that the usual chain finds.
    pub async fn connect_as(
        mut settings: S3Settings,
        credentials: Option<SharedCredentialsProvider>,
    ) -> Result<Self, Error> {
        let prefix = settings.prefix.trim_matches('/');
        settings.prefix = prefix.to_owned();
        let client = client::connect(&settings, credentials).await?;
        Ok(Self { bucket: Arc::new(Bucket { client, settings, lockless: OnceLock::new() }) })
    }

    /// An object as it was when its key was new.
    async fn first(&self, key: &Key) -> Result<S3Download, Error> {
        let newest = S3Download::begin(Arc::clone(&self.bucket), key.clone(), None).await?;
        // None where versions were never on.
        let Some(id) = newest.version_id() else { return Ok(newest) };
        match self.bucket.first_version(key).await? {
            Some(first) if first != id => {
                let place = self.bucket.place(key.as_str());
                tracing::warn!("{place} was overwritten by somebody; its first version is read");
                let bucket = Arc::clone(&self.bucket);
                S3Download::begin(bucket, key.clone(), Some(&first)).await
            }
            Some(_) | None => Ok(newest),
        }
    }
}

impl Bucket {
    fn name(&self) -> &str {
        &self.settings.bucket
    }

    /// The key with the configured prefix before it; also of a part of a key.
    fn full(&self, key: &str) -> String {
        match self.settings.prefix.as_str() {
            "" => key.to_owned(),
            prefix => format!("{prefix}/{key}"),
        }
    }

    /// The inverse of [`Bucket::full`]. Objects of others in the same bucket are not ours.
    fn key(&self, full: &str) -> Option<Key> {
        match self.settings.prefix.as_str() {
            "" => full.parse().ok(),
            prefix => full.strip_prefix(prefix)?.strip_prefix('/')?.parse().ok(),
        }
    }

    /// `s3://bucket/key` for people.
    fn place(&self, key: &str) -> String {
        format!("s3://{}/{}", self.name(), self.full(key))
    }

    fn has_checksums(&self) -> bool {
        match self.settings.checksums {
            Checksums::WhenSupported => true,
            Checksums::WhenRequired => false,
        }
    }

    async fn head(&self, key: &Key, version_id: Option<&str>) -> Result<HeadObjectOutput, Error> {
        let head = self.client.head_object().bucket(self.name()).key(self.full(key.as_str()));
        head.set_version_id(version_id.map(str::to_owned))
            .set_checksum_mode(self.has_checksums().then_some(ChecksumMode::Enabled))
            .send()
            .await
            .map_err(|error| failed(Action::HeadObject, &self.place(key.as_str()), &error))
    }

    async fn get(
        &self,
        key: &Key,
        version_id: Option<&str>,
        range: Option<String>,
        etag: Option<&str>,
    ) -> Result<GetObjectOutput, Error> {
        let get = self.client.get_object().bucket(self.name()).key(self.full(key.as_str()));
        get.set_version_id(version_id.map(str::to_owned))
            .set_range(range)
            .set_if_match(etag.map(str::to_owned))
            .send()
            .await
            .map_err(|error| failed(Action::GetObject, &self.place(key.as_str()), &error))
    }

    async fn abort(&self, key: &Key, upload_id: &str) -> Result<(), Error> {
        let abort = self.client.abort_multipart_upload().bucket(self.name());
        let aborted = abort.key(self.full(key.as_str())).upload_id(upload_id).send().await;
        match aborted {
            Err(error) if error::code(&error) == "NoSuchUpload" => Ok(()),
            aborted => aborted.map(drop).map_err(|error| {
                failed(Action::AbortMultipartUpload, &self.place(key.as_str()), &error)
            }),
        }
    }
}

#[async_trait]
impl Store for S3 {
    fn address(&self) -> String {
        self.bucket.place("").trim_end_matches('/').to_owned()
    }

    async fn upload(&self, key: &Key) -> Result<Box<dyn Upload>, Error> {
        Ok(Box::new(S3Upload::new(Arc::clone(&self.bucket), key.clone())))
    }

    async fn create(&self, key: &Key, body: Bytes) -> Result<Stored, Error> {
        write_whole(self.upload(key).await?, body).await
    }

    async fn read(&self, key: &Key, bytes_max: usize) -> Result<Bytes, Error> {
        let attempt = || format!("read {}", self.bucket.place(key.as_str()));
        read_whole(&mut self.first(key).await?, bytes_max, attempt).await
    }

    async fn download(
        &self,
        key: &Key,
        version_id: Option<&str>,
    ) -> Result<Box<dyn Download>, Error> {
        let bucket = Arc::clone(&self.bucket);
        Ok(Box::new(S3Download::begin(bucket, key.clone(), version_id).await?))
    }

    async fn attributes(&self, key: &Key, version_id: Option<&str>) -> Result<Attributes, Error> {
        let head = self.bucket.head(key, version_id).await?;
        let attempt = || format!("HeadObject {}", self.bucket.place(key.as_str()));
        let crc64nvme = head.checksum_crc64_nvme().filter(|_| self.bucket.has_checksums());
        let crc64nvme = crc64nvme
            .map(str::parse)
            .transpose()
            .map_err(|source| Error::Permanent { attempt: attempt(), source: Box::new(source) })?;
        Ok(Attributes {
            bytes: length(head.content_length(), attempt)?,
            crc64nvme,
            modified: timestamp(head.last_modified(), attempt)?,
            version_id: head.version_id,
        })
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, Error> {
        let bucket = &self.bucket;
        let (place, mut listed, mut page) = (bucket.place(prefix), Vec::new(), None);
        let attempt = || format!("ListObjectsV2 {place}");
        loop {
            let list = bucket.client.list_objects_v2().bucket(bucket.name());
            let list = list.prefix(bucket.full(prefix)).set_continuation_token(page);
            let found =
                list.send().await.map_err(|error| failed(Action::ListObjectsV2, &place, &error))?;
            for object in found.contents() {
                let Some(key) = object.key().and_then(|key| bucket.key(key)) else { continue };
                let bytes = length(object.size(), attempt)?;
                let modified = timestamp(object.last_modified(), attempt)?;
                listed.push(Listed { key, bytes, modified });
            }
            if listed.len() > LISTED_MAX {
                let source = format!("more than {LISTED_MAX} objects").into();
                return Err(Error::Permanent { attempt: attempt(), source });
            }
            page = found.next_continuation_token;
            if page.is_none() {
                break;
            }
        }
        // Servers other than AWS may order by other rules.
        listed.sort_by(|one, other| one.key.cmp(&other.key));
        Ok(listed)
    }

    async fn folders(&self) -> Result<Vec<String>, Error> {
        let bucket = &self.bucket;
        let (place, mut folders, mut page) = (bucket.place(""), Vec::new(), None);
        loop {
            let list = bucket.client.list_objects_v2().bucket(bucket.name()).delimiter("/");
            let list = list.prefix(bucket.full("")).set_continuation_token(page);
            let found =
                list.send().await.map_err(|error| failed(Action::ListObjectsV2, &place, &error))?;
            let prefixes = found.common_prefixes().iter().filter_map(|it| it.prefix());
            let own = prefixes.filter_map(|it| it.strip_prefix(bucket.full("").as_str()));
            folders.extend(own.map(|it| it.trim_end_matches('/').to_owned()));
            page = found.next_continuation_token;
            if page.is_none() || folders.len() > LISTED_MAX {
                break;
            }
        }
        folders.sort_unstable();
        Ok(folders)
    }

    async fn delete(&self, key: &Key) -> Result<(), Error> {
        self.bucket.delete(key).await
    }

    async fn purge(&self, key: &Key) -> Result<(), Error> {
        self.bucket.purge(key).await
    }

    async fn protection(&self, key: &Key, version_id: Option<&str>) -> Result<Protection, Error> {
        self.bucket.protection(key, version_id).await
    }

    async fn hold(&self, key: &Key, version_id: Option<&str>, is_held: bool) -> Result<(), Error> {
        self.bucket.hold(key, version_id, is_held).await
    }

    async fn versions(&self, prefix: &str) -> Result<Vec<Version>, Error> {
        self.bucket.versions(prefix).await
    }

    async fn safeguards(&self) -> Result<Safeguards, Error> {
        self.bucket.safeguards().await
    }

    async fn unfinished(&self, prefix: &str) -> Result<Vec<Unfinished>, Error> {
        let bucket = &self.bucket;
        let (place, mut unfinished) = (bucket.place(prefix), Vec::new());
        let attempt = || format!("ListMultipartUploads {place}");
        let (mut key_marker, mut id_marker) = (None, None);
        loop {
            let list = bucket.client.list_multipart_uploads().bucket(bucket.name());
            let list = list.prefix(bucket.full(prefix));
            let list = list.set_key_marker(key_marker).set_upload_id_marker(id_marker);
            let found = list
                .send()
                .await
                .map_err(|error| failed(Action::ListMultipartUploads, &place, &error))?;
            for upload in found.uploads() {
                let (Some(key), Some(id)) = (upload.key(), upload.upload_id()) else { continue };
                let Some(key) = bucket.key(key) else { continue };
                let begun = timestamp(upload.initiated(), attempt)?;
                unfinished.push(Unfinished { id: id.to_owned(), key: Some(key), begun });
            }
            if unfinished.len() > LISTED_MAX {
                let source = format!("more than {LISTED_MAX} uploads").into();
                return Err(Error::Permanent { attempt: attempt(), source });
            }
            if !found.is_truncated.unwrap_or(false) || found.next_key_marker.is_none() {
                return Ok(unfinished);
            }
            (key_marker, id_marker) = (found.next_key_marker, found.next_upload_id_marker);
        }
    }

    async fn forget(&self, unfinished: &Unfinished) -> Result<(), Error> {
        match &unfinished.key {
            Some(key) => self.bucket.abort(key, &unfinished.id).await,
            // This store names none without its key.
            None => Err(Error::NotFound { attempt: format!("abort upload {:?}", unfinished.id) }),
        }
    }

    /// The date of an answer to the smallest listing. An answer that refuses carries it as well, so
    /// that a clock too far off for a signature can still be told.
    async fn clock(&self) -> Result<Timestamp, Error> {
        let (bucket, clock) = (&self.bucket, ServerClock::default());
        let place = bucket.place("");
        let list = bucket.client.list_objects_v2().bucket(bucket.name());
        let list = list.prefix(bucket.full("")).max_keys(1);
        let answer = list.customize().interceptor(clock.clone()).send().await;
        match answer {
            Err(error) if error::code(&error) != "RequestTimeTooSkewed" => {
                Err(failed(Action::ListObjectsV2, &place, &error))
            }
            Ok(_) | Err(_) => clock.now().ok_or_else(|| Error::Permanent {
                attempt: format!("ask {place} for its time"),
                source: "the answer has no Date".into(),
            }),
        }
    }
}

fn length(found: Option<i64>, attempt: impl Fn() -> String) -> Result<u64, Error> {
    found.and_then(|length| u64::try_from(length).ok()).ok_or_else(|| Error::Permanent {
        attempt: attempt(),
        source: "the answer has no length".into(),
    })
}

fn timestamp(found: Option<&DateTime>, attempt: impl Fn() -> String) -> Result<Timestamp, Error> {
    found.and_then(|found| Timestamp::from_second(found.secs()).ok()).ok_or_else(|| {
        Error::Permanent { attempt: attempt(), source: "the answer has no time".into() }
    })
}
