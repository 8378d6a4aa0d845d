//! What lies in a store is changed behind its back: `verify` notices it, and `restore` refuses and touches nothing.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    bench::{Bench, Place, SOURCE, digest, files, fill, on_disk, run},
    tally::Tally,
};

/// How an object is changed, and whether its size alone tells.
const WAYS: [(&str, bool); 5] = [
    ("truncated", true),
    ("extended", true),
    ("flipped", false),
    ("deleted", true),
    ("swapped", false),
];

#[test]
fn every_object_that_was_tampered_with_is_noticed_and_never_restored() {
    let fault = "an object was truncated, extended, flipped, deleted or swapped";
    let mut tally = Tally::of("verify and restore", fault);
    let bench = Bench::new(Place::directory(), 4);
    let other = bench.back_up();
    // As large as the other, so that a swap shows in no size.
    let backup = bench.back_up();
    let root = bench.place.root();
    let of = |backup: &str| files(&root.join(SOURCE).join("archives").join(backup));
    let objects: Vec<(PathBuf, PathBuf)> = of(&backup).into_iter().zip(of(&other)).collect();
    assert!(objects.len() > 1, "dump and installation: {objects:?}");
    let dir = data_dir();
    let before = tree(dir.path());
    for (object, of_other) in &objects {
        let whole = fs::read(object).unwrap();
        for (way, shows_in_size) in WAYS {
            tamper(way, object, &whole, &fs::read(of_other).unwrap());
            let what = format!("{} {way}", object.display());
            if way != "swapped" || fs::read(object).unwrap() != whole {
                assert_noticed(&bench, &backup, shows_in_size, &what);
                assert_eq!(restore(&bench, &backup, dir.path()), Some(20), "{what}");
                assert_eq!(tree(dir.path()), before, "{what}");
                tally.ended();
            }
            fs::write(object, &whole).unwrap();
        }
    }
    // The other way round: untouched, it is proven and restored.
    run(&mut bench.verb(&format!("verify {backup} --level content"))).assert_code(0);
    assert_eq!(restore(&bench, &backup, dir.path()), Some(0));
    assert_ne!(tree(dir.path()), before);
    tally.write();
}

fn tamper(way: &str, object: &Path, whole: &[u8], other: &[u8]) {
    let mut bytes = whole.to_vec();
    match way {
        "truncated" => bytes.truncate(whole.len() - 1),
        "extended" => bytes.push(0),
        "flipped" => bytes[whole.len() / 2] ^= 1,
        "swapped" => bytes = other.to_vec(),
        "deleted" => return fs::remove_file(object).unwrap(),
        other => panic!("{other}"),
    }
    fs::write(object, bytes).unwrap();
}

#[track_caller]
fn assert_noticed(bench: &Bench, backup: &str, shows_in_size: bool, what: &str) {
    for (level, must) in [("content", true), ("load", true), ("stored", shows_in_size)] {
        let mut verify = bench.verb(&format!("verify {backup} --output json --level {level}"));
        if level == "load" {
            verify.arg("--server-binary").arg(bench.source.version.program("redis-server"));
        }
        let ended = run(&mut verify);
        if must {
            assert_eq!(ended.code, Some(20), "{what} by {level}: {ended:?}");
            let findings = ended.json()["backups"][0]["findings"].to_string();
            assert_ne!(findings, "[]", "{what} by {level}");
        }
    }
}

#[test]
fn a_manifest_that_was_edited_is_noticed_and_never_restored() {
    let mut tally = Tally::of("verify and restore", "a manifest was edited, cut or swapped");
    let bench = Bench::new(Place::directory(), 2);
    let other = bench.back_up();
    fill(&bench.source, 2, 2);
    let backup = bench.back_up();
    let manifests = bench.place.root().join(SOURCE).join("manifests");
    let path = manifests.join(format!("{backup}.json"));
    let whole = fs::read_to_string(&path).unwrap();
    let edit = |pointer: &str, value: serde_json::Value| {
        let mut manifest: serde_json::Value = serde_json::from_str(&whole).unwrap();
        let place = manifest.pointer_mut(pointer);
        *place.unwrap_or_else(|| panic!("no {pointer} in {whole}")) = value;
        manifest.to_string()
    };
    let of_other = fs::read_to_string(manifests.join(format!("{other}.json"))).unwrap();
    let key = "/shards/0/archives/0/objects/0";
    let digest_of_nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let edits = [
        ("another's", of_other),
        ("cut", whole[..whole.len() / 2].to_owned()),
        ("empty", String::new()),
        ("bytes", edit(&format!("{key}/bytes"), 7.into())),
        ("digest", edit(&format!("{key}/sha256"), digest_of_nothing.into())),
        ("key", edit(&format!("{key}/key"), format!("{SOURCE}/origin.json").into())),
        ("no object", edit("/shards/0/archives/0/objects", serde_json::json!([]))),
        ("no shard", edit("/shards", serde_json::json!([]))),
        ("codec", edit("/shards/0/archives/0/codec", "gzip".into())),
        ("encryption", edit("/shards/0/archives/0/encryption", "age".into())),
        ("source", edit("/source", "another".into())),
    ];
    let dir = data_dir();
    let before = tree(dir.path());
    for (what, text) in edits {
        fs::write(&path, text).unwrap();
        let verified = run(&mut bench.verb(&format!("verify {backup} --level content")));
        assert_eq!(verified.code, Some(20), "{what}: {verified:?}");
        assert_eq!(restore(&bench, &backup, dir.path()), Some(20), "{what}");
        assert_eq!(tree(dir.path()), before, "{what}");
        tally.ended();
    }
    fs::write(&path, &whole).unwrap();
    run(&mut bench.verb("verify --all")).assert_code(0);
    tally.write();
}

/// With the size and the extended attributes as they were, only reading tells.
#[test]
fn an_object_in_s3_that_was_tampered_with_is_noticed() {
    let mut tally = Tally::of("verify and restore", "a bit of an object in S3 was flipped");
    let bench = Bench::new(Place::s3(), 2);
    let before = digest(&bench.source);
    let backup = bench.back_up();
    let object = bench.place.root().join(bench.place.archives().last().unwrap());
    let mut bytes = fs::read(&object).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    // In place, for the server keeps what it knows of an object beside the file.
    fs::write(&object, bytes).unwrap();
    run(&mut bench.verb(&format!("verify {backup} --level content"))).assert_code(20);
    assert_eq!(restore(&bench, &backup, data_dir().path()), Some(20));
    assert_eq!(digest(&bench.source), before);
    tally.ended();
    tally.write();
}

fn restore(bench: &Bench, backup: &str, dir: &Path) -> Option<i32> {
    let mut restore: Command = bench.verb(&format!("restore {backup} --redis-defaults"));
    restore.args(["--server-version", "7.0.15", "--data-dir"]).arg(dir);
    run(&mut restore).code
}

/// A folder with something in it that nobody may touch.
fn data_dir() -> tempfile::TempDir {
    let dir = on_disk();
    fs::write(dir.path().join("dump.rdb"), "the old dataset").unwrap();
    fs::create_dir(dir.path().join("appendonlydir")).unwrap();
    fs::write(dir.path().join("appendonlydir/appendonly.aof.manifest"), "old").unwrap();
    dir
}

fn tree(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    files(dir).into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}
