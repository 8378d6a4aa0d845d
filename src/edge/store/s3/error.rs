//! What an S3 error means for the caller. Carries code, message and request id; never a header or a credential.

use std::{error, fmt};

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError as AnySdkError},
    operation::RequestId,
};

use crate::edge::store::Error;

pub(super) type SdkError<E> = AnySdkError<E, HttpResponse>;

/// The request that was made; its Debug form is its name in S3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    PutObject,
    CreateMultipartUpload,
    UploadPart,
    CompleteMultipartUpload,
    AbortMultipartUpload,
    HeadObject,
    GetObject,
    DeleteObject,
    ListObjectsV2,
    ListObjectVersions,
    ListMultipartUploads,
    GetObjectRetention,
    GetObjectLegalHold,
    PutObjectLegalHold,
    GetBucketVersioning,
    GetObjectLockConfiguration,
}

/// What the server said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Refusal {
    status: u16,
    code: String,
    message: String,
    request_id: Option<String>,
    /// Where the bucket is, if it is not where we asked.
    region: Option<String>,
}

/// Why no answer came, or none that can be understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
struct Transport(String);

/// A message of a server or a library is quoted up to so many characters.
const QUOTE_LENGTH_MAX: usize = 300;

impl Action {
    /// See <https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html>
    fn permission(self) -> &'static str {
        match self {
            Self::PutObject
            | Self::CreateMultipartUpload
            | Self::UploadPart
            | Self::CompleteMultipartUpload => {
                "s3:PutObject, and s3:PutObjectRetention where `objectLock` is configured"
            }
            Self::AbortMultipartUpload => "s3:AbortMultipartUpload",
            // Without the last, S3 calls a missing object forbidden.
            Self::HeadObject | Self::GetObject => {
                "s3:GetObject, s3:GetObjectVersion and s3:ListBucket"
            }
            Self::DeleteObject => {
                "s3:DeleteObject, and s3:DeleteObjectVersion for deleting versions"
            }
            Self::ListObjectsV2 => "s3:ListBucket",
            Self::ListObjectVersions => "s3:ListBucketVersions",
            Self::GetObjectRetention => "s3:GetObjectRetention",
            Self::GetObjectLegalHold => "s3:GetObjectLegalHold",
            Self::PutObjectLegalHold => "s3:PutObjectLegalHold",
            Self::GetBucketVersioning => "s3:GetBucketVersioning",
            Self::GetObjectLockConfiguration => "s3:GetBucketObjectLockConfiguration",
            Self::ListMultipartUploads => "s3:ListBucketMultipartUploads",
        }
    }

    /// What an object encrypted by KMS needs besides.
    fn key_permission(self) -> &'static str {
        match self {
            Self::PutObject => "kms:GenerateDataKey",
            Self::CreateMultipartUpload | Self::UploadPart | Self::CompleteMultipartUpload => {
                "kms:GenerateDataKey and kms:Decrypt"
            }
            Self::HeadObject
            | Self::GetObject
            | Self::AbortMultipartUpload
            | Self::DeleteObject
            | Self::ListObjectsV2
            | Self::ListObjectVersions
            | Self::ListMultipartUploads
            | Self::GetObjectRetention
            | Self::GetObjectLegalHold
            | Self::PutObjectLegalHold
            | Self::GetBucketVersioning
            | Self::GetObjectLockConfiguration => "kms:Decrypt",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, code, message, request_id, region } = self;
        write!(f, "{code} ({status})")?;
        if !message.is_empty() {
            write!(f, ": {}", quote(message))?;
        }
        if let Some(region) = region {
            write!(f, "; the bucket is in region {region}")?;
        }
        match request_id {
            Some(id) => write!(f, " [request {}]", quote(id)),
            None => Ok(()),
        }
    }
}

impl error::Error for Refusal {}

/// The code of the server's answer; empty where none came.
pub(super) fn code<E: ProvideErrorMetadata>(error: &SdkError<E>) -> &str {
    let Some(service) = error.as_service_error() else { return "" };
    let status = error.raw_response().map_or(0, |response| response.status().as_u16());
    // An answer to HEAD has no body, and thereby no code.
    service.code().unwrap_or(match status {
        403 => "AccessDenied",
        404 => "NotFound",
        412 => "PreconditionFailed",
        _ => "",
    })
}

