//! Measures the program beside the tools that people use today, and writes the table of `docs/BENCHMARKS.md`.
//!
//! `cargo bench --bench program [-- --large] [--rounds N]`, or `make bench` and `make bench-large`.

#![expect(clippy::print_stdout, reason = "the figures are all there is to say")]
#![expect(clippy::disallowed_methods, reason = "a benchmark takes the time")]

mod dataset;
mod measure;
mod servers;
mod table;

use std::{
    env,
    error::Error,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use jiff::{SignedDuration, Timestamp};
use tempfile::TempDir;

use crate::{
    measure::{Usage, median, run, shell},
    servers::{ACCESS_KEY, BUCKET, REGION, SECRET_KEY, Server, server_folder},
    table::{Row, Target},
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const PROGRAM: &str = env!("CARGO_BIN_EXE_redis-backup");
const ROUNDS: usize = 5;
const LARGE_FACTOR: u64 = 4;
const LISTED_BACKUPS: u32 = 10_000;
const PRUNED_BACKUPS: i64 = 100_000;
const SOURCE: &str = "bench";
/// Names a WAL-G for Redis, where there is one to compare with.
const WAL_G: &str = "WAL_G";

/// A public key of age.
const RECIPIENT: &str = include_str!("../../tests/fixtures/keys/x25519.pub");

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let is_large = arguments.iter().any(|argument| argument == "--large");
    let rounds = arguments.iter().position(|argument| argument == "--rounds");
    let rounds = rounds.and_then(|at| arguments.get(at + 1)?.parse().ok()).unwrap_or(ROUNDS);
    let bench = Bench::prepare(if is_large { LARGE_FACTOR } else { 1 })?;
    let mut rows = vec![bench.scan(rounds)?];
    rows.extend(bench.capture(rounds)?);
    rows.extend(bench.capture_into_s3(rounds.min(3))?);
    rows.push(bench.verify(rounds)?);
    rows.push(bench.restore(rounds)?);
    rows.push(bench.copy_aof(rounds)?);
    rows.push(bench.list(rounds)?);
    rows.push(bench.prune(rounds)?);
    let title = if is_large { "large" } else { "regular" };
    let text = table::text(&bench.about, rounds, &rows);
    println!("\n{text}");
    table::write(title, &text)?;
    if let Some(missed) = rows.iter().find(|row| row.target.is_missed(row.measured)) {
        println!("missed: {}", missed.what);
    }
    Ok(())
}

/// A filled Redis, its RDB as a file, and a folder for all that is written; gone when dropped.
struct Bench {
    redis: Server,
    redis_cli: String,
    redis_check_rdb: String,
    folder: TempDir,
    rdb: PathBuf,
    /// Of the data set.
    about: String,
}

impl Bench {
    fn prepare(factor: u64) -> Result<Self> {
        // Beside the build, for the system's temporary folder may lie in memory.
        let folder = TempDir::with_prefix_in("bench-", env!("CARGO_TARGET_TMPDIR"))?;
        let redis = Server::redis(folder.path())?;
        let programs = server_folder("redis-7.0")?.join("bin");
        let redis_cli = format!("{} -p {}", programs.join("redis-cli").display(), redis.port);
        let redis_check_rdb = programs.join("redis-check-rdb").display().to_string();
        let keys = dataset::KEYS * factor;
        println!("filling a Redis with {keys} keys");
        dataset::fill(redis.port, keys)?;
        let rdb = folder.path().join("dump.rdb");
        shell(&format!("{redis_cli} --rdb {} 2>/dev/null", rdb.display()))?;
        let megabytes = rdb.metadata()?.len() / 1_000_000;
        let about = format!("{keys} keys of every type, an RDB of {megabytes} MB");
        let bench = Self { redis, redis_cli, redis_check_rdb, folder, rdb, about };
        bench.rest()?;
        Ok(bench)
    }

    /// Nothing of one run may be left to do when the next begins.
    fn rest(&self) -> Result<()> {
        self.redis.settle()?;
        shell("sync")?;
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn scan(&self, rounds: usize) -> Result<Row> {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let mut scan = Command::new(PROGRAM);
            scan.args(["inspect", "--slots", "0-8191"]).arg(&self.rdb);
            ours.push(run(&mut scan)?);
            theirs.push(run(Command::new(&self.redis_check_rdb).arg(&self.rdb))?);
        }
        println!("inspect {} · redis-check-rdb {}", spread(&ours), spread(&theirs));
        Ok(Row {
            what: "redis-check-rdb ÷ `inspect`, the scanner with CRC, counts and slots",
            measured: middle(&theirs) / middle(&ours),
            target: Target::AtLeast(5.0),
            unit: "×",
            detail: format!("{} and {}", times(&theirs), times(&ours)),
        })
    }

    /// Turn by turn, so that whatever else the machine does meets all of them.
    fn capture(&self, rounds: usize) -> Result<Vec<Row>> {
        let (mut captures, wal_g) = (Captures::default(), env::var_os(WAL_G));
        let (redis_cli, stored) = (&self.redis_cli, self.path("stored.zst"));
        for _ in 0..rounds {
            captures.null.push(shell(&format!("exec {redis_cli} --rdb - >/dev/null 2>&1"))?);
            self.rest()?;
            let store = self.path("store").display().to_string();
            captures.ours.push(run(&mut self.backup(&store))?);
            self.rest()?;
            let mut encrypted = self.backup(&self.path("sealed").display().to_string());
            captures.sealed.push(run(encrypted.args(["--recipient", RECIPIENT.trim()]))?);
            self.rest()?;
            let stored = stored.display();
            let line = format!("{redis_cli} --rdb - 2>/dev/null | zstd -q -1 >{stored}");
            captures.zstd.push(shell(&line)?);
            self.rest()?;
            if let Some(wal_g) = &wal_g {
                captures.wal_g.push(run(&mut self.wal_g(wal_g)?)?);
                self.rest()?;
            }
        }
        fs::remove_dir_all(self.path("sealed"))?;
        Ok(captures.rows())
    }

    /// As its documentation has it: the stream of `redis-cli --rdb -`, in its default codec.
    fn wal_g(&self, program: &OsStr) -> Result<Command> {
        let store = self.path("wal-g");
        fs::create_dir_all(&store)?;
        let mut push = Command::new(program);
        push.arg("backup-push").stderr(Stdio::null());
        push.env("WALG_FILE_PREFIX", store).env("WALG_COMPRESSION_METHOD", "lz4");
        push.env("WALG_STREAM_CREATE_COMMAND", format!("{} --rdb -", self.redis_cli));
        push.env("WALG_REDIS_HOST", "127.0.0.1");
        push.env("WALG_REDIS_PORT", self.redis.port.to_string());
        Ok(push)
    }

    fn capture_into_s3(&self, rounds: usize) -> Result<Vec<Row>> {
        let (folder, second) = (self.path("s3"), self.path("second"));
        let server = Server::s3(&folder)?;
        let (mut runs, mut both) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            runs.push(run(&mut with_credentials(self.backup(&s3_store(&server))))?);
            self.rest()?;
            let mut backup = with_credentials(self.backup(&s3_store(&server)));
            both.push(run(backup.arg("--store").arg(&second))?);
            self.rest()?;
        }
        println!("backup into S3 {}", spread(&runs));
        println!("backup into S3 and a directory at once {}", spread(&both));
        drop(server);
        fs::remove_dir_all(folder)?;
        fs::remove_dir_all(second)?;
        Ok(vec![
            memory("highest resident memory of `backup` into S3", &runs),
            memory("highest resident memory of `backup` into S3 and a directory at once", &both),
        ])
    }

    fn verify(&self, rounds: usize) -> Result<Row> {
        let mut ours = Vec::new();
        let theirs = self.unpack(rounds, |bench| {
            let mut verify = Command::new(PROGRAM);
            verify.args(["verify", "--latest", "--level", "content", "--store"]);
            ours.push(run(verify.arg(bench.path("store")))?);
            Ok(())
        })?;
        println!("verify {} · zstd {}", spread(&ours), spread(&theirs));
        Ok(Row {
            what: "`verify --level content` ÷ `zstd -dc | cat >file` and sync",
            measured: middle(&ours) / middle(&theirs),
            target: Target::AtMost(1.2),
            unit: "×",
            detail: format!("{} and {}", times(&ours), times(&theirs)),
        })
    }

    fn restore(&self, rounds: usize) -> Result<Row> {
        let mut ours = Vec::new();
        let theirs = self.unpack(rounds, |bench| {
            let data = bench.path("data");
            fs::create_dir(&data)?;
            let mut restore = Command::new(PROGRAM);
            restore.args(["restore", "--latest", "--redis-defaults", "--server-version", "7.0.15"]);
            restore.arg("--store").arg(bench.path("store")).arg("--data-dir").arg(&data);
            ours.push(run(&mut restore)?);
            fs::remove_dir_all(data)?;
            Ok(())
        })?;
        println!("restore {} · zstd {}", spread(&ours), spread(&theirs));
        Ok(Row {
            what: "`restore --data-dir` ÷ `zstd -dc | cat >file` and sync",
            measured: middle(&ours) / middle(&theirs),
            target: Target::AtMost(1.5),
            unit: "×",
            detail: format!("{} and {}", times(&ours), times(&theirs)),
        })
    }

    /// Commands alone, without an RDB at their beginning: the slower of the two to read.
    fn copy_aof(&self, rounds: usize) -> Result<Row> {
        self.redis.ask("CONFIG SET aof-use-rdb-preamble no")?;
        self.redis.ask("CONFIG SET appendonly yes")?;
        self.redis.settle()?;
        let folder = self.folder.path().join("appendonlydir");
        let (files, copy) = (format!("{}/*aof", folder.display()), self.path("copy.zst"));
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let mut backup = self.backup(&self.path("aof-store").display().to_string());
            backup.args(["--capture", "aof", "--data-dir"]).arg(self.folder.path());
            ours.push(run(&mut backup)?);
            self.rest()?;
            theirs.push(shell(&format!("cat {files} | zstd -q -f -1 -o {}", copy.display()))?);
            self.rest()?;
        }
        self.redis.ask("CONFIG SET appendonly no")?;
        println!("backup of AOF {} · cat and zstd {}", spread(&ours), spread(&theirs));
        Ok(Row {
            what: "`backup --capture aof` into a directory ÷ `cat appendonlydir/*aof | zstd -1 >file`",
            measured: median(
                ours.iter().zip(&theirs).map(|(our, their)| our.seconds / their.seconds),
            ),
            target: Target::AtMost(1.2),
            unit: "×",
            detail: format!("{} and {}", times(&ours), times(&theirs)),
        })
    }

    /// The rival of everything that reads a backup back, in turn with `ours`.
    fn unpack(
        &self,
        rounds: usize,
        mut ours: impl FnMut(&Self) -> Result<()>,
    ) -> Result<Vec<Usage>> {
        let (stored, plain) = (self.path("stored.zst"), self.path("plain.rdb"));
        let (stored, plain) = (stored.display(), plain.display());
        let mut theirs = Vec::new();
        for _ in 0..rounds {
            ours(self)?;
            self.rest()?;
            theirs.push(shell(&format!("zstd -q -dc {stored} | cat >{plain}; sync {plain}"))?);
            shell(&format!("rm {plain}"))?;
            self.rest()?;
        }
        Ok(theirs)
    }

    /// Manifests are put into the S3 server's folder, for one upload after the other would take minutes.
    fn list(&self, rounds: usize) -> Result<Row> {
        let folder = self.path("s3");
        let server = Server::s3(&folder)?;
        let manifests = folder.join("data").join(BUCKET).join("prefix").join(SOURCE);
        let manifests = manifests.join("manifests");
        fs::create_dir_all(&manifests)?;
        for number in 0..LISTED_BACKUPS {
            let (day, hour, minute) = (1 + number / 1440, number / 60 % 24, number % 60);
            let id = format!("202601{day:02}T{hour:02}{minute:02}00Z-minutely-{number:06}");
            fs::write(manifests.join(format!("{id}.json")), "{}")?;
        }
        let store = s3_store(&server);
        let mut runs = Vec::new();
        for _ in 0..rounds {
            let mut list = with_credentials(Command::new(PROGRAM));
            runs.push(run(list.args(["list", "--store", &store, "--source-name", SOURCE]))?);
        }
        println!("list {}", spread(&runs));
        let measured = middle(&runs);
        drop(server);
        fs::remove_dir_all(folder)?;
        Ok(Row {
            what: "`list` of 10,000 backups in S3",
            measured,
            target: Target::AtMost(1.0),
            unit: "s",
            detail: String::new(),
        })
    }

    /// A minutely schedule over ten weeks, some of it verified; a thousand of its backups expire.
    fn prune(&self, rounds: usize) -> Result<Row> {
        let folder = self.path("many");
        let (manifests, records) =
            (folder.join(SOURCE).join("manifests"), folder.join(SOURCE).join("records"));
        fs::create_dir_all(&manifests)?;
        let last = PRUNED_BACKUPS - 1000;
        let manifest = include_str!("../../tests/fixtures/manifest-v1.json");
        let manifest = manifest.replace("\"analytics", &format!("\"{SOURCE}"));
        let now = Timestamp::now();
        for number in 0..PRUNED_BACKUPS {
            let at = now - SignedDuration::from_mins(number);
            let id = format!("{}-minutely-aaaaaa", at.strftime("%Y%m%dT%H%M%SZ"));
            // Nobody reads the others.
            let is_read = number == 0 || number >= last;
            let text = if is_read { &manifest } else { "{}" };
            let text = text.replace("20261120T020000Z-daily-k3x9q2", &id);
            let text = text.replace("\"suspect\"", "\"passed\"");
            fs::write(manifests.join(format!("{id}.json")), text)?;
            if number % 10 == 0 {
                let records = records.join(&id);
                fs::create_dir_all(&records)?;
                fs::write(records.join("20260101T000000Z-0000000000-proven-content.json"), "{}")?;
            }
        }
        let config = self.path("many.yaml");
        let text = format!(
            "sources: {{{SOURCE}: {{nodes: [\"redis://127.0.0.1:{}\"]}}}}\nstores: {{many: {{directory: \
             {{path: {}}}}}}}\nschedules: {{minutely: {{source: {SOURCE}, cron: \"* * * * *\", timezone: \
             Europe/Berlin, capture: [rdb], stores: [many], keep: {{last: {last}, hourly: 2000, daily: 90, \
             weekly: 52, monthly: 12, yearly: 10}}}}}}\n",
            self.redis.port,
            folder.display()
        );
        fs::write(&config, text)?;
        let mut runs = Vec::new();
        for _ in 0..rounds {
            let mut prune = Command::new(PROGRAM);
            prune.args(["prune", "--dry-run", "--config"]).arg(&config);
            runs.push(run(&mut prune)?);
        }
        println!("prune {}", spread(&runs));
        fs::remove_dir_all(folder)?;
        let measured = median(runs.iter().map(|run| run.processor_seconds));
        Ok(Row {
            what: "`prune --dry-run` decides over 100,000 backups: processor time",
            measured,
            target: Target::AtMost(1.0),
            unit: "s",
            detail: times(&runs),
        })
    }

    fn backup(&self, store: &str) -> Command {
        let mut backup = Command::new(PROGRAM);
        let url = format!("redis://127.0.0.1:{}", self.redis.port);
        backup.args(["backup", "--source-url", &url, "--source-name", SOURCE, "--store", store]);
        backup.current_dir(self.folder.path());
        backup
    }
}

