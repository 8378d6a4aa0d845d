//! Files of pods through the API server: whole however often the way is cut, or by replication where a pod does not let us.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    cluster::{kubeconfig, told},
    installation::PLAIN,
    namespace::Namespace,
};

/// 200 MB of random strings, in pieces that a server takes at once.
const PIECES: u32 = 10;
const KEYS_OF_A_PIECE: u32 = 10_000;
const CAPTURES: u64 = 20;

/// The program on this machine, as an engineer's laptop runs it.
struct Laptop {
    folder: TempDir,
    kubeconfig: String,
}

impl Laptop {
    fn new(namespace: &Namespace) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = format!(
            "sources:\n  plain: {{kubernetes: {{namespace: {}, statefulSet: redis}}}}\n\
             stores:\n  disk: {{directory: {{path: ./store}}}}\n",
            namespace.name,
        );
        fs::write(folder.path().join("redis-backup.yaml"), config).unwrap();
        fs::create_dir(folder.path().join("store")).unwrap();
        let kubeconfig = fs::read_to_string(kubeconfig()).unwrap();
        Self { folder, kubeconfig }
    }

    /// Host and port of the API server.
    fn server(&self) -> String {
        let (_, rest) = self.kubeconfig.split_once("https://").unwrap();
        rest.split(['"', '\n', '/']).next().unwrap().to_owned()
    }

    fn through(&self, address: SocketAddr) -> Self {
        let kubeconfig = self.kubeconfig.replace(&self.server(), &address.to_string());
        Self { folder: TempDir::new_in(self.folder.path()).unwrap(), kubeconfig }
    }

    fn run(&self, at: &Self, arguments: &[&str]) -> Output {
        let kubeconfig = at.folder.path().join("kubeconfig");
        fs::write(&kubeconfig, &at.kubeconfig).unwrap();
        Command::new(env!("CARGO_BIN_EXE_redis-backup"))
            .current_dir(self.folder.path())
            .env("KUBECONFIG", kubeconfig)
            .args(["--output", "json"])
            .args(arguments)
            .output()
            .unwrap()
    }

    #[track_caller]
    fn done(&self, at: &Self, arguments: &[&str]) -> Value {
        let output = self.run(at, arguments);
        assert!(output.status.success(), "{}", told(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The reason and the method of a plan.
    #[track_caller]
    fn plan(&self, arguments: &[&str]) -> (String, String) {
        let plan = self.done(self, &[&["backup", "plain", "--dry-run"], arguments].concat());
        let shard = &plan["shards"][0];
        let text = |name: &str| shard[name].as_str().unwrap_or_default().to_owned();
        (text("method"), text("reason"))
    }
}

/// A line to the API server. While it holds a number of bytes, the next connection that brings more of them is
/// reset at that place.
struct Line {
    address: SocketAddr,
    cut_at: Arc<AtomicU64>,
}

impl Line {
    fn to(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let cut_at = Arc::new(AtomicU64::new(u64::MAX));
        let shared = Arc::clone(&cut_at);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&server) else { continue };
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                thread::spawn(move || copy(from, to, &AtomicU64::new(u64::MAX)));
                let cut_at = Arc::clone(&shared);
                thread::spawn(move || copy(server, client, &cut_at));
            }
        });
        Self { address, cut_at }
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, cut_at: &AtomicU64) {
    let (mut buffer, mut sent) = (vec![0; 64 << 10], 0);
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        sent += count as u64;
        if sent > cut_at.load(Ordering::Relaxed) {
            cut_at.store(u64::MAX, Ordering::Relaxed);
            break;
        }
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

fn fill_with_noise(namespace: &Namespace) {
    namespace.redis("redis-0", &["config", "set", "rdbcompression", "no"]);
    let script = "math.randomseed(ARGV[1]) for i = 1, ARGV[2] do local part = {} for j = 1, 16 do \
                  part[j] = string.format('%08x%08x', math.random(0, 2147483647), math.random(0, 2147483647)) end \
                  redis.call('SET', ARGV[1] .. ':' .. i, string.rep(table.concat(part), 8)) end return 'filled'";
    for piece in 1..=PIECES {
        let (piece, keys) = (piece.to_string(), KEYS_OF_A_PIECE.to_string());
        assert_eq!(namespace.redis("redis-0", &["eval", script, "0", &piece, &keys]), "filled");
    }
}

#[test]
fn two_hundred_megabytes_come_whole_through_a_way_that_is_cut() {
    let namespace = Namespace::create("exec");
    namespace.install(&PLAIN);
    fill_with_noise(&namespace);
    let laptop = Laptop::new(&namespace);
    let line = Line::to(laptop.server());
    let over_the_line = laptop.through(line.address);
    let mut cuts = 0;
    for round in 0..CAPTURES {
        if round % 2 == 1 {
            // From the first frame to the last, another place each time.
            line.cut_at.store(1_000_000 + 19_900_000 * (round / 2), Ordering::Relaxed);
        }
        let arguments = ["backup", "plain", "--method", "bgsave"];
        let backup = laptop.done(&over_the_line, &arguments);
        let keys = u64::from(PIECES * KEYS_OF_A_PIECE);
        assert_eq!(backup["backups"][0]["keys"], keys, "round {round}: {backup:#}");
        if round % 2 == 1 {
            cuts += u64::from(line.cut_at.swap(u64::MAX, Ordering::Relaxed) == u64::MAX);
        }
    }
    assert_eq!(cuts, CAPTURES / 2, "each of them was cut");
    laptop.done(&laptop, &["verify", "--latest", "--source-name", "plain", "--level", "content"]);
}

#[test]
fn append_only_files_come_whole_while_they_are_rewritten() {
    let namespace = Namespace::create("exec-aof");
    namespace.install(&PLAIN);
    fill_with_noise(&namespace);
    namespace.redis("redis-0", &["bgrewriteaof"]);
    let laptop = Laptop::new(&namespace);
    thread::scope(|scope| {
        let rewrites = scope.spawn(|| {
            for key in 0..6 {
                namespace.redis("redis-0", &["set", &format!("extra:{key}"), "x"]);
                let _ = namespace.try_ask(&["exec", "redis-0", "--", "redis-cli", "bgrewriteaof"]);
            }
        });
        for _ in 0..2 {
            laptop.done(&laptop, &["backup", "plain", "--capture", "aof"]);
        }
        rewrites.join().unwrap();
    });
    laptop.done(&laptop, &["verify", "--latest", "--source-name", "plain", "--level", "content"]);
}

#[test]
fn a_container_without_a_shell_is_captured_by_replication_which_says_so() {
    let namespace = Namespace::create("no-shell");
    let installation = PLAIN.objects();
    // Nothing of its image but the server is left where programs are looked for.
    let bare = installation
        .replace("volumeMounts: [{name: data", "volumeMounts: [{name: programs, mountPath: /usr/bin}, {name: data")
        .replace("args: [redis-server", "command: [/usr/bin/redis-server]\n          args: [")
        .replace("args: [, ", "args: [")
        .replace(
            "      containers:\n",
            "      volumes: [{name: programs, emptyDir: {}}]\n      initContainers:\n        - name: programs\n          \
             image: localhost/redis:7.0\n          command: [sh, -c, 'cp -L $(command -v redis-server) $(command -v redis-cli) /programs/']\n          \
             securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}\n          \
             volumeMounts: [{name: programs, mountPath: /programs}]\n      containers:\n",
        );
    namespace.apply(&bare);
    namespace.ask(&["rollout", "status", "statefulset/redis", "--timeout=180s"]);
    let laptop = Laptop::new(&namespace);
    let (method, reason) = laptop.plan(&[]);
    assert_eq!(method, "replication", "{reason}");
    assert!(reason.contains("has no shell"), "{reason}");
    let backup = laptop.done(&laptop, &["backup", "plain"]);
    assert_eq!(backup["backups"].as_array().unwrap().len(), 1);
}

#[test]
fn a_full_volume_refuses_bgsave_before_the_server_is_asked() {
    let namespace = Namespace::create("exec-full");
    let small = PLAIN
        .objects()
        .replace("spec: {accessModes", "spec: {storageClassName: small, accessModes");
    namespace.apply(&small.replace("\"yes\"", "\"no\""));
    namespace.ask(&["rollout", "status", "statefulset/redis", "--timeout=180s"]);
    // None of its own, which would fail here.
    namespace.redis("redis-0", &["config", "set", "save", ""]);
    namespace.fill("redis-0", 100_000);
    let full = "free=$(df -Pk /data | tail -1 | tr -s ' ' | cut -d ' ' -f 4); \
                head -c $(( (free - 2048) * 1024 )) /dev/zero >/data/filler";
    namespace.ask(&["exec", "redis-0", "--", "sh", "-c", full]);
    let laptop = Laptop::new(&namespace);
    let output = laptop.run(&laptop, &["backup", "plain", "--method", "bgsave"]);
    let told = told(&output);
    assert_eq!(output.status.code(), Some(10), "{told}");
    assert!(told.contains("filesystem of its data directory has"), "{told}");
    assert!(namespace.redis("redis-0", &["info", "persistence"]).contains("rdb_saves:0"));
    let (method, reason) = laptop.plan(&[]);
    assert_eq!(method, "replication", "{reason}");
}
