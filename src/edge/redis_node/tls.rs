//! TLS to Redis: which authorities are trusted, which certificate is shown. Loaded once; never weakened.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        VerifierBuilderError, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::aws_lc_rs,
    pki_types::{
        CertificateDer, PrivateKeyDer, ServerName, UnixTime,
        pem::{self, PemObject as _},
    },
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::Stream;

/// Where the files lie.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// Authorities to trust instead of the operating system's.
    pub ca: Option<PathBuf>,
    /// Our own certificate and its key, for servers that want one (`tls-auth-clients yes`).
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("read certificates from {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: pem::Error,
    },
    #[error("no certificate stands in {}", path.display())]
    Empty { path: PathBuf },
    #[error("no trusted authority is found on this system: name one with caFile")]
    NoAuthority,
    #[error("trust the authorities of {origin}")]
    Authority {
        origin: String,
        #[source]
        source: rustls::Error,
    },
    #[error("check certificates by the authorities")]
    Verifier(#[source] VerifierBuilderError),
    #[error("certFile and keyFile belong together: {missing} is missing")]
    HalfAPair { missing: &'static str },
    #[error("use the certificate {}", path.display())]
    Certificate {
        path: PathBuf,
        #[source]
        source: rustls::Error,
    },
    #[error("{name:?} is not a server name")]
    ServerName { name: String },
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ClientConfig>,
    verifier: Arc<WebPkiServerVerifier>,
    server_name: Option<ServerName<'static>>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the files. `server_name` is what every server's certificate must name, where that is
    /// not the host that is connected to.
    pub fn load(files: &Files, server_name: Option<&str>) -> Result<Self, Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let roots = Arc::new(authorities(files.ca.as_deref())?);
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(Error::Verifier)?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|source| Error::Authority { origin: "this program".to_owned(), source })?
            .with_root_certificates(roots);
        let config = match (&files.certificate, &files.key) {
            (None, None) => builder.with_no_client_auth(),
            (None, Some(_)) => return Err(Error::HalfAPair { missing: "certFile" }),
            (Some(_), None) => return Err(Error::HalfAPair { missing: "keyFile" }),
            (Some(certificate), Some(key)) => {
                let private = PrivateKeyDer::from_pem_file(key)
                    .map_err(|source| Error::Read { path: key.clone(), source })?;
                builder
                    .with_client_auth_cert(certificates(certificate)?, private)
                    .map_err(|source| Error::Certificate { path: certificate.clone(), source })?
            }
        };
        let server_name = server_name.map(parse_server_name).transpose()?;
        Ok(Self { config: Arc::new(config), verifier, server_name })
    }

    /// Whether one configured name stands for every server.
    pub(super) fn names_server(&self) -> bool {
        self.server_name.is_some()
    }

    /// Shake hands as a client that expects the configured server name, or else `host` or one of its
    /// other names.
    pub(super) async fn connect(
        &self,
        host: &str,
        others: &[String],
        stream: Stream,
    ) -> io::Result<TlsStream<Stream>> {
        if let Some(name) = &self.server_name {
            return TlsConnector::from(self.config.clone()).connect(name.clone(), stream).await;
        }
        let own = parse_server_name(host).map_err(io::Error::other);
        let mut names: Vec<_> = others.iter().filter_map(|it| parse_server_name(it).ok()).collect();
        let Some(first) = names.first().cloned() else {
            return TlsConnector::from(self.config.clone()).connect(own?, stream).await;
        };
        names.extend(own);
        let mut config = ClientConfig::clone(&self.config);
        let verifier = Arc::new(AnyName { inner: self.verifier.clone(), names });
        config.dangerous().set_certificate_verifier(verifier);
        TlsConnector::from(Arc::new(config)).connect(first, stream).await
    }
}

/// The usual verification, for a server that has several names.
#[derive(Debug)]
struct AnyName {
    inner: Arc<WebPkiServerVerifier>,
    names: Vec<ServerName<'static>>,
}

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verify = |name: &ServerName<'_>| {
            self.inner.verify_server_cert(end_entity, intermediates, name, ocsp_response, now)
        };
        let verified = self.names.iter().find_map(|name| verify(name).ok());
        verified.map_or_else(|| verify(server_name), Ok)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

fn parse_server_name(name: &str) -> Result<ServerName<'static>, Error> {
    ServerName::try_from(name.to_owned()).map_err(|_| Error::ServerName { name: name.to_owned() })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let read = |source| Error::Read { path: path.to_owned(), source };
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(read)?;
    if found.is_empty() { Err(Error::Empty { path: path.to_owned() }) } else { Ok(found) }
}

/// With a file only what stands in it, so that a public authority cannot vouch for a private Redis.
fn authorities(ca: Option<&Path>) -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    if let Some(path) = ca {
        for certificate in certificates(path)? {
            store.add(certificate).map_err(|source| Error::Authority {
                origin: path.display().to_string(),
                source,
            })?;
        }
    } else {
        // One unreadable certificate among the system's does not spoil the others.
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    if store.is_empty() { Err(Error::NoAuthority) } else { Ok(store) }
}

/// What to do about a TLS failure; none if it is another failure.
pub(super) fn advice(error: &io::Error) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "rustls's enums are open; what has no advice of its own shows its cause"
    )]
    Some(match error {
        rustls::Error::InvalidCertificate(fault) => match fault {
            CertificateError::UnknownIssuer
            | CertificateError::BadSignature
            | CertificateError::InvalidPurpose => {
                "the server's certificate is signed by no trusted authority: set tls.caFile to the CA that signed it".to_owned()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "the server's certificate does not name this host (SAN): set tls.serverName to a name that it does".to_owned()
            }
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => {
                "the server's certificate is not valid now: renew it, or set the clock".to_owned()
            }
            _ => "the server's certificate is not accepted".to_owned(),
        },
        rustls::Error::AlertReceived(_) => {
            "the server ended it: where it wants a client certificate (tls-auth-clients), set tls.certFile and tls.keyFile to one that its CA signed".to_owned()
        }
        rustls::Error::InvalidMessage(_) => {
            "the answer is not TLS: is this the TLS port?".to_owned()
        }
        _ => "see the cause".to_owned(),
    })
}
