//! A backup's files in the hands of other tools: fetched, inspected, and restored by hand.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

use super::{Tool, start_and_compare, wipe};
use crate::servers::{
    Version,
    dataset::{Digest, fill},
    redis::Server,
};

const KEYS: usize = 500;

fn backed_up(version: &Version, codec: &str) -> (Tool, Server, Digest) {
    let server = Server::start(version, &[]);
    fill(&mut server.connection(), 81, KEYS);
    let source = Digest::of(&mut server.connection());
    let tool = Tool::new(version).with_config(&format!(
        "sources:\n  journey:\n    nodes: ['{}']\n    compression: {{codec: {codec}}}\n",
        server.url()
    ));
    tool.done("backup", &[] as &[&str]);
    (tool, server, source)
}

fn is_sound_to_the_servers_own_check(version: &Version, file: &Path) {
    let output = Command::new(version.program("redis-check-rdb")).arg(file).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("RDB looks OK"), "{version}: {said}");
}

fn inspected_as(tool: &Tool, file: &Path, manifest: &Value) {
    let report = tool.done("inspect", &[file]);
    assert_eq!(report["valid"], true);
    assert_eq!(report["error"], Value::Null);
    let facts = &manifest["shards"][0]["rdb"]["content"]["read"];
    assert_eq!(report["facts"], *facts);
    let databases = facts["databases"].as_object().unwrap();
    let total: u64 = databases.values().map(|database| database["keys"].as_u64().unwrap()).sum();
    assert_eq!(report["keys"]["total"], total);
    for (number, database) in databases {
        assert_eq!(report["keys"]["databases"][number], database["keys"]);
    }
}

#[test]
fn fetched_files_of_every_version_are_plain_rdbs() {
    for version in Version::all() {
        let (tool, mut server, source) = backed_up(&version, "zstd");
        let folder = tool.folder().join("fetched");
        let into = folder.display().to_string();
        let report = tool.done("fetch", &["--latest", "--into", &into]);
        let file = folder.join("dump.rdb");
        assert_eq!(report["files"][0]["path"], file.display().to_string());
        is_sound_to_the_servers_own_check(&version, &file);
        inspected_as(&tool, &file, &tool.manifest());

        server.kill9();
        wipe(&server);
        fs::copy(&file, server.data_dir().join("dump.rdb")).unwrap();
        start_and_compare(&mut server, &source);

        let mut bytes = fs::read(&file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        fs::write(&file, bytes).unwrap();
        let run = tool.run("inspect", &[&file]);
        assert_eq!(run.exit, Some(20), "{run:#?}");
        assert_eq!(run.report["valid"], false);
        assert!(run.report["error"]["message"].is_string());
    }
}

/// With a shell and the tools of any rescue system: no program of ours.
fn restore_by_hand(store: &Path, data_dir: &Path, unpack: &str) {
    let script = format!(
        "set -eu\n\
         manifest=$(ls {store}/journey/manifests/*.json)\n\
         backup=$(basename \"$manifest\" .json)\n\
         cd {store}/journey/archives/$backup/shard-0000\n\
         for object in *; do\n\
           grep --quiet \"$(sha256sum \"$object\" | cut -d' ' -f1)\" \"$manifest\"\n\
         done\n\
         cat dump.rdb* | {unpack} >{data_dir}/restored.rdb\n\
         cp {data_dir}/restored.rdb {data_dir}/dump.rdb\n",
        store = store.display(),
        data_dir = data_dir.display(),
    );
    let status = Command::new("bash").args(["-c", &script]).stdin(Stdio::null()).status().unwrap();
    assert!(status.success(), "{script}");
}

/// The plain digest stands in the installation archive, which unpacks by hand as well.
fn plain_digest(store: &Path, unpack: &str) -> String {
    let script =
        format!("cat {}/journey/archives/*/installation.json* | {unpack}", store.display());
    let output = Command::new("bash").args(["-c", &script]).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    let installation: Value = serde_json::from_slice(&output.stdout).unwrap();
    installation["shards"][0]["archives"][0]["sha256"].as_str().unwrap().to_owned()
}

#[test]
fn a_backup_is_restored_by_hand() {
    let version = Version::usual();
    for (codec, unpack) in
        [("zstd", "zstd -d --stdout"), ("gzip", "gzip -d --stdout"), ("none", "cat")]
    {
        let (tool, mut server, source) = backed_up(&version, codec);
        server.kill9();
        wipe(&server);
        restore_by_hand(&tool.store(), &server.data_dir(), unpack);
        let sum = Command::new("sha256sum").arg(server.data_dir().join("dump.rdb")).output();
        let told = String::from_utf8(sum.unwrap().stdout).unwrap();
        assert!(told.starts_with(&plain_digest(&tool.store(), unpack)), "{codec}: {told}");
        start_and_compare(&mut server, &source);
    }
}
