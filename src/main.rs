//! The process boundary: arguments, clock, chance, environment and signals in; report and exit code out.

use std::{
    io::{self, Write as _},
    process::ExitCode,
    sync::Arc,
};

use clap::Parser;
use redis_backup::{
    cli::{Cli, OutputForm, Verb},
    domain::archive::Identities,
    failure::{self, Exit, Failure, Signal},
    flow::{self, Context},
    report::{self, FailureReport, Outcome, Progress},
    telemetry,
};
use rustix::process::{getpriority_process, setpriority_process};
use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// The Redis on this machine comes first.
const NICENESS: u8 = 10;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    leave_processor_to_others(&cli);
    let runtime = match Runtime::new() {
        Ok(runtime) => runtime,
        Err(source) => {
            let attempt = "start the threads of this process".to_owned();
            return fail(cli.global.output, &Failure::Local { attempt, source });
        }
    };
    let exit = runtime.block_on(run(cli));
    // A thread that still reads a file or a pipe would hold up a process that was told to end.
    runtime.shutdown_background();
    exit
}

async fn run(cli: Cli) -> ExitCode {
    // A service tells what it does by its log, also on a terminal.
    let is_service = matches!(cli.verb, Verb::Serve(_));
    let progress = if is_service { Progress::quiet() } else { Progress::detect() };
    let output = cli.global.output;
    telemetry::install(&cli.global, &progress, environment("RUST_LOG").as_deref(), now);
    // One provider for Redis and S3, chosen before the first client could choose another.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let signal = match watch_signals() {
        Ok(signal) => signal,
        Err(source) => {
            let attempt = "listen for signals".to_owned();
            return fail(output, &Failure::Local { attempt, source });
        }
    };
    let context = Context {
        clock: Arc::new(now),
        chance: Arc::new(rand::random),
        environment: Arc::new(environment),
        signal,
        progress,
        over_store: Arc::new(|store| store),
        identities: Identities::default(),
    };
    match flow::run(cli, &context).await {
        Ok(outcome) => finish(output, &outcome),
        Err(failure) => fail(output, &failure),
    }
}

/// Before there are other threads, which inherit it: Linux keeps the niceness of each thread.
fn leave_processor_to_others(cli: &Cli) {
    let is_awaited = matches!(cli.verb, Verb::Restore(_) | Verb::Fetch(_));
    let default = if is_awaited { 0 } else { NICENESS };
    let wanted = i32::from(cli.global.niceness.unwrap_or(default));
    // Who made us nicer had a reason, and to be less nice takes a privilege.
    if getpriority_process(None).is_ok_and(|niceness| niceness < wanted) {
        let _ = setpriority_process(None, wanted);
    }
}

/// Help and version are no failure; anything else is wrong usage.
fn usage(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    if error.use_stderr() { Exit::Usage.into() } else { Exit::Done.into() }
}

fn finish(output: OutputForm, outcome: &Outcome) -> ExitCode {
    match report::print(&mut io::stdout().lock(), output, &*outcome.report) {
        // Who reads no further, such as `head`, has what it wanted.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let attempt = "write the report".to_owned();
            fail(output, &Failure::Local { attempt, source: error })
        }
        Ok(()) | Err(_) => outcome.exit.into(),
    }
}

fn fail(output: OutputForm, failure: &Failure) -> ExitCode {
    let report = FailureReport {
        kind: "failure",
        version: 1,
        exit: failure.exit() as u8,
        error: failure::chain(failure),
        hint: failure.hint(),
    };
    let _ = match output {
        OutputForm::Json => report::print(&mut io::stdout().lock(), output, &report),
        OutputForm::Text => write!(io::stderr(), "{report}"),
    };
    failure.exit().into()
}

#[expect(clippy::disallowed_methods, reason = "the one place where time enters")]
fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn watch_signals() -> io::Result<watch::Receiver<Option<Signal>>> {
    let (sender, receiver) = watch::channel(None);
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        loop {
            let signal = tokio::select! {
                _ = interrupt.recv() => Signal::Interrupt,
                _ = terminate.recv() => Signal::Terminate,
            };
            sender.send_replace(Some(signal));
        }
    });
    Ok(receiver)
}
