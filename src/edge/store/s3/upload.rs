//! Writing an object that must not exist yet: one request, or parts side by side. Never replaces an object.
//!
//! Each upload marks its object with a random token. A write that is refused because the object
//! exists is a success if the object carries our token: the first reply was lost.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use aws_sdk_s3::{
    primitives::ByteStream,
    types::{
        ChecksumAlgorithm, ChecksumType, CompletedMultipartUpload, CompletedPart,
        ServerSideEncryption, StorageClass,
    },
};
use tokio::{task::JoinSet, time::timeout};

use super::{
    Bucket, Encryption, LockOnPut,
    error::{Action, code, failed},
    length,
};
use crate::{
    domain::{
        catalog::Key,
        digest::{Crc64Nvme, Digests},
    },
    edge::store::{Error, PART_BYTES, Part, Stored, Upload, received::Received},
};

/// Of one object; the process as a whole is bounded by the budget of the parts.
const PARTS_AT_ONCE: usize = 3;
const ABORT_WAIT_MAX: Duration = Duration::from_secs(10);
const NUMBER_MAX: i32 = 10_000;
const RUN: &str = "redis-backup-run";
const TOKEN: &str = "redis-backup-write";

#[derive(Debug)]
pub(super) struct S3Upload {
    bucket: Arc<Bucket>,
    key: Key,
    token: String,
    received: Received,
    /// Set once the first full part has come: an object of several parts.
    upload_id: Option<String>,
    /// The only part of a small object.
    only: Option<Part>,
    sending: JoinSet<Result<CompletedPart, Error>>,
    sent: Vec<CompletedPart>,
    number: i32,
}

/// Sets what `PutObject` and `CreateMultipartUpload` have in common.
macro_rules! with_object_settings {
    ($request:expr, $upload:expr) => {{
        let settings = &$upload.bucket.settings;
        let (encryption, key_id) = match &settings.encryption {
            None => (None, None),
            Some(Encryption::SseS3) => (Some(ServerSideEncryption::Aes256), None),
            Some(Encryption::SseKms { key_id }) => {
                (Some(ServerSideEncryption::AwsKms), key_id.clone())
            }
        };
        $request
            .bucket(&settings.bucket)
            .key($upload.bucket.full($upload.key.as_str()))
            .content_type("application/octet-stream")
            .metadata(RUN, &settings.run)
            .metadata(TOKEN, &$upload.token)
            .set_storage_class(settings.storage_class.as_deref().map(StorageClass::from))
            .set_server_side_encryption(encryption)
            .set_ssekms_key_id(key_id)
            .set_object_lock_mode(settings.lock.map(LockOnPut::mode))
            .set_object_lock_retain_until_date(settings.lock.map(LockOnPut::until))
    }};
}

impl S3Upload {
    pub(super) fn new(bucket: Arc<Bucket>, key: Key) -> Self {
        Self {
            bucket,
            key,
            token: format!("{:016x}", rand::random::<u64>()),
            received: Received::new(),
            upload_id: None,
            only: None,
            sending: JoinSet::new(),
            sent: Vec::new(),
            number: 0,
        }
    }

    fn place(&self) -> String {
        self.bucket.place(self.key.as_str())
    }

    async fn begin(&mut self) -> Result<String, Error> {
        if let Some(id) = &self.upload_id {
            return Ok(id.clone());
        }
        let mut create = with_object_settings!(self.bucket.client.create_multipart_upload(), self);
        if self.bucket.has_checksums() {
            create = create
                .checksum_algorithm(ChecksumAlgorithm::Crc64Nvme)
                .checksum_type(ChecksumType::FullObject);
        }
        let action = Action::CreateMultipartUpload;
        let created = create.send().await.map_err(|error| failed(action, &self.place(), &error))?;
        let id = created.upload_id.ok_or_else(|| Error::Permanent {
            attempt: format!("{action:?} {}", self.place()),
            source: "the answer has no upload id".into(),
        })?;
        self.upload_id = Some(id.clone());
        Ok(id)
    }

