//! The users of docs/RUNBOOK.md: exactly their rules are enough for a backup, and `check` names each command that one of them lacks.

use std::fs;

use super::Tool;
use crate::servers::{
    Version,
    dataset::fill,
    redis::{Options, Server},
};

const NOTHING: &[&str] = &[];

/// The documented rule that allows this command, behind the password.
fn rule(command: &str) -> String {
    let text = fs::read_to_string("docs/RUNBOOK.md").unwrap();
    let mut rules =
        text.lines().filter_map(|line| line.strip_prefix("ACL SETUSER backup on >PASSWORD "));
    rules.find(|rule| rule.contains(command)).unwrap().to_owned()
}

/// A server with a user of this rule alone, and the program that knows its password.
fn started(version: &Version, rule: &str, method: &str) -> (Server, Tool) {
    let server = Options::new(version).config(format!("user backup on >right {rule}")).start();
    fill(&mut server.connection(), 71, 50);
    let (url, folder) = (server.url(), server.data_dir());
    let auth = "auth: {username: backup, passwordFrom: {env: PASSWORD}}";
    let text = format!(
        "sources:\n  journey: {{nodes: ['{url}'], dataDir: '{}', method: {method}, {auth}}}\n",
        folder.display()
    );
    let tool = Tool::new(version).with_config(&text).with_environment("PASSWORD", "right");
    (server, tool)
}

fn each_command_is_needed_and_named(version: &str, method: &str, rule: &str) {
    let (server, tool) = started(&Version::named(version), rule, method);
    let report = tool.done("check", NOTHING).to_string();
    assert!(report.contains("user backup may run all commands"), "{version}: {report}");
    tool.done("backup", NOTHING);
    assert_eq!(tool.manifest()["shards"][0]["rdb"]["method"], method, "{version}");

    let commands: Vec<&str> = rule.split(' ').filter_map(|word| word.strip_prefix('+')).collect();
    assert!(commands.len() > 3, "{rule}");
    for command in commands {
        let () = server.command(&format!("ACL SETUSER backup -{command}"));
        let check = tool.run("check", NOTHING);
        let report = check.report.to_string();
        assert!(report.contains(&format!(" +{command}")), "{version} {command}: {report}");
        // A backup greets by PING, and takes a refusal for an answer.
        if command != "ping" {
            assert_eq!(check.exit, Some(10), "{version} {command}: {report}");
            let said = tool.fails("backup", NOTHING, 10);
            let named = format!("{} is not permitted", command.to_uppercase());
            assert!(said.contains(&named), "{version} {command}: {said}");
        }
        let () = server.command(&format!("ACL SETUSER backup +{command}"));
    }
    tool.done("backup", NOTHING);
}

#[test]
fn the_user_that_replicates_needs_each_of_its_commands_and_a_missing_one_is_named() {
    for version in ["redis-6.2", "redis-7.0", "redis-newest", "valkey-newest"] {
        each_command_is_needed_and_named(version, "replication", &rule("+psync"));
    }
}

#[test]
fn the_user_that_saves_needs_each_of_its_commands_and_a_missing_one_is_named() {
    for version in ["redis-6.2", "redis-7.0", "redis-newest", "valkey-newest"] {
        each_command_is_needed_and_named(version, "bgsave", &rule("+bgsave"));
    }
}

#[test]
fn all_that_a_user_lacks_is_granted_by_one_line() {
    let (server, tool) = started(&Version::usual(), &rule("+psync"), "auto");
    let () = server.command("ACL SETUSER backup -replconf -time");
    let report = tool.run("check", NOTHING).report.to_string();
    assert!(report.contains("user backup lacks +time +bgsave +replconf"), "{report}");
    assert!(report.contains("ACL SETUSER backup +time +bgsave +replconf"), "{report}");
}
