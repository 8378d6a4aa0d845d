//! The JSON form of every report, held as its keys and types: a script that reads it today reads it tomorrow.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::Value;
use tempfile::TempDir;

use super::{Said, program, run};
use crate::servers::{Version, redis::Server};

#[test]
fn each_report_keeps_its_shape() {
    let server = Server::start(&Version::usual(), &[]);
    for command in ["SET a 1", "HSET h field value", "SET b 2 EX 100000"] {
        let _: redis::Value = server.command(command);
    }
    let folder = TempDir::new().unwrap();
    let url = server.url();
    let source = ["--source-url", &url, "--source-name", "sessions", "--store", "./store"];
    let go = |verb: &[&str], rest: &[&str]| report(folder.path(), &[verb, rest].concat());

    insta::assert_snapshot!("plan", go(&["backup", "--dry-run"], &source));
    insta::assert_snapshot!("backup", go(&["backup"], &source));
    insta::assert_snapshot!("check", go(&["check"], &source));
    let store = ["--store", "./store"];
    let latest = ["--latest", "--store", "./store"];
    insta::assert_snapshot!("list", go(&["list"], &store));
    insta::assert_snapshot!("list-long", go(&["list", "--long"], &store));
    insta::assert_snapshot!("runs", go(&["list", "--runs"], &store));
    insta::assert_snapshot!("pin", go(&["pin"], &latest));
    insta::assert_snapshot!("verify", go(&["verify"], &latest));
    insta::assert_snapshot!("show", go(&["show"], &latest));
    insta::assert_snapshot!("fetch", go(&["fetch"], &latest));
    insta::assert_snapshot!("inspect", go(&["inspect", "dump.rdb"], &[]));
    insta::assert_snapshot!("install", go(&["install", "./program"], &[]));
    let config = format!("sources: {{sessions: {{nodes: [\"{url}\"]}}}}");
    fs::write(folder.path().join("redis-backup.yaml"), config).unwrap();
    insta::assert_snapshot!("prune", go(&["prune"], &store));
    fs::create_dir(folder.path().join("data")).unwrap();
    let restore = ["restore", "--data-dir", "data"];
    let version = ["--redis-defaults", "--server-version", "7.0.15"];
    let rest = [latest.as_slice(), &version].concat();
    insta::assert_snapshot!("restore-plan", go(&[&restore[..], &["--dry-run"]].concat(), &rest));
    insta::assert_snapshot!("restore", go(&restore, &rest));
}

#[test]
fn a_broken_file_has_the_shape_of_a_whole_one() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("dump.rdb"), "REDIS0011\u{fa}").unwrap();
    let said = say(folder.path(), &["inspect", "dump.rdb"]);
    assert_eq!(said.exit, 20, "{said:?}");
    insta::assert_snapshot!("inspect-broken", shape(&said.stdout));
}

fn say(folder: &Path, arguments: &[&str]) -> Said {
    run(program().current_dir(folder).args(["--output", "json"]).args(arguments))
}

fn report(folder: &Path, arguments: &[&str]) -> String {
    let said = say(folder, arguments);
    assert_eq!(said.exit, 0, "{arguments:?}: {said:?}");
    shape(&said.stdout)
}

/// Each key's path with its type, one a line. What names the kind and the version of a report stands with its value.
fn shape(document: &str) -> String {
    let document: Value = serde_json::from_str(document).unwrap();
    assert!(document["version"].is_u64() && document["kind"].is_string(), "{document}");
    let mut lines = BTreeSet::new();
    walk("", &document, &mut lines);
    lines.into_iter().collect::<Vec<_>>().join("\n")
}

fn walk(path: &str, value: &Value, lines: &mut BTreeSet<String>) {
    let word = match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                walk(&format!("{path}.{key}"), value, lines);
            }
            if !fields.is_empty() {
                return;
            }
            "object"
        }
        Value::Array(items) => {
            for item in items {
                walk(&format!("{path}[]"), item, lines);
            }
            if !items.is_empty() {
                return;
            }
            "array"
        }
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
    };
    let line = match path {
        ".kind" | ".version" => format!("{path}: {value}"),
        _ => format!("{path}: {word}"),
    };
    lines.insert(line);
}
