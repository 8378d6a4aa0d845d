//! SIGTERM while something hangs or is slow: a save of the server's own, a store that does not answer, a server that loads. The end comes soon, and whole.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Child, time::Duration};

use rustix::process::Signal;
use tokio::time::Instant;

use super::{
    bench::{Bench, Ended, Place, SOURCE, run},
    real::spawn,
    signals::{ended, send},
};
use crate::servers::{Version, redis::Server, wait_for};

/// Twice what the documentation tells, for a busy machine.
const END_MAX: Duration = Duration::from_secs(40);

/// Sends SIGTERM once the program listens for it.
fn terminate(child: Child) -> Ended {
    let status = format!("/proc/{}/status", child.id());
    wait_for("the program to listen", || {
        let text = fs::read_to_string(&status).ok()?;
        let caught = text.lines().find_map(|line| line.strip_prefix("SigCgt:"))?.trim().to_owned();
        let caught = u64::from_str_radix(&caught, 16).ok()?;
        (caught >> (Signal::TERM.as_raw() - 1) & 1 == 1).then_some(())
    });
    send(&child, Signal::TERM);
    let began = Instant::now();
    let ended = ended(child);
    assert!(began.elapsed() < END_MAX, "it took {:?}: {ended:?}", began.elapsed());
    ended.assert_code(143);
    ended
}

#[test]
fn a_store_that_hangs_holds_no_verb_up() {
    let mut bench = Bench::new(Place::s3(), 20);
    let backup = bench.back_up();
    let other = bench.folder.path().join("other").display().to_string();
    let config = bench.folder.path().join("config.yaml");
    let rule =
        format!("sources: {{{SOURCE}: {{nodes: ['{}']}}}}\nkeepManual: 1d\n", bench.source.url());
    fs::write(&config, rule).unwrap();
    let Place::S3(server) = &mut bench.place else { panic!("S3") };
    server.freeze();
    for line in [
        "list".to_owned(),
        format!("verify {backup} --level content"),
        format!("prune --config {}", config.display()),
        format!("pin {backup}"),
    ] {
        terminate(spawn(&mut bench.verb(&line)));
    }
    terminate(spawn(&mut bench.backup()));
    let copy = format!("copy {backup} --from {} --to {other}", bench.place.text());
    let mut program = bench.program();
    terminate(spawn(program.args(copy.split(' ')).args(["--source-name", SOURCE])));
    let Place::S3(server) = &mut bench.place else { panic!("S3") };
    server.thaw();
    assert_eq!(bench.listed(), [backup].into());
    run(&mut bench.verb("verify --latest --level content")).assert_code(0);
}

#[test]
fn a_save_of_the_server_goes_on_without_us() {
    let source = Server::start(&Version::usual(), &["rdb-key-save-delay 20000"]);
    let bench = Bench::on(source, Place::directory(), 300);
    let data_dir = bench.source.data_dir().display().to_string();
    let mut backup = bench.backup();
    let child = spawn(backup.args(["--method", "bgsave", "--data-dir", &data_dir]));
    let saves = || bench.source.info("rdb_bgsave_in_progress");
    wait_for("the save to begin", || (saves()? == "1").then_some(()));
    terminate(child);
    assert_eq!(saves().as_deref(), Some("1"), "the save was cancelled");
    wait_for("the save to end", || (saves()? == "0").then_some(()));
    assert_eq!(bench.source.info("rdb_last_bgsave_status").as_deref(), Some("ok"));
    assert_eq!(bench.source.info("total_forks").as_deref(), Some("1"));
    bench.assert_nothing_remains();
    assert!(bench.listed().is_empty());
}

#[test]
fn a_server_that_loads_a_backup_is_ended_with_us() {
    let bench = Bench::new(Place::directory(), 300);
    bench.back_up();
    let program = bench.folder.path().join("slow-server");
    let real = bench.source.version.program("redis-server");
    write_program(&program, &real);
    let config = bench.folder.path().join("config.yaml");
    let text = format!(
        "sources: {{{SOURCE}: {{nodes: ['{}'], serverBinary: '{}'}}}}\n",
        bench.source.url(),
        program.display()
    );
    fs::write(&config, text).unwrap();
    let line = format!("verify --latest --level load --config {}", config.display());
    let child = spawn(&mut bench.verb(&line));
    let folder = bench.folder.path().to_owned();
    wait_for("the private server to load", || {
        (!running_in(&folder, child.id()).is_empty()).then_some(())
    });
    terminate(child);
    wait_for("the private server to be gone", || running_in(&folder, 0).is_empty().then_some(()));
    let left = |entry: &Path| {
        entry.file_name().is_some_and(|name| name.to_string_lossy().contains("load"))
    };
    let entries = super::bench::entries(&folder);
    assert!(!entries.iter().any(|entry| left(entry)), "{entries:?}");
}

/// The real server, which is told to load slowly.
fn write_program(path: &Path, real: &Path) {
    let real = real.display();
    let text = format!(
        "#!/bin/sh\nif [ \"$1\" = --version ]; then exec '{real}' --version; fi\n\
         exec '{real}' \"$@\" --key-load-delay 50000 --loading-process-events-interval-bytes 1024\n"
    );
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
}

/// Processes but this one that have a folder below this one as theirs.
fn running_in(folder: &Path, but: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_below = |id: &u32| {
        let theirs = fs::read_link(format!("/proc/{id}/cwd"));
        theirs.is_ok_and(|theirs| theirs.starts_with(folder) && theirs != folder)
    };
    ids.filter(|id| *id != but).filter(is_below).collect()
}
