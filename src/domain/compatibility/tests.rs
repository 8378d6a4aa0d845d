//! The measured matrix, row by row, and the other reasons not to load.

use std::collections::BTreeMap;

use super::*;
use crate::domain::rdb::{Checksum, DatabaseFacts, Unread};

/// The columns: a server, and whether it starts with `rdb-version-check relaxed`.
const TARGETS: [(&str, bool); 11] = [
    ("redis-6.2.16", false),
    ("redis-7.0.15", false),
    ("redis-7.2.6", false),
    ("redis-7.4.1", false),
    ("redis-8.0.6", false),
    ("redis-8.6.3", false),
    ("valkey-8.0.1", false),
    ("valkey-8.1.1", false),
    ("valkey-9.1.2", false),
    ("valkey-9.1.2", true),
    ("valkey-8.1.1", true),
];

fn facts(magic: Magic, version: u32) -> Facts {
    Facts {
        magic,
        version,
        bytes: 100,
        checksum: Checksum::Verified,
        databases: BTreeMap::from([(0, DatabaseFacts { keys: 15, expires: 0 })]),
        types: BTreeMap::new(),
        functions: Vec::new(),
        modules: Vec::new(),
        hashes_with_field_expiry: 0,
        keys_outside_slots: 0,
        expiry_min_ms: None,
        expiry_max_ms: None,
    }
}

fn version(text: &str) -> ServerVersion {
    text.parse().unwrap()
}

fn target(server: &str) -> Target {
    Target {
        server: version(server),
        version_check_relaxed: false,
        appendonly: false,
        databases: 16,
        cluster_databases: None,
        modules: Some(Vec::new()),
    }
}

/// One row, a letter per column: `y` loads, `-` does not.
fn row(magic: Magic, rdb_version: u32, field_expiry: bool) -> String {
    let mut facts = facts(magic, rdb_version);
    facts.hashes_with_field_expiry = u64::from(field_expiry);
    let content = Content::Read(facts);
    let column = |&(server, version_check_relaxed): &(&str, bool)| {
        let target = Target { version_check_relaxed, ..target(server) };
        // The source counts only where the content is unread.
        match check(&content, &version("99.0"), &target) {
            Ok(_) => 'y',
            Err(_) => '-',
        }
    };
    TARGETS.iter().map(column).collect()
}

#[test]
fn the_matrix_is_as_measured() {
    let r = Magic::Redis;
    let v = Magic::Valkey;
    assert_eq!(row(r, 6, false), "yyyyyyyyyyy", "Redis 2.6");
    assert_eq!(row(r, 9, false), "yyyyyyyyyyy", "Redis 6.2");
    assert_eq!(row(r, 10, false), "-yyyyyyyyyy", "Redis 7.0");
    assert_eq!(row(r, 11, false), "--yyyyyyyyy", "Redis 7.2 and Valkey 8");
    assert_eq!(row(r, 12, false), "---yyy---y-", "Redis 7.4 and 8.0");
    assert_eq!(row(r, 12, true), "---yyy-----", "Redis 7.4 and 8.0 with field expiry");
    assert_eq!(row(r, 13, false), "-----y-----", "Redis 8.6");
    assert_eq!(row(v, 80, false), "--------yyy", "Valkey 9.1");
    assert_eq!(row(v, 80, true), "--------yy-", "Valkey 9.1 with field expiry");
}

