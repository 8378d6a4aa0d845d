//! The scanner against RDBs that real servers of every version wrote, and against what these servers say of themselves.

use std::{collections::BTreeMap, fs};

use redis::{Connection, FromRedisValue, Value};
use redis_backup::domain::{
    manifest::Flavour,
    rdb::{
        Checksum, Content, DatabaseFacts, Expectations, Facts, Magic, Scanned, Scanner, ValueType,
    },
};

use crate::servers::{Version, redis::Server};

/// Milliseconds since the epoch, far from now.
const EXPIRY_MS: i64 = 4_000_000_000_000;

fn run<T: FromRedisValue>(connection: &mut Connection, line: &str) -> T {
    let words: Vec<_> = line.split(' ').collect();
    send(connection, &words)
}

fn send<T: FromRedisValue>(connection: &mut Connection, words: &[&str]) -> T {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    command.query(connection).unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

fn run_all(connection: &mut Connection, lines: &str) {
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let _: Value = run(connection, line);
    }
}

/// Every type in every encoding that the server knows, in three databases.
fn fill(version: &Version, connection: &mut Connection) {
    run_all(
        connection,
        "SET string value
         SET int8 -5
         SET int16 1000
         SET int32 -70000
         SET int64 9000000000
         SET 12345 integer-key
         RPUSH list a b c 1 2 3
         SADD intset 1 2 70000
         SADD set-packed a b c
         ZADD zset-packed 1 a 2.5 b -inf c
         HSET hash-packed f v g w
         XADD stream 1-1 f v
         XADD stream 2-1 f v g w
         XADD stream 3-1 f v
         XDEL stream 1-1
         XGROUP CREATE stream group 0
         XGROUP CREATE stream idle $
         XREADGROUP GROUP group alice COUNT 1 STREAMS stream >
         XREADGROUP GROUP group bob STREAMS stream >
         XADD emptied 1-1 f v
         XDEL emptied 1-1
         SELECT 3
         SET a 1
         SET b 2 PX 100000000
         SELECT 15
         SADD only here
         SELECT 0",
    );
    for (key, text) in [
        ("compressible", "abc".repeat(20_000)),
        ("incompressible", noise(50_000)),
        (&"k".repeat(300), "key of one letter, packed by LZF".to_owned()),
        (&noise(20_000), "long key".to_owned()),
    ] {
        let _: Value = send(connection, &["SET", key, &text]);
    }
    for index in 0..700 {
        let _: Value = run(connection, &format!("RPUSH biglist {index} {}", noise(100)));
        let _: Value = run(connection, &format!("SADD bigset member{index}"));
        let _: Value = run(connection, &format!("ZADD bigzset {index}.5 member{index}"));
        let _: Value = run(connection, &format!("HSET bighash field{index} {}", "x".repeat(index)));
        let _: Value = run(connection, &format!("XADD bigstream * field {}", noise(100)));
    }
    // Larger than a node of a list may be, so that it lies plain.
    let _: Value = send(connection, &["RPUSH", "plainlist", &noise(40_000), "small"]);
    for key in ["string", "list", "bighash"] {
        let _: Value = run(connection, &format!("PEXPIREAT {key} {EXPIRY_MS}"));
    }
    fill_with_news(version, connection);
}

/// What not every version knows.
fn fill_with_news(version: &Version, connection: &mut Connection) {
    if version.is_seven() {
        for name in ["first", "second_library"] {
            let code = format!(
                "#!lua name={name}\nredis.register_function('{name}', function() return 1 end)\n{}",
                "-- padding\n".repeat(200),
            );
            let _: Value = send(connection, &["FUNCTION", "LOAD", &code]);
        }
    }
    if version.has_field_expiry() {
        run_all(
            connection,
            "HSET expiring-packed f v g w
             HPEXPIREAT expiring-packed 4000000000000 FIELDS 1 f
             HSET persisted f v g w
             HPEXPIREAT persisted 4000000000000 FIELDS 1 f
             HPERSIST persisted FIELDS 1 f",
        );
        for index in 0..700 {
            let _: Value = run(connection, &format!("HSET expiring-big field{index} v"));
        }
        let _: Value = run(connection, "HPEXPIREAT expiring-big 4000000000000 FIELDS 1 field9");
    }
    if version.is_redis([8, 6]) {
        run_all(
            connection,
            "XADD idempotent IDMP producer id1 * f v
             XADD idempotent IDMP producer id2 * f v
             XADD idempotent IDMP other id1 * f v
             XADD idempotent IDMP other id1 * f v",
        );
    }
}

