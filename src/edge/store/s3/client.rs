//! How requests travel: credentials, TLS, time limits, what is tried again. Knows no object.

use std::{
    fs,
    path::Path,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::Duration,
};

use aws_config::{BehaviorVersion, Region};
use aws_sdk_s3::{
    Client,
    config::{
        AppName, ConfigBag, Intercept, RequestChecksumCalculation, ResponseChecksumValidation,
        RuntimeComponents, SharedCredentialsProvider, SharedHttpClient,
        StalledStreamProtectionConfig,
        interceptors::{
            BeforeDeserializationInterceptorContextRef, BeforeTransmitInterceptorContextRef,
            InterceptorContext,
        },
        retry::{ClassifyRetry, RetryAction, RetryConfig, RetryPartition, TokenBucket},
        timeout::TimeoutConfig,
    },
    error::BoxError,
};
use aws_smithy_http_client::{
    Builder,
    tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode},
};
use jiff::Timestamp;
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use tokio::time::Instant;

use super::{Checksums, S3Settings};
use crate::edge::store::Error;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Servers other than AWS ask for a region in the signature and ignore which.
const REGION_OF_OTHERS: &str = "us-east-1";

/// Whether this machine trusts anybody, as images of Redis may not. The SDK takes for granted that it does.
static HAS_AUTHORITIES: LazyLock<bool> = LazyLock::new(|| {
    let (known, _) = RootCertStore::empty()
        .add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    known > 0
});

/// The `Date` of the last answer that passed by.
#[derive(Clone, Debug, Default)]
pub(super) struct ServerClock {
    seen: Arc<Mutex<Option<Timestamp>>>,
}

/// A store that has never answered is given up soon: its address may be wrong, or it is down. One that has
/// answered gets the patience of all tries.
#[derive(Clone, Debug)]
struct Reached {
    patience: Duration,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Clone, Copy, Debug)]
enum Seen {
    Nothing,
    /// Since when nobody answers.
    Silence(Instant),
    Answer,
}

/// Answers that ask for another try and that the SDK takes for final.
#[derive(Debug)]
struct Busy;

pub(super) async fn connect(
    settings: &S3Settings,
    credentials: Option<SharedCredentialsProvider>,
) -> Result<Client, Error> {
    let attempt = || format!("open s3://{}", settings.bucket);
    let attempts = settings.attempts_max.max(1);
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(settings.response_timeout)
        .operation_attempt_timeout(settings.response_timeout * 2)
        .build();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .retry_config(
            RetryConfig::standard()
                .with_max_attempts(attempts)
                .with_max_backoff(settings.backoff_max),
        )
        .timeout_config(timeouts)
        .stalled_stream_protection(
            StalledStreamProtectionConfig::enabled().grace_period(settings.stall_timeout).build(),
        );
    if let Ok(name) = AppName::new("redis-backup") {
        loader = loader.app_name(name);
    }
    let is_plain = settings.endpoint.as_ref().is_some_and(|it| it.starts_with("http://"));
    match &settings.ca_file {
        Some(ca_file) => loader = loader.http_client(trusting(ca_file)?),
        None if *HAS_AUTHORITIES => {}
        None if is_plain => loader = loader.http_client(Builder::new().build_http()),
        None => {
            let source =
                "this machine trusts no authority: name a PEM file by SSL_CERT_FILE or `caFile`";
            return Err(Error::Permanent { attempt: attempt(), source: source.into() });
        }
    }
    if let Some(credentials) = credentials {
        loader = loader.credentials_provider(credentials);
    }
    let region = settings.region.as_deref();
    if let Some(region) = region.or(settings.endpoint.as_ref().map(|_| REGION_OF_OTHERS)) {
        loader = loader.region(Region::new(region.to_owned()));
    }
    let shared = loader.load().await;
    if shared.region().is_none() {
        let source = "no region: set `region`, AWS_REGION or the profile's region".into();
        return Err(Error::Permanent { attempt: attempt(), source });
    }
    let reached = Reached::new(settings.reach_patience);
    let mut config = aws_sdk_s3::config::Builder::from(&shared)
        .force_path_style(settings.force_path_style)
        .retry_classifier(Busy)
        .retry_classifier(reached.clone())
        .interceptor(reached)
        // By default all clients of a process share 500 tokens, and some 35 failed tries use them up.
        // Here each request has its own limit, also after a week of uptime.
        .retry_partition(
            RetryPartition::custom("redis-backup").token_bucket(TokenBucket::unlimited()).build(),
        )
        .request_checksum_calculation(match settings.checksums {
            Checksums::WhenSupported => RequestChecksumCalculation::WhenSupported,
            Checksums::WhenRequired => RequestChecksumCalculation::WhenRequired,
        })
        // Whoever reads compares stronger digests; a second pass over every byte proves nothing.
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    if let Some(endpoint) = &settings.endpoint {
        config = config.endpoint_url(endpoint);
    }
    Ok(Client::from_conf(config.build()))
}

