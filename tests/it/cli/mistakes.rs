//! Mistakes of people: each is one clear error with the place, the fix and its exit code.

use std::{fs, path::Path};

use serde_json::Value;
use tempfile::TempDir;

use super::{Said, program, run};

const GOOD: &str = "\
sources:
  sessions:
    nodes: ['redis://127.0.0.1:1']
    auth: {passwordFrom: {env: A_PASSWORD_THAT_IS_NOT_SET}}
    compression: {codec: zstd, level: 3}
stores:
  disk: {directory: {path: ./backups}}
schedules:
  daily: {source: sessions, cron: '0 2 * * *', capture: [rdb], stores: [disk]}
";

fn with_config(text: &str, arguments: &[&str]) -> Said {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("redis-backup.yaml"), text).unwrap();
    run(program().current_dir(folder.path()).args(arguments))
}

#[test]
fn each_mistake_in_the_config_ends_with_2_and_its_line() {
    for (from, to, expected) in [
        (
            "    nodes:",
            "    node:",
            "redis-backup.yaml:3:5: unknown key `node`; did you mean `nodes`?",
        ),
        ("level: 3", "level: high", "redis-backup.yaml:5:39: expected a whole number"),
        (
            "level: 3",
            "level: 30",
            "redis-backup.yaml:5:39: sources.sessions.compression.level: zstd has levels",
        ),
        (
            "0 2 * * *",
            "0 25 * * *",
            "redis-backup.yaml:9:35: schedules.daily.cron: cron expression \"0 25 * * *\"",
        ),
        (
            "[disk]",
            "[dsk]",
            "redis-backup.yaml:9:72: schedules.daily.stores: store `dsk` is not in the config; did you mean `disk`?",
        ),
        (
            "source: sessions",
            "source: session",
            "redis-backup.yaml:9:19: schedules.daily.source: source `session` is not in the config; did you mean `sessions`?",
        ),
        ("['redis://127.0.0.1:1']", "5", "redis-backup.yaml:3:12: expected a list"),
        (
            "{env: A_PASSWORD_THAT_IS_NOT_SET}",
            "hunter2",
            "redis-backup.yaml:4:26: expected {env: NAME}",
        ),
        ("  disk: ", "  disk: ./backups #", "redis-backup.yaml:7:9: "),
        (
            "compression:",
            "spool: {path: /x, bytesMax: plenty} #",
            "redis-backup.yaml:5:23: found string \"plenty\", expected a size such as 8GiB",
        ),
        (
            "redis://",
            "redis://:hunter2@",
            "redis-backup.yaml:3:12: sources.sessions.nodes: a URL must not hold a password",
        ),
    ] {
        let text = GOOD.replacen(from, to, 1);
        assert_ne!(text, GOOD, "{from}");
        let said = with_config(&text, &["list"]);
        assert_eq!(said.exit, 2, "{to}: {said:?}");
        assert!(said.stderr.contains(expected), "{to}: {} has no {expected}", said.stderr);
        let kinds: Vec<&str> = said.stderr.lines().map(|line| &line[..5]).collect();
        assert_eq!(kinds, ["error", "hint:"], "{}", said.stderr);
        assert!(!said.stderr.contains("hunter2"), "{}", said.stderr);
    }
}

#[test]
fn a_missing_secret_is_named_with_its_line() {
    let said = with_config(GOOD, &["backup"]);
    assert_eq!(said.exit, 2, "{said:?}");
    let place = "redis-backup.yaml:4:26: sources.sessions.auth.passwordFrom: ";
    assert!(said.stderr.contains(place), "{said:?}");
    assert!(said.stderr.contains("A_PASSWORD_THAT_IS_NOT_SET"), "{said:?}");
    assert!(said.stderr.contains("export the variable"), "{said:?}");
}

#[test]
fn names_that_are_not_in_the_config_end_with_2_and_the_one_that_was_meant() {
    for (arguments, expected) in [
        (["list", "--store", "dsk"].as_slice(), "did you mean `disk`?"),
        (&["backup", "sesions"], "did you mean `sessions`?"),
        (&["backup", "--schedule", "dayly"], "did you mean `daily`?"),
        (&["--config", "other.yaml", "list"], "read the config file other.yaml"),
    ] {
        let said = with_config(GOOD, arguments);
        assert_eq!(said.exit, 2, "{said:?}");
        assert!(said.stderr.contains(expected), "{said:?}");
    }
}

#[test]
fn a_password_on_the_command_line_is_refused_and_not_repeated() {
    let url = "redis://127.0.0.1:1";
    for arguments in [
        ["--source-url", "redis://:hunter2@127.0.0.1:1", "--store", "./never"].as_slice(),
        &["--source-url", url, "--password-from", "hunter2", "--store", "./never"],
        &["--source-url", url, "--store", "s3://key:hunter2@bucket"],
    ] {
        let said = run(program().args(["backup", "--source-name", "a"]).args(arguments));
        assert_eq!(said.exit, 2, "{said:?}");
        assert!(!said.stderr.contains("hunter2"), "{said:?}");
    }
}

#[test]
fn a_failure_in_json_is_one_document_on_standard_output() {
    let folder = TempDir::new().unwrap();
    let mut command = program();
    command.current_dir(folder.path()).args(["--output", "json", "backup", "--store", "./store"]);
    command.args(["--source-url", "redis://127.0.0.1:1", "--source-name", "a"]);
    let said = run(&mut command);
    assert_eq!(said.exit, 10, "{said:?}");
    let document: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(document["kind"], "failure");
    assert_eq!(document["version"], 1);
    assert_eq!(document["exit"], 10);
    assert!(document["error"].as_str().unwrap().contains("127.0.0.1:1"), "{document}");
    assert!(document["hint"].as_str().unwrap().contains("host and port"), "{document}");
    assert!(!said.stderr.contains("error:"), "{}", said.stderr);
}

#[test]
fn an_empty_and_a_mistyped_store_say_where_was_looked() {
    let folder = TempDir::new().unwrap();
    for path in [folder.path(), Path::new("./mistyped")] {
        let command = |arguments: &[&str]| {
            run(program().current_dir(folder.path()).args(arguments).arg("--store").arg(path))
        };
        let text = path.to_str().unwrap();
        let list = command(&["list"]);
        assert!(list.exit == 0 && list.stdout.contains(text), "{list:?}");
        let show = command(&["show", "--latest"]);
        assert!(show.exit == 2 && show.stderr.contains(text), "{show:?}");
    }
    assert!(!folder.path().join("mistyped").exists(), "looking made it");
}

#[test]
fn who_reads_no_further_is_no_error() {
    let script = format!("'{}' schema | head -c 1", env!("CARGO_BIN_EXE_redis-backup"));
    let said = run(std::process::Command::new("bash").args(["-o", "pipefail", "-c", &script]));
    assert_eq!((said.exit, said.stdout.as_str(), said.stderr.as_str()), (0, "{", ""));
}
