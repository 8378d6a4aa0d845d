//! A Redis Cluster of three shards captured by worker Jobs, one after the other and all at once, with what that takes of the machine.

use std::{
    fs,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    Result,
    installation::ANALYTICS,
    measure::median,
    namespace::Namespace,
    product::{self, Given},
    ready::fill_cluster,
    rights::Rights,
    s3,
    table::{Row, Target},
};

/// Values of a megabyte that no codec makes smaller, over all three shards.
const VALUES: u32 = 600;
const SHARDS: f64 = 3.0;

/// Between two looks at the machine.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// The unit of times in `/proc/stat`: `USER_HZ`, 100 wherever Linux runs.
const TICKS_PER_SECOND: f64 = 100.0;

/// One backup, from the moment when the first worker was ordered to its manifest.
struct Run {
    seconds: f64,
    /// Of the whole machine: workers, Redis, the S3 server and Kubernetes.
    processor_seconds: f64,
    coordinator_mib: f64,
    worker_mib: f64,
    /// What the API server read and wrote, whoever asked for it.
    api_bytes: f64,
}

/// What was measured, and its rows.
pub(crate) fn rows(rounds: usize) -> Result<(String, Vec<Row>)> {
    let namespace = Namespace::create_lenient("bench-workers");
    s3::store_of(&namespace);
    namespace.install(&ANALYTICS);
    let _rights = Rights::apply(&namespace);
    fill_cluster(&namespace, "redis-analytics-0", "redis-cli");
    let noise = format!(
        "for n in $(seq {VALUES}); do head -c 1000000 /dev/urandom | redis-cli -c -x set noise:$n >/dev/null; done"
    );
    namespace.ask(&["exec", "redis-analytics-0", "--", "sh", "-c", &noise]);

    let (mut alone, mut together) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        alone.push(back_up(&namespace, &format!("alone-{round}"), 1)?);
        together.push(back_up(&namespace, &format!("together-{round}"), 3)?);
        let (Some(one), Some(three)) = (alone.last(), together.last()) else { continue };
        println!(
            "{round}: one worker at a time {:.2} s with {:.2} s of processor · three {:.2} s with {:.2} s, coordinator {:.0} MiB, \
             worker {:.0} MiB, API server {:.1} MB",
            one.seconds,
            one.processor_seconds,
            three.seconds,
            three.processor_seconds,
            three.coordinator_mib,
            three.worker_mib,
            three.api_bytes / 1e6,
        );
    }
    Ok((
        format!(
            "Three shards of Redis 8.0, {VALUES} MB together, by BGSAVE and worker Jobs that mount the volumes, `forksPerNode: 3`"
        ),
        table(&alone, &together),
    ))
}

fn table(alone: &[Run], together: &[Run]) -> Vec<Row> {
    let of = |runs: &[Run], value: fn(&Run) -> f64| median(runs.iter().map(value));
    let (one, three) = (of(alone, |run| run.seconds), of(together, |run| run.seconds));
    let processors =
        thread::available_parallelism().ok().and_then(|it| u32::try_from(it.get()).ok());
    let processors = f64::from(processors.unwrap_or(1));
    let needed = of(together, |run| run.processor_seconds);
    // As fast as the processors allow, but no shard is done by more than one worker.
    let allowed = (needed / processors).max(one / SHARDS);
    let peak = |value: fn(&Run) -> f64| together.iter().map(value).fold(0.0, f64::max);
    let bytes = of(together, |run| run.api_bytes);
    vec![
        Row {
            what: "what the processors of the node allow ÷ three shards by three workers at once",
            measured: allowed / three,
            target: Target::AtLeast(0.9),
            unit: "×",
            detail: format!(
                "{three:.2} s with {needed:.1} s of {processors} processors; one worker at a time {one:.2} s"
            ),
        },
        Row {
            what: "bytes through the API server ÷ bytes of the datasets",
            measured: bytes / (f64::from(VALUES) * 1e6),
            target: Target::AtMost(0.05),
            unit: "×",
            detail: format!(
                "{:.1} MB, what the cluster itself says meanwhile included",
                bytes / 1e6
            ),
        },
        Row {
            what: "highest resident memory of the run that orders",
            measured: peak(|run| run.coordinator_mib),
            target: Target::AtMost(64.0),
            unit: "MiB",
            detail: format!("of a worker {:.0} MiB", peak(|run| run.worker_mib)),
        },
    ]
}

