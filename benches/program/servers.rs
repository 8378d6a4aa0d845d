//! A private Redis and a private S3 server on the loopback, from those that the tests use. Each ends with its handle.

use std::{
    env, fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::Result;

const START_WAIT_MAX: Duration = Duration::from_secs(30);
const SETTLE_WAIT_MAX: Duration = Duration::from_mins(1);
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

pub(crate) const ACCESS_KEY: &str = "bench";
pub(crate) const SECRET_KEY: &str = "bench-secret";
pub(crate) const REGION: &str = "us-east-1";
pub(crate) const BUCKET: &str = "bench";

/// Where `make servers` has put them.
pub(crate) fn server_folder(name: &str) -> Result<PathBuf> {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")));
    let folder = cache.ok_or("no HOME")?.join("redis-backup/servers").join(name);
    if folder.join("server").exists() {
        return Ok(folder);
    }
    Err(format!("{name} is not there; run `make servers`").into())
}

/// A server on a port. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) port: u16,
    child: Child,
}

impl Server {
    /// Diskless replication without a delay, so that a capture waits for the fork alone.
    pub(crate) fn redis(folder: &Path) -> Result<Self> {
        let port = free_port()?;
        let mut command = Command::new(server_folder("redis-7.0")?.join("bin/redis-server"));
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
        command.args(["--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0"]);
        command.args(["--appendonly", "no", "--dir"]).arg(folder);
        Self::start(port, &mut command)
    }

    /// One folder per bucket below `folder`/data, one file per object.
    pub(crate) fn s3(folder: &Path) -> Result<Self> {
        let port = free_port()?;
        let (data, versions) = (folder.join("data"), folder.join("versions"));
        fs::create_dir_all(data.join(BUCKET))?;
        fs::create_dir_all(&versions)?;
        let mut command = Command::new(server_folder("versitygw")?.join("bin/versitygw"));
        command.env("ROOT_ACCESS_KEY", ACCESS_KEY).env("ROOT_SECRET_KEY", SECRET_KEY);
        command.args(["--port", &format!("127.0.0.1:{port}"), "--quiet", "--region", REGION]);
        command.args(["posix", "--versioning-dir"]).arg(versions).arg(data);
        Self::start(port, &mut command)
    }

    /// Waits until no replica is served and no child saves.
    pub(crate) fn settle(&self) -> Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < SETTLE_WAIT_MAX {
            let facts = self.ask("INFO")?;
            let quiet = [
                "rdb_bgsave_in_progress:0",
                "connected_slaves:0",
                "aof_rewrite_in_progress:0",
                "aof_rewrite_scheduled:0",
            ];
            if quiet.iter().all(|fact| facts.contains(fact)) {
                return Ok(());
            }
            thread::sleep(LOOK_INTERVAL);
        }
        Err("the server does not come to rest".into())
    }

    /// The answer to one inline command.
    pub(crate) fn ask(&self, command: &str) -> Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.write_all(format!("{command}\r\nQUIT\r\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    fn start(port: u16, command: &mut Command) -> Result<Self> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let child = child.map_err(|error| format!("start {command:?}: {error}"))?;
        let server = Self { port, child };
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if begun.elapsed() > START_WAIT_MAX {
                return Err(format!("{command:?} does not answer").into());
            }
            thread::sleep(LOOK_INTERVAL);
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already: then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
