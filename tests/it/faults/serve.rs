//! The service on real servers: each moment once through kills, stores that are away, an end in the middle of a capture.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use rustix::process::Signal;
use serde_json::Value;

use super::{
    bench::{Bench, Moments, Place, SOURCE, files, run},
    tally::Tally,
};
use crate::servers::{Version, process::Process, wait_for};

/// Owed since the year began, and never again while a test runs.
const YEARLY: &str = "0 0 1 1 *";

struct Service {
    process: Process,
    address: String,
}

impl Service {
    /// With these lines of a config file.
    fn start(bench: &Bench, config: &str) -> Self {
        let (path, log) = (bench.folder.path().join("serve.yaml"), bench.folder.path().join("log"));
        fs::write(&path, config).unwrap();
        let mut command = bench.program();
        command.args(["serve", "--listen", "127.0.0.1:0", "--config"]).arg(path);
        let mut process = Process::start(&mut command, &log);
        process.ready("the service", |log| listening_on(log).is_some()).unwrap();
        let address = listening_on(&process.log()).unwrap();
        Self { process, address }
    }

    /// Status line and body.
    fn ask(&self, request: &str) -> (String, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(stream, "{request} HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.lines().next().unwrap().to_owned(), body.to_owned())
    }

    fn is_ok(&self, path: &str) -> bool {
        self.ask(&format!("GET {path}")).0.contains(" 200 ")
    }

    /// The value of the one sample that has this name and these labels.
    fn metric(&self, name: &str, labels: &[&str]) -> Option<f64> {
        let (_, text) = self.ask("GET /metrics");
        let name = format!("redis_backup_{name}");
        let is_meant = |line: &&str| {
            let found = line.split(['{', ' ']).next() == Some(name.as_str());
            found && labels.iter().all(|label| line.contains(label))
        };
        let line = text.lines().find(is_meant)?;
        line.rsplit(' ').next().unwrap().parse().ok()
    }
}

fn listening_on(log: &str) -> Option<String> {
    let rest = log.split("listening on ").nth(1)?;
    rest.contains('\n').then(|| rest.lines().next().unwrap().trim().to_owned())
}

/// A source, a store, and a schedule of them.
fn config(bench: &Bench, cron: &str, schedule: &str) -> String {
    format!(
        "sources:\n  {SOURCE}: {{nodes: [\"{}\"]}}\nstores:\n  disk: {{directory: {{path: {}}}}}\n\
         schedules:\n  all: {{source: {SOURCE}, cron: \"{cron}\", capture: [rdb], stores: [disk]{schedule}}}\n",
        bench.source.url(),
        bench.place.root().display()
    )
}

fn manifests(store: &Path) -> Vec<Value> {
    let read = |path| serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    files(&store.join(SOURCE).join("manifests")).into_iter().map(read).collect()
}

fn moments_done(store: &Path) -> Vec<Timestamp> {
    let moment = |manifest: &Value| manifest["scheduledFor"].as_str().unwrap().parse().unwrap();
    let mut moments: Vec<Timestamp> = manifests(store).iter().map(moment).collect();
    moments.sort_unstable();
    moments
}

#[expect(clippy::disallowed_methods, reason = "the program's own clock is the real one")]
fn now() -> Timestamp {
    Timestamp::now()
}

#[test]
fn each_minute_is_backed_up_once_through_a_kill_and_a_restart() {
    let bench = Bench::new(Place::directory(), 1);
    let store = bench.place.root();
    let text = config(&bench, "* * * * *", ", verify: content");
    let mut service = Service::start(&bench, &text);
    let first = wait_for("the first backup", || moments_done(&store).first().copied());
    assert!(now().duration_since(first) < SignedDuration::from_mins(3), "{first}");
    assert_eq!(first.as_second() % 60, 0);
    let labels = ["source=\"sessions\"", "schedule=\"all\"", "store=\"disk\""];
    wait_for("the proof", || {
        service.metric("last_verified_timestamp_seconds", &["level=\"content\""])
    });
    assert!(service.is_ok("/readyz") && service.is_ok("/healthz"));
    let keys = service.metric("last_keys", &labels);
    assert_eq!(keys, Some(51.0));
    assert_eq!(service.metric("overdue", &labels[..2]), Some(0.0));
    service.process.end_by(Signal::KILL);

    // As a Job of its own does, in the image of the source.
    let mut load = bench.verb("verify --latest --level load");
    load.arg("--server-binary").arg(Version::usual().program("redis-server"));
    run(&mut load).assert_code(0);
    let service = Service::start(&bench, &text);
    wait_for("the service to be ready", || service.is_ok("/readyz").then_some(()));
    let loaded = service.metric("last_verified_timestamp_seconds", &["level=\"load\""]);
    assert!(loaded.is_some_and(|at| now().as_duration().as_secs_f64() - at < 180.0), "{loaded:?}");
    // What the stores tell is shown before anything was backed up by this process.
    assert_eq!(service.metric("last_keys", &labels), keys);
    wait_for("the next moment", || {
        let next = service.metric("next_start_timestamp_seconds", &labels[..2])?;
        let left = next - now().as_duration().as_secs_f64();
        (left < 5.0).then_some(())
    });
    wait_for("its backup", || (moments_done(&store).len() >= 2).then_some(()));
    let moments = moments_done(&store);
    let minute = SignedDuration::from_mins(1);
    assert!(
        moments.windows(2).all(|pair| pair[1].duration_since(pair[0]) == minute),
        "a moment was missed or doubled: {moments:?}"
    );
    let retained = service.metric("retained_backups", &labels).unwrap();
    assert!(retained >= 1.0, "{retained}");
}

#[test]
fn each_due_backup_is_there_once_and_whole_however_often_the_service_is_killed() {
    const SOURCES: usize = 6;
    let mut tally = Tally::of("serve", "`kill -9` at a random moment, and started again");
    let bench = Bench::new(Place::directory(), 60);
    let (names, root) = ((0..SOURCES).map(|number| format!("s{number}")), bench.place.root());
    let names: Vec<String> = names.collect();
    let text = config_of_all(&bench, &names);
    let due = |root: &Path| -> usize { names.iter().map(|it| ids_of(root, it).len()).sum() };
    let begun = tokio::time::Instant::now();
    let service = Service::start(&bench, &text);
    wait_for("all that is due", || (due(&root) == SOURCES).then_some(()));
    drop(service);
    let mut moments = Moments::new("kill -9 of serve", begun.elapsed());
    for _ in 0..3 {
        fs::remove_dir_all(&root).unwrap();
        fs::create_dir(&root).unwrap();
        let (mut kills, mut rounds) = (0, 0);
        while due(&root) < SOURCES {
            rounds += 1;
            assert!(rounds < 60, "{} of {SOURCES} are there", due(&root));
            let mut service = Service::start(&bench, &text);
            // The later rounds live longer, or the last capture might never come to its end.
            let until = moments.anywhere() * rounds / 4;
            let begun = tokio::time::Instant::now();
            wait_for("the moment to kill", || {
                (due(&root) == SOURCES || begun.elapsed() >= until).then_some(())
            });
            kills += usize::from(due(&root) < SOURCES);
            service.process.end_by(Signal::KILL);
        }
        // One more has nothing to do, and does nothing twice.
        let service = Service::start(&bench, &text);
        wait_for("the service to be ready", || service.is_ok("/readyz").then_some(()));
        wait_for("the next moment to be known", || {
            service.metric("next_start_timestamp_seconds", &["source=\"s5\""])
        });
        drop(service);
        for name in &names {
            let ids = ids_of(&root, name);
            assert_eq!(ids.len(), 1, "{name}: {ids:?}");
            let mut verify = bench.program();
            let store = root.display().to_string();
            verify.args(["verify", "--all", "--level", "content", "--store", &store]);
            run(verify.args(["--source-name", name])).assert_code(0);
        }
        (0..kills).for_each(|_| tally.held());
    }
    tally.write();
}

/// One schedule for each, owed since the year began.
fn config_of_all(bench: &Bench, names: &[String]) -> String {
    let (url, path) = (bench.source.url(), bench.place.root().display().to_string());
    let sources = names.iter().map(|name| format!("  {name}: {{nodes: [\"{url}\"]}}\n"));
    let schedules = names.iter().map(|name| {
        format!(
            "  of-{name}: {{source: {name}, cron: \"{YEARLY}\", capture: [rdb], stores: [disk], verify: none}}\n"
        )
    });
    format!(
        "sources:\n{}stores:\n  disk: {{directory: {{path: {path}}}}}\nschedules:\n{}",
        sources.collect::<String>(),
        schedules.collect::<String>()
    )
}

/// Names of the manifests of one source.
fn ids_of(store: &Path, source: &str) -> Vec<PathBuf> {
    files(&store.join(source).join("manifests"))
}

#[test]
fn a_store_that_is_away_and_a_source_without_its_password_hold_up_nobody() {
    let bench = Bench::new(Place::directory(), 1);
    let blocked = bench.folder.path().join("blocked");
    fs::write(&blocked, "no folder").unwrap();
    let text = format!(
        "sources:\n  {SOURCE}: {{nodes: [\"{url}\"]}}\n  other: {{nodes: [\"{url}\"]}}\n  \
         secretive: {{nodes: [\"{url}\"], auth: {{passwordFrom: {{env: NOBODY_SET_IT}}}}}}\n\
         stores:\n  away: {{directory: {{path: {away}}}}}\n  disk: {{directory: {{path: {disk}}}}}\n\
         schedules:\n  a: {{source: {SOURCE}, cron: \"{YEARLY}\", capture: [rdb], stores: [away]}}\n  \
         b: {{source: other, cron: \"{YEARLY}\", capture: [rdb], stores: [disk]}}\n  \
         c: {{source: secretive, cron: \"{YEARLY}\", capture: [rdb], stores: [disk]}}\n",
        url = bench.source.url(),
        away = blocked.join("store").display(),
        disk = bench.place.root().display(),
    );
    let mut service = Service::start(&bench, &text);
    wait_for("the other's backup", || service.metric("last_keys", &["source=\"other\""]));
    wait_for("the failure to be counted", || {
        service.metric("failures_total", &["source=\"secretive\"", "exit=\"2\""])
    });
    wait_for("the store to be found away", || {
        (service.metric("store_up", &["store=\"away\""]) == Some(0.0)).then_some(())
    });
    let (status, body) = service.ask("GET /readyz");
    assert!(status.contains(" 503 ") && body.contains("store away"), "{status} {body}");
    assert!(service.is_ok("/healthz"));
    let (_, metrics) = service.ask("GET /metrics");
    assert!(!metrics.contains("NOBODY_SET_IT"), "{metrics}");
    assert!(metrics.ends_with("# EOF\n"), "{metrics}");

    fs::remove_file(&blocked).unwrap();
    wait_for("the backup that was put off", || {
        service.metric("last_keys", &["source=\"sessions\"", "store=\"away\""])
    });
    assert_eq!(moments_done(&blocked.join("store")).len(), 1);
    assert!(service.is_ok("/readyz"));
    let log = service.process.log();
    assert!(log.contains("NOBODY_SET_IT") && log.contains("store away answers again"), "{log}");
    assert_eq!(service.process.end_by(Signal::TERM).code(), Some(143));
    assert_eq!(service.process.log().matches("ended by SIGTERM").count(), 1);
}

#[test]
fn an_end_in_the_middle_of_a_capture_leaves_nothing_half_done() {
    let bench = Bench::new(Place::directory(), 100);
    // Two hundredths of a second for each key.
    let () = bench.source.command("CONFIG SET rdb-key-save-delay 200000");
    let text = config(&bench, YEARLY, "");
    let mut service = Service::start(&bench, &text);
    wait_for("the capture", || {
        let is_forked = bench.source.info("rdb_bgsave_in_progress").as_deref() == Some("1");
        (is_forked && service.metric("running", &[]) == Some(1.0)).then_some(())
    });
    assert_eq!(service.process.end_by(Signal::TERM).code(), Some(143));
    bench.assert_nothing_remains();
    assert!(manifests(&bench.place.root()).is_empty());
    let runs = bench.runs();
    assert_eq!(runs.len(), 1, "{runs:?}");
    assert_eq!(runs[0]["exit"], 143);

    // A run that was told to end puts the next one off in nothing.
    let () = bench.source.command("CONFIG SET rdb-key-save-delay 0");
    let service = Service::start(&bench, &text);
    wait_for("the backup", || service.metric("last_success_timestamp_seconds", &[]));
    assert_eq!(moments_done(&bench.place.root()).len(), 1);
}

#[test]
fn it_answers_three_questions_and_no_others_however_many_ask() {
    let bench = Bench::new(Place::directory(), 1);
    let service = Service::start(&bench, &config(&bench, YEARLY, ", verify: none"));
    for (request, status) in [
        ("GET /healthz", "200"),
        ("HEAD /metrics", "200"),
        ("GET /", "404"),
        ("GET /metrics/x", "404"),
        ("POST /metrics", "405"),
        ("DELETE /healthz", "405"),
    ] {
        let (found, _) = service.ask(request);
        assert!(found.contains(&format!(" {status} ")), "{request}: {found}");
    }
    let silent: Vec<TcpStream> =
        (0..64).map(|_| TcpStream::connect(&service.address).unwrap()).collect();
    // Those who say nothing are sent away in time.
    assert!(service.is_ok("/healthz"));
    drop(silent);
    let mut long = TcpStream::connect(&service.address).unwrap();
    long.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let _ =
        long.write_all(format!("GET /healthz HTTP/1.1\r\nx: {}", "y".repeat(1 << 20)).as_bytes());
    let mut answer = Vec::new();
    let _ = long.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    assert!(service.is_ok("/healthz"));
}

#[test]
fn what_cannot_be_served_is_refused_at_once() {
    let bench = Bench::new(Place::directory(), 1);
    let path = bench.folder.path().join("serve.yaml");
    let serve = |text: &str, listen: &str| {
        fs::write(&path, text).unwrap();
        let mut command = bench.program();
        run(command.args(["serve", "--listen", listen, "--config"]).arg(&path))
    };
    let (good, free) = (config(&bench, YEARLY, ""), "127.0.0.1:0");
    serve("sources: {}\n", free).assert_code(2).assert_says(&["no schedule to serve"]);
    let jitter = config(&bench, "*/5 * * * *", ", jitter: 6m");
    serve(&jitter, free).assert_code(2).assert_says(&["schedules.all.jitter", "5 min"]);
    let taken = bench.source.address();
    serve(&good, &taken).assert_code(2).assert_says(&["listen on", &taken]);
}
