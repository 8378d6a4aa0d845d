//! What the integration tests have already: a dataset of every kind of value, its digest, and which servers are on this machine.

#[path = "../it/servers/dataset/mod.rs"]
pub mod dataset;
#[path = "../it/servers/version.rs"]
pub mod version;