/// Sort an error that remained after all retries by what the caller can do.
pub(super) fn failed<E>(action: Action, place: &str, error: &SdkError<E>) -> Error
where
    E: ProvideErrorMetadata + RequestId + error::Error + Send + Sync + 'static,
{
    let attempt = format!("{action:?} {place}");
    if let (Some(service), Some(response)) = (error.as_service_error(), error.raw_response()) {
        let message = service.message().unwrap_or_default();
        let region = response.headers().get("x-amz-bucket-region").map(str::to_owned);
        let refusal = Refusal {
            status: response.status().as_u16(),
            code: code(error).to_owned(),
            message: message.to_owned(),
            request_id: service.request_id().map(str::to_owned),
            region,
        };
        return refused(action, attempt, refusal);
    }
    let mut texts = Vec::new();
    let mut cause: Option<&(dyn error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<CredentialsError>() {
            return without_credentials(attempt, error);
        }
        texts.push(error.to_string());
        cause = error.source();
    }
    unanswered(attempt, error, &texts)
}

fn without_credentials(attempt: String, error: &CredentialsError) -> Error {
    let cause = error::Error::source(error)
        .map_or(String::new(), |cause| format!(": {}", quote(&cause.to_string())));
    let source = Transport(format!("{error}{cause}")).into();
    if matches!(error, CredentialsError::ProviderTimedOut(_)) {
        return Error::Unavailable { attempt, source };
    }
    let advice = "no usable AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, \
                  a profile, or a role of the pod or machine";
    Error::Denied { attempt, advice: advice.to_owned(), source: Some(source) }
}

fn unanswered<E>(attempt: String, error: &SdkError<E>, texts: &[String]) -> Error {
    let mut text = quote(&texts.join(": "));
    let untrusted = texts.iter().any(|text| text.contains("invalid peer certificate"));
    let permanent = untrusted
        || matches!(error, AnySdkError::ConstructionFailure(_))
        || matches!(error, AnySdkError::DispatchFailure(failure) if failure.is_user());
    if untrusted {
        text.push_str("; name the authority that signed it as caFile");
    }
    let source = Transport(text).into();
    if permanent {
        Error::Permanent { attempt, source }
    } else {
        Error::Unavailable { attempt, source }
    }
}

fn refused(action: Action, attempt: String, refusal: Refusal) -> Error {
    let denied = |advice: String, refusal: Refusal| Error::Denied {
        attempt: attempt.clone(),
        advice,
        source: Some(refusal.into()),
    };
    match refusal.code.as_str() {
        "NoSuchKey" | "NoSuchVersion" | "NotFound" => Error::NotFound { attempt },
        "AccessDenied" | "AllAccessDisabled" | "AccountProblem" | "KMS.AccessDeniedException" => {
            let about_key = refusal.message.contains("kms:") || refusal.code.starts_with("KMS");
            let permission = if about_key { action.key_permission() } else { action.permission() };
            denied(format!("allow {permission}"), refusal)
        }
        "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "XAdminUserNotFound" => {
            denied("the access key or its secret is wrong".to_owned(), refusal)
        }
        "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" => {
            denied("the session token is expired or wrong".to_owned(), refusal)
        }
        "RequestTimeTooSkewed" => {
            denied("set this machine's clock: it is too far from the store's".to_owned(), refusal)
        }
        "PreconditionFailed" if action == Action::GetObject => {
            let finding = "it was replaced while it was read".to_owned();
            Error::Corrupt { attempt, finding }
        }
        "PreconditionFailed" => Error::AlreadyExists { attempt },
        "BadDigest"
        | "InvalidDigest"
        | "IncompleteBody"
        | "InvalidPart"
        | "InvalidPartOrder"
        | "XAmzContentChecksumMismatch"
        | "XAmzContentSHA256Mismatch" => Error::Corrupt { attempt, finding: refusal.to_string() },
        "QuotaExceeded" | "XMinioStorageFull" | "XMinioAdminBucketQuotaExceeded" => {
            Error::Full { attempt, source: refusal.into() }
        }
        _ if refusal.status == 507 => Error::Full { attempt, source: refusal.into() },
        "RequestTimeout" | "SlowDown" | "OperationAborted" | "ConditionalRequestConflict" => {
            Error::Unavailable { attempt, source: refusal.into() }
        }
        // 501 is "not implemented": no later try will change it.
        _ if refusal.status == 429 || (refusal.status >= 500 && refusal.status != 501) => {
            Error::Unavailable { attempt, source: refusal.into() }
        }
        _ => Error::Permanent { attempt, source: refusal.into() },
    }
}

