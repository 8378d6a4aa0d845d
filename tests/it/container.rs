//! Files out of a container through its own shell: exactly what lies there, however often the way is cut, or an error.

use std::{
    fmt, fs,
    future::pending,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use redis_backup::{
    domain::{capture::FileNames, observation::NodeObservation, source::NodeAddress},
    edge::{
        live_directory::{
            AofSet, Container, ContainerError, Ended, Error, Folder, OpenFile, Running,
            SavesBefore, Shell,
        },
        redis_node::{Access, aof, bgsave, observe_node},
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy, duplex, join},
    process::Command,
};

use crate::{
    redis_node::address,
    servers::{Version, redis::Server, wait_for},
};

/// The shells that images bring, as far as a Debian has them.
const SHELLS: [&str; 2] = ["dash", "bash"];

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A shell on this machine in the place of one in a container, and a way to it that can be cut.
#[derive(Debug)]
struct Here {
    shell: &'static str,
    /// Bytes after which the output of each command that streams ends, as if it were whole.
    cuts: Vec<u64>,
    runs: AtomicUsize,
    /// Each command has a session of its own, as in a container.
    sessions: Mutex<Vec<u32>>,
}

impl Here {
    fn new(shell: &'static str) -> Arc<Self> {
        Self::cut(shell, Vec::new())
    }

    fn cut(shell: &'static str, cuts: Vec<u64>) -> Arc<Self> {
        Arc::new(Self { shell, cuts, runs: AtomicUsize::new(0), sessions: Mutex::default() })
    }

    /// Processes of all commands that have not ended, as the kernel tells of them.
    fn left(&self) -> Vec<String> {
        let sessions = self.sessions.lock().unwrap();
        let all = fs::read_dir("/proc").unwrap();
        let stat = |entry: fs::DirEntry| fs::read_to_string(entry.path().join("stat")).ok();
        let is_ours = |stat: &String| {
            let of_session = stat.rsplit(") ").next().unwrap().split(' ').nth(3).unwrap();
            sessions.iter().any(|session| session.to_string() == of_session)
        };
        all.filter_map(|entry| stat(entry.unwrap())).filter(is_ours).collect()
    }
}

impl fmt::Display for Here {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on this machine", self.shell)
    }
}

#[async_trait]
impl Shell for Here {
    async fn run(&self, script: &str, arguments: &[String]) -> Result<Running, Cause> {
        let mut child = Command::new("setsid")
            .args([self.shell, "-c", script, "sh"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        self.sessions.lock().unwrap().push(child.id().unwrap());
        let mut input = child.stdin.take().unwrap();
        input.write_all(b"\n\n").await?;
        let mut stderr = child.stderr.take().unwrap();
        let is_stream = arguments.len() > 5;
        let run = if is_stream { self.runs.fetch_add(1, Ordering::Relaxed) } else { usize::MAX };
        let most = self.cuts.get(run).copied().unwrap_or(u64::MAX);
        let (output, mut way) = duplex(64 << 10);
        let mut sent = child.stdout.take().unwrap().take(most);
        tokio::spawn(async move {
            let _ = copy(&mut sent, &mut way).await;
            drop(way);
            // Whoever runs commands in containers holds their output open when nobody reads it any more.
            pending::<()>().await;
        });
        let output = Box::new(join(output, input));
        let ended = async move {
            let mut text = String::new();
            if most < u64::MAX {
                drop(child);
                return Ended::default();
            }
            let _ = stderr.read_to_string(&mut text).await;
            let status = child.wait().await.unwrap();
            let fault = (!status.success()).then(|| format!("command terminated: {status}"));
            Ended { fault, stderr: text }
        };
        Ok(Running { output, ended: Box::pin(ended) })
    }
}

/// A node whose INFO and CONFIG tell this much.
fn node(directory: &Path, dbfilename: Option<&str>) -> NodeObservation {
    let text = format!(
        "redis_version:7.0.15\r\nserver_time_usec:1\r\nrun_id:a\r\nrole:master\r\nprocess_id:{}\r\n",
        std::process::id(),
    );
    let mut node = NodeObservation::of_info(&NodeAddress::new("127.0.0.1", 1), &text).unwrap();
    node.settings.dir = Some(directory.display().to_string());
    node.settings.dbfilename = dbfilename.map(str::to_owned);
    node
}

async fn folder(shell: Arc<Here>, directory: &Path) -> Folder {
    let found = Container::find(shell, None, &node(directory, None)).await;
    Folder::Container(found.unwrap().0)
}

/// As a capture does it: read by a thread, brought by a task.
async fn read(file: OpenFile) -> Result<Vec<u8>, Error> {
    let (mut reader, serving) = file.begin();
    let reading = tokio::task::spawn_blocking(move || {
        let (mut all, mut buffer) = (Vec::new(), vec![0; 100_000]);
        loop {
            match reader.read_at(&mut buffer, all.len() as u64) {
                Ok(0) => return Ok(all),
                Ok(count) => all.extend_from_slice(&buffer[..count]),
                Err(error) => return Err(error),
            }
        }
    });
    serving.run().await?;
    Ok(reading.await.unwrap().unwrap())
}

/// Not to be guessed from any part of it, and never the same for two lengths.
fn content(bytes: usize) -> Vec<u8> {
    let mut state = bytes as u64 | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33).to_le_bytes()[0]
    };
    let mut content = b"REDIS0011".to_vec();
    content.resize_with(bytes.max(9), &mut next);
    content
}