    /// Wait until one of the parts in flight has arrived.
    async fn arrived(&mut self) -> Result<(), Error> {
        match self.sending.join_next().await {
            None => Ok(()),
            Some(Ok(part)) => {
                self.sent.push(part?);
                Ok(())
            }
            Some(Err(source)) => Err(Error::Permanent {
                attempt: format!("{:?} {}", Action::UploadPart, self.place()),
                source: source.into(),
            }),
        }
    }

    async fn put(&mut self, crc64nvme: Crc64Nvme) -> Result<Stored, Error> {
        let body = self.only.take().map(|part| part.body).unwrap_or_default();
        let mut put = with_object_settings!(self.bucket.client.put_object(), self)
            .if_none_match("*")
            .body(ByteStream::from(body));
        if self.bucket.has_checksums() {
            put = put.checksum_crc64_nvme(crc64nvme.to_string());
        }
        match put.send().await {
            Ok(put) => Ok(Stored { version_id: put.version_id }),
            Err(error) if code(&error) == "PreconditionFailed" => {
                self.own(failed(Action::PutObject, &self.place(), &error)).await
            }
            Err(error) => Err(failed(Action::PutObject, &self.place(), &error)),
        }
    }

    async fn complete(&mut self, id: String, digests: &Digests) -> Result<Stored, Error> {
        while !self.sending.is_empty() {
            self.arrived().await?;
        }
        let mut parts = std::mem::take(&mut self.sent);
        parts.sort_by_key(|part| part.part_number);
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let mut complete = self.bucket.client.complete_multipart_upload();
        complete = complete
            .bucket(self.bucket.name())
            .key(self.bucket.full(self.key.as_str()))
            .upload_id(id)
            .multipart_upload(parts)
            .if_none_match("*");
        if self.bucket.has_checksums() {
            complete = complete
                .checksum_type(ChecksumType::FullObject)
                .checksum_crc64_nvme(digests.crc64nvme.to_string())
                .set_mpu_object_size(i64::try_from(digests.bytes).ok());
        }
        let action = Action::CompleteMultipartUpload;
        match complete.send().await {
            Ok(completed) => Ok(Stored { version_id: completed.version_id }),
            // An upload that ended is gone: by us, whose reply was lost, or by somebody else.
            Err(error) if matches!(code(&error), "PreconditionFailed" | "NoSuchUpload") => {
                self.own(failed(action, &self.place(), &error)).await
            }
            Err(error) => Err(failed(action, &self.place(), &error)),
        }
    }

    /// What was refused is a success if the object that is there is the one we wrote.
    async fn own(&self, refused: Error) -> Result<Stored, Error> {
        let head = match self.bucket.head(&self.key, None).await {
            Ok(head) => head,
            Err(Error::NotFound { .. }) => return Err(refused),
            Err(error) => return Err(error),
        };
        let token = head.metadata().and_then(|metadata| metadata.get(TOKEN));
        let crc64nvme = self.received.crc64nvme.to_string();
        let is_ours = token == Some(&self.token)
            && length(head.content_length(), || self.place())? == self.received.bytes
            && head.checksum_crc64_nvme().is_none_or(|found| found == crc64nvme);
        if is_ours {
            Ok(Stored { version_id: head.version_id })
        } else {
            Err(Error::AlreadyExists { attempt: format!("write {}", self.place()) })
        }
    }

    /// Where the store compares no checksum, its own word on the length is all there is.
    async fn confirm(&self, stored: &Stored) -> Result<(), Error> {
        if self.bucket.has_checksums() {
            return Ok(());
        }
        let head = self.bucket.head(&self.key, stored.version_id.as_deref()).await?;
        let attempt = || format!("write {}", self.place());
        let found = length(head.content_length(), attempt)?;
        if found == self.received.bytes {
            return Ok(());
        }
        let finding = format!("{found} bytes of {} were stored", self.received.bytes);
        let delete = self.bucket.client.delete_object().bucket(self.bucket.name());
        let delete = delete.key(self.bucket.full(self.key.as_str()));
        let deleted = delete.set_version_id(stored.version_id.clone()).send().await;
        match deleted {
            Ok(_) => Err(Error::Corrupt { attempt: attempt(), finding }),
            Err(error) => Err(failed(Action::DeleteObject, &self.place(), &error)),
        }
    }

