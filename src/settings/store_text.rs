//! A store given as one text: a directory or `s3://bucket/prefix?…`. Opens nothing.

use std::path::PathBuf;

use url::Url;

use super::{
    Checksums, Error, ObjectLock, S3, ServerSideEncryption, StoreKind, check_lock,
    check_upload_limit,
};
use crate::domain::lock::LockMode;

/// None when the text has neither the form of a path nor of a URL, and so can only be a name.
pub(super) fn parse(text: &str) -> Result<Option<StoreKind>, Error> {
    if text.starts_with("s3://") {
        return s3(text).map(|s3| Some(StoreKind::S3(s3)));
    }
    if let Some(path) = text.strip_prefix("file://") {
        return Ok(Some(StoreKind::Directory(PathBuf::from(path))));
    }
    if text.contains("://") {
        return Err(Error::StoreText {
            text: text.to_owned(),
            finding: "only s3:// and file:// are known".to_owned(),
        });
    }
    let is_path = text.contains('/') || matches!(text, "." | "..");
    Ok(is_path.then(|| StoreKind::Directory(PathBuf::from(text))))
}

fn s3(text: &str) -> Result<S3, Error> {
    let failed = |finding: String| Error::StoreText { text: text.to_owned(), finding };
    let url = Url::parse(text).map_err(|error| failed(error.to_string()))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Error::StoreText {
            text: "s3://…".to_owned(),
            finding:
                "credentials come from the AWS chain (environment, profile, role), never from a URL"
                    .to_owned(),
        });
    }
    let mut s3 = S3 {
        bucket: url.host_str().unwrap_or_default().to_owned(),
        prefix: url.path().trim_matches('/').to_owned(),
        ..S3::default()
    };
    if s3.bucket.is_empty() {
        return Err(failed("the bucket is missing: s3://bucket/prefix".to_owned()));
    }
    for (key, value) in url.query_pairs() {
        let value = value.into_owned();
        match &*key {
            "region" => s3.region = Some(value),
            "endpoint" => s3.endpoint = Some(value),
            "caFile" => s3.ca_file = Some(PathBuf::from(value)),
            "storageClass" => s3.storage_class = Some(value),
            "pathStyle" => {
                s3.force_path_style = Some(
                    value.parse().map_err(|_| failed("pathStyle is true or false".to_owned()))?,
                );
            }
            "checksums" => {
                s3.checksums = match value.as_str() {
                    "when-supported" => Checksums::WhenSupported,
                    "when-required" => Checksums::WhenRequired,
                    _ => return Err(failed("checksums is when-supported or when-required".into())),
                };
            }
            "encryption" => {
                s3.server_side_encryption = Some(match value.split_once(':') {
                    None if value == "sse-s3" => ServerSideEncryption::SseS3 {},
                    None if value == "sse-kms" => ServerSideEncryption::SseKms { key_id: None },
                    Some(("sse-kms", id)) => {
                        ServerSideEncryption::SseKms { key_id: Some(id.to_owned()) }
                    }
                    _ => return Err(failed("encryption is sse-s3, sse-kms or sse-kms:KEY".into())),
                });
            }
            "uploadMaxPerSecond" => {
                let limit = value
                    .parse()
                    .map_err(|_| failed("uploadMaxPerSecond is a size such as 50MiB".to_owned()))?;
                check_upload_limit(Some(limit)).map_err(|finding| failed(finding.to_owned()))?;
                s3.upload_max_per_second = Some(limit);
            }
            "objectLock" => {
                s3.object_lock = Some(object_lock(&value).ok_or_else(|| {
                    failed("objectLock is governance:DAYS or compliance:DAYS".to_owned())
                })?);
            }
            _ => {
                return Err(failed(format!(
                    "{key:?} is not known: use region, endpoint, caFile, storageClass, pathStyle, checksums, encryption, objectLock, uploadMaxPerSecond"
                )));
            }
        }
    }
    check_lock(&s3).map_err(|(_, finding)| failed(finding.to_owned()))?;
    Ok(s3)
}

/// Such as `governance:30`.
fn object_lock(text: &str) -> Option<ObjectLock> {
    let (mode, days) = text.split_once(':')?;
    let mode = match mode {
        "governance" => LockMode::Governance,
        "compliance" => LockMode::Compliance,
        _ => return None,
    };
    Some(ObjectLock { mode, days: days.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_urls_and_names_are_told_apart() {
        assert!(matches!(parse("./backups").unwrap(), Some(StoreKind::Directory(_))));
        assert!(matches!(parse("file:///backups").unwrap(), Some(StoreKind::Directory(_))));
        assert!(parse("disk").unwrap().is_none());
        let text = "s3://b/some/prefix?endpoint=http://127.0.0.1:9000&pathStyle=true&region=x";
        let Some(StoreKind::S3(s3)) = parse(text).unwrap() else { panic!("not S3") };
        assert_eq!((s3.bucket.as_str(), s3.prefix.as_str()), ("b", "some/prefix"));
        assert_eq!(s3.endpoint.as_deref(), Some("http://127.0.0.1:9000"));
        assert_eq!(s3.force_path_style, Some(true));
        let text = "s3://b?checksums=when-required&encryption=sse-kms:alias/backups";
        let Some(StoreKind::S3(s3)) = parse(text).unwrap() else { panic!("not S3") };
        assert_eq!(s3.checksums, Checksums::WhenRequired);
        let Some(ServerSideEncryption::SseKms { key_id: Some(id) }) = s3.server_side_encryption
        else {
            panic!("not SSE-KMS")
        };
        assert_eq!(id, "alias/backups");
        let Some(StoreKind::S3(s3)) = parse("s3://b?objectLock=governance:30").unwrap() else {
            panic!("not S3")
        };
        let lock = ObjectLock { mode: LockMode::Governance, days: 30 };
        assert_eq!(s3.object_lock, Some(lock));
    }

    #[test]
    fn what_is_no_store_is_refused_without_repeating_a_secret() {
        let lock = "s3://b?objectLock=";
        let locks = ["30", "firm:30", "governance:0", "compliance:1&checksums=when-required"];
        let others = ["gs://bucket", "s3://", "s3://b?pathStyle=perhaps", "s3://b?bucket=c"];
        let texts = others.map(str::to_owned).into_iter();
        for text in texts.chain(locks.map(|text| format!("{lock}{text}"))) {
            assert!(parse(&text).is_err(), "{text}");
        }
        let error = parse("s3://key:hunter2@bucket").unwrap_err();
        assert!(!format!("{error:?}").contains("hunter2"));
    }
}