fn replace(folder: &Path, name: &str, content: &[u8]) {
    let temporary = folder.join("temp-1.rdb");
    fs::write(&temporary, content).unwrap();
    fs::rename(temporary, folder.join(name)).unwrap();
}

async fn saved(folder: &Folder, directory: &Path, name: &str, bytes: &[u8]) -> OpenFile {
    let before: SavesBefore = folder.before_save(Some(name)).await.unwrap();
    assert!(folder.fresh_dump(&before).await.unwrap().is_none(), "nothing is new yet");
    replace(directory, name, bytes);
    let dump = folder.fresh_dump(&before).await.unwrap().expect("a new file");
    assert_eq!(dump.bytes, bytes.len() as u64);
    dump.file
}

#[tokio::test]
async fn a_file_of_any_length_comes_out_of_any_shell() {
    for shell in SHELLS {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("My 'data'");
        fs::create_dir(&path).unwrap();
        for bytes in [9, 65_536, 4 << 20, (4 << 20) + 1, 13_000_001] {
            let folder = folder(Here::new(shell), &path).await;
            let content = content(bytes);
            let file = saved(&folder, &path, "My $Dump.rdb", &content).await;
            // What takes its name away does not take it from us.
            replace(&path, "My $Dump.rdb", b"REDIS0011 another");
            assert!(read(file).await.unwrap() == content, "{bytes} bytes by {shell}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_is_mended_at_the_last_proven_byte() {
    let directory = tempfile::tempdir().unwrap();
    let content = content(22_000_000);
    // The first command is one that finds the old file.
    let cuts = vec![u64::MAX, 10, 4_194_400, 9_000_000, 30, 300, 8_388_900];
    let count = cuts.len();
    let shell = Here::cut("sh", cuts);
    let folder = folder(Arc::<Here>::clone(&shell), directory.path()).await;
    replace(directory.path(), "dump.rdb", b"REDIS0011 old");
    let file = saved(&folder, directory.path(), "dump.rdb", &content).await;
    assert!(read(file).await.unwrap() == content);
    assert!(shell.runs.load(Ordering::Relaxed) > count, "each of them was cut");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_running_where_the_way_was_cut_or_nobody_reads_on() {
    for name in SHELLS {
        let directory = tempfile::tempdir().unwrap();
        let content = content(22_000_000);
        let shell = Here::cut(name, vec![u64::MAX, 9_000_000, 300, 4_194_400]);
        let folder = folder(Arc::<Here>::clone(&shell), directory.path()).await;
        replace(directory.path(), "dump.rdb", b"REDIS0011 old");
        let file = saved(&folder, directory.path(), "dump.rdb", &content).await;
        assert!(read(file).await.unwrap() == content);
        drop(saved(&folder, directory.path(), "dump.rdb", &content).await);
        wait_for("all processes to end", || shell.left().is_empty().then_some(()));
        assert!(shell.sessions.lock().unwrap().len() > 6, "each was one of several commands");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_replaced_is_never_gone_on_with() {
    let directory = tempfile::tempdir().unwrap();
    let content = content(22_000_000);
    let shell = Here::cut("sh", vec![u64::MAX, 9_000_000]);
    let folder = folder(shell, directory.path()).await;
    replace(directory.path(), "dump.rdb", b"REDIS0011 old");
    let file = saved(&folder, directory.path(), "dump.rdb", &content).await;
    replace(directory.path(), "dump.rdb", &content);
    let error = read(file).await.unwrap_err();
    assert!(matches!(error, Error::Container(ContainerError::Replaced { .. })), "{error}");
}

#[tokio::test]
async fn a_link_is_refused_and_a_missing_directory_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let folder = folder(Here::new("sh"), directory.path()).await;
    let before = folder.before_save(Some("dump.rdb")).await.unwrap();
    std::os::unix::fs::symlink("/etc/hostname", directory.path().join("dump.rdb")).unwrap();
    let error = folder.fresh_dump(&before).await.unwrap_err();
    let causes = std::error::Error::source(&error).map(ToString::to_string);
    assert!(causes.unwrap_or_default().contains("is a link"), "{error}");
    let missing = node(Path::new("/nonexistent"), None);
    let error = Container::find(Here::new("sh"), None, &missing).await.unwrap_err();
    assert!(error.to_string().contains("/nonexistent"), "{error}");
}

/// Without any right to CONFIG GET: by the process, whatever the file is called.
#[tokio::test]
async fn a_directory_is_found_by_the_process_that_works_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&Version::named("redis-7.0"), &["dbfilename 'An RDB'"]);
    let () = server.command("SET a 1");
    let () = server.command("SAVE");
    let mut node = node(directory.path(), None);
    node.settings.dir = None;
    node.persistence.process_id = Some(server.pid());
    let (found, room) = Container::find(Here::new("sh"), None, &node).await.unwrap();
    let found_in = PathBuf::from(found.to_string().split(" of ").next().unwrap());
    assert_eq!(found_in, server.data_dir().canonicalize().unwrap());
    assert!(room.last_dump_bytes > 0 && room.disk_bytes > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_servers_own_save_is_accepted_by_the_rules_of_a_local_one() {
    let server = Server::start(&Version::named("redis-7.0"), &[]);
    let () = server.command("DEBUG POPULATE 1000 key 300");
    let observed = observe_node(&address(&server), &Access::default()).await.unwrap();
    let (container, _) = Container::find(Here::new("sh"), None, &observed).await.unwrap();
    for name in [Some("dump.rdb"), None] {
        let folder = Folder::Container(container.clone());
        let limits = bgsave::Limits::default();
        let (access, run_id) = (Access::default(), &observed.run_id);
        let saved = bgsave::save(&address(&server), &access, run_id, &folder, name, limits).await;
        let read = read(saved.unwrap().dump.file).await.unwrap();
        assert_eq!(read, fs::read(server.data_dir().join("dump.rdb")).unwrap());
    }
}

async fn read_set(set: AofSet) -> Vec<(String, Vec<u8>)> {
    let mut read_files = Vec::new();
    for file in set.files {
        let bytes = usize::try_from(file.bytes).unwrap();
        let all = read(file.file).await.unwrap();
        assert_eq!(all.len(), bytes);
        read_files.push((file.listed.name, all));
    }
    read_files
}

#[tokio::test(flavor = "multi_thread")]
async fn append_only_files_are_those_of_one_moment_while_they_are_rewritten() {
    let server =
        Server::start(&Version::named("redis-7.0"), &["appendonly yes", "rdbcompression no"]);
    let () = server.command("DEBUG POPULATE 20000 key 500");
    let () = server.command("BGREWRITEAOF");
    let observed = observe_node(&address(&server), &Access::default()).await.unwrap();
    let names = FileNames::default();
    for told in [false, true] {
        let shell = if told { Here::new("sh") } else { Here::cut("sh", vec![400, 5_000_000]) };
        let (container, _) = Container::find(shell, None, &observed).await.unwrap();
        let folder = Folder::Container(container);
        let names = if told {
            FileNames {
                appendfilename: Some("appendonly.aof".to_owned()),
                appenddirname: Some("appendonlydir".to_owned()),
                ..names.clone()
            }
        } else {
            names.clone()
        };
        let (address, access) = (address(&server), Access::default());
        let limits = bgsave::Limits { poll_max: Duration::from_millis(50), ..Default::default() };
        let (version, run_id) = (&observed.server, &observed.run_id);
        let opened = aof::open(&address, &access, version, run_id, &folder, &names, limits);
        let opened = opened.await.unwrap();
        if told {
            // What is open stays, whatever becomes of its name.
            let () = server.command("BGREWRITEAOF");
            wait_for("the rewrite to end", || {
                (server.info("aof_rewrite_in_progress").as_deref() == Some("0")).then_some(())
            });
        }
        let after = format!("after-{told}");
        let () = server.command(&format!("SET {after} 1"));
        let files = read_set(opened.set).await;
        assert!(files[0].1.starts_with(b"REDIS0") && files[0].1.len() > 10_000_000);
        assert!(
            files
                .iter()
                .all(|(_, bytes)| { !bytes.windows(after.len()).any(|it| it == after.as_bytes()) })
        );
    }
}