/// Text that LZF does not make shorter, the same in every run.
fn noise(bytes: usize) -> String {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..bytes)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            char::from(alphabet[usize::from(state.to_be_bytes()[0] & 0x3f)])
        })
        .collect()
}

fn save_and_scan(server: &Server, connection: &mut Connection) -> (Vec<u8>, Scanned) {
    let _: Value = run(connection, "SAVE");
    let bytes = fs::read(server.data_dir().join("dump.rdb")).unwrap();
    let scanned = scan(&bytes, 1 << 16);
    for chunk_bytes in [13, 4096] {
        assert_eq!(scan(&bytes, chunk_bytes), scanned);
    }
    (bytes, scanned)
}

fn scan(bytes: &[u8], chunk_bytes: usize) -> Scanned {
    let mut scanner = Scanner::new(&Expectations { slots: Vec::new(), biggest_keys_max: 3 });
    bytes.chunks(chunk_bytes).for_each(|chunk| scanner.feed(chunk).unwrap());
    scanner.finish().unwrap()
}

fn facts(scanned: &Scanned) -> &Facts {
    match &scanned.content {
        Content::Read(facts) => facts,
        Content::Unread(unread) => panic!("left unread: {unread:?}"),
    }
}

/// INFO keyspace: `db0:keys=1,expires=0,…`.
fn keyspace(connection: &mut Connection) -> BTreeMap<u32, DatabaseFacts> {
    let text: String = run(connection, "INFO keyspace");
    text.lines()
        .filter_map(|line| line.strip_prefix("db")?.split_once(':'))
        .map(|(database, counts)| {
            let count = |name| {
                let text = counts.split(',').find_map(|count| count.strip_prefix(name));
                text.unwrap().parse().unwrap()
            };
            let facts = DatabaseFacts { keys: count("keys="), expires: count("expires=") };
            (database.parse().unwrap(), facts)
        })
        .collect()
}

/// What TYPE says of every key in every database.
fn types(connection: &mut Connection) -> BTreeMap<ValueType, u64> {
    let mut types = BTreeMap::new();
    for database in [0, 3, 15] {
        let _: Value = run(connection, &format!("SELECT {database}"));
        for key in run::<Vec<String>>(connection, "KEYS *") {
            let value_type = match send::<String>(connection, &["TYPE", &key]).as_str() {
                "string" => ValueType::String,
                "list" => ValueType::List,
                "set" => ValueType::Set,
                "zset" => ValueType::SortedSet,
                "hash" => ValueType::Hash,
                "stream" => ValueType::Stream,
                other => panic!("{key} is of type {other}"),
            };
            *types.entry(value_type).or_default() += 1;
        }
    }
    let _: Value = run(connection, "SELECT 0");
    types
}

fn rdb_version(version: &Version) -> (Magic, u32) {
    match (version.flavour, version.numbers) {
        (Flavour::Redis, [6, ..]) => (Magic::Redis, 9),
        (Flavour::Redis, [7, 0, _]) => (Magic::Redis, 10),
        (Flavour::Redis, [8, 0, _]) => (Magic::Redis, 12),
        (Flavour::Redis, _) => (Magic::Redis, 13),
        (Flavour::Valkey, [9, ..]) => (Magic::Valkey, 80),
        (Flavour::Valkey, _) => (Magic::Redis, 11),
    }
}

