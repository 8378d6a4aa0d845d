//! Load verification on real servers: they count what the RDB holds, expired keys and functions included.

use std::{fs, path::Path, time::Duration};

use redis_backup::{
    domain::{
        compatibility::ServerVersion,
        rdb::{Content, Expectations, Facts, Scanner},
        verification::{Finding, compare},
    },
    edge::{
        data_directory::look,
        server_process::{Binary, Error, Loading, Proof, Room, find},
    },
};
use tempfile::TempDir;
use tokio::time::sleep;

use crate::throw_away::{installed, rdb_with};

const LOADING: Loading = Loading {
    append_only: false,
    databases: 16,
    version_check_relaxed: false,
    limit: Duration::from_mins(1),
};

/// Long enough for the save after it, short enough to wait for.
const EXPIRY: Duration = Duration::from_secs(3);

fn sample(binary: &Path, server: ServerVersion) -> Vec<u8> {
    let mut commands: Vec<String> = (0..20).map(|key| format!("SET lasting:{key} x")).collect();
    commands.extend((0..7).map(|key| format!("SET expired:{key} x PX {}", EXPIRY.as_millis())));
    commands.push("SET late x EX 100000".to_owned());
    if server.has_functions() {
        let code = "#!lua name=sums\nredis.register_function('one', function() return 1 end)";
        commands.push(format!("FUNCTION LOAD |{code}"));
    }
    commands.extend(["SELECT 3", "RPUSH list a b c"].map(String::from));
    let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
    rdb_with(binary, &commands)
}

fn facts(rdb: &[u8]) -> Facts {
    let mut scanner = Scanner::new(&Expectations::default());
    scanner.feed(rdb).unwrap();
    match scanner.finish().unwrap().content {
        Content::Read(facts) => facts,
        Content::Unread(unread) => panic!("{unread:?}"),
    }
}

async fn load(
    binary: &Path,
    version: ServerVersion,
    rdb: &[u8],
    loading: Loading,
) -> Result<Proof, Error> {
    let parent = TempDir::new().unwrap();
    let room = Room::new(parent.path()).unwrap();
    fs::write(room.rdb(), rdb).unwrap();
    let binary = Binary { path: binary.to_owned(), version };
    let outcome = room.load(&binary, loading, |_| {}).await;
    assert!(look(room.rdb().parent().unwrap()).unwrap().is_free(), "the server lives on");
    drop(room);
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0, "the room is left");
    outcome
}

fn installed_as(text: &str) -> (std::path::PathBuf, ServerVersion) {
    let wanted: ServerVersion = text.parse().unwrap();
    let fits = |version: &ServerVersion| {
        (version.flavour, version.major, version.minor)
            == (wanted.flavour, wanted.major, wanted.minor)
    };
    installed().into_iter().find(|(_, version)| fits(version)).expect("run tests/servers/fetch")
}

#[tokio::test]
async fn every_server_counts_what_its_rdb_holds() {
    let samples: Vec<_> = installed()
        .into_iter()
        .map(|(binary, version)| (sample(&binary, version), binary, version))
        .collect();
    sleep(EXPIRY).await;
    for (rdb, binary, version) in samples {
        let expected = facts(&rdb);
        assert_eq!((expected.keys(), expected.expires()), (29, 8), "{version}");
        let proof = load(&binary, version, &rdb, LOADING).await.unwrap();
        assert_eq!(proof.server, version);
        assert_eq!(compare(&expected, &proof.loaded), [], "{version}");
        let mut other = expected.clone();
        other.databases.remove(&3);
        let finding = Finding::Keys { database: 3, expected: 0, found: 1 };
        assert_eq!(compare(&other, &proof.loaded), [finding], "{version}");
        let functions: &[String] = if version.has_functions() { &["sums".into()] } else { &[] };
        assert_eq!(proof.loaded.functions.unwrap_or_default(), functions, "{version}");
    }
}

#[tokio::test]
async fn a_corrupt_rdb_is_refused_in_the_words_of_the_server() {
    for (binary, version) in installed() {
        let mut rdb = sample(&binary, version);
        let middle = rdb.len() - 4;
        rdb[middle] ^= 1;
        let error = load(&binary, version, &rdb, LOADING).await.unwrap_err();
        let Error::Refused { log, .. } = &error else { panic!("{version}: {error:?}") };
        let log = log.to_lowercase();
        assert!(log.contains("rdb") && !log.contains('\n'), "{version}: {log}");
        assert!(log.contains("crc") || log.contains("checksum"), "{version}: {log}");
    }
}

#[tokio::test]
async fn a_newer_rdb_is_refused_by_version_and_taken_relaxed() {
    let (redis_8, version_8) = installed_as("redis-8.0");
    let rdb = rdb_with(&redis_8, &["SET a b"]);
    assert_eq!(facts(&rdb).version, 12);
    let (redis_7, version_7) = installed_as("redis-7.0");
    let error = load(&redis_7, version_7, &rdb, LOADING).await.unwrap_err();
    let Error::Refused { log, .. } = &error else { panic!("{error:?}") };
    assert!(log.contains("version 12"), "{log}");
    let (valkey, version_9) = installed_as("valkey-9.1");
    let relaxed = Loading { version_check_relaxed: true, ..LOADING };
    let proof = load(&valkey, version_9, &rdb, relaxed).await.unwrap();
    assert_eq!(compare(&facts(&rdb), &proof.loaded), []);
    assert!(load(&redis_8, version_8, &rdb, LOADING).await.is_ok());
}

#[tokio::test]
async fn a_load_that_takes_too_long_is_ended() {
    let (binary, version) = installed_as("redis-7.0");
    let rdb = rdb_with(&binary, &["SET a b"]);
    let at_once = Loading { limit: Duration::ZERO, ..LOADING };
    let error = load(&binary, version, &rdb, at_once).await.unwrap_err();
    assert!(matches!(error, Error::TooSlow { .. }), "{error:?}");
}

#[tokio::test]
async fn installed_servers_are_found_by_what_they_say() {
    let (binary, version) = installed_as("valkey-9.1");
    let search_path = binary.parent().unwrap().as_os_str();
    let found = find(None, search_path).await.unwrap();
    assert!(found.iter().any(|found| found.version == version), "{found:?}");
    assert_eq!(find(Some(&binary), "".as_ref()).await.unwrap()[0].version, version);
    assert!(find(None, "".as_ref()).await.unwrap().is_empty());
    let error = find(Some("/bin/true".as_ref()), "".as_ref()).await.unwrap_err();
    assert!(matches!(error, Error::Version { .. }), "{error:?}");
    let error = find(Some("/nowhere".as_ref()), "".as_ref()).await.unwrap_err();
    assert!(matches!(error, Error::Run { .. }), "{error:?}");
}
