//! A private folder in which one server loads one RDB or append-only file. Never listens on a network, never outlives its room.

use std::{
    fmt,
    fs::{self, File},
    io,
    os::{
        fd::AsRawFd as _,
        unix::{fs::PermissionsExt as _, process::ExitStatusExt as _},
    },
    path::{self, Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Cmd, ProtocolVersion, RedisConnectionInfo, aio::MultiplexedConnection,
};
use tempfile::TempDir;
use tokio::{
    net::{TcpSocket, UnixStream},
    process::{Child, Command},
    time::{sleep, timeout},
};

use super::{Binary, Error, reply};
use crate::domain::{compatibility::ServerVersion, verification::Loaded};

/// A folder with mode 0700 that goes when this is dropped, with all that is in it.
#[derive(Debug)]
pub struct Room {
    folder: TempDir,
}

/// How to load.
#[derive(Clone, Copy, Debug)]
pub struct Loading {
    /// The append-only file in [`Room::aof`] instead of the RDB in [`Room::rdb`].
    pub append_only: bool,
    /// At least as many as the RDB needs.
    pub databases: u32,
    /// `rdb-version-check relaxed`, for Valkey 8.1 and later only; others refuse to start with it.
    pub version_check_relaxed: bool,
    /// From start to loaded, and to saved where that is asked for.
    pub limit: Duration,
}

/// How far a server has loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub loaded_bytes: u64,
    pub total_bytes: u64,
}

/// What was loaded, and by which server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// As the running server tells it.
    pub server: ServerVersion,
    pub loaded: Loaded,
}

const RDB: &str = "dump.rdb";
/// As servers of every version read it; those with a folder make a set of it.
const AOF: &str = "appendonly.aof";
const SOCKET: &str = "socket";
const LOG: &str = "server.log";
const LOG_LINES: usize = 5;
/// What a kernel without memory ends a process by; no server does so itself.
const SIGKILL: i32 = 9;
/// Of a server that is loading: it answers between two pieces, and a huge value is one piece.
const ANSWER_LIMIT: Duration = Duration::from_mins(1);
const PAUSE: Duration = Duration::from_millis(20);

impl Room {
    /// Below `parent`, which needs room for the RDB unless that is linked in from the same volume.
    pub fn new(parent: &Path) -> Result<Self, Error> {
        let folder = tempfile::Builder::new()
            .prefix("redis-backup-load-")
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir_in(parent)
            .map_err(|source| file_error("create a folder in", parent, source))?;
        Ok(Self { folder })
    }

    /// Where the caller writes the RDB, unless it uses [`Self::take`].
    pub fn rdb(&self) -> PathBuf {
        self.folder.path().join(RDB)
    }

    /// Where the caller writes an append-only file.
    pub fn aof(&self) -> PathBuf {
        self.folder.path().join(AOF)
    }

    /// Link an RDB in, or copy it where that cannot be. Blocks.
    pub fn take(&self, rdb: &Path) -> Result<(), Error> {
        if fs::hard_link(rdb, self.rdb()).is_ok() {
            return Ok(());
        }
        let copied = fs::copy(rdb, self.rdb()).map(drop);
        copied.map_err(|source| file_error("copy the RDB", rdb, source))
    }

    /// Start the server on the RDB, wait until it has loaded, ask what it holds, and end it.
    ///
    /// It starts as replica of a primary that never answers: so it drops no expired key, and its
    /// counts are those of the RDB.
    pub async fn load(
        &self,
        binary: &Binary,
        loading: Loading,
        progress: impl FnMut(Progress),
    ) -> Result<Proof, Error> {
        self.run(binary, loading, None, progress).await
    }

    /// The same, and the server leaves what it loaded in [`Self::rdb`], which is its own from then on.
    pub async fn convert(
        &self,
        binary: &Binary,
        loading: Loading,
        progress: impl FnMut(Progress),
    ) -> Result<Proof, Error> {
        self.run(binary, loading, Some(loading.limit), progress).await
    }

    async fn run(
        &self,
        binary: &Binary,
        loading: Loading,
        save_limit: Option<Duration>,
        mut progress: impl FnMut(Progress),
    ) -> Result<Proof, Error> {
        let primary = ClosedPort::reserve()?;
        self.configure(loading, primary.port)?;
        let mut server = Running {
            name: binary.version.to_string(),
            child: self.start(&binary.path)?,
            room: self,
        };
        let mut seen = Progress::default();
        let note = |now: Progress| {
            seen = now;
            progress(now);
        };
        let proof = match timeout(loading.limit, server.wait_and_ask(save_limit, note)).await {
            Ok(proof) => proof,
            Err(_) => Err(Error::TooSlow {
                server: server.name.clone(),
                limit: loading.limit,
                progress: seen,
            }),
        };
        server.end().await;
        proof
    }

