//! The help texts, the completions and the manual page.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use clap::CommandFactory as _;
use redis_backup::cli::Cli;

use super::{program, run};

/// A terminal at 3 a.m. is not wide.
const COLUMNS: usize = 100;

const VERBS: [&str; 13] = [
    "backup",
    "list",
    "show",
    "copy",
    "verify",
    "restore",
    "fetch",
    "inspect",
    "check",
    "install",
    "schema",
    "completions",
    "man",
];

#[test]
fn the_help_names_every_verb_with_what_it_does() {
    let help = run(program().arg("--help"));
    assert_eq!(help.exit, 0, "{help:?}");
    assert!(help.stdout.starts_with("Backup, restore and proof of both"), "{}", help.stdout);
    for verb in VERBS {
        let line = help.stdout.lines().find(|line| line.trim_start().starts_with(verb));
        let words = line.unwrap_or_else(|| panic!("no {verb}")).split_whitespace().count();
        assert!(words > 3, "{verb} says nothing: {line:?}");
    }
}

#[test]
fn every_flag_of_every_verb_says_what_it_does_in_lines_that_fit() {
    for verb in VERBS {
        let help = run(program().env("COLUMNS", COLUMNS.to_string()).args([verb, "--help"]));
        assert_eq!(help.exit, 0, "{help:?}");
        for line in help.stdout.lines() {
            assert!(line.chars().count() <= COLUMNS, "{verb}: {line}");
        }
    }
    for verb in Cli::command().get_subcommands() {
        for argument in verb.get_arguments() {
            assert!(argument.get_help().is_some(), "{} {}", verb.get_name(), argument.get_id());
        }
    }
}

#[test]
fn a_verbs_own_flags_stand_under_its_own_heading() {
    for (verb, flags) in [
        ("restore", ["data_dir", "undo", "finish", "dry_run"].as_slice()),
        ("backup", ["schedule", "adopt", "dry_run"].as_slice()),
        ("verify", ["all", "level", "server_binary"].as_slice()),
        ("list", ["long", "last"].as_slice()),
        ("fetch", ["into", "shard"].as_slice()),
    ] {
        let command = Cli::command();
        let command = command.find_subcommand(verb).unwrap();
        for flag in flags {
            let argument = command.get_arguments().find(|it| it.get_id() == flag).unwrap();
            assert_eq!(argument.get_help_heading(), None, "{verb} {flag}");
        }
    }
}

#[test]
fn bash_accepts_its_completions() {
    let script = run(program().args(["completions", "bash"]));
    assert_eq!(script.exit, 0, "{script:?}");
    accepted("bash", &["-n"], &script.stdout);
    for shell in ["zsh", "fish"] {
        let script = run(program().args(["completions", shell]));
        assert!(script.exit == 0 && script.stdout.contains("redis-backup"), "{script:?}");
    }
}

#[test]
fn the_manual_page_names_every_verb() {
    let page = run(program().arg("man"));
    assert_eq!(page.exit, 0, "{page:?}");
    assert!(page.stdout.contains(".TH redis-backup"), "{}", page.stdout);
    for verb in VERBS {
        assert!(page.stdout.contains(&format!("redis\\-backup\\-{verb}")), "{verb}");
    }
}

fn accepted(program: &str, arguments: &[&str], text: &str) {
    let mut child = Command::new(program).args(arguments).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}