/// What the runs took, in the order of the rounds.
#[derive(Default)]
struct Captures {
    ours: Vec<Usage>,
    sealed: Vec<Usage>,
    null: Vec<Usage>,
    zstd: Vec<Usage>,
    wal_g: Vec<Usage>,
}

impl Captures {
    fn rows(&self) -> Vec<Row> {
        let Self { ours, sealed, null, zstd, wal_g } = self;
        println!("backup {} · redis-cli {}", spread(ours), spread(null));
        println!("backup, encrypted {}", spread(sealed));
        println!("redis-cli | zstd {}", spread(zstd));
        let pairs = |ours: &[Usage], others: &[Usage]| {
            median(ours.iter().zip(others).map(|(ours, other)| ours.seconds / other.seconds))
        };
        let processor = |runs: &[Usage]| median(runs.iter().map(|run| run.processor_seconds));
        let beside_wal_g = (!wal_g.is_empty()).then(|| {
            println!("WAL-G {}", spread(wal_g));
            let theirs = processor(wal_g);
            Row {
                what: "processor seconds of `backup` ÷ those of WAL-G's `backup-push`, by LZ4",
                measured: processor(ours) / theirs,
                target: Target::AtMost(0.6),
                unit: "×",
                detail: format!("{:.1} s and {theirs:.1} s", processor(ours)),
            }
        });
        let rows = [
            Row {
                what: "`backup` into a directory ÷ `redis-cli --rdb - >/dev/null`",
                measured: pairs(ours, null),
                target: Target::AtMost(1.10),
                unit: "×",
                detail: format!("{} and {}", times(ours), times(null)),
            },
            Row {
                what: "`backup` with encryption ÷ `redis-cli --rdb - >/dev/null`",
                measured: pairs(sealed, null),
                target: Target::AtMost(1.15),
                unit: "×",
                detail: format!("{} and {}", times(sealed), times(null)),
            },
            Row {
                what: "`backup` into a directory ÷ `redis-cli --rdb - | zstd -1 >file`",
                measured: pairs(ours, zstd),
                target: Target::AtMost(1.0),
                unit: "×",
                detail: format!("{} and {}", times(ours), times(zstd)),
            },
            Row {
                what: "processor seconds of `backup` ÷ those of `redis-cli --rdb - | zstd -1 >file`",
                measured: processor(ours) / processor(zstd),
                target: Target::None,
                unit: "×",
                detail: format!("{:.1} s and {:.1} s", processor(ours), processor(zstd)),
            },
            memory("highest resident memory of `backup` into a directory", ours),
            memory("highest resident memory of `backup` with encryption", sealed),
        ];
        rows.into_iter().chain(beside_wal_g).collect()
    }
}