#[test]
fn a_scan_tells_what_the_server_itself_tells() {
    for version in Version::all() {
        let server =
            Server::start(&version, &["list-max-ziplist-size 512", "maxmemory-policy allkeys-lru"]);
        let mut connection = server.connection();
        fill(&version, &mut connection);
        let (bytes, scanned) = save_and_scan(&server, &mut connection);
        let facts = facts(&scanned);
        assert_eq!((facts.magic, facts.version), rdb_version(&version), "{version}");
        assert_eq!(facts.bytes, bytes.len() as u64);
        assert_eq!(facts.checksum, Checksum::Verified);
        assert_eq!(facts.databases, keyspace(&mut connection), "{version}");
        assert_eq!(facts.types, types(&mut connection), "{version}");
        let functions: &[&str] =
            if version.is_seven() { &["first", "second_library"] } else { &[] };
        assert_eq!(facts.functions, functions, "{version}");
        let expiring = match (version.has_field_expiry(), version.flavour) {
            (false, _) => 0,
            // Redis leaves the one that was persisted in the form that it had.
            (true, Flavour::Redis) => 3,
            (true, Flavour::Valkey) => 2,
        };
        assert_eq!(facts.hashes_with_field_expiry, expiring, "{version}");
        assert_eq!(facts.expiry_max_ms, Some(EXPIRY_MS));
        assert!(facts.expiry_min_ms.is_some_and(|expiry_ms| expiry_ms < EXPIRY_MS));
        let biggest = &scanned.private.biggest_keys[0];
        // Five bytes of length before it.
        assert_eq!((biggest.key.as_str(), biggest.bytes), ("incompressible", 50_005), "{version}");
        let aux = &scanned.private.aux;
        let name = if version.flavour == Flavour::Valkey { "valkey-ver" } else { "redis-ver" };
        assert_eq!(aux[name], version.numbers.map(|number| number.to_string()).join("."));
    }
}

#[test]
fn every_policy_of_eviction_and_a_switched_off_checksum_can_be_read() {
    for version in Version::all() {
        let config = ["maxmemory-policy allkeys-lfu", "rdbchecksum no", "rdbcompression no"];
        let server = Server::start(&version, &config);
        let mut connection = server.connection();
        fill(&version, &mut connection);
        let (_, scanned) = save_and_scan(&server, &mut connection);
        let facts = facts(&scanned);
        assert_eq!(facts.checksum, Checksum::NotChecksummed, "{version}");
        assert_eq!(facts.databases, keyspace(&mut connection), "{version}");
    }
}

#[test]
fn a_node_of_a_cluster_holds_no_key_outside_its_slots() {
    for version in Version::all() {
        let server = Server::start(&version, &["cluster-enabled yes"]);
        let mut connection = server.connection();
        let slots: Vec<_> = (0..16384).map(|slot: u16| slot.to_string()).collect();
        let words: Vec<_> =
            ["CLUSTER", "ADDSLOTS"].into_iter().chain(slots.iter().map(String::as_str)).collect();
        let _: Value = send(&mut connection, &words);
        crate::servers::wait_for("the cluster to be up", || {
            run::<String>(&mut connection, "CLUSTER INFO")
                .contains("cluster_state:ok")
                .then_some(())
        });
        let mut expected = 0;
        for index in 0..500 {
            let key = ["key:{}", "{tag{}}rest", "a}b{{}", "{}{}"][index % 4]
                .replace("{}", &index.to_string());
            let _: Value = send(&mut connection, &["SET", &key, "v"]);
            let slot: u16 = send(&mut connection, &["CLUSTER", "KEYSLOT", &key]);
            expected += u64::from(slot >= 9000);
        }
        let (bytes, _) = save_and_scan(&server, &mut connection);
        let slots = vec![redis_backup::domain::rdb::SlotRange { first: 0, last: 8999 }];
        let mut scanner = Scanner::new(&Expectations { slots, biggest_keys_max: 0 });
        scanner.feed(&bytes).unwrap();
        assert_eq!(facts(&scanner.finish().unwrap()).keys_outside_slots, expected, "{version}");
    }
}