fn back_up(namespace: &Namespace, name: &str, at_once: usize) -> Result<Run> {
    let prefix = &namespace.name;
    let config = format!(
        "sources:\n  analytics: {{kubernetes: {{namespace: {prefix}, statefulSet: redis-analytics, workers: jobs, workersAtOnce: {at_once}, \
         forksPerNode: {at_once}}}, method: bgsave, capturesAtOnce: 3}}\n\
         stores:\n  s3: {{s3: {{bucket: backups, prefix: {prefix}, region: us-east-1, endpoint: \"http://s3.s3-test:7070\", forcePathStyle: true}}}}\n"
    );
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
        "data": {"redis-backup.yaml": config},
    });
    namespace.apply(&map.to_string());
    let watched = Machine::watch();
    let given = Given { config: Some(name), ..Given::default() };
    product::start(namespace, name, given, &["--log", "json", "backup", "analytics"]);
    let log = product::ended(namespace, name).well();
    let samples = watched.end();
    let at = |words: &str| -> Result<Timestamp> {
        let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let line = lines.find(|line| line.to_string().contains(words));
        let line = line.ok_or_else(|| format!("the log lacks {words:?}:\n{log}"))?;
        Ok(line["timestamp"].as_str().unwrap_or_default().parse()?)
    };
    let (begun, ended) = (at("captured by Jobs")?, at("committed")?);
    let of_run = |seen: &&Seen| seen.at >= begun && seen.at <= ended;
    let (Some(first), Some(last)) =
        (samples.iter().find(of_run), samples.iter().rev().find(of_run))
    else {
        return Err("the machine was not looked at meanwhile".into());
    };
    let peak = |value: fn(&Seen) -> f64| samples.iter().map(value).fold(0.0, f64::max);
    Ok(Run {
        seconds: ended.duration_since(begun).as_secs_f64(),
        processor_seconds: last.busy_seconds - first.busy_seconds,
        coordinator_mib: peak(|seen| seen.coordinator_mib),
        worker_mib: peak(|seen| seen.worker_mib),
        api_bytes: last.api_bytes - first.api_bytes,
    })
}

/// The machine at one moment.
struct Seen {
    at: Timestamp,
    busy_seconds: f64,
    coordinator_mib: f64,
    worker_mib: f64,
    api_bytes: f64,
}

/// Looked at until it is said to be enough.
struct Machine {
    samples: Arc<Mutex<Vec<Seen>>>,
    is_enough: Arc<AtomicBool>,
    looking: JoinHandle<()>,
}

impl Machine {
    fn watch() -> Self {
        let (samples, is_enough) =
            (Arc::<Mutex<Vec<Seen>>>::default(), Arc::<AtomicBool>::default());
        let (seen, enough) = (Arc::clone(&samples), Arc::clone(&is_enough));
        let looking = thread::spawn(move || {
            while !enough.load(Ordering::Relaxed) {
                if let Some(now) = look() {
                    seen.lock().unwrap_or_else(PoisonError::into_inner).push(now);
                }
                thread::sleep(LOOK_INTERVAL);
            }
        });
        Self { samples, is_enough, looking }
    }

    fn end(self) -> Vec<Seen> {
        self.is_enough.store(true, Ordering::Relaxed);
        let _ = self.looking.join();
        std::mem::take(&mut *self.samples.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Of the processes that this machine can see: the cluster under test runs on it.
fn look() -> Option<Seen> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    // user, nice, system, idle, iowait, irq, softirq of proc(5).
    let times = stat.lines().next()?.split_ascii_whitespace().skip(1).take(7);
    let times: Vec<f64> = times.filter_map(|ticks| ticks.parse().ok()).collect();
    let busy: f64 =
        times.iter().enumerate().filter(|(at, _)| !matches!(at, 3 | 4)).map(|(_, it)| it).sum();
    let mut seen = Seen {
        at: Timestamp::now(),
        busy_seconds: busy / TICKS_PER_SECOND,
        coordinator_mib: 0.0,
        worker_mib: 0.0,
        api_bytes: 0.0,
    };
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let read = |name: &str| fs::read_to_string(process.path().join(name)).unwrap_or_default();
        match read("comm").trim() {
            "redis-backup" => {
                let is_worker = read("cmdline").split('\0').any(|word| word == "worker");
                let peak = if is_worker { &mut seen.worker_mib } else { &mut seen.coordinator_mib };
                *peak = peak.max(number(&read("status"), "VmHWM:") / 1024.0);
            }
            "kube-apiserver" => {
                let io = read("io");
                seen.api_bytes = number(&io, "rchar:") + number(&io, "wchar:");
            }
            _ => {}
        }
    }
    Some(seen)
}

/// Of the line that begins so.
fn number(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse().ok()).unwrap_or(0.0)
}