impl ServerClock {
    pub(super) fn now(&self) -> Option<Timestamp> {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Intercept for ServerClock {
    fn name(&self) -> &'static str {
        "ServerClock"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date");
        let date = date.and_then(|date| jiff::fmt::rfc2822::parse(date).ok());
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) =
            date.map(|date| date.timestamp());
        Ok(())
    }
}

impl Reached {
    fn new(patience: Duration) -> Self {
        Self { patience, seen: Arc::new(Mutex::new(Seen::Nothing)) }
    }
}

impl Intercept for Reached {
    fn name(&self) -> &'static str {
        "Reached"
    }

    fn read_before_deserialization(
        &self,
        _: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Seen::Answer;
        Ok(())
    }

    fn read_before_attempt(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*seen, Seen::Nothing) {
            *seen = Seen::Silence(Instant::now());
        }
        Ok(())
    }
}

impl ClassifyRetry for Reached {
    fn name(&self) -> &'static str {
        "Reached"
    }

    fn classify_retry(&self, _: &InterceptorContext) -> RetryAction {
        match *self.seen.lock().unwrap_or_else(PoisonError::into_inner) {
            Seen::Silence(since) if since.elapsed() >= self.patience => RetryAction::RetryForbidden,
            Seen::Nothing | Seen::Silence(_) | Seen::Answer => RetryAction::NoActionIndicated,
        }
    }
}

impl ClassifyRetry for Busy {
    fn name(&self) -> &'static str {
        "Busy"
    }

    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        let Some(response) = context.response() else { return RetryAction::NoActionIndicated };
        // Two conditional writes met, or a write met a delete; S3 asks to try again.
        let conflict = || {
            let body = response.body().bytes().unwrap_or_default();
            let text = String::from_utf8_lossy(body);
            text.contains("ConditionalRequestConflict") || text.contains("OperationAborted")
        };
        match response.status().as_u16() {
            429 => RetryAction::throttling_error(),
            409 if conflict() => RetryAction::transient_error(),
            _ => RetryAction::NoActionIndicated,
        }
    }
}

/// A client that trusts the certificates in the file besides those of the system.
fn trusting(ca_file: &Path) -> Result<SharedHttpClient, Error> {
    let failed = |source: BoxError| Error::Permanent {
        attempt: format!("read the certificates in {}", ca_file.display()),
        source,
    };
    let pem = fs::read(ca_file).map_err(|source| failed(source.into()))?;
    // The SDK's own reading of them ends the process when they are wrong.
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|source| failed(source.into()))?;
        roots.add(certificate).map_err(|source| failed(source.into()))?;
    }
    if roots.is_empty() {
        return Err(failed("it holds no certificate in PEM".into()));
    }
    let trust = TrustStore::default().with_native_roots(*HAS_AUTHORITIES).with_pem_certificate(pem);
    let context = TlsContext::builder().with_trust_store(trust).build();
    let context = context.map_err(|source| failed(source.into()))?;
    let provider = Provider::Rustls(CryptoMode::AwsLc);
    Ok(Builder::new().tls_provider(provider).tls_context(context).build_https())
}