    fn configure(&self, loading: Loading, closed_port: u16) -> Result<(), Error> {
        let mut config = format!(
            "port 0\nunixsocket {SOCKET}\nunixsocketperm 700\ndaemonize no\nsupervised no\n\
             dbfilename {RDB}\nsave \"\"\nappendonly {}\nappendfilename {AOF}\n\
             aof-load-truncated no\nauto-aof-rewrite-percentage 0\ndatabases {}\n\
             replicaof 127.0.0.1 {closed_port}\nreplica-serve-stale-data yes\n",
            if loading.append_only { "yes" } else { "no" },
            loading.databases.max(1),
        );
        if loading.version_check_relaxed {
            config += "rdb-version-check relaxed\n";
        }
        let path = self.folder.path().join("server.conf");
        fs::write(&path, config).map_err(|source| file_error("write", &path, source))
    }

    fn start(&self, program: &Path) -> Result<Child, Error> {
        let path = self.folder.path().join(LOG);
        let open = || {
            let log = File::create(&path)?;
            Ok((log.try_clone()?, log))
        };
        let (output, errors) =
            open().map_err(|source: io::Error| file_error("write", &path, source))?;
        // A relative path would be looked for in the room. Links stay: Debian's redis-server is a
        // link to redis-check-rdb, which asks its own name what it is.
        let program =
            path::absolute(program).map_err(|source| file_error("find", program, source))?;
        Command::new(&program)
            .arg("server.conf")
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| file_error("start", &program, source))
    }

    /// What the server said last of what went wrong, or else said last, for people.
    fn log(&self) -> String {
        let bytes = fs::read(self.folder.path().join(LOG)).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let mut last: Vec<&str> =
            text.lines().rev().filter_map(complaint).take(LOG_LINES).collect();
        if last.is_empty() {
            last = text.lines().rev().map(str::trim).filter(|line| !line.is_empty()).collect();
            last.truncate(LOG_LINES);
        }
        last.reverse();
        last.join(" | ")
    }
}

/// A server that ends with this value.
struct Running<'a> {
    name: String,
    child: Child,
    room: &'a Room,
}

