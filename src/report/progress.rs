//! How far a long act has come: bars with rate and time left on a terminal, log lines elsewhere.

use std::{
    borrow::Cow,
    io::IsTerminal as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

/// Between two log lines of one act.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// All bars of the process.
#[derive(Clone, Debug)]
pub struct Progress {
    bars: Option<MultiProgress>,
}

/// One act whose bytes are counted. Its clones count together.
#[derive(Clone, Debug)]
pub struct Bar {
    name: Arc<str>,
    bytes: Arc<AtomicU64>,
    logged_at_ms: Arc<AtomicU64>,
    begun: Instant,
    bytes_total: Option<u64>,
    drawn: Option<ProgressBar>,
}

impl Progress {
    /// Bars when standard error is a terminal.
    pub fn detect() -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self {
            bars: terminal.then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr())),
        }
    }

    /// No bars; log lines only.
    pub const fn quiet() -> Self {
        Self { bars: None }
    }

    pub fn is_terminal(&self) -> bool {
        self.bars.is_some()
    }

    /// Lets a line be written between the bars.
    pub fn suspend<T>(&self, write: impl FnOnce() -> T) -> T {
        match &self.bars {
            Some(bars) => bars.suspend(write),
            None => write(),
        }
    }

    pub fn bar(&self, name: impl Into<Cow<'static, str>>, bytes_total: Option<u64>) -> Bar {
        let name: Cow<'static, str> = name.into();
        let drawn = self.bars.as_ref().map(|bars| {
            let bar = match bytes_total {
                Some(total) => ProgressBar::new(total).with_style(style(
                    "{msg:28} {wide_bar} {binary_bytes:>11} of {binary_total_bytes:11} {binary_bytes_per_sec:>13} {eta:>4} left",
                )),
                None => ProgressBar::no_length()
                    .with_style(style("{msg:28} {spinner} {binary_bytes:>11} {binary_bytes_per_sec:>13} {elapsed:>4}")),
            };
            let bar = bars.add(bar.with_message(name.clone()));
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Bar {
            name: name.into(),
            bytes: Arc::default(),
            logged_at_ms: Arc::default(),
            begun: Instant::now(),
            bytes_total,
            drawn,
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl Bar {
    pub fn add(&self, bytes: u64) {
        let total = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        match &self.drawn {
            Some(bar) => {
                // The total may be a guess.
                if self.bytes_total.is_some_and(|guess| total > guess) {
                    bar.set_length(total);
                }
                bar.inc(bytes);
            }
            None => self.log(total),
        }
    }

    fn log(&self, bytes: u64) {
        let elapsed_ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let logged_at_ms = self.logged_at_ms.load(Ordering::Relaxed);
        if Duration::from_millis(elapsed_ms - logged_at_ms.min(elapsed_ms)) < LOG_INTERVAL {
            return;
        }
        self.logged_at_ms.store(elapsed_ms, Ordering::Relaxed);
        let rate = super::text::bytes(bytes.saturating_mul(1000) / elapsed_ms.max(1));
        let of_total = self
            .bytes_total
            .map_or(String::new(), |total| format!(" of {}", super::text::bytes(total)));
        tracing::info!(act = &*self.name, "{}{of_total}, {rate}/s", super::text::bytes(bytes));
    }

    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Takes the bar off the terminal.
    pub fn finish(&self) {
        if let Some(bar) = &self.drawn {
            bar.finish_and_clear();
        }
    }
}
