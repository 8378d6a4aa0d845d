//! One dump out of one pod, by the program with all its proofs and by kubectl with none, turn by turn.

use std::{fs, process::Command};

use jiff::Timestamp;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    Result,
    cluster::{kubeconfig, kubectl},
    installation::PLAIN,
    measure::{Usage, median, run, shell},
    namespace::Namespace,
    table::{Row, Target},
};

/// 400 MB of random strings, in pieces that a server takes at once.
const PIECES: u32 = 20;
const KEYS_OF_A_PIECE: u32 = 5_000;

/// One backup from BGSAVE to manifest, and how long it took to bring its file.
struct Ours {
    usage: Usage,
    reading_seconds: f64,
}

/// What was measured, and its rows.
pub(crate) fn rows(rounds: usize) -> Result<(String, Vec<Row>)> {
    let namespace = Namespace::create("bench");
    namespace.apply(&PLAIN.objects().replace("memory: 1Gi", "memory: 2Gi"));
    namespace.ask(&["rollout", "status", "statefulset/redis", "--timeout=180s"]);
    namespace.redis("redis-0", &["config", "set", "save", ""]);
    namespace.fill_with_noise("redis-0", PIECES, KEYS_OF_A_PIECE);
    let folder = TempDir::with_prefix_in("bench-", env!("CARGO_TARGET_TMPDIR"))?;
    let config = format!(
        "sources:\n  pod: {{kubernetes: {{namespace: {}, statefulSet: redis}}, compression: {{codec: none}}}}\n\
         stores:\n  disk: {{directory: {{path: ./store}}}}\n",
        namespace.name,
    );
    fs::write(folder.path().join("redis-backup.yaml"), config)?;

    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        ours.push(back_up(&folder)?);
        theirs.push(cat(&namespace)?);
        shell("sync")?;
        let (Some(ours), Some(theirs)) = (ours.last(), theirs.last()) else { continue };
        println!(
            "{round}: read and stored in {:.2} s of a backup of {:.2} s, {:.0} MiB · kubectl {:.2} s",
            ours.reading_seconds, ours.usage.seconds, ours.usage.peak_mib, theirs.seconds,
        );
    }
    let bytes = namespace.ask(&["exec", "redis-0", "--", "stat", "-c", "%s", "/data/dump.rdb"]);
    let megabytes = bytes.trim().parse::<f64>()? / 1e6;
    Ok((
        format!("One pod of Redis 7.0, a dump of {megabytes:.0} MB"),
        table(megabytes, &ours, &theirs),
    ))
}

fn table(megabytes: f64, ours: &[Ours], theirs: &[Usage]) -> Vec<Row> {
    let reading = median(ours.iter().map(|run| run.reading_seconds));
    let cat = median(theirs.iter().map(|run| run.seconds));
    let whole = median(ours.iter().map(|run| run.usage.seconds));
    let pairs = ours.iter().zip(theirs).map(|(ours, theirs)| theirs.seconds / ours.reading_seconds);
    let (ratio, detail) = (median(pairs), String::new());
    let peak = ours.iter().map(|run| run.usage.peak_mib).fold(0.0, f64::max);
    let processor =
        |runs: &mut dyn Iterator<Item = Usage>| median(runs.map(|run| run.processor_seconds));
    let processor_ours = processor(&mut ours.iter().map(|run| run.usage));
    let processor_theirs = processor(&mut theirs.iter().copied());
    vec![
        Row {
            what: "`kubectl exec … cat dump.rdb | cat >/dev/null` ÷ the same file read by exec, each chunk proven, scanned and stored",
            measured: ratio,
            target: Target::AtLeast(0.8),
            unit: "×",
            detail: format!(
                "{cat:.2} s ({:.0} MB/s) and {reading:.2} s ({:.0} MB/s)",
                megabytes / cat,
                megabytes / reading,
            ),
        },
        Row {
            what: "a whole `backup --method bgsave` of it, BGSAVE and port-forward included",
            measured: whole,
            target: Target::None,
            unit: "s",
            detail: format!(
                "processor seconds {processor_ours:.1}, of `kubectl exec` {processor_theirs:.1}"
            ),
        },
        Row {
            what: "highest resident memory of that `backup`",
            measured: peak,
            target: Target::AtMost(64.0),
            unit: "MiB",
            detail,
        },
    ]
}

/// The moments of its log tell the time between the end of BGSAVE and the last byte that a store took.
fn back_up(folder: &TempDir) -> Result<Ours> {
    let log = folder.path().join("log");
    let mut command = Command::new(env!("CARGO_BIN_EXE_redis-backup"));
    command.current_dir(folder.path()).env("KUBECONFIG", kubeconfig());
    command.env("RUST_LOG", "warn,redis_backup=debug").stderr(fs::File::create(&log)?);
    let usage = run(command.args(["--log", "json", "backup", "pod", "--method", "bgsave"]))?;
    let log = fs::read_to_string(log)?;
    let at = |words: &str| -> Result<Timestamp> {
        let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let line = lines.find(|line| line.to_string().contains(words));
        let line = line.ok_or_else(|| format!("the log lacks {words:?}:\n{log}"))?;
        Ok(line["timestamp"].as_str().unwrap_or_default().parse()?)
    };
    let taken = at("the file is stored")?.duration_since(at("the save has ended")?);
    // What was measured is of no more use, and takes room.
    fs::remove_dir_all(folder.path().join("store"))?;
    Ok(Ours { usage, reading_seconds: taken.as_secs_f64() })
}

/// As people copy a file out of a pod.
fn cat(namespace: &Namespace) -> Result<Usage> {
    let kubectl = kubectl(&[]);
    let program = kubectl.get_program().to_string_lossy().into_owned();
    let line = format!(
        "{program} --namespace {} exec redis-0 -- cat /data/dump.rdb | cat >/dev/null",
        namespace.name
    );
    let mut command = Command::new("sh");
    command.args(["-euc", &line]).env("KUBECONFIG", kubeconfig());
    run(&mut command)
}
