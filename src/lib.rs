//! Backup and restore of Redis and Valkey.
//!
//! **`domain` decides, `flow` sequences, `edge` acts.**
//!
//! ```text
//! main ─▶ cli ─▶ settings
//!   └──▶ flow ─┬─▶ edge ──▶ domain
//!              ├──────────▶ domain
//!              └─▶ failure, report, settings, telemetry
//! ```
//!
//! * [`domain`] holds the vocabulary and every decision, as functions over data.
//!   It never waits, never reads a clock and never fails because of the network.
//! * [`edge`] talks to Redis, stores and throw-away servers, and never chooses.
//! * `flow` is one readable sequence per verb: observe, decide, act, record.
//!
//! `tests/it/architecture.rs` fails on any other arrow.

pub mod cli;
pub mod domain;
pub mod edge;
pub mod failure;
pub mod flow;
pub mod report;
pub mod settings;
pub mod telemetry;
