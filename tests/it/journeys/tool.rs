//! The built program in a clean environment: what it was told, what it said, how it ended. Never the caller's own settings.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::servers::Version;

const PROGRAM: &str = env!("CARGO_BIN_EXE_redis-backup");

/// Longer than any call takes on a busy machine.
const LIMIT: Duration = Duration::from_mins(3);

/// Runs the program in a folder of its own, with the servers of one version in its PATH.
#[derive(Clone, Debug)]
pub(super) struct Tool {
    folder: Arc<TempDir>,
    path: PathBuf,
    environment: Vec<(String, String)>,
    place: Vec<String>,
}

/// A call that has ended.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) exit: Option<i32>,
    /// Null when standard output was no JSON.
    pub(super) report: Value,
    pub(super) stderr: String,
}

impl Tool {
    /// Its store is a directory in its folder.
    pub(super) fn new(version: &Version) -> Self {
        // Not in /tmp, which may lie in memory, where a spool is refused.
        let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        fs::create_dir(folder.path().join("tmp")).unwrap();
        let store = folder.path().join("store").display().to_string();
        let place = ["--store", &store, "--source-name", "journey"].map(str::to_owned).to_vec();
        Self { folder: Arc::new(folder), path: PathBuf::new(), environment: Vec::new(), place }
            .with_servers_of(version)
    }

    /// The same folder and store, with another version in PATH.
    pub(super) fn with_servers_of(mut self, version: &Version) -> Self {
        version.program("").clone_into(&mut self.path);
        self
    }

    pub(super) fn with_environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(super) fn with_store(mut self, store: &str) -> Self {
        self.place = ["--store", store, "--source-name", "journey"].map(str::to_owned).to_vec();
        self
    }

    /// From here on the config file alone tells the stores.
    pub(super) fn without_store(mut self) -> Self {
        self.place = self.place.split_off(2);
        self
    }

    /// Read by every call; the source in it is to be called `journey`.
    pub(super) fn with_config(self, text: &str) -> Self {
        fs::write(self.folder().join("redis-backup.yaml"), text).unwrap();
        self
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The store when it is a directory.
    pub(super) fn store(&self) -> PathBuf {
        self.folder().join("store")
    }

    /// A call that must succeed; its report.
    #[track_caller]
    pub(super) fn done(&self, verb: &str, arguments: &[impl AsRef<OsStr>]) -> Value {
        let run = self.run(verb, arguments);
        assert_eq!(run.exit, Some(0), "{verb}: {run:#?}");
        run.report
    }

    /// A call that must fail so; its last words.
    #[track_caller]
    pub(super) fn fails(&self, verb: &str, arguments: &[impl AsRef<OsStr>], exit: i32) -> String {
        let run = self.run(verb, arguments);
        assert_eq!(run.exit, Some(exit), "{verb}: {run:#?}");
        run.report["error"].as_str().unwrap_or(&run.stderr).to_owned()
    }

    /// Captures from the URL; the report on the one backup.
    #[track_caller]
    pub(super) fn back_up(&self, url: &str) -> Value {
        self.done("backup", &["--source-url", url])["backups"][0].clone()
    }

    /// The newest backup is loaded by a server of the version in PATH.
    #[track_caller]
    pub(super) fn verify_by_load(&self) {
        let report = self.done("verify", &["--latest", "--level", "load"]);
        assert_eq!(report["backups"][0]["proven"], true, "{report:#}");
    }

    /// Ids of all backups, newest first.
    #[track_caller]
    pub(super) fn backups(&self) -> Vec<String> {
        let report = self.done("list", &[] as &[&str]);
        let listed = report["backups"].as_array().unwrap();
        listed.iter().map(|backup| backup["backup"].as_str().unwrap().to_owned()).collect()
    }

    /// The manifest of the newest backup.
    #[track_caller]
    pub(super) fn manifest(&self) -> Value {
        self.done("show", &["--latest"])["manifest"].clone()
    }

    /// A call of a verb that names its stores in another way.
    pub(super) fn run_anywhere(&self, verb: &str, arguments: &[impl AsRef<OsStr>]) -> Run {
        let tool = Self { place: Vec::new(), ..self.clone() };
        tool.run(verb, arguments)
    }

    pub(super) fn run(&self, verb: &str, arguments: &[impl AsRef<OsStr>]) -> Run {
        let mut command = assert_cmd::Command::from_std(self.command(verb, arguments));
        let output = command.timeout(LIMIT).output().unwrap();
        Run::of(&output)
    }

    /// A call that goes on while the test does something else.
    pub(super) fn start(&self, verb: &str, arguments: &[impl AsRef<OsStr>]) -> Child {
        let mut command = self.command(verb, arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    fn command(&self, verb: &str, arguments: &[impl AsRef<OsStr>]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.env_clear().current_dir(self.folder());
        command.env("PATH", &self.path).env("TMPDIR", self.folder().join("tmp"));
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.args([verb, "--output", "json"]).args(arguments);
        if verb != "inspect" {
            command.args(&self.place);
        }
        command
    }
}

impl Run {
    pub(super) fn of(output: &std::process::Output) -> Self {
        Self {
            exit: output.status.code(),
            report: serde_json::from_slice(&output.stdout).unwrap_or_default(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}
