//! Files of pods through the API server: whole however often the way is cut, or by replication where a pod does not let us.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    process::{Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use redis_backup::domain::digest::Sha256;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    cluster::{kubeconfig, told, wait_for},
    installation::PLAIN,
    namespace::{Namespace, PATIENCE},
    servers::version::Version,
};

/// 200 MB of random strings, in pieces that a server takes at once.
const PIECES: u32 = 10;
const KEYS_OF_A_PIECE: u32 = 5_000;
const CAPTURES: u64 = 20;
/// Far less than a command is given that waits in vain for a reader.
const BOUND: Duration = Duration::from_mins(1);

/// The program on this machine, as an engineer's laptop runs it.
pub struct Laptop {
    pub folder: TempDir,
    kubeconfig: String,
}

impl Laptop {
    pub fn new(namespace: &Namespace) -> Self {
        Self::with(namespace, "execStreams: 1", "")
    }

    fn with(namespace: &Namespace, streams: &str, pace: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = format!(
            "sources:\n  plain: {{kubernetes: {{namespace: {}, statefulSet: redis, {streams}}}, compression: {{codec: none}}}}\n\
             stores:\n  disk: {{directory: {{path: ./store{pace}}}}}\n\
             schedules:\n  daily: {{source: plain, cron: '0 2 * * *', capture: [rdb, aof], stores: [disk]}}\n",
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

    pub fn command(&self, at: &Self, arguments: &[&str]) -> Command {
        let kubeconfig = at.folder.path().join("kubeconfig");
        fs::write(&kubeconfig, &at.kubeconfig).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_redis-backup"));
        command.current_dir(self.folder.path()).env("KUBECONFIG", kubeconfig);
        command.args(["--output", "json"]).args(arguments);
        command
    }

    pub fn run(&self, at: &Self, arguments: &[&str]) -> Output {
        self.command(at, arguments).output().unwrap()
    }

    #[track_caller]
    pub fn done(&self, at: &Self, arguments: &[&str]) -> Value {
        let output = self.run(at, arguments);
        assert!(output.status.success(), "{}", told(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The files of the newest backup.
    #[track_caller]
    fn fetched(&self) -> TempDir {
        let folder = TempDir::new().unwrap();
        let into = folder.path().to_str().unwrap();
        let which = ["fetch", "--latest", "--source-name", "plain", "--store", "disk"];
        self.done(self, &[&which[..], &["--into", into]].concat());
        folder
    }

    /// The digest of the dump of a backup as it lies in the store, which is as it was sent.
    fn stored(&self, backup: &str) -> String {
        let folder = self.folder.path().join("store/plain/archives").join(backup);
        let dump = fs::read(folder.join("shard-0000/dump.rdb.000")).unwrap();
        Sha256::of(&dump).to_string()
    }

    /// What a server that is started on the newest backup makes of all its values.
    #[track_caller]
    fn digest_of_backup(&self, appendonly: &str) -> String {
        let folder = self.fetched();
        let version = Version::named("redis-7.0");
        let at = |name: &str| folder.path().join(name).display().to_string();
        let (socket, log) = (at("socket"), at("log"));
        let mut server = Command::new(version.program("redis-server"))
            .args(["--port", "0", "--unixsocket", &socket, "--logfile", &log, "--save", ""])
            .args(["--dir", &at("."), "--appendonly", appendonly, "--enable-debug-command", "yes"])
            .spawn()
            .unwrap();
        let ask = |command: &[&str]| {
            let mut client = Command::new(version.program("redis-cli"));
            let output = client.args(["-e", "-s", &socket]).args(command).output().unwrap();
            output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
        };
        // A digest is told while it loads, too.
        wait_for("a server on the files of a backup", PATIENCE, || ask(&["ping"]));
        let digest = ask(&["debug", "digest"]).unwrap();
        server.kill().unwrap();
        server.wait().unwrap();
        digest.trim().to_owned()
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

/// One Redis that tells a digest of all its values.
fn with_digests() -> String {
    PLAIN.objects().replace("--requirepass", "--enable-debug-command, local, --requirepass")
}

fn install(namespace: &Namespace) {
    namespace.apply(&with_digests());
    namespace.ask(&["rollout", "status", "statefulset/redis", "--timeout=180s"]);
    // What it saves and rewrites, it does for us.
    namespace.redis("redis-0", &["config", "set", "save", ""]);
    namespace.redis("redis-0", &["config", "set", "auto-aof-rewrite-percentage", "0"]);
}

#[test]
fn two_hundred_megabytes_come_whole_through_a_way_that_is_cut() {
    let namespace = Namespace::create("exec");
    install(&namespace);
    namespace.fill_with_noise("redis-0", PIECES, KEYS_OF_A_PIECE);
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
        // Byte by byte what lies in the pod, whatever we think of an RDB.
        let saved = namespace.ask(&["exec", "redis-0", "--", "sha256sum", "/data/dump.rdb"]);
        let id = backup["backups"][0]["backup"].as_str().unwrap();
        let stored = laptop.stored(id);
        assert_eq!(saved.split(' ').next().unwrap(), stored, "round {round}");
    }
    assert_eq!(cuts, CAPTURES / 2, "each of them was cut");
    let quiet = namespace.redis("redis-0", &["debug", "digest"]);
    assert_eq!(quiet, laptop.digest_of_backup("no"));
    wait_for("the end of all that was begun in the container", PATIENCE, || {
        left(&namespace).is_empty().then_some(())
    });
}

/// What runs in the container and is no Redis, be it that it ended and nobody waited for it.
fn left(namespace: &Namespace) -> Vec<String> {
    let all = namespace.ask(&["exec", "redis-0", "--", "ps"]);
    let is_ours = |line: &&str| {
        let command = line.split_whitespace().skip(2).collect::<Vec<_>>().join(" ");
        !["COMMAND", "ps", "{ps}"].iter().any(|it| command.starts_with(it))
            && !command.contains("redis-")
    };
    all.lines().filter(is_ours).map(str::to_owned).collect()
}

#[test]
fn nothing_is_left_in_a_container_when_a_run_is_killed_in_the_middle_of_a_file() {
    let namespace = Namespace::create("exec-killed");
    install(&namespace);
    namespace.fill_with_noise("redis-0", PIECES, KEYS_OF_A_PIECE);
    // No dead run's stream is waited for, and a file takes long enough to be seen on its way.
    let laptop = Laptop::with(&namespace, "execStreams: 8", ", uploadMaxPerSecond: 8MiB");
    for round in 0..5 {
        let mut run = laptop.command(&laptop, &["backup", "plain", "--method", "bgsave"]);
        let mut run = run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // By the beginning of its script, for a line of `ps` has an end.
        let sends = |line: &String| line.contains("chunk=$2");
        wait_for("a command that sends", PATIENCE, || {
            left(&namespace).iter().any(sends).then_some(())
        });
        run.kill().unwrap();
        run.wait().unwrap();
        wait_for(&format!("the end of what was killed in round {round}"), BOUND, || {
            let left = left(&namespace);
            // Told where it is not the end.
            eprintln!("left in round {round}: {left:#?}");
            left.is_empty().then_some(())
        });
    }
}

#[test]
fn append_only_files_come_whole_while_they_are_rewritten() {
    let namespace = Namespace::create("exec-aof");
    install(&namespace);
    namespace.fill_with_noise("redis-0", PIECES, KEYS_OF_A_PIECE);
    rewrite(&namespace);
    let laptop = Laptop::new(&namespace);
    let back_up = || laptop.done(&laptop, &["backup", "plain", "--capture", "aof"]);
    thread::scope(|scope| {
        let rewrites = scope.spawn(|| {
            for key in 0..6 {
                namespace.redis("redis-0", &["set", &format!("extra:{key}"), "x"]);
                rewrite(&namespace);
            }
        });
        back_up();
        back_up();
        rewrites.join().unwrap();
    });
    laptop.done(&laptop, &["verify", "--latest", "--source-name", "plain", "--level", "content"]);
    namespace.redis("redis-0", &["set", "after", "all"]);
    let quiet = namespace.redis("redis-0", &["debug", "digest"]);
    back_up();
    assert_eq!(quiet, laptop.digest_of_backup("yes"));
}

/// Begins one and waits for its end.
fn rewrite(namespace: &Namespace) {
    namespace.redis("redis-0", &["bgrewriteaof"]);
    wait_for("the rewrite to end", PATIENCE, || {
        let info = namespace.redis("redis-0", &["info", "persistence"]);
        let is_over = ["aof_rewrite_in_progress:0", "aof_rewrite_scheduled:0"];
        is_over.iter().all(|line| info.contains(line)).then_some(())
    });
}

#[test]
fn a_container_without_a_shell_is_captured_by_replication_which_says_so() {
    let namespace = Namespace::create("no-shell");
    let installation = with_digests();
    // Nothing of its image but the server is left where programs are looked for.
    let bare = installation
        .replace("volumeMounts: [{name: data", "volumeMounts: [{name: programs, mountPath: /usr/bin}, {name: data")
        .replace("args: [redis-server", "command: [/usr/bin/redis-server]\n          args: [")
        .replace("args: [, ", "args: [")
        .replace(
            "      containers:\n",
            "      volumes: [{name: programs, emptyDir: {}}]\n      initContainers:\n        - name: programs\n          \
             image: localhost/redis:7.0\n          command: [sh, -c, 'cp -L /usr/lib/redis/redis-server $(command -v redis-cli) /programs/']\n          \
             securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}\n          \
             volumeMounts: [{name: programs, mountPath: /programs}]\n      containers:\n",
        );
    namespace.apply(&bare);
    namespace.ask(&["rollout", "status", "statefulset/redis", "--timeout=180s"]);
    let laptop = Laptop::new(&namespace);
    let (method, reason) = laptop.plan(&[]);
    assert_eq!(method, "replication", "{reason}");
    assert!(reason.contains("has no shell"), "{reason}");
    namespace.fill("redis-0", 1000);
    let backup = laptop.done(&laptop, &["backup", "plain"]);
    assert_eq!(backup["backups"][0]["keys"], 1000, "{backup:#}");
    let quiet = namespace.redis("redis-0", &["debug", "digest"]);
    assert_eq!(quiet, laptop.digest_of_backup("no"));
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
