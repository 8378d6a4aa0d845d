//! What a server loaded against what the backup says it holds. Compares; never asks a server.

use std::collections::{BTreeMap, BTreeSet};

use super::rdb::{DatabaseFacts, Facts};

/// What a server tells after it loaded, seen as a replica so that no expired key was dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// From INFO keyspace, which names no empty database.
    pub databases: BTreeMap<u32, DatabaseFacts>,
    /// Names of function libraries; none where the server knows no functions (before 7.0).
    pub functions: Option<Vec<String>>,
}

/// One exact difference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    #[error("database {database} holds {found} keys instead of {expected}")]
    Keys { database: u32, expected: u64, found: u64 },
    #[error("database {database} holds {found} keys with a time to live instead of {expected}")]
    Expires { database: u32, expected: u64, found: u64 },
    #[error("function library {name:?} is missing")]
    FunctionMissing { name: String },
    #[error("function library {name:?} is there and not in the backup")]
    FunctionUnexpected { name: String },
}

/// Every difference, databases first. None means that the backup was proven.
pub fn compare(expected: &Facts, loaded: &Loaded) -> Vec<Finding> {
    let mut findings = Vec::new();
    let numbers: BTreeSet<u32> =
        expected.databases.keys().chain(loaded.databases.keys()).copied().collect();
    for database in numbers {
        let of = |databases: &BTreeMap<u32, DatabaseFacts>| {
            databases.get(&database).copied().unwrap_or_default()
        };
        let (expected, found) = (of(&expected.databases), of(&loaded.databases));
        if expected.keys != found.keys {
            let (expected, found) = (expected.keys, found.keys);
            findings.push(Finding::Keys { database, expected, found });
        }
        if expected.expires != found.expires {
            let (expected, found) = (expected.expires, found.expires);
            findings.push(Finding::Expires { database, expected, found });
        }
    }
    let expected: BTreeSet<&String> = expected.functions.iter().collect();
    let loaded: BTreeSet<&String> = loaded.functions.iter().flatten().collect();
    let missing = expected.difference(&loaded);
    findings.extend(missing.map(|&name| Finding::FunctionMissing { name: name.clone() }));
    let unexpected = loaded.difference(&expected);
    findings.extend(unexpected.map(|&name| Finding::FunctionUnexpected { name: name.clone() }));
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::rdb::{Checksum, Magic};

    fn facts(databases: &[(u32, u64, u64)], functions: &[&str]) -> Facts {
        Facts {
            magic: Magic::Redis,
            version: 10,
            bytes: 100,
            checksum: Checksum::Verified,
            databases: counts(databases),
            types: BTreeMap::new(),
            functions: functions.iter().map(ToString::to_string).collect(),
            modules: Vec::new(),
            hashes_with_field_expiry: 0,
            keys_outside_slots: 0,
            expiry_min_ms: None,
            expiry_max_ms: None,
        }
    }

    fn counts(databases: &[(u32, u64, u64)]) -> BTreeMap<u32, DatabaseFacts> {
        databases
            .iter()
            .map(|&(database, keys, expires)| (database, DatabaseFacts { keys, expires }))
            .collect()
    }

    fn loaded(databases: &[(u32, u64, u64)], functions: &[&str]) -> Loaded {
        let functions = functions.iter().map(ToString::to_string).collect();
        Loaded { databases: counts(databases), functions: Some(functions) }
    }

    #[test]
    fn an_equal_dataset_has_no_finding() {
        let expected = facts(&[(0, 3, 1), (2, 0, 0), (5, 9, 9)], &["a", "b"]);
        assert_eq!(compare(&expected, &loaded(&[(0, 3, 1), (5, 9, 9)], &["b", "a"])), []);
    }

    #[test]
    fn each_difference_is_named_exactly() {
        let expected = facts(&[(0, 3, 1), (5, 9, 9)], &["a", "b"]);
        let found = compare(&expected, &loaded(&[(0, 2, 0), (1, 7, 0), (5, 9, 9)], &["b", "c"]));
        let texts: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "database 0 holds 2 keys instead of 3",
                "database 0 holds 0 keys with a time to live instead of 1",
                "database 1 holds 7 keys instead of 0",
                "function library \"a\" is missing",
                "function library \"c\" is there and not in the backup",
            ],
        );
    }

    #[test]
    fn a_server_without_functions_misses_them() {
        let loaded = Loaded { databases: BTreeMap::new(), functions: None };
        let finding = Finding::FunctionMissing { name: "a".to_owned() };
        assert_eq!(compare(&facts(&[], &["a"]), &loaded), [finding]);
        assert_eq!(compare(&facts(&[], &[]), &loaded), []);
    }
}
