//! The one promise that holds after every fault: a listed backup is whole, the last good one is still there, the source is unchanged.

use std::{collections::BTreeSet, fmt::Debug};

use redis_backup::{
    failure::{Exit, Failure, chain},
    report::Outcome,
};

use super::{bench::digest, matrix::json};
use crate::servers::redis::Server;

/// A source as it was before the faults.
#[derive(Debug)]
pub struct Promise {
    source: Server,
    before: String,
}

impl Promise {
    pub fn of(source: Server) -> Self {
        let before = digest(&source);
        Self { source, before }
    }

    pub fn source(&self) -> &Server {
        &self.source
    }

    /// By an undisturbed `verify --all --level content`, which reads back all that is listed. What is listed.
    #[track_caller]
    pub fn assert_kept(
        &self,
        verified: Result<Outcome, Failure>,
        last_good: &BTreeSet<String>,
        what: &impl Debug,
    ) -> BTreeSet<String> {
        let listed: BTreeSet<String> = match verified {
            Ok(outcome) => {
                let report = json(&outcome);
                assert_eq!(outcome.exit, Exit::Done, "not whole after {what:?}: {report}");
                let id = |backup: &serde_json::Value| backup["backup"].as_str().unwrap().to_owned();
                report["backups"].as_array().unwrap().iter().map(id).collect()
            }
            Err(Failure::NoBackup { .. }) => BTreeSet::new(),
            Err(failure) => panic!("{what:?}: {}", chain(&failure)),
        };
        let gone: Vec<&String> = last_good.difference(&listed).collect();
        assert!(gone.is_empty(), "gone after {what:?}: {gone:?} from {listed:?}");
        assert_eq!(digest(&self.source), self.before, "the source changed after {what:?}");
        listed
    }
}
