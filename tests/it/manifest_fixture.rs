//! Manifests of every version, written once and read for ever. A fixture is never changed; a new version adds one.

use std::{fs, process::Command};

use redis_backup::domain::manifest::{Error, Manifest};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::cli;

const BACKUP: &str = "20261120T020000Z-daily-k3x9q2";

fn version_1() -> String {
    fs::read_to_string("tests/fixtures/manifest-v1.json").unwrap()
}

fn changed(change: impl FnOnce(&mut Value)) -> String {
    let mut manifest: Value = serde_json::from_str(&version_1()).unwrap();
    change(&mut manifest);
    manifest.to_string()
}

#[test]
fn version_1_is_read_and_written_as_it_was() {
    let manifest = Manifest::decode(version_1().as_bytes()).unwrap();
    assert_eq!(manifest.backup.to_string(), BACKUP);
    assert_eq!(manifest.shards.len(), 2);
    assert_eq!(manifest.stored_bytes(), 68_719_476_736 + 1_073_741_824 + 4096 + 3 * 2048);
    assert_eq!(manifest.keys(), None, "the second shard was never read");
    assert_eq!(String::from_utf8(manifest.encode().unwrap()).unwrap(), version_1());
}

#[test]
fn an_unknown_field_is_an_error_wherever_it_stands() {
    for place in [
        "",
        "/origin",
        "/server",
        "/shards/0",
        "/shards/0/rdb",
        "/shards/0/rdb/content/read",
        "/shards/0/aof",
        "/shards/0/aof/files/0",
        "/shards/0/aof/files/0/facts",
        "/installation",
    ] {
        let text = changed(|it| it.pointer_mut(place).unwrap()["surprise"] = json!(1));
        let error = Manifest::decode(text.as_bytes()).unwrap_err();
        assert!(matches!(&error, Error::Decode(cause) if cause.to_string().contains("surprise")));
    }
}

#[test]
fn a_manifest_names_objects_of_its_own_backup_only() {
    let other = format!("other/archives/{BACKUP}/shard-0000/dump.rdb.zst.000");
    let text = changed(|it| {
        *it.pointer_mut("/shards/0/archives/0/objects/0/key").unwrap() = json!(other);
    });
    let error = Manifest::decode(text.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("belongs to another backup"), "{error}");
}

#[test]
fn captures_and_archives_are_each_others() {
    let refused = |change: &dyn Fn(&mut Value)| {
        let text = changed(|it| change(it.pointer_mut("/shards/0").unwrap()));
        Manifest::decode(text.as_bytes()).unwrap_err().to_string()
    };
    let removed = |index: usize| {
        refused(&move |shard| drop(shard["archives"].as_array_mut().unwrap().remove(index)))
    };
    assert!(removed(0).contains("dump.rdb and the capture of an RDB go together"));
    assert!(removed(2).contains("2 archives and 3 captured files"));
    assert!(refused(&|shard| shard["rdb"] = Value::Null).contains("go together"));
    assert!(refused(&|shard| shard["aof"] = Value::Null).contains("3 archives and 1 captured"));
    for (place, value, finding) in [
        ("/archives/2/name", json!("aof-002"), "there is no archive aof-001"),
        ("/aof/files/1/archive", json!("aof-000"), "append-only file 1 is in archive aof-000"),
        ("/aof/files/1/name", json!("../x"), "is a path"),
        ("/aof/files/1/role", json!("base"), "second base"),
        ("/aof/files/0/role", json!("increment"), "seq 3 follows 3"),
        ("/aof/files/1/facts/wholeBytes", json!(734_002), "does not end with a whole command"),
    ] {
        let error = refused(&|shard| *shard.pointer_mut(place).unwrap() = value.clone());
        assert!(error.contains(finding), "{place}: {error}");
    }
}

#[test]
fn a_newer_version_is_listed_and_says_what_reads_it() {
    let store = TempDir::new().unwrap();
    let folder = store.path().join("analytics/manifests");
    fs::create_dir_all(&folder).unwrap();
    let text = changed(|it| {
        it["version"] = json!(2);
        it["shards"] = json!("in a form of the future");
    });
    fs::write(folder.join(format!("{BACKUP}.json")), text).unwrap();
    let run = |arguments: &[&str]| {
        let mut program: Command = cli::program();
        cli::run(program.args(arguments).arg("--store").arg(store.path()))
    };

    let list = run(&["list"]);
    assert!(list.exit == 0 && list.stdout.contains(BACKUP), "{list:?}");
    let list = run(&["list", "--long"]);
    assert!(list.exit == 0 && list.stdout.contains("use a newer redis-backup"), "{list:?}");
    for verb in ["show", "verify", "fetch"] {
        let failed = run(&[verb, BACKUP]);
        assert_eq!(failed.exit, 22, "{verb}: {failed:?}");
        assert!(failed.stderr.contains("manifest version 2 is newer than 1"), "{failed:?}");
    }
}
