//! The vocabulary and the decisions. Pure: same arguments, same answer.

pub mod agenda;
pub mod aof;
pub mod archive;
pub mod bgsave;
pub mod capture;
pub mod catalog;
pub mod clock;
pub mod cluster;
pub mod compatibility;
pub mod dataset;
pub mod digest;
pub mod identity;
pub mod installation;
pub mod lock;
pub mod manifest;
pub mod observation;
pub mod persistence;
pub mod rdb;
pub mod record;
pub mod retention;
pub mod schedule;
mod sds;
pub mod secret;
pub mod shrink_guard;
pub mod source;
pub mod topology;
pub mod verification;
