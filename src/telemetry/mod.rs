//! Where the log goes: standard error, between the progress bars. Never says what is reported on standard output.

mod otlp;

use std::io::{self, Write};

use jiff::Timestamp;
use tracing_subscriber::{
    EnvFilter,
    fmt::{MakeWriter, format::JsonFields},
};

use self::otlp::Otlp;

use crate::{
    cli::{Global, LogForm},
    report::Progress,
};

/// The crate that the log is about; others speak only when they warn.
const OWN: &str = "redis_backup";

/// Each credential provider that has nothing to offer warns at length; our own error sums it up.
const TOLD_BY_OUR_ERRORS: &str = "aws_config=error";

/// Installs the log of the process. `RUST_LOG` has the last word.
pub fn install(
    global: &Global,
    progress: &Progress,
    rust_log: Option<&str>,
    clock: fn() -> Timestamp,
) {
    let level = match (global.verbose, progress.is_terminal()) {
        // On a terminal the bars and the report tell what happens.
        (0, true) => "warn",
        (0, false) | (1, _) => "info",
        (2.., _) => "debug",
    };
    let filter = rust_log
        .and_then(|text| EnvFilter::try_new(text).ok())
        .unwrap_or_else(|| EnvFilter::new(format!("warn,{TOLD_BY_OUR_ERRORS},{OWN}={level}")));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_writer(BetweenBars(progress.clone()));
    // A second installation can only happen in a test that runs twice; the first one stays.
    let _ = match global.log {
        LogForm::Text => log.with_ansi(progress.is_terminal()).try_init(),
        LogForm::Json => log.json().try_init(),
        LogForm::OtlpJson => {
            log.fmt_fields(JsonFields::new()).event_format(Otlp { clock }).try_init()
        }
    };
}

#[derive(Clone, Debug)]
struct BetweenBars(Progress);

impl<'a> MakeWriter<'a> for BetweenBars {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { progress: self.0.clone(), text: Vec::new() }
    }
}

/// One event, written at once so that no bar is drawn through it.
#[derive(Debug)]
struct Line {
    progress: Progress,
    text: Vec<u8>,
}

impl Write for Line {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let Self { progress, text } = self;
        // A log that cannot be written has nowhere to say so.
        let _ = progress.suspend(|| io::stderr().write_all(text));
    }
}
