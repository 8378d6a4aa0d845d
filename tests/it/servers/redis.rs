//! One Redis or Valkey server of a chosen version, and connections to it.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use redis::{
    Client, ClientTlsConfig, Connection, ConnectionAddr, ConnectionInfo, FromRedisValue,
    IntoConnectionInfo, RedisConnectionInfo, TlsCertificates,
};
use rustix::process::Signal;
use tempfile::TempDir;

use super::{
    PATIENCE, Version,
    process::{Process, free_port},
    tls::Certificates,
    wait_for,
};

/// How a server is started. The configuration lines come after the fixture's own and win.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    pub version: Version,
    pub config: Vec<String>,
    /// TLS alone: without a client certificate no connection.
    pub tls: Option<&'a Certificates>,
    /// Whom the fixture connects as.
    pub username: Option<String>,
    pub password: Option<String>,
    pub is_sentinel: bool,
}

/// A running server. Its files are in [`Server::data_dir`]; it and they are gone when dropped.
#[derive(Debug)]
pub struct Server {
    pub version: Version,
    pub port: u16,
    folder: TempDir,
    program: PathBuf,
    starts: u32,
    process: Option<Process>,
    connects_to: ConnectionInfo,
    certificates: Option<TlsCertificates>,
}

impl<'a> Options<'a> {
    pub fn new(version: &Version) -> Self {
        Self {
            version: version.clone(),
            config: Vec::new(),
            tls: None,
            username: None,
            password: None,
            is_sentinel: false,
        }
    }

    /// A line of redis.conf.
    pub fn config(mut self, line: impl Into<String>) -> Self {
        self.config.push(line.into());
        self
    }

    /// `requirepass`, and `masterauth` so that replicas follow.
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self.config(format!("requirepass {password}")).config(format!("masterauth {password}"))
    }

    pub fn tls(mut self, certificates: &'a Certificates) -> Self {
        self.tls = Some(certificates);
        self
    }

    pub fn start(self) -> Server {
        self.try_start().unwrap_or_else(|log| panic!("the server does not start:\n{log}"))
    }

    /// The log, when it does not start.
    pub fn try_start(self) -> Result<Server, String> {
        loop {
            match self.clone().start_on(free_port()) {
                Err(log) if log.contains("Address already in use") => {}
                outcome => return outcome,
            }
        }
    }

    fn start_on(self, port: u16) -> Result<Server, String> {
        let folder = TempDir::new().unwrap();
        fs::create_dir(folder.path().join("data")).unwrap();
        fs::write(folder.path().join("redis.conf"), self.file(port, folder.path())).unwrap();
        let program = if self.is_sentinel { "redis-sentinel" } else { "redis-server" };
        let mut server = Server {
            program: self.version.program(program),
            port,
            folder,
            starts: 0,
            process: None,
            connects_to: self.connects_to(port),
            certificates: self.tls.map(client_certificates),
            version: self.version,
        };
        server.try_start_again()?;
        Ok(server)
    }

    fn file(&self, port: u16, folder: &Path) -> String {
        let mut lines = vec![
            "bind 127.0.0.1".to_owned(),
            "protected-mode no".to_owned(),
            format!("dir {}", folder.join("data").display()),
        ];
        if !self.is_sentinel {
            lines.extend(["save \"\"", "repl-diskless-sync-delay 0"].map(str::to_owned));
            if self.version.is_seven() {
                lines.push("enable-debug-command yes".to_owned());
            }
        }
        match self.tls {
            None => lines.push(format!("port {port}")),
            Some(certificates) => {
                lines.extend(["port 0".to_owned(), format!("tls-port {port}")]);
                for (option, name) in [
                    ("tls-cert-file", "server.crt"),
                    ("tls-key-file", "server.key"),
                    ("tls-ca-cert-file", "ca.crt"),
                ] {
                    lines.push(format!("{option} {}", certificates.file(name).display()));
                }
                lines.extend(
                    ["tls-auth-clients yes", "tls-replication yes", "tls-cluster yes"]
                        .map(str::to_owned),
                );
            }
        }
        lines.extend(self.config.iter().cloned());
        lines.iter().fold(String::new(), |mut text, line| {
            writeln!(text, "{line}").unwrap();
            text
        })
    }

    fn connects_to(&self, port: u16) -> ConnectionInfo {
        let host = "127.0.0.1".to_owned();
        let address = match self.tls {
            None => ConnectionAddr::Tcp(host, port),
            Some(_) => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
        };
        let mut login = RedisConnectionInfo::default();
        if let Some(username) = &self.username {
            login = login.set_username(username);
        }
        if let Some(password) = &self.password {
            login = login.set_password(password);
        }
        address.into_connection_info().unwrap().set_redis_settings(login)
    }
}

impl Server {
    /// A server with these lines in its redis.conf.
    pub fn start(version: &Version, config: &[&str]) -> Self {
        config.iter().fold(Options::new(version), |options, line| options.config(*line)).start()
    }

