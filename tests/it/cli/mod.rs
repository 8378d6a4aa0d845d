//! What a person and a script meet: the program itself, run as they would.

mod documents;
mod help;
mod manners;
mod mistakes;
mod reports;

use std::process::{Command, Stdio};

/// How the program ended and what it said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) exit: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The program, with no config but what a test gives it.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_redis-backup"));
    for name in
        ["REDIS_BACKUP_CONFIG", "REDIS_BACKUP_SCHEDULED_FOR", "REDIS_BACKUP_NICENESS", "RUST_LOG"]
    {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

pub(crate) fn run(command: &mut Command) -> Said {
    let output = command.output().unwrap();
    Said {
        exit: output.status.code().expect("no signal ended it"),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}