/// On one line and not endless.
fn quote(text: &str) -> String {
    let clean = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter });
    clean.take(QUOTE_LENGTH_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, code: &str, message: &str) -> Refusal {
        Refusal { status, code: code.to_owned(), message: message.to_owned(), ..Refusal::default() }
    }

    fn meaning(action: Action, refusal: Refusal) -> String {
        let error = refused(action, format!("{action:?} s3://b/k"), refusal);
        let kind = format!("{error:?}").split([' ', '{']).next().unwrap().to_owned();
        let chain =
            error::Error::source(&error).map_or(String::new(), |cause| format!(": {cause}"));
        format!("{kind} | {error}{chain}")
    }

    #[test]
    fn a_denial_names_action_place_and_permission() {
        let cases = [
            (Action::PutObject, "s3:PutObject"),
            (Action::UploadPart, "s3:PutObject"),
            (Action::AbortMultipartUpload, "s3:AbortMultipartUpload"),
            (Action::HeadObject, "s3:GetObject"),
            (Action::DeleteObject, "s3:DeleteObject"),
            (Action::ListObjectsV2, "s3:ListBucket"),
            (Action::ListMultipartUploads, "s3:ListBucketMultipartUploads"),
        ];
        for (action, permission) in cases {
            let text = meaning(action, refusal(403, "AccessDenied", "Access Denied"));
            assert!(text.starts_with(&format!("Denied | {action:?} s3://b/k: ")), "{text}");
            assert!(text.contains(&format!("allow {permission}")), "{text}");
        }
        let message = "User x is not authorized to perform: kms:GenerateDataKey on resource y";
        let text = meaning(Action::PutObject, refusal(403, "AccessDenied", message));
        assert!(text.contains("allow kms:GenerateDataKey"), "{text}");
    }

    #[test]
    fn each_code_means_what_the_caller_can_do() {
        for (status, code, kind) in [
            (404, "NoSuchKey", "NotFound"),
            (404, "NoSuchBucket", "Permanent"),
            (301, "PermanentRedirect", "Permanent"),
            (501, "NotImplemented", "Permanent"),
            (403, "InvalidAccessKeyId", "Denied"),
            (403, "RequestTimeTooSkewed", "Denied"),
            (412, "PreconditionFailed", "AlreadyExists"),
            (400, "BadDigest", "Corrupt"),
            (503, "SlowDown", "Unavailable"),
            (502, "", "Unavailable"),
            (429, "", "Unavailable"),
            (507, "", "Full"),
        ] {
            let text = meaning(Action::PutObject, refusal(status, code, ""));
            assert!(text.starts_with(&format!("{kind} |")), "{status} {code}: {text}");
        }
    }

    #[test]
    fn a_bucket_elsewhere_is_told_with_its_region() {
        let elsewhere = Refusal {
            region: Some("eu-west-1".to_owned()),
            request_id: Some("R1".to_owned()),
            ..refusal(301, "PermanentRedirect", "use the other endpoint")
        };
        let text = meaning(Action::ListObjectsV2, elsewhere);
        assert!(text.ends_with(
            "PermanentRedirect (301): use the other endpoint; the bucket is in region eu-west-1 [request R1]"
        ), "{text}");
    }

    #[test]
    fn a_server_cannot_break_or_flood_the_log() {
        let hostile = refusal(400, "Odd", &"line\n".repeat(1000));
        let text = hostile.to_string();
        assert!(!text.contains('\n') && text.len() < 400, "{text}");
    }
}
