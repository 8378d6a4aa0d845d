//! Data directories that are not as usual: odd names, a server at work, too little room.

use std::{fs, path::Path, process::Command};

use tempfile::TempDir;

use super::{Tool, into, listing, restore_and_compare, save, wipe};
use crate::servers::{
    Version,
    dataset::{Digest, fill},
    redis::Server,
};

const KEYS: usize = 600;

/// A tmpfs of its own, unmounted also at the end of a failed test.
pub(super) struct Volume(TempDir);

impl Volume {
    pub(super) fn mount(kibibytes: u32) -> Self {
        let volume = Self(TempDir::new().unwrap());
        let size = format!("size={kibibytes}k");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(volume.path());
        assert!(mount.status().unwrap().success(), "mounting a tmpfs needs root");
        volume
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

fn comes_back_under_odd_names(name: &str, config: &[&str], files: &[&str]) {
    let version = Version::named(name);
    let mut server = Server::start(&version, config);
    fill(&mut server.connection(), 71, KEYS);
    let source = Digest::of(&mut server.connection());
    let tool = Tool::new(&version);
    tool.back_up(&server.url());
    server.kill9();
    wipe(&server);
    restore_and_compare(&tool, &mut server, &source);
    for file in files {
        assert!(server.data_dir().join(file).exists(), "{file}");
    }
}

#[test]
fn odd_names_of_redis_7_0_are_taken_from_its_config() {
    comes_back_under_odd_names(
        "redis-7.0",
        &["dbfilename Dump-1.rdb", "appendfilename Appendonly.aof", "appenddirname aof.d"],
        &["Dump-1.rdb", "aof.d/Appendonly.aof.manifest"],
    );
}

#[test]
fn odd_names_with_spaces_and_quotes_are_taken_from_the_config_of_valkey() {
    comes_back_under_odd_names(
        "valkey-newest",
        &[
            r#"DBfilename "a dump's.rdb""#,
            r#"Appendfilename "an append only.aof""#,
            "appenddirname 'AOF dir'",
        ],
        &["a dump's.rdb", "AOF dir/an append only.aof.manifest"],
    );
}

#[test]
fn odd_names_of_redis_6_2_are_taken_from_its_config() {
    comes_back_under_odd_names(
        "redis-6.2",
        &["dbfilename Dump.rdb", "appendfilename Appendonly.aof"],
        &["Dump.rdb", "Appendonly.aof"],
    );
}

#[test]
fn a_restore_waits_for_no_server_to_run_and_needs_to_know_the_names() {
    for version in Version::all() {
        let mut server = Server::start(&version, &["appendonly yes"]);
        fill(&mut server.connection(), 72, 100);
        let tool = Tool::new(&version);
        tool.back_up(&server.url());
        save(&server);
        let before = listing(&server.data_dir());
        let said = tool.fails("restore", &into(&server, &["--latest"]), 23);
        assert!(said.contains(&format!("({})", server.pid())), "{version}: {said}");
        assert_eq!(listing(&server.data_dir()), before, "{version}");

        server.kill9();
        let folder = server.data_dir().display().to_string();
        let said = tool.fails("restore", &["--latest", "--data-dir", &folder], 2);
        assert!(said.contains("names its dataset"), "{version}: {said}");
        assert_eq!(listing(&server.data_dir()), before, "{version}");
    }
}

#[test]
fn too_little_room_is_seen_before_anything_is_touched() {
    let version = Version::usual();
    let server = Server::start(&version, &[]);
    fill(&mut server.connection(), 73, 3000);
    let tool = Tool::new(&version);
    let report = tool.back_up(&server.url());
    let kibibytes = u32::try_from(report["plainBytes"].as_u64().unwrap() / 1024).unwrap();
    let volume = Volume::mount(kibibytes / 2);
    fs::write(volume.path().join("dump.rdb"), b"REDIS0011 and so on").unwrap();
    let before = listing(volume.path());
    let folder = volume.path().display().to_string();
    let arguments = ["--latest", "--redis-defaults", "--data-dir", &folder];
    let said = tool.fails("restore", &arguments, 23);
    assert!(said.contains("bytes free"), "{said}");
    assert_eq!(listing(volume.path()), before);
}