impl Running<'_> {
    async fn wait_and_ask(
        &mut self,
        save_limit: Option<Duration>,
        mut progress: impl FnMut(Progress),
    ) -> Result<Proof, Error> {
        let mut connection = self.connect().await?;
        loop {
            let info = self.info(&mut connection).await?;
            let now = Progress {
                loaded_bytes: reply::number(&info, "loading_loaded_bytes").unwrap_or_default(),
                total_bytes: reply::number(&info, "loading_total_bytes").unwrap_or_default(),
            };
            match reply::field(&info, "loading") {
                Some("0") => {
                    let proof = self.ask(&mut connection, &info).await?;
                    if let Some(limit) = save_limit {
                        self.save(&mut connection, limit).await?;
                    }
                    return Ok(proof);
                }
                Some(_) => progress(now),
                None => return Err(self.unknown("INFO", &info)),
            }
            sleep(PAUSE).await;
        }
    }

    async fn connect(&mut self) -> Result<MultiplexedConnection, Error> {
        let folder = self.room.folder.path();
        let opened = File::open(folder).map_err(|source| file_error("open", folder, source))?;
        // The path of a socket has at most 107 bytes; that of the room may be longer.
        let socket = format!("/proc/self/fd/{}/{SOCKET}", opened.as_raw_fd());
        loop {
            self.refuse_if_ended()?;
            if let Ok(stream) = UnixStream::connect(&socket).await {
                let info = RedisConnectionInfo::default()
                    .set_protocol(ProtocolVersion::RESP2)
                    .set_skip_set_lib_name();
                let config = AsyncConnectionConfig::new().set_response_timeout(Some(ANSWER_LIMIT));
                let connected = MultiplexedConnection::new_with_config(&info, stream, config).await;
                let (connection, driver) =
                    connected.map_err(|source| self.silent("a connection", source))?;
                // Ends when the connection is dropped.
                tokio::spawn(driver);
                return Ok(connection);
            }
            sleep(PAUSE).await;
        }
    }

    async fn info(&mut self, connection: &mut MultiplexedConnection) -> Result<String, Error> {
        let asked = Cmd::new().arg("INFO").query_async(connection).await;
        match asked {
            Ok(info) => Ok(info),
            Err(source) => Err(self.refused_or(source).await),
        }
    }

    async fn ask(
        &mut self,
        connection: &mut MultiplexedConnection,
        info: &str,
    ) -> Result<Proof, Error> {
        let server = ServerVersion::from_info(info).map_err(|_| self.unknown("INFO", info))?;
        let databases = reply::keyspace(info).ok_or_else(|| self.unknown("INFO keyspace", info))?;
        let functions = if server.has_functions() {
            let asked = Cmd::new().arg("FUNCTION").arg("LIST").query_async(connection).await;
            let list: redis::Value =
                asked.map_err(|source| self.silent("FUNCTION LIST", source))?;
            let names = reply::libraries(&list);
            Some(names.ok_or_else(|| self.unknown("FUNCTION LIST", &format!("{list:?}")))?)
        } else {
            None
        };
        Ok(Proof { server, loaded: Loaded { databases, functions } })
    }

    /// Nobody else waits for this server: it need not fork.
    async fn save(
        &self,
        connection: &mut MultiplexedConnection,
        limit: Duration,
    ) -> Result<(), Error> {
        connection.set_response_timeout(limit);
        let asked = Cmd::new().arg("SAVE").query_async(connection).await;
        asked.map_err(|source| self.silent("SAVE", source))
    }

    fn refuse_if_ended(&mut self) -> Result<(), Error> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.refused(status)),
            Err(source) => Err(file_error("watch", Path::new(&self.name), source)),
        }
    }

    /// A connection that breaks while the server loads: most likely it ended.
    async fn refused_or(&mut self, source: redis::RedisError) -> Error {
        match timeout(Duration::from_secs(5), self.child.wait()).await {
            Ok(Ok(status)) => self.refused(status),
            Ok(Err(_)) | Err(_) => self.silent("INFO", source),
        }
    }

    fn refused(&self, status: ExitStatus) -> Error {
        if status.signal() == Some(SIGKILL) {
            return Error::Killed { server: self.name.clone() };
        }
        let log = self.room.log();
        let log = if log.is_empty() { format!("it ended with {status}") } else { log };
        Error::Refused { server: self.name.clone(), log }
    }

    fn silent(&self, what: &'static str, source: redis::RedisError) -> Error {
        Error::Ask { server: self.name.clone(), what, source }
    }

    fn unknown(&self, what: &'static str, found: &str) -> Error {
        let found = found.chars().take(200).collect();
        Error::Reply { server: self.name.clone(), what, found }
    }

    /// By its process id, and waited for: nothing of it is left when the room goes.
    async fn end(&mut self) {
        let _ = self.child.kill().await;
    }
}

/// A port that nobody can listen on as long as this lives.
struct ClosedPort {
    port: u16,
    _socket: TcpSocket,
}

impl ClosedPort {
    fn reserve() -> Result<Self, Error> {
        let reserve = || {
            let socket = TcpSocket::new_v4()?;
            socket.bind(([127, 0, 0, 1], 0).into())?;
            Ok((socket.local_addr()?.port(), socket))
        };
        let (port, socket) = reserve().map_err(|source: io::Error| Error::File {
            attempt: "reserve a port of 127.0.0.1".to_owned(),
            source,
        })?;
        Ok(Self { port, _socket: socket })
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} bytes", self.loaded_bytes, self.total_bytes)
    }
}

/// A line of level warning (`1:S 21 Nov 2026 06:08:44.629 # …`) that is not said at every start, or
/// one of the check that a server runs on the RDB it cannot read.
fn complaint(line: &str) -> Option<&str> {
    const USUAL: [&str; 6] = [
        "oO0OoO0OoO0Oo",
        "just started",
        "Configuration loaded",
        "Server initialized",
        "WARNING Memory overcommit",
        "Error condition on socket for SYNC",
    ];
    let line = line.trim();
    let text = if line.starts_with("[offset") { line } else { line.split_once(" # ")?.1 };
    (!USUAL.iter().any(|usual| text.contains(usual))).then_some(text)
}

fn file_error(verb: &str, path: &Path, source: io::Error) -> Error {
    Error::File { attempt: format!("{verb} {}", path.display()), source }
}
