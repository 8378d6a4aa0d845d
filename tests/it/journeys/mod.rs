//! The main job through the program itself, on real servers: back up, prove, destroy, restore, compare every value.
//!
//! Each journey is told by calls of the built program; what it finds is compared by the servers' own answers.

mod access;
mod append_only;
mod bgsave;
mod cluster;
mod directory;
mod encrypted;
mod files;
mod installed;
mod interrupted;
mod limits;
mod live_aof;
mod locked;
mod permissions;
mod resealed;
mod resumed;
mod s3;
mod sentinel;
mod standalone;
mod stores;
mod tool;
mod versions;
mod waiting;

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use self::tool::Tool;
use crate::servers::{
    Version,
    dataset::{Digest, assert_same},
    redis::{Options, Server},
    wait_for,
};

/// What `Writer` writes while a backup runs; left out of comparisons.
const WRITTEN_MEANWHILE: &str = "writer:";

/// What servers keep on disk, and a backup of them holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Forms {
    Rdb,
    /// The RDB, and append-only files from data directories at hand.
    Both,
}

impl Forms {
    fn options(self, version: &Version) -> Options<'static> {
        let options = Options::new(version);
        match self {
            Self::Rdb => options,
            Self::Both => options
                .config("appendonly yes")
                .config("appendfilename \"Append Only.aof\"")
                .config("aof-load-truncated no"),
        }
    }

    /// Lines of a source in a config file, to capture from these nodes.
    fn directories<'a>(self, nodes: impl IntoIterator<Item = &'a Server>) -> String {
        match self {
            Self::Rdb => String::new(),
            Self::Both => nodes.into_iter().fold("    dataDirs:\n".to_owned(), |text, node| {
                let (address, folder) = (node.address(), node.data_dir());
                text + &format!("      '{address}': '{}'\n", folder.display())
            }),
        }
    }

    /// Arguments of `backup`.
    fn capture(self) -> &'static [&'static str] {
        match self {
            Self::Rdb => &["--capture", "rdb"],
            Self::Both => &["--capture", "rdb,aof"],
        }
    }

    /// Commands do not tell a stream's groups to the last counter, an RDB at the beginning of the files does.
    fn settle(self, server: &Server) {
        if self == Self::Both {
            rewrite(server);
        }
    }

    #[track_caller]
    fn assert_held_by(self, tool: &Tool) {
        for shard in tool.manifest()["shards"].as_array().unwrap() {
            assert!(!shard["rdb"].is_null(), "{shard:#}");
            assert_eq!(shard["aof"].is_null(), self == Self::Rdb, "{shard:#}");
        }
    }
}

/// Everything below a folder: kind, owner, mode, and the bytes of each file.
type Listing = BTreeMap<PathBuf, String>;

fn listing(folder: &Path) -> Listing {
    let mut found = Listing::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            let content = if metadata.is_dir() {
                folders.push(path.clone());
                "folder".to_owned()
            } else {
                hex::encode(Sha256::digest(fs::read(&path).unwrap()))
            };
            let told = format!("{:o} {} {}", metadata.mode(), metadata.uid(), content);
            found.insert(path, told);
        }
    }
    found
}

/// Loses everything but what tells a Cluster node who it is.
fn wipe(server: &Server) {
    for entry in fs::read_dir(server.data_dir()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap();
        } else if path.file_name() != Some("nodes.conf".as_ref()) {
            fs::remove_file(path).unwrap();
        }
    }
}

/// A line that wins over those before it, for the next start.
fn configure(server: &Server, line: &str) {
    let mut file = OpenOptions::new().append(true).open(server.config_file()).unwrap();
    writeln!(file, "{line}").unwrap();
}

/// The place to restore to, named as its server's config names it.
fn into<'a>(server: &Server, more: &[&'a str]) -> Vec<String> {
    let mut arguments = vec![
        "--data-dir".to_owned(),
        server.data_dir().display().to_string(),
        "--redis-conf".to_owned(),
        server.config_file().display().to_string(),
    ];
    arguments.extend(more.iter().map(|argument: &&'a str| (*argument).to_owned()));
    arguments
}

fn rewrite(server: &Server) {
    let _: redis::Value = server.command("BGREWRITEAOF");
    wait_for("the rewrite to end", || {
        ["aof_rewrite_in_progress", "aof_rewrite_scheduled"]
            .iter()
            .all(|field| server.info(field).as_deref() == Some("0"))
            .then_some(())
    });
}

/// Restores the newest backup's RDB into the stopped server's directory and starts it with `appendonly no` and with `yes`;
/// each time it must hold the very same.
fn restore_and_compare(tool: &Tool, server: &mut Server, source: &Digest) {
    for appendonly in ["no", "yes"] {
        configure(server, &format!("appendonly {appendonly}"));
        // From 7.0 one restore serves both; before, the form is that of the config.
        if appendonly == "no" || !server.version.is_seven() {
            wipe(server);
            let report = tool.done("restore", &into(server, &["--latest", "--from", "rdb"]));
            assert_eq!(report["state"], "restored");
        }
        start_and_compare(server, source);
        server.kill9();
    }
}

/// The same from each form that the backup holds.
fn restore_forms_and_compare(tool: &Tool, server: &mut Server, source: &Digest, forms: Forms) {
    forms.assert_held_by(tool);
    restore_and_compare(tool, server, source);
    if forms == Forms::Both {
        configure(server, "appendonly yes");
        wipe(server);
        let report = tool.done("restore", &into(server, &["--latest", "--from", "aof"]));
        assert_eq!(report["state"], "restored");
        start_and_compare(server, source);
        server.kill9();
    }
}

fn start_and_compare(server: &mut Server, source: &Digest) {
    start(server);
    let restored = Digest::of(&mut server.connection()).without(WRITTEN_MEANWHILE);
    assert_same(source, &restored);
}

/// With what its directory holds.
fn start(server: &mut Server) {
    server.try_start_again().unwrap_or_else(|log| panic!("it does not start:\n{log}"));
}

/// Writes dump.rdb, once the fork of a capture has ended.
fn save(server: &Server) {
    wait_for("the fork to end", || {
        (server.info("rdb_bgsave_in_progress").as_deref() == Some("0")).then_some(())
    });
    let () = server.command("SAVE");
}
