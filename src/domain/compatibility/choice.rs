//! Which of several servers proves an RDB best. Decides; never looks for servers.

use super::{
    Loads, Reason, ServerVersion, Target, check, check_aof, databases_needed,
    databases_needed_by_aof,
};
use crate::domain::{manifest::AofCapture, rdb::Content};

/// The server to load with, by its place in the list, and how it must be configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    pub index: usize,
    pub databases: u32,
    pub version_check_relaxed: bool,
}

/// Prefers the source's own version, then its flavour, then the oldest that loads it. The error
/// tells of each server why it does not.
pub fn choose(
    rdb: &Content,
    source: &ServerVersion,
    servers: &[ServerVersion],
) -> Result<Choice, Vec<(ServerVersion, Vec<Reason>)>> {
    let databases = match rdb {
        Content::Read(facts) => databases_needed(facts),
        // As many as a server has when nobody says otherwise.
        Content::Unread(_) => 16,
    };
    best(source, servers, databases, false, |target| check(rdb, source, target))
}

/// As [`choose`], for append-only files.
pub fn choose_for_aof(
    aof: &AofCapture,
    source: &ServerVersion,
    servers: &[ServerVersion],
) -> Result<Choice, Vec<(ServerVersion, Vec<Reason>)>> {
    let databases = databases_needed_by_aof(aof).max(16);
    best(source, servers, databases, true, |target| check_aof(aof, source, target))
}

fn best(
    source: &ServerVersion,
    servers: &[ServerVersion],
    databases: u32,
    appendonly: bool,
    check: impl Fn(&Target) -> Result<Loads, Vec<Reason>>,
) -> Result<Choice, Vec<(ServerVersion, Vec<Reason>)>> {
    let mut refusals = Vec::new();
    let mut best = None;
    for (index, server) in servers.iter().enumerate() {
        let target = Target {
            server: *server,
            version_check_relaxed: server.has_relaxed_version_check(),
            appendonly,
            databases,
            cluster_databases: None,
            modules: None,
        };
        match check(&target) {
            Ok(loads) => {
                let rank = rank(source, *server);
                let version_check_relaxed = loads == Loads::Relaxed;
                if best.as_ref().is_none_or(|(other, _)| rank < *other) {
                    best = Some((rank, Choice { index, databases, version_check_relaxed }));
                }
            }
            Err(reasons) => refusals.push((*server, reasons)),
        }
    }
    best.map(|(_, choice)| choice).ok_or(refusals)
}

/// Smaller is better.
fn rank(source: &ServerVersion, server: ServerVersion) -> (bool, bool, (u32, u32, u32)) {
    let same_flavour = server.flavour == source.flavour;
    let same_release = same_flavour && (server.major, server.minor) == (source.major, source.minor);
    (!same_release, !same_flavour, (server.major, server.minor, server.patch))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        manifest::Flavour,
        rdb::{Checksum, Facts, Magic},
    };

    fn rdb(version: u32) -> Content {
        Content::Read(Facts {
            magic: Magic::Redis,
            version,
            bytes: 100,
            checksum: Checksum::Verified,
            databases: [(20, crate::domain::rdb::DatabaseFacts { keys: 1, expires: 0 })].into(),
            types: std::collections::BTreeMap::new(),
            functions: Vec::new(),
            modules: Vec::new(),
            hashes_with_field_expiry: 0,
            keys_outside_slots: 0,
            expiry_min_ms: None,
            expiry_max_ms: None,
        })
    }

    #[test]
    fn the_release_of_the_source_comes_first_then_its_flavour() {
        let redis = |major, minor| ServerVersion::new(Flavour::Redis, major, minor, 0);
        let valkey = ServerVersion::new(Flavour::Valkey, 8, 1, 0);
        let source = redis(7, 0);
        let servers = [valkey, redis(8, 0), redis(7, 0), redis(6, 2)];
        let choice = choose(&rdb(10), &source, &servers).unwrap();
        assert_eq!((choice.index, choice.databases), (2, 21));
        assert_eq!(choose(&rdb(10), &source, &servers[..2]).unwrap().index, 1);
        assert_eq!(choose(&rdb(10), &source, &servers[..1]).unwrap().index, 0);
        let refusals = choose(&rdb(10), &source, &servers[3..]).unwrap_err();
        assert!(refusals[0].1[0].to_string().contains("newer"), "{refusals:?}");
    }
}