    async fn store(&mut self, digests: &Digests) -> Result<Stored, Error> {
        self.received.check(digests, || format!("write {}", self.place()))?;
        let stored = match self.upload_id.clone() {
            None => self.put(digests.crc64nvme).await,
            Some(id) => self.complete(id, digests).await,
        }?;
        self.confirm(&stored).await?;
        Ok(stored)
    }
}

#[async_trait]
impl Upload for S3Upload {
    async fn write(&mut self, part: Part) -> Result<(), Error> {
        let place = self.place();
        let crc64nvme = self.received.take(&part, || format!("write {place}"))?;
        if part.body.len() < PART_BYTES && self.upload_id.is_none() {
            self.only = Some(part);
            return Ok(());
        }
        let id = self.begin().await?;
        while self.sending.len() >= PARTS_AT_ONCE {
            self.arrived().await?;
        }
        if self.number == NUMBER_MAX {
            let source = format!("an object has at most {NUMBER_MAX} parts").into();
            return Err(Error::Permanent { attempt: format!("write {place}"), source });
        }
        self.number += 1;
        let (bucket, key, number) = (Arc::clone(&self.bucket), self.key.clone(), self.number);
        self.sending.spawn(send(bucket, key, id, number, part, crc64nvme));
        Ok(())
    }

    async fn finish(mut self: Box<Self>, digests: Digests) -> Result<Stored, Error> {
        let stored = self.store(&digests).await;
        match &stored {
            // An unreachable store would only be waited for once more; the sweep comes later.
            Ok(_) | Err(Error::Unavailable { .. }) => {}
            Err(
                Error::NotFound { .. }
                | Error::AlreadyExists { .. }
                | Error::Denied { .. }
                | Error::Full { .. }
                | Error::Locked { .. }
                | Error::Unsupported { .. }
                | Error::Corrupt { .. }
                | Error::Permanent { .. },
            ) => {
                // The first error is the one to tell.
                let _ = self.abort().await;
            }
        }
        stored
    }

    async fn abort(mut self: Box<Self>) -> Result<(), Error> {
        // A server may keep a part that it was still taking in when the abort came, and have it paid
        // for. So parts in flight may arrive first; what is too slow is left to the sweep.
        let arrived = async { while self.sending.join_next().await.is_some() {} };
        if timeout(ABORT_WAIT_MAX, arrived).await.is_err() {
            self.sending.shutdown().await;
        }
        match &self.upload_id {
            Some(id) => self.bucket.abort(&self.key, id).await,
            None => Ok(()),
        }
    }
}

async fn send(
    bucket: Arc<Bucket>,
    key: Key,
    upload_id: String,
    number: i32,
    part: Part,
    crc64nvme: Crc64Nvme,
) -> Result<CompletedPart, Error> {
    let Part { body, budget } = part;
    let crc64nvme = bucket.has_checksums().then(|| crc64nvme.to_string());
    let request = bucket.client.upload_part().bucket(bucket.name());
    let sent = request
        .key(bucket.full(key.as_str()))
        .upload_id(upload_id)
        .part_number(number)
        .set_checksum_crc64_nvme(crc64nvme.clone())
        .body(ByteStream::from(body))
        .send()
        .await
        .map_err(|error| failed(Action::UploadPart, &bucket.place(key.as_str()), &error))?;
    drop(budget);
    Ok(CompletedPart::builder()
        .part_number(number)
        .set_e_tag(sent.e_tag)
        .set_checksum_crc64_nvme(crc64nvme)
        .build())
}