fn s3_store(server: &Server) -> String {
    let endpoint = format!("http://127.0.0.1:{}", server.port);
    format!("s3://{BUCKET}/prefix?endpoint={endpoint}&region={REGION}&pathStyle=true")
}

fn with_credentials(mut command: Command) -> Command {
    command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
    command
}

fn memory(what: &'static str, runs: &[Usage]) -> Row {
    let measured = runs.iter().map(|run| run.peak_mib).fold(0.0, f64::max);
    Row { what, measured, target: Target::AtMost(64.0), unit: "MiB", detail: String::new() }
}

fn middle(runs: &[Usage]) -> f64 {
    median(runs.iter().map(|run| run.seconds))
}

fn times(runs: &[Usage]) -> String {
    format!("{:.2} s", middle(runs))
}

/// Each run's seconds, then processor seconds and peak memory.
fn spread(runs: &[Usage]) -> String {
    let seconds: Vec<String> = runs.iter().map(|run| format!("{:.2}", run.seconds)).collect();
    let processor = median(runs.iter().map(|run| run.processor_seconds));
    let peak = runs.iter().map(|run| run.peak_mib).fold(0.0, f64::max);
    format!("{} s, processor {processor:.2} s, {peak:.0} MiB", seconds.join(" "))
}

/// Where the documents are.
fn document() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/BENCHMARKS.md")
}
