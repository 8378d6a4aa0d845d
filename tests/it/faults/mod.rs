//! Faults of every kind, put into the real program and its real surroundings. What is listed is whole; what fails says so.

pub(crate) mod bench;
mod beside;
mod ended_early;
mod guards;
mod kill_backup;
mod kill_restore;
mod locked;
mod matrix;
mod promise;
mod prune;
mod real;
mod restore;
mod serve;
mod signals;
mod stores;
mod stores_matrix;
pub(crate) mod tally;
mod tamper;
