//! Measures captures out of pods, by exec beside kubectl and by worker Jobs, on the cluster under test, and writes the tables of
//! `docs/BENCHMARKS.md`.
//!
//! `cargo bench --bench cluster [-- --rounds N]`, or `make bench-cluster`.

#![expect(clippy::print_stdout, reason = "the figures are all there is to say")]
#![expect(clippy::disallowed_methods, reason = "a benchmark takes the time")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "what is shared with the tests stops at the first surprise and says what it saw"
)]
#![expect(unreachable_pub, reason = "`pub` says what a module offers; a binary offers nothing")]

#[expect(dead_code, reason = "the tests use all of it")]
#[path = "../../tests/e2e/cluster.rs"]
mod cluster;
#[expect(dead_code, reason = "the tests use all of it")]
#[path = "../../tests/e2e/installation.rs"]
mod installation;
#[path = "../program/measure.rs"]
mod measure;
#[expect(dead_code, reason = "the tests use all of it")]
#[path = "../../tests/e2e/namespace.rs"]
mod namespace;
#[expect(dead_code, reason = "the tests use all of it")]
#[path = "../../tests/e2e/product.rs"]
mod product;
mod reading;
#[expect(dead_code, reason = "the tests use all of it")]
#[path = "../../tests/e2e/ready.rs"]
mod ready;
#[expect(dead_code, reason = "the tests use all of it")]
#[path = "../../tests/e2e/rights.rs"]
mod rights;
#[expect(dead_code, reason = "the tests use all of it")]
#[path = "../../tests/e2e/s3.rs"]
mod s3;
#[path = "../program/table.rs"]
mod table;
mod workers;

use std::{
    env,
    error::Error,
    path::{Path, PathBuf},
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const ROUNDS: usize = 5;

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let rounds = arguments.iter().position(|argument| argument == "--rounds");
    let rounds = rounds.and_then(|at| arguments.get(at + 1)?.parse().ok()).unwrap_or(ROUNDS);
    for (title, (about, rows)) in
        [("cluster", reading::rows(rounds)?), ("workers", workers::rows(rounds)?)]
    {
        let text = table::text(&about, rounds, &rows);
        println!("\n{text}");
        table::write(title, &text)?;
        if let Some(missed) = rows.iter().find(|row| row.target.is_missed(row.measured)) {
            println!("missed: {}", missed.what);
        }
    }
    Ok(())
}

/// Where the documents are.
fn document() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/BENCHMARKS.md")
}
