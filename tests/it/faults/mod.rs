//! Faults of every kind, put into the real program and its real surroundings. What is listed is whole; what fails says so.

mod bench;
mod kill_backup;
mod kill_restore;
mod matrix;
mod signals;