#[test]
fn a_refusal_says_what_would_work() {
    let text = |rdb: Facts, server: &str| {
        let reasons = check(&Content::Read(rdb), &version("8.0"), &target(server)).unwrap_err();
        reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(
        text(facts(Magic::Redis, 12), "7.0.15"),
        "RDB 12 of Redis 7.4 or 8.0 is newer than Redis 7.0.15 reads; Redis 7.4 or later loads it, and Valkey 9 or later with `rdb-version-check relaxed`",
    );
    assert_eq!(
        text(facts(Magic::Redis, 12), "valkey-9.0"),
        "RDB 12 of Redis 7.4 or 8.0 is newer than Valkey 9.0.0 reads; it takes it with `rdb-version-check relaxed`, and Redis 7.4 or later as it is",
    );
    assert_eq!(
        text(facts(Magic::Valkey, 80), "8.6.3"),
        "RDB 80 of Valkey 9 is in the format of the other flavour, which Redis 8.6.3 does not read; Valkey 9 or later loads it, and Valkey 8.1 with `rdb-version-check relaxed`",
    );
}

#[test]
fn every_reason_is_told_at_once() {
    let mut rdb = facts(Magic::Redis, 12);
    rdb.databases.insert(20, DatabaseFacts { keys: 1, expires: 0 });
    rdb.modules = vec!["ReJSON-RL".to_owned(), "own--type".to_owned()];
    let reasons = check(&Content::Read(rdb), &version("8.0"), &target("redis-7.0.15")).unwrap_err();
    assert!(
        matches!(
            reasons.as_slice(),
            [
                Reason::TooNew { .. },
                Reason::Databases { highest: 20, configured: 16, needed: 21 },
                Reason::Module { .. },
                Reason::Module { .. },
            ]
        ),
        "{reasons:#?}",
    );
}

#[test]
fn only_valkey_9_has_databases_in_cluster_mode() {
    let mut rdb = facts(Magic::Redis, 11);
    rdb.databases.insert(1, DatabaseFacts { keys: 1, expires: 0 });
    let content = Content::Read(rdb);
    let cluster = |server: &str, databases: u32| {
        let target = Target { cluster_databases: Some(databases), ..target(server) };
        check(&content, &version("7.2"), &target)
    };
    assert!(matches!(
        cluster("redis-8.0", 16).unwrap_err().as_slice(),
        [Reason::ClusterDatabases { highest: 1, configured: 1, .. }]
    ));
    assert!(cluster("valkey-9.0", 1).is_err());
    assert_eq!(cluster("valkey-9.0", 2), Ok(Loads::AsItIs));
    assert_eq!(check(&content, &version("7.2"), &target("redis-8.0")), Ok(Loads::AsItIs));
}

#[test]
fn a_loaded_module_satisfies_its_types() {
    let mut rdb = facts(Magic::Redis, 12);
    rdb.modules = vec!["MBbloom--".to_owned(), "vectorset".to_owned()];
    let content = Content::Read(rdb);
    let with = |server: &str, modules: Option<&[&str]>| {
        let modules = modules.map(|names| names.iter().map(ToString::to_string).collect());
        check(&content, &version("8.0"), &Target { modules, ..target(server) }).is_ok()
    };
    assert!(with("redis-8.0", Some(&["bf"])));
    assert!(!with("redis-8.0", Some(&["ReJSON"])));
    assert!(!with("redis-7.4", Some(&["bf"])), "vector sets are built in from 8.0 on");
    assert!(with("redis-7.4", None), "nobody knows, so nobody refuses");
}

#[test]
fn an_unread_rdb_needs_a_server_like_its_source() {
    let content = Content::Unread(Unread {
        magic: Magic::Redis,
        version: 14,
        bytes: 100,
        checksum: Checksum::Verified,
    });
    let on = |server: &str| check(&content, &version("redis-8.8.1"), &target(server)).is_ok();
    assert!(on("redis-8.8.0"), "a patch changes no format");
    assert!(on("redis-9.0"));
    assert!(!on("redis-8.6.3"));
    assert!(!on("valkey-9.1"));
}

#[test]
fn old_valkey_8_1_cannot_take_a_valkey_9_rdb_as_append_only_base() {
    let content = Content::Read(facts(Magic::Valkey, 80));
    let on = |server: &str, appendonly: bool| {
        let target = Target { version_check_relaxed: true, appendonly, ..target(server) };
        check(&content, &version("valkey-9.1"), &target)
    };
    assert_eq!(on("valkey-8.1.4", false), Ok(Loads::Relaxed));
    assert!(matches!(
        on("valkey-8.1.4", true).unwrap_err().as_slice(),
        [Reason::AppendOnlyBase { .. }]
    ));
    assert_eq!(on("valkey-8.1.5", true), Ok(Loads::Relaxed));
}

#[test]
fn versions_are_read_from_what_servers_say() {
    let redis = "# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\n";
    let valkey = "redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.1.1\r\n";
    assert_eq!(ServerVersion::from_info(redis), Ok(version("7.0.15")));
    assert_eq!(ServerVersion::from_info(valkey), Ok(version("valkey-8.1.1")));
    assert!(ServerVersion::from_info("").is_err());
    let output = "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=a\n";
    assert_eq!(ServerVersion::from_version_output(output), Ok(version("7.0.15")));
    let output = "Valkey server v=9.1.2 sha=00000000:0 malloc=libc bits=64 build=a\n";
    assert_eq!(ServerVersion::from_version_output(output), Ok(version("valkey-9.1.2")));
    assert!(ServerVersion::from_version_output("nginx version: 1.2").is_err());
}

#[test]
fn versions_are_read_from_what_people_write() {
    assert_eq!(version("8").to_string(), "Redis 8.0.0");
    assert_eq!(version("Valkey 9.1").to_string(), "Valkey 9.1.0");
    assert_eq!(version("7.4-rc1").to_string(), "Redis 7.4.0");
    for text in ["", "redis", "seven", "7.x", "7.0.1.2", "dragonfly-1.0"] {
        assert!(text.parse::<ServerVersion>().is_err(), "{text:?}");
    }
}
