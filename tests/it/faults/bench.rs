//! A real source, a real store and the real program between them, with everything a test wants to know of the three. Injects nothing.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use jiff::Timestamp;
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
use redis_backup::domain::{digest::Digester, manifest::Manifest};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::servers::{
    Version,
    redis::Server,
    s3::{ACCESS_KEY, REGION, S3Server, SECRET_KEY},
};

/// The name of every source here.
pub const SOURCE: &str = "sessions";

/// The bucket of every S3 store here.
pub const BUCKET: &str = "backups";

/// Long ago for a sweep, and an id that says so.
pub const LONG_AGO: &str = "20200101T000000Z-manual-aaaaaa";

/// A run of the program that has ended.
#[derive(Debug)]
pub struct Ended {
    /// None after a kill.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Where the backups of a test lie.
#[derive(Debug)]
pub enum Place {
    Directory(TempDir),
    S3(Box<S3Server>),
}

#[derive(Debug)]
pub struct Bench {
    pub source: Server,
    pub place: Place,
    /// What the program keeps on this host: its locks and its spool.
    pub folder: TempDir,
}

impl Ended {
    #[track_caller]
    pub fn assert_code(&self, code: u8) -> &Self {
        assert_eq!(self.code, Some(i32::from(code)), "{}\n{}", self.stdout, self.stderr);
        self
    }

