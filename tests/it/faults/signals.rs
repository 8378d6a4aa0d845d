//! SIGINT and SIGTERM in the middle of a backup: a documented exit, nothing left behind, and a note of the run.

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use super::{
    bench::{Bench, Ended, Moments, Place, digest, run},
    tally::Tally,
};
use crate::servers::wait_for;

const SIGNALS: usize = 16;

#[test]
fn a_signal_in_a_backup_into_a_directory_leaves_nothing() {
    let tally = Tally::of("backup into a directory", "SIGINT or SIGTERM at a random moment");
    signal_again_and_again(&Bench::new(Place::directory(), 200), tally);
}

#[test]
fn a_signal_in_a_backup_into_s3_leaves_nothing() {
    let tally = Tally::of("backup into S3", "SIGINT or SIGTERM at a random moment");
    signal_again_and_again(&Bench::new(Place::s3(), 200), tally);
}

fn signal_again_and_again(bench: &Bench, mut tally: Tally) {
    let before = digest(&bench.source);
    bench.back_up();
    let took = bench.back_up_timed();
    let (mut ended, mut noted) = (0, bench.runs().len());
    let mut listed = bench.listed();
    let mut moments = Moments::new("signals", took);
    for index in 0..SIGNALS {
        let (signal, code) = if index % 2 == 0 { (Signal::INT, 130) } else { (Signal::TERM, 143) };
        let (run, moment) = run_and_signal(&mut bench.backup(), &mut moments, signal);
        match run.code {
            Some(0) => {
                listed.extend(bench.listed());
                noted += 1;
            }
            // It came before the program had begun to listen.
            None => {}
            Some(_) => {
                run.assert_code(code);
                ended += 1;
                tally.ended();
                bench.assert_nothing_remains();
                let runs = bench.runs();
                // None when it came before the store was open.
                let Some(note) = runs.get(noted) else { continue };
                noted += 1;
                assert_eq!(note["exit"], code, "{note}");
                assert_eq!(note["backup"], serde_json::Value::Null, "{note}");
            }
        }
        assert_eq!(bench.listed(), listed, "after {moment:?}");
        assert_eq!(digest(&bench.source), before, "the source changed");
    }
    assert!(noted > SIGNALS / 2, "only {noted} runs were noted");
    assert!(ended > SIGNALS / 3, "only {ended} of {SIGNALS} signals met a backup");
    bench.back_up();
    run(&mut bench.verb("verify --all")).assert_code(0);
    tally.write();
}

/// Sends it at one of the moments, and tells which.
pub fn run_and_signal(
    command: &mut Command,
    moments: &mut Moments,
    signal: Signal,
) -> (Ended, Duration) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let moment = moments.anywhere();
    // One that was waited for could be another process by now.
    if moments.wait(&mut child, moment) {
        send(&child, signal);
    }
    (ended(child), moment)
}

/// To a child that was not waited for yet, and so cannot be another by now.
pub fn send(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).unwrap();
    kill_process(pid, signal).unwrap();
}

pub fn ended(mut child: Child) -> Ended {
    wait_for("the program to end", || child.try_wait().unwrap());
    let output = child.wait_with_output().unwrap();
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