    /// Where it was told to keep its files.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn config_file(&self) -> PathBuf {
        self.folder.path().join("redis.conf")
    }

    /// Without a password: `redis://127.0.0.1:port`, or `rediss://`.
    pub fn url(&self) -> String {
        let scheme = if self.certificates.is_some() { "rediss" } else { "redis" };
        format!("{scheme}://{}", self.address())
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Fails when the server has been stopped.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("the server runs").pid()
    }

    /// What it logged since its last start.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap()
    }

    /// A connection as the fixture's user, to database 0.
    pub fn connection(&self) -> Connection {
        self.try_connection().unwrap_or_else(|error| panic!("connect to {}: {error}", self.url()))
    }

    pub fn try_connection(&self) -> redis::RedisResult<Connection> {
        let client = match &self.certificates {
            None => Client::open(self.connects_to.clone())?,
            Some(certificates) => {
                Client::build_with_tls(self.connects_to.clone(), certificates.clone())?
            }
        };
        let connection = client.get_connection_with_timeout(PATIENCE)?;
        connection.set_read_timeout(Some(PATIENCE))?;
        Ok(connection)
    }

    /// Sends one command, split at spaces.
    #[track_caller]
    pub fn command<T: FromRedisValue>(&self, line: &str) -> T {
        self.try_command(line).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    fn try_command<T: FromRedisValue>(&self, line: &str) -> redis::RedisResult<T> {
        let mut words = line.split(' ');
        let mut command = redis::cmd(words.next().unwrap());
        command.arg(words.collect::<Vec<_>>());
        command.query(&mut self.connection())
    }

    /// The value of a field of INFO.
    pub fn info(&self, field: &str) -> Option<String> {
        // A child that ends may interrupt a read, and who polls for long meets that.
        let ask = || {
            let answer = self.try_command::<String>("INFO");
            (!is_interrupted(&answer)).then_some(answer)
        };
        let text = wait_for("INFO", ask).unwrap_or_else(|error| panic!("INFO: {error}"));
        text.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            (name == field).then(|| value.to_owned())
        })
    }

    /// Ends it as an orchestrator would; it saves first when it has `save` points.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.end_by(Signal::TERM);
        }
    }

    /// Ends it without a last word.
    pub fn kill9(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.end_by(Signal::KILL);
        }
    }

    /// Freezes it: it answers nothing until [`Server::thaw`].
    pub fn freeze(&mut self) {
        self.process.as_mut().expect("the server runs").signal(Signal::STOP);
    }

    pub fn thaw(&mut self) {
        self.process.as_mut().expect("the server runs").signal(Signal::CONT);
    }

    /// Stops it if it runs, and starts it with the same files on the same port.
    pub fn restart(&mut self) {
        self.stop();
        self.try_start_again().unwrap_or_else(|log| panic!("the server does not start:\n{log}"));
    }

    /// Starts a stopped server with what its folder holds. The log, when it does not start.
    pub fn try_start_again(&mut self) -> Result<(), String> {
        assert!(self.process.is_none(), "the server already runs");
        self.starts += 1;
        let mut command = Command::new(&self.program);
        command.arg(self.config_file()).current_dir(self.folder.path());
        let mut process = Process::start(&mut command, &self.log_file());
        process.ready(&format!("{} to start", self.version), |log| {
            // The first is a server's, the others a sentinel's last word before it listens.
            log.contains("Ready to accept connections") || log.contains("Sentinel ID is")
        })?;
        self.process = Some(process);
        Ok(())
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join(format!("{}.log", self.starts))
    }
}

/// By a signal, such as that of a child's end; the client gives up then.
fn is_interrupted<T>(answer: &redis::RedisResult<T>) -> bool {
    let is_told = |error: &redis::RedisError| error.to_string().contains("Interrupted system call");
    answer.as_ref().is_err_and(is_told)
}

fn client_certificates(certificates: &Certificates) -> TlsCertificates {
    let read = |name| fs::read(certificates.file(name)).unwrap();
    TlsCertificates {
        client_tls: Some(ClientTlsConfig {
            client_cert: read("client.crt"),
            client_key: read("client.key"),
        }),
        root_cert: Some(read("ca.crt")),
    }
}

#[test]
fn every_server_starts_answers_and_starts_again() {
    for version in Version::all() {
        let mut server = Server::start(&version, &[]);
        let () = server.command("SET key value");
        let () = server.command("SAVE");
        server.kill9();
        server.restart();
        assert_eq!(server.command::<String>("GET key"), "value", "{version}");
    }
}

#[test]
fn a_server_with_tls_wants_a_client_certificate_and_a_password() {
    let certificates = Certificates::new();
    for version in Version::all_with_tls() {
        let mut server = Options::new(&version).tls(&certificates).password("secret").start();
        assert_eq!(server.command::<String>("PING"), "PONG", "{version}");
        let password = server.connects_to.redis_settings().clone().set_password("wrong");
        let known = server.connects_to.clone();
        server.connects_to = known.clone().set_redis_settings(password);
        assert!(server.try_connection().is_err(), "{version} takes a wrong password");
        server.connects_to = known;
        server.certificates.as_mut().unwrap().client_tls = None;
        assert!(server.try_connection().is_err(), "{version} wants no client certificate");
    }
}
