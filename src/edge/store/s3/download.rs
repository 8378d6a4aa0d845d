//! Reading an object, also over a line that breaks: goes on where it stood, at the same version. Checks no digest.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use tokio::time::sleep;

use super::{Bucket, length};
use crate::{
    domain::catalog::Key,
    edge::store::{Download, Error, PART_BYTES},
};

/// Broken transfers in a row, less than [`PART_BYTES`] apart, before it is given up.
const RESUMES_MAX: u32 = 8;
const RESUME_DELAY: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct S3Download {
    bucket: Arc<Bucket>,
    key: Key,
    version_id: Option<String>,
    etag: Option<String>,
    body: ByteStream,
    /// Bytes handed out so far.
    at: u64,
    total: u64,
    resumes: u32,
    /// Where the first of these resumes was.
    resumed_at: u64,
}

impl S3Download {
    pub(super) async fn begin(
        bucket: Arc<Bucket>,
        key: Key,
        version_id: Option<&str>,
    ) -> Result<Self, Error> {
        let found = bucket.get(&key, version_id, None, None).await?;
        let attempt = || format!("GetObject {}", bucket.place(key.as_str()));
        let total = length(found.content_length, attempt)?;
        Ok(Self {
            bucket,
            key,
            version_id: version_id.map(str::to_owned).or(found.version_id),
            etag: found.e_tag,
            body: found.body,
            at: 0,
            total,
            resumes: 0,
            resumed_at: 0,
        })
    }

    /// The version that is read, where the store keeps versions.
    pub(super) fn version_id(&self) -> Option<&str> {
        self.version_id.as_deref()
    }

    fn attempt(&self) -> String {
        format!("GetObject {} from byte {}", self.bucket.place(self.key.as_str()), self.at)
    }

    async fn resume(&mut self, cause: String) -> Result<(), Error> {
        if self.at - self.resumed_at >= PART_BYTES as u64 {
            self.resumes = 0;
        }
        if self.resumes == 0 {
            self.resumed_at = self.at;
        }
        if self.resumes == RESUMES_MAX {
            return Err(Error::Unavailable { attempt: self.attempt(), source: cause.into() });
        }
        sleep(RESUME_DELAY * 2_u32.pow(self.resumes)).await;
        self.resumes += 1;
        let range = Some(format!("bytes={}-", self.at));
        let (version_id, etag) = (self.version_id.as_deref(), self.etag.as_deref());
        let found = self.bucket.get(&self.key, version_id, range, etag).await?;
        let promised = format!("bytes {}-{}/{}", self.at, self.total - 1, self.total);
        if found.content_range.as_deref() != Some(promised.as_str()) {
            let finding = format!("asked for {promised}, the answer has {:?}", found.content_range);
            return Err(Error::Corrupt { attempt: self.attempt(), finding });
        }
        self.body = found.body;
        Ok(())
    }
}

#[async_trait]
impl Download for S3Download {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        while self.at < self.total {
            match self.body.next().await {
                Some(Ok(piece)) if piece.is_empty() => {}
                Some(Ok(piece)) => {
                    self.at += piece.len() as u64;
                    return Ok(Some(piece));
                }
                Some(Err(error)) => self.resume(error.to_string()).await?,
                None => self.resume("the transfer ended too early".to_owned()).await?,
            }
        }
        Ok(None)
    }
}