    /// Each of the texts stands in what a person reads.
    #[track_caller]
    pub fn assert_says(&self, texts: &[&str]) -> &Self {
        for text in texts {
            assert!(self.stderr.contains(text), "{text:?} is not told:\n{}", self.stderr);
        }
        self
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Place {
    pub fn directory() -> Self {
        Self::Directory(on_disk())
    }

    pub fn s3() -> Self {
        let server = S3Server::start(false);
        server.create_bucket(BUCKET, false);
        Self::S3(Box::new(server))
    }

    /// A bucket that can lock; what is stored there is locked where the store says so.
    pub fn lockable_s3() -> Self {
        let server = S3Server::start(false);
        server.create_locked_bucket(BUCKET);
        Self::S3(Box::new(server))
    }

    /// As `--store` takes it.
    pub fn text(&self) -> String {
        match self {
            Self::Directory(folder) => folder.path().display().to_string(),
            Self::S3(server) => s3_text(&server.endpoint()),
        }
    }

    /// The folder in which the objects lie as files.
    pub fn root(&self) -> PathBuf {
        match self {
            Self::Directory(folder) => folder.path().to_owned(),
            Self::S3(server) => server.data_dir().join(BUCKET),
        }
    }

    /// Where uploads lie that were begun and not ended.
    pub fn unfinished_folder(&self) -> PathBuf {
        match self {
            Self::Directory(folder) => folder.path().join(".staging"),
            Self::S3(_) => self.root().join(".sgwtmp/multipart"),
        }
    }

    /// Names of all objects.
    pub fn keys(&self) -> BTreeSet<String> {
        let root = self.root();
        let key = |path: PathBuf| path.strip_prefix(&root).unwrap().display().to_string();
        let is_object = |key: &String| !key.starts_with('.');
        files(&root).into_iter().map(key).filter(is_object).collect()
    }

    /// Objects below `archives/`.
    pub fn archives(&self) -> BTreeSet<String> {
        self.keys().into_iter().filter(|key| key.contains("/archives/")).collect()
    }

    /// Staged files, or uploads in parts.
    pub fn unfinished(&self) -> Vec<PathBuf> {
        let folder = self.unfinished_folder();
        match self {
            Self::Directory(_) => files(&folder),
            // A folder per key, and in it a folder per upload.
            Self::S3(_) => entries(&folder).iter().flat_map(|key| entries(key)).collect(),
        }
    }

    /// Archives of backups that have no manifest.
    pub fn orphans(&self) -> BTreeSet<String> {
        let keys = self.keys();
        let is_committed = |archive: &String| {
            let backup = archive.split('/').nth(2).unwrap();
            keys.contains(&format!("{SOURCE}/manifests/{backup}.json"))
        };
        self.archives().into_iter().filter(|archive| !is_committed(archive)).collect()
    }

    /// Makes a folder of the store and all in it two days and an hour old.
    pub fn age(path: &Path) {
        let old = "49 hours ago";
        let mut paths = vec![path.to_owned()];
        paths.extend(everything(path));
        let touched = Command::new("touch").args(["-d", old, "--"]).args(paths).status().unwrap();
        assert!(touched.success());
    }
}

impl Bench {
    /// A source with so many values of 64 KiB that no codec makes smaller.
    pub fn new(place: Place, values: usize) -> Self {
        Self::on(Server::start(&Version::usual(), &[]), place, values)
    }

    pub fn on(source: Server, place: Place, values: usize) -> Self {
        fill(&source, values, 1);
        Self { source, place, folder: on_disk() }
    }

    /// The program with what it needs of the environment and nothing else.
    pub fn program(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_redis-backup"));
        command
            .env_clear()
            .env("PATH", env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.folder.path())
            .env("TMPDIR", self.folder.path())
            .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        command
    }

    /// A verb and its arguments, split at spaces.
    pub fn verb(&self, line: &str) -> Command {
        self.verb_at(line, &self.place.text())
    }

    /// The same with the store reached another way.
    pub fn verb_at(&self, line: &str, store: &str) -> Command {
        let mut command = self.program();
        command.args(line.split(' ')).args(["--source-name", SOURCE, "--store", store]);
        command
    }

    pub fn backup(&self) -> Command {
        self.backup_at(&self.place.text())
    }

    pub fn backup_at(&self, store: &str) -> Command {
        let mut command = self.verb_at("backup --output json", store);
        command.args(["--source-url", &self.source.url()]);
        command
    }

    /// Backs up with a config file that says this of the source, indented by four.
    pub fn backup_configured(&self, store: &str, source_lines: &str) -> Command {
        let config = self.folder.path().join("config.yaml");
        let url = self.source.url();
        let text = format!("sources:\n  {SOURCE}:\n    nodes: [\"{url}\"]\n{source_lines}\n");
        fs::write(&config, text).unwrap();
        let mut command = self.program();
        command.args(["backup", SOURCE, "--output", "json", "--store", store, "--config"]);
        command.arg(config);
        command
    }

    /// Backs up undisturbed; its id.
    #[track_caller]
    pub fn back_up(&self) -> String {
        let ended = run(&mut self.backup());
        ended.assert_code(0);
        ended.json()["backups"][0]["backup"].as_str().unwrap().to_owned()
    }

    /// How long an undisturbed backup takes.
    pub fn back_up_timed(&self) -> Duration {
        let begun = Instant::now();
        self.back_up();
        begun.elapsed()
    }

    /// What `list` lists.
    #[track_caller]
    pub fn listed(&self) -> BTreeSet<String> {
        let ended = run(&mut self.verb("list --output json"));
        ended.assert_code(0);
        let backups = ended.json()["backups"].clone();
        let id = |backup: &serde_json::Value| backup["backup"].as_str().unwrap().to_owned();
        backups.as_array().unwrap().iter().map(id).collect()
    }

    /// The promise itself: every listed backup can be read back whole. How many there are.
    #[track_caller]
    pub fn assert_listed_are_whole(&self, proven: &mut BTreeSet<String>) -> usize {
        let listed = self.listed();
        for backup in &listed {
            if proven.insert(backup.clone()) {
                run(&mut self.verb(&format!("verify {backup} --level content"))).assert_code(0);
            }
        }
        assert!(proven.is_subset(&listed), "a backup vanished: {proven:?}, {listed:?}");
        listed.len()
    }

    /// Nothing of the failed run is in the store.
    #[track_caller]
    pub fn assert_nothing_remains(&self) {
        assert_eq!(self.place.orphans(), BTreeSet::new());
        assert_eq!(self.place.unfinished(), Vec::<PathBuf>::new());
    }

    /// The notes of all runs, oldest first.
    #[track_caller]
    pub fn runs(&self) -> Vec<serde_json::Value> {
        let read = |path: PathBuf| serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        let mut runs: Vec<serde_json::Value> =
            files(&self.place.root().join(SOURCE).join("runs")).into_iter().map(read).collect();
        // Names tell no more than the second.
        runs.sort_by_key(|run| run["begun"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap());
        runs
    }
}

/// The manifest of a backup without compression, and its installation archive, under another id of the same length.
pub fn renamed(manifest: &[u8], installation: &[u8], from: &str, to: &str) -> (Vec<u8>, Vec<u8>) {
    let other = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap().replace(from, to);
    let installation = other(installation).into_bytes();
    let mut manifest = Manifest::decode(other(manifest).as_bytes()).unwrap();
    let mut digester = Digester::default();
    digester.update(&installation);
    let digests = digester.finish();
    let object = &mut manifest.installation.objects[0];
    (object.bytes, object.sha256, object.crc64nvme) =
        (digests.bytes, digests.sha256, digests.crc64nvme);
    (manifest.encode().unwrap(), installation)
}

/// Ids tell no more than the second, and two of one second are in no order of time.
#[expect(clippy::disallowed_methods, reason = "the program under test reads the same clock")]
pub fn next_second() {
    let begun = Timestamp::now().as_second();
    while Timestamp::now().as_second() == begun {
        thread::sleep(Duration::from_millis(20));
    }
}

/// A folder on a disk: the system's folder for temporary files may lie in memory.
pub fn on_disk() -> TempDir {
    TempDir::new_in("/var/tmp").unwrap()
}

pub fn s3_text(endpoint: &str) -> String {
    format!("s3://{BUCKET}?endpoint={endpoint}&region={REGION}")
}

/// Values that no codec makes smaller, and small ones with and without an end.
pub fn fill(server: &Server, values: usize, seed: u64) {
    let mut chance = SmallRng::seed_from_u64(seed);
    let mut connection = server.connection();
    for index in 0..values {
        let mut bytes = vec![0_u8; 64 << 10];
        chance.fill(&mut bytes[..]);
        let () = redis::cmd("SET")
            .arg(format!("{seed}:big:{index}"))
            .arg(bytes)
            .query(&mut connection)
            .unwrap();
    }
    for index in 0..50 {
        let key = format!("{seed}:small:{index}");
        let () = redis::cmd("SET").arg(&key).arg(index).query(&mut connection).unwrap();
        if index % 2 == 0 {
            let () = redis::cmd("EXPIRE").arg(&key).arg(100_000).query(&mut connection).unwrap();
        }
    }
}

/// Everything that a server holds, as one number of its own making.
#[track_caller]
pub fn digest(server: &Server) -> String {
    server.command("DEBUG DIGEST")
}

pub fn run(command: &mut Command) -> Ended {
    let output = command.output().unwrap();
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Moments within and a little beyond the time that a run takes, which is learnt anew from each run that
/// ends before its moment: a machine that was busy when the time was taken calms down.
#[derive(Debug)]
pub struct Moments {
    within: Duration,
    chance: SmallRng,
}

impl Moments {
    /// The seed is printed, and taken from `FAULTS_SEED` when that is set.
    pub fn new(what: &str, within: Duration) -> Self {
        let given = env::var("FAULTS_SEED").ok().map(|seed| seed.parse().unwrap());
        let seed: u64 = given.unwrap_or_else(rand::random);
        eprintln!("{what}: FAULTS_SEED={seed}, moments within {within:?}");
        Self { within, chance: SmallRng::seed_from_u64(seed) }
    }

    /// Anywhere in a run.
    pub fn anywhere(&mut self) -> Duration {
        self.within.mul_f64(self.chance.random_range(0.0..1.1))
    }

    /// In its last fifth.
    pub fn late(&mut self) -> Duration {
        self.within.mul_f64(self.chance.random_range(0.8..1.02))
    }

    /// Waits for the moment. Whether the run goes on until then.
    pub fn wait(&mut self, child: &mut Child, moment: Duration) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < moment {
            if child.try_wait().unwrap().is_some() {
                self.within = self.within.min(begun.elapsed());
                return false;
            }
            thread::sleep(Duration::from_millis(2).min(moment));
        }
        true
    }

    /// Starts the program and kills it at the moment, unless it has ended by then. Whether it was killed.
    pub fn run_and_kill(&mut self, command: &mut Command, moment: Duration) -> bool {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        self.wait(&mut child, moment);
        child.kill().unwrap();
        child.wait().unwrap().code().is_none()
    }
}

pub fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut entries: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    entries
}

/// All files and folders below a folder.
pub fn everything(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = entries(&folder);
        folders.extend(entries.iter().filter(|path| path.is_dir() && !path.is_symlink()).cloned());
        found.extend(entries);
    }
    found
}

pub fn files(folder: &Path) -> Vec<PathBuf> {
    everything(folder).into_iter().filter(|path| !path.is_dir()).collect()
}
