//! A restore that died when everything was on the volume already: the same command goes on with it, also without its store.

use std::fs;

use redis_backup::{
    domain::dataset::{Dataset, Form, Names},
    edge::data_directory::{Acts, Begun, DataDirectory, Restore},
};

use super::{Tool, into, start_and_compare, wipe};
use crate::servers::{
    Version,
    dataset::{Digest, fill},
    redis::Server,
};

const KEYS: usize = 300;

#[test]
fn a_restore_that_had_staged_everything_goes_on_without_its_store() {
    let version = Version::named("redis-7.0");
    let mut server = Server::start(&version, &[]);
    fill(&mut server.connection(), 17, KEYS);
    let source = Digest::of(&mut server.connection());
    let tool = Tool::new(&version);
    let backup = tool.back_up(&server.url())["backup"].as_str().unwrap().to_owned();
    tool.done("fetch", &["--latest", "--into", "plain"]);
    server.kill9();
    wipe(&server);

    stage(&server, &backup, &fs::read(tool.folder().join("plain/dump.rdb")).unwrap());
    assert!(!server.data_dir().join("dump.rdb").exists());
    fs::rename(tool.store(), tool.folder().join("out of reach")).unwrap();
    let other = tool.run("restore", &into(&server, &["20261120T020000Z-daily-k3x9q2"]));
    assert_ne!(other.exit, Some(0), "another backup is not what lies there: {other:#?}");
    let report = tool.done("restore", &into(&server, &[&backup]));
    assert_eq!(report["state"], "restored");
    assert_eq!(report["backup"], backup.as_str());
    assert!(report["steps"].to_string().contains("gone on with"), "{report:#}");
    start_and_compare(&mut server, &source);
}

/// As far as a restore gets before its swap.
fn stage(server: &Server, backup: &str, rdb: &[u8]) {
    let directory = DataDirectory::open(&server.data_dir(), Acts::default()).unwrap();
    let version = "7.0.15".parse().unwrap();
    let restore = Restore {
        backup: backup.parse().unwrap(),
        shard: 0,
        dataset: Dataset::new(Names::default(), Form::Rdb, version).unwrap(),
        bytes: rdb.len() as u64,
    };
    let Begun::Stage(mut stage) = directory.begin(&restore).unwrap() else {
        panic!("nothing was staged before");
    };
    stage.write(rdb).unwrap();
    stage.seal().unwrap();
    directory.confirm_staged().unwrap();
}
