//! Copies that are encrypted to others on their way: the new key opens them and the old one no longer does. Nothing is ever changed in place.

use std::{fs, path::Path};

use serde_json::Value;

use super::{
    Tool,
    encrypted::{identity, public},
    listing, restore_and_compare,
};
use crate::servers::{
    Version,
    dataset::{Digest, fill},
    redis::Server,
};

fn filled(version: &Version, seed: u64) -> (Server, Digest) {
    let server = Server::start(version, &[]);
    fill(&mut server.connection(), seed, 600);
    let digest = Digest::of(&mut server.connection());
    (server, digest)
}

fn back_up(tool: &Tool, server: &Server, recipient: Option<&str>) -> String {
    let mut arguments = vec!["--source-url".to_owned(), server.url()];
    if let Some(name) = recipient {
        arguments.extend(["--recipient".to_owned(), public(name)]);
    }
    let report = tool.done("backup", &arguments);
    report["backups"][0]["backup"].as_str().unwrap().to_owned()
}

/// What a copy ended with, and its report.
fn copy(tool: &Tool, from: &str, to: &str, more: &[&str]) -> (Option<i32>, Value) {
    let arguments = [&["--from", from, "--to", to, "--source-name", "journey"], more].concat();
    let run = tool.run_anywhere("copy", &arguments);
    (run.exit, run.report)
}

#[track_caller]
fn assert_copied(copied: &(Option<i32>, Value), state: &str, resealed: bool) {
    let (exit, report) = copied;
    let copy = &report["copies"][0];
    assert_eq!((*exit, copy["state"].as_str()), (Some(0), Some(state)), "{report:#}");
    assert_eq!(copy["resealed"], resealed, "{report:#}");
}

fn age_files(store: &Path) -> Vec<Vec<u8>> {
    let files = listing(store).into_keys().filter(|path| path.is_file());
    let files = files.filter(|path| path.to_string_lossy().contains("/archives/"));
    files.map(|path| fs::read(path).unwrap()).collect()
}

#[test]
fn a_copy_to_a_new_key_opens_by_it_and_no_longer_by_the_old_one() {
    let version = Version::usual();
    let (mut server, source) = filled(&version, 90);
    let tool = Tool::new(&version);
    let backup = back_up(&tool, &server, None);
    tool.done("verify", &["--latest", "--level", "content"]);

    // What was in clear, then what was encrypted.
    let x25519 = public("x25519");
    let plan = copy(&tool, "./store", "./sealed", &[&backup, "--recipient", &x25519, "--dry-run"]);
    assert_copied(&plan, "missing", true);
    assert!(!tool.folder().join("sealed").exists());
    let copied = copy(&tool, "./store", "./sealed", &[&backup, "--recipient", &x25519]);
    assert_copied(&copied, "copied", true);
    let recipients = super::encrypted::key("ed25519.pub").display().to_string();
    let by_old = identity("x25519");
    let anew = [&backup, "--recipients-file", &recipients, "--identity-from", &by_old];
    let copied = copy(&tool, "./sealed", "./rotated", &anew);
    assert_copied(&copied, "copied", true);
    // Of what is encrypted a copy needs no identity.
    assert_copied(&copy(&tool, "./rotated", "./again", &["--all"]), "copied", false);

    for (store, opens, shut) in [
        ("./sealed", "x25519", "ed25519"),
        ("./rotated", "ed25519", "x25519"),
        ("./again", "ed25519", "rsa"),
    ] {
        let tool = tool.clone().with_store(store);
        let archives = age_files(&tool.folder().join(store));
        assert_eq!(archives.len(), 2, "{store}");
        assert!(archives.iter().all(|bytes| bytes.starts_with(b"age-encryption.org/v1\n")));
        let manifest = tool.manifest();
        assert_eq!(manifest["shards"][0]["archives"][0]["encryption"], "age");
        assert_eq!(manifest["installation"]["encryption"], "age");
        let shown = tool.done("show", &[&backup]);
        let proof = &shown["records"][0]["event"]["verified"]["level"];
        assert_eq!(proof, "content", "what was proven of the content holds: {shown:#}");
        tool.done("verify", &[&backup, "--level", "stored"]);
        let run = tool.run("verify", &[&backup, "--identity-from", &identity(shut)]);
        assert_eq!(run.exit, Some(2), "{store}: {run:#?}");
        let by = identity(opens);
        for level in ["content", "load"] {
            tool.done("verify", &[&backup, "--level", level, "--identity-from", &by]);
        }
    }
    server.kill9();
    let file = super::encrypted::key("ed25519").display().to_string();
    let tool = tool
        .with_store("./rotated")
        .with_config(&format!("encryption: {{identityFrom: {{file: {file}}}}}\n"));
    restore_and_compare(&tool, &mut server, &source);
}

