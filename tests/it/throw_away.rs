//! Real servers for tests of restores: started on a directory, asked, killed by their process id.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use redis_backup::domain::{compatibility::ServerVersion, dataset::Names, manifest::Flavour};
use tempfile::TempDir;

/// A server on a unix socket in a folder of its own; killed when dropped.
pub(crate) struct Server {
    child: Child,
    connection: redis::Connection,
    _folder: TempDir,
}

impl Server {
    /// Returns when it has loaded; panics with its log if it ends before.
    pub(crate) fn start(binary: &Path, dir: &Path, names: &Names) -> Self {
        let folder = TempDir::new().unwrap();
        let socket = folder.path().join("s");
        let log = folder.path().join("log");
        let mut command = Command::new(binary);
        command.args(["--port", "0", "--save", "", "--dir"]).arg(dir);
        command.args([
            "--dbfilename",
            &names.dbfilename,
            "--appendfilename",
            &names.appendfilename,
        ]);
        command.args(["--appendonly", if names.appendonly { "yes" } else { "no" }, "--unixsocket"]);
        command.arg(&socket).stdin(Stdio::null());
        let mut child =
            command.stdout(fs::File::create(&log).unwrap()).stderr(Stdio::null()).spawn().unwrap();
        let client = redis::Client::open(format!("unix://{}", socket.display())).unwrap();
        // Half a minute, on a busy machine.
        for _ in 0..1500 {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("{status}: {}", fs::read_to_string(log).unwrap());
            }
            if let Ok(mut connection) = client.get_connection()
                && redis::cmd("PING").query::<String>(&mut connection).is_ok()
            {
                return Self { child, connection, _folder: folder };
            }
            sleep(Duration::from_millis(20));
        }
        let _ = child.kill();
        panic!("no answer: {}", fs::read_to_string(log).unwrap());
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn connection(&mut self) -> &mut redis::Connection {
        &mut self.connection
    }

    /// Words are parted by a space each, but those behind a `|` are one.
    pub(crate) fn ask<T: redis::FromRedisValue>(&mut self, command: &str) -> T {
        let (words, last) = command.split_once('|').unwrap_or((command, ""));
        let words = words.trim_end().split(' ').chain(Some(last).filter(|last| !last.is_empty()));
        redis::Cmd::new().arg(words.collect::<Vec<_>>()).query(self.connection()).unwrap()
    }

    /// Of database 0, sorted.
    pub(crate) fn keys(&mut self) -> Vec<String> {
        let mut keys: Vec<String> = self.ask("KEYS *");
        keys.sort();
        keys
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Every Redis and Valkey that `tests/servers/fetch` brought, oldest Redis first.
pub(crate) fn installed() -> Vec<(PathBuf, ServerVersion)> {
    let cache = env::var_os("XDG_CACHE_HOME")
        .map_or_else(|| PathBuf::from(env::var_os("HOME").unwrap()).join(".cache"), PathBuf::from);
    let folder = cache.join("redis-backup/servers");
    let entries = fs::read_dir(&folder).expect("run tests/servers/fetch first");
    let mut servers: Vec<(PathBuf, ServerVersion)> = entries
        .filter_map(|entry| {
            let folder = entry.unwrap().path();
            let text = fs::read_to_string(folder.join("server")).ok()?;
            let version = text.trim().replace(' ', "-");
            let binary = folder.join("bin/redis-server");
            binary.exists().then(|| (binary, version.parse().unwrap()))
        })
        .collect();
    servers.sort_by_key(|&(_, version)| version);
    assert!(servers.iter().any(|(_, version)| version.flavour == Flavour::Valkey));
    assert!(servers.len() > 3, "run tests/servers/fetch first: {servers:?}");
    servers
}

/// The RDB that a server of that kind saves after these commands.
pub(crate) fn rdb_with(binary: &Path, commands: &[&str]) -> Vec<u8> {
    let dir = TempDir::new().unwrap();
    let mut server = Server::start(binary, dir.path(), &Names::default());
    for command in commands {
        server.ask::<redis::Value>(command);
    }
    server.ask::<()>("SAVE");
    drop(server);
    fs::read(dir.path().join("dump.rdb")).unwrap()
}
