//! Scheduled runs that meet another run, or begin before their spread start: they wait, and never do a moment twice.

use std::{
    io::{BufRead as _, BufReader},
    process::Child,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use redis_backup::domain::{agenda::Entry, identity::BackupId, schedule::Timetable};
use rustix::process::{Pid, Signal, kill_process};

use super::{Tool, tool::Run};
use crate::servers::{Version, redis::Server};

const MOMENT: &str = "2026-01-01T02:00:00Z";

/// A schedule that gives up late, one that gave up long ago, and one of each letter that spreads its starts.
fn tool(server: &Server) -> Tool {
    let spread = ('a'..='z').map(|name| {
        format!("  spread-{name}: {{source: journey, cron: '* * * * *', jitter: 40s, capture: [rdb], stores: [disk]}}\n")
    });
    let yearly = "source: journey, cron: '0 2 1 1 *', capture: [rdb], stores: [disk]";
    let config = format!(
        "sources:\n  journey: {{nodes: ['{}'], compression: {{codec: none}}}}\n\
         stores:\n  disk: {{directory: {{path: ./store, uploadMaxPerSecond: 512KiB}}}}\n\
         schedules:\n  yearly: {{{yearly}}}\n  late: {{{yearly}, startDeadline: 1m}}\n{}",
        server.url(),
        spread.collect::<String>(),
    );
    Tool::new(&server.version).without_store().with_config(&config)
}

fn ended(child: Child) -> Run {
    Run::of(&child.wait_with_output().unwrap())
}

/// Reads its log as far as that, or to its end.
fn says(run: &mut Child, words: &str) -> bool {
    let mut log = BufReader::new(run.stderr.take().unwrap()).lines().map_while(Result::ok);
    log.any(|line| line.contains(words))
}

#[test]
fn a_scheduled_run_waits_for_another_and_does_not_do_its_moment_again() {
    let server = Server::start(&Version::usual(), &["rdbcompression no"]);
    let () = server.command("DEBUG POPULATE 3000 key 1000");
    let tool = tool(&server);
    let of_schedule = |name| ["--schedule", name, "--scheduled-for", MOMENT];
    let mut first = tool.start("backup", &of_schedule("yearly"));
    assert!(says(&mut first, "capture: "));
    let id = Pid::from_child(&first);
    kill_process(id, Signal::STOP).unwrap();
    let waiting = ["yearly", "yearly"].map(|name| {
        let mut run = tool.start("backup", &of_schedule(name));
        assert!(says(&mut run, "waiting for its end until"));
        run
    });

    tool.fails("backup", &["journey"], 13);
    tool.fails("backup", &of_schedule("late"), 13);
    kill_process(id, Signal::CONT).unwrap();
    let first = ended(first);
    assert_eq!(first.exit, Some(0), "{first:?}");
    let backup = &first.report["backups"][0]["backup"];
    for run in waiting.map(ended) {
        assert_eq!(run.exit, Some(0), "{run:?}");
        assert_eq!(run.report["alreadyDone"][0]["backup"], *backup, "{run:?}");
        assert_eq!(run.report["backups"], serde_json::json!([]), "{run:?}");
    }
    assert_eq!(tool.backups(), [backup.as_str().unwrap()]);
    // Who need not wait is meant to capture, also for the same moment.
    tool.done("backup", &of_schedule("yearly"));
    assert_eq!(tool.backups().len(), 2);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the program under test goes by the clock, too")]
fn a_scheduled_run_begins_at_its_spread_start_and_keeps_its_moment() {
    let server = Server::start(&Version::usual(), &[]);
    let tool = tool(&server);
    let moment = Timestamp::now();
    let window = |name: &String| {
        let timetable = Timetable::new("* * * * *", "UTC").unwrap();
        let (name, jitter) = (name.parse().unwrap(), SignedDuration::from_secs(40));
        Entry { name, timetable, jitter, start_deadline: None }.window(moment)
    };
    let names = ('a'..='z').map(|name| format!("spread-{name}"));
    let is_soon = |name: &String| {
        let wait = window(name).begins.duration_since(moment).unsigned_abs();
        (Duration::from_secs(3)..Duration::from_secs(15)).contains(&wait)
    };
    let name = names.into_iter().find(is_soon).unwrap();
    let run = tool.run("backup", &["--schedule", &name, "--scheduled-for", &moment.to_string()]);
    assert_eq!(run.exit, Some(0), "{run:?}");
    assert!(run.stderr.contains("starts of schedules are spread"), "{run:?}");
    let backup: BackupId = run.report["backups"][0]["backup"].as_str().unwrap().parse().unwrap();
    // An id tells whole seconds.
    assert!(
        backup.begun().as_second() >= window(&name).begins.as_second(),
        "{backup} {:?}",
        window(&name)
    );
    let manifest = tool.done("show", &["--latest"])["manifest"].clone();
    let stored: Timestamp = manifest["scheduledFor"].as_str().unwrap().parse().unwrap();
    assert_eq!(stored.as_second(), moment.as_second());
}