#[test]
fn a_copy_that_is_there_is_found_again_and_none_is_changed_in_place() {
    let version = Version::usual();
    let (server, _) = filled(&version, 91);
    let tool = Tool::new(&version);
    let backup = back_up(&tool, &server, Some("x25519"));
    let (by, rsa) = (identity("x25519"), public("rsa"));
    let anew = [&backup, "--recipient", &rsa, "--identity-from", &by];
    assert_copied(&copy(&tool, "./store", "./rotated", &anew), "copied", true);
    let before = listing(&tool.folder().join("rotated/journey/archives"));

    // With and without other recipients, one by one and all.
    assert_copied(&copy(&tool, "./store", "./rotated", &anew), "there", true);
    assert_copied(&copy(&tool, "./store", "./rotated", &[&backup]), "there", false);
    assert_copied(&copy(&tool, "./rotated", "./store", &[&backup]), "there", false);
    let (exit, report) = copy(&tool, "./store", "./rotated", &["--all"]);
    assert_eq!((exit, &report["there"]), (Some(0), &1.into()), "{report:#}");
    let all = ["--all", "--recipient", &rsa, "--identity-from", &by];
    assert_copied(&copy(&tool, "./store", "./rotated", &all), "there", true);
    assert_eq!(listing(&tool.folder().join("rotated/journey/archives")), before);

    // Into the store where it lies, by either way to say so, and where a plain copy lies.
    let (exit, report) = copy(&tool, "./store", "./store", &anew);
    assert_eq!(exit, Some(2), "{report:#}");
    let tool_of_one =
        tool.clone().with_config("stores:\n  only: {directory: {path: ./store}}\n").without_store();
    let run = tool_of_one.run_anywhere("copy", &[&anew[..], &["--to", "only"]].concat());
    assert_eq!(run.exit, Some(23), "{run:#?}");
    assert!(run.report.to_string().contains("no backup is changed in place"), "{run:#?}");
    assert_copied(&copy(&tool, "./store", "./plain", &[&backup]), "copied", false);
    let (exit, report) = copy(&tool, "./store", "./plain", &anew);
    assert_eq!(exit, Some(23), "{report:#}");
    let hint = report.to_string();
    assert!(hint.contains("under its present keys") && hint.contains("another prefix"), "{hint}");
}

#[test]
fn what_was_found_in_clear_is_not_told_beside_the_encrypted_copy() {
    let version = Version::usual();
    let (server, _) = filled(&version, 93);
    let tool = Tool::new(&version);
    let backup = back_up(&tool, &server, None);
    let object =
        tool.store().join("journey/archives").join(&backup).join("shard-0000/dump.rdb.zst.000");
    let whole = fs::read(&object).unwrap();
    fs::write(&object, &whole[..whole.len() - 1]).unwrap();
    tool.fails("verify", &[&backup], 20);
    fs::write(&object, whole).unwrap();
    let findings = |store: &str| {
        let shown = tool.clone().with_store(store).done("show", &[&backup]);
        shown["records"][0]["event"]["verified"]["findings"][0].as_str().unwrap().to_owned()
    };
    let told = findings("./store");
    assert!(told.contains("dump.rdb"), "{told}");
    let words = [backup.as_str(), "--recipient", &public("x25519")];
    assert_copied(&copy(&tool, "./store", "./sealed", &words), "copied", true);
    let noted = findings("./sealed");
    assert!(noted.contains("1 findings, told to whoever") && !noted.contains("dump"), "{noted}");
    assert_copied(&copy(&tool, "./sealed", "./again", &[&backup]), "copied", false);
    assert_eq!(findings("./again"), noted);
}

#[test]
fn without_the_identity_nothing_is_copied_and_damage_is_told_as_damage() {
    let version = Version::usual();
    let (server, _) = filled(&version, 92);
    let tool = Tool::new(&version);
    let backup = back_up(&tool, &server, Some("x25519"));
    let rsa = public("rsa");
    let (wrong, right) = (identity("ed25519"), identity("x25519"));
    for by in [&[][..], &["--identity-from", &wrong]] {
        let words = [&[backup.as_str(), "--recipient", &rsa], by].concat();
        let (exit, report) = copy(&tool, "./store", "./rotated", &words);
        assert_eq!(exit, Some(2), "{report:#}");
        let told = report.to_string();
        assert!(told.contains("--identity-from") && told.contains("1 X25519"), "{told}");
    }
    let (exit, _) = copy(&tool, "./store", "./rotated", &[&backup, "--identity-from", &right]);
    assert_eq!(exit, Some(2), "a plain copy opens nothing");
    let nothing = |what: &str| {
        let files = listing(&tool.folder().join("rotated")).into_keys();
        let files: Vec<_> = files.filter(|path| path.is_file()).collect();
        let is_of_a_backup = |path: &&std::path::PathBuf| {
            let path = path.to_string_lossy();
            path.contains("/archives/") || path.contains("/manifests/")
        };
        assert_eq!(files.iter().find(is_of_a_backup), None, "{what}");
    };
    if tool.folder().join("rotated").exists() {
        nothing("by another identity");
    }

    let archives = tool.store().join("journey/archives").join(&backup);
    let object = archives.join("shard-0000/dump.rdb.zst.age.000");
    let whole = fs::read(&object).unwrap();
    let share = whole.windows(3).position(|bytes| bytes == b"-> ").unwrap() + 20;
    let words = [backup.as_str(), "--recipient", &rsa, "--identity-from", &right];
    for at in [0, share, whole.len() / 2, whole.len() - 1] {
        let mut damaged = whole.clone();
        damaged[at] = if whole[at] == b'A' { b'B' } else { b'A' };
        fs::write(&object, damaged).unwrap();
        let (exit, report) = copy(&tool, "./store", "./rotated", &words);
        assert_eq!(exit, Some(20), "at {at}: {report:#}");
        nothing("of damaged bytes");
    }
    for bytes in [&whole[..whole.len() - 1], &[&whole[..], b"x"].concat()] {
        fs::write(&object, bytes).unwrap();
        assert_eq!(copy(&tool, "./store", "./rotated", &words).0, Some(20));
        nothing("of another length");
    }
    fs::write(&object, &whole).unwrap();
    assert_copied(&copy(&tool, "./store", "./rotated", &words), "copied", true);
}
