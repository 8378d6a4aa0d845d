//! An S3 server: versitygw over a folder, with versioning, on request with TLS.

use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_sdk_s3::{
    Client,
    config::{BehaviorVersion, Credentials, Region},
    types::{BucketVersioningStatus, VersioningConfiguration},
};
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};
use rustix::process::Signal;
use tempfile::TempDir;

use super::{
    Certificates,
    process::{Process, free_port},
    version::folder,
};

pub const REGION: &str = "us-east-1";
pub const ACCESS_KEY: &str = "tests";
pub const SECRET_KEY: &str = "tests-secret";

/// A running S3 server with path-style addresses. It and its objects are gone when dropped.
#[derive(Debug)]
pub struct S3Server {
    pub port: u16,
    certificates: Option<Certificates>,
    folder: TempDir,
    starts: u32,
    process: Option<Process>,
}

impl S3Server {
    pub fn start(has_tls: bool) -> Self {
        let folder = TempDir::new().unwrap();
        for name in ["data", "versions"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let certificates = has_tls.then(Certificates::new);
        let mut server = Self { port: free_port(), certificates, folder, starts: 0, process: None };
        while let Err(log) = server.try_start() {
            assert!(log.contains("address already in use"), "versitygw does not start:\n{log}");
            server.port = free_port();
        }
        server
    }

    /// Such as `http://127.0.0.1:11001`.
    pub fn endpoint(&self) -> String {
        let scheme = if self.certificates.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// The certificate authority to trust, when it speaks TLS.
    pub fn ca_file(&self) -> Option<PathBuf> {
        self.certificates.as_ref().map(Certificates::authority)
    }

    /// One folder per bucket, one file per object.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Fails when the server has been stopped.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("the S3 server runs").pid()
    }

    /// Ends it without a last word, as a crash would.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.end_by(Signal::KILL);
        }
    }

    /// Starts a stopped server with the same objects at the same endpoint.
    pub fn start_again(&mut self) {
        self.try_start().unwrap_or_else(|log| panic!("versitygw does not start:\n{log}"));
    }

    /// Freezes it: it answers nothing until [`S3Server::thaw`].
    pub fn freeze(&mut self) {
        self.process.as_mut().expect("the S3 server runs").signal(Signal::STOP);
    }

    pub fn thaw(&mut self) {
        self.process.as_mut().expect("the S3 server runs").signal(Signal::CONT);
    }

    pub fn create_bucket(&self, name: &str, is_versioned: bool) {
        let (client, name) = (self.client(), name.to_owned());
        run(async move {
            client.create_bucket().bucket(&name).send().await.unwrap();
            if is_versioned {
                let enabled = VersioningConfiguration::builder()
                    .status(BucketVersioningStatus::Enabled)
                    .build();
                let request = client.put_bucket_versioning().bucket(&name);
                request.versioning_configuration(enabled).send().await.unwrap();
            }
        });
    }

    /// With Object Lock, and thereby with versions.
    pub fn create_locked_bucket(&self, name: &str) {
        let (client, name) = (self.client(), name.to_owned());
        run(async move {
            let create = client.create_bucket().bucket(&name);
            create.object_lock_enabled_for_bucket(true).send().await.unwrap();
        });
    }

    /// Of a version that was superseded or hidden this server tells when that was; S3 tells when it was
    /// written. The version's id holds that moment too, and from here on it is told.
    pub fn tell_when_versions_were_written(&self) {
        let mut folders = vec![self.folder.path().join("versions")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if let Some(written) =
                    path.file_name().and_then(|name| ulid_time(name.to_str()?))
                {
                    fs::File::open(&path).unwrap().set_modified(written).unwrap();
                }
            }
        }
    }

    /// A client with all rights, which trusts the server's certificate.
    pub fn client(&self) -> Client {
        let mut config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(REGION))
            .endpoint_url(self.endpoint())
            .force_path_style(true)
            .credentials_provider(Credentials::new(ACCESS_KEY, SECRET_KEY, None, None, "tests"));
        if let Some(ca_file) = self.ca_file() {
            config = config.http_client(http_client(&ca_file));
        }
        Client::from_conf(config.build())
    }

    fn try_start(&mut self) -> Result<(), String> {
        assert!(self.process.is_none(), "the S3 server already runs");
        self.starts += 1;
        let address = format!("127.0.0.1:{}", self.port);
        let mut command = Command::new(folder("versitygw").join("bin/versitygw"));
        command.args(["--port", &address, "--quiet", "--keep-alive", "--region", REGION]);
        command.env("ROOT_ACCESS_KEY", ACCESS_KEY).env("ROOT_SECRET_KEY", SECRET_KEY);
        if let Some(certificates) = &self.certificates {
            command.arg("--cert").arg(certificates.file("server.crt"));
            command.arg("--key").arg(certificates.file("server.key"));
        }
        command.args(["posix", "--versioning-dir"]).arg(self.folder.path().join("versions"));
        command.arg(self.data_dir());
        let log = self.folder.path().join(format!("{}.log", self.starts));
        let mut process = Process::start(&mut command, &log);
        process.ready("versitygw to start", |_| TcpStream::connect(&address).is_ok())?;
        self.process = Some(process);
        Ok(())
    }
}

/// The first ten letters of a ULID are its milliseconds since 1970, in base 32.
fn ulid_time(id: &str) -> Option<SystemTime> {
    let digits = id.get(..10).filter(|_| id.len() == 26)?.bytes();
    let milliseconds = digits.into_iter().try_fold(0_u64, |sum, letter| {
        let alphabet = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
        let digit = alphabet.iter().position(|known| *known == letter)?;
        Some(sum * 32 + digit as u64)
    })?;
    Some(UNIX_EPOCH + Duration::from_millis(milliseconds))
}

/// On a thread of its own, for the caller may stand within a runtime, which must not be blocked on another.
pub fn run<T: Send + 'static>(act: impl Future<Output = T> + Send + 'static) -> T {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    thread::spawn(move || runtime().block_on(act)).join().expect("the S3 server does it")
}

fn http_client(ca_file: &Path) -> aws_sdk_s3::config::SharedHttpClient {
    let trusted = TrustStore::empty().with_pem_certificate(fs::read(ca_file).unwrap());
    let context = TlsContext::builder().with_trust_store(trusted).build().unwrap();
    aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .tls_context(context)
        .build_https()
}

#[tokio::test]
async fn the_s3_server_keeps_objects_over_a_restart_with_and_without_tls() {
    for has_tls in [false, true] {
        let mut server = S3Server::start(has_tls);
        server.create_bucket("backups", true);
        let put = server.client().put_object().bucket("backups").key("a/b");
        let version = put.body(b"bytes".to_vec().into()).send().await.unwrap().version_id;
        assert!(version.is_some());
        server.stop();
        server.start_again();
        let got = server.client().get_object().bucket("backups").key("a/b").send().await.unwrap();
        assert_eq!(got.body.collect().await.unwrap().to_vec(), b"bytes");
    }
}
