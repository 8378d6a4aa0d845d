//! One server of each version, with each codec, while a writer writes.

use super::{Forms, Tool, WRITTEN_MEANWHILE, restore_forms_and_compare};
use crate::servers::{
    Version,
    dataset::{Digest, Writer, fill},
    wait_for,
};

const KEYS: usize = 1200;

fn comes_back(name: &str, codec: &str, forms: Forms) {
    let version = Version::named(name);
    let mut server = forms.options(&version).start();
    fill(&mut server.connection(), 11, KEYS);
    forms.settle(&server);
    let source = Digest::of(&mut server.connection());
    assert!(source.len() > KEYS * 9 / 10, "{}", source.len());
    let tool = Tool::new(&version).with_config(&format!(
        "sources:\n  journey:\n    nodes: [{}]\n    compression: {{codec: {codec}}}\n{}",
        server.url(),
        forms.directories([&server])
    ));
    let writer = Writer::start(vec![server.connection()]);
    wait_for("the writer to write", || {
        server.command::<bool>(&format!("EXISTS {WRITTEN_MEANWHILE}list:1")).then_some(())
    });

    let report = tool.done("backup", forms.capture());
    assert!(writer.stop() > 0);
    assert!(report["backups"][0]["keys"].as_u64().unwrap() > source.len() as u64, "{report:#}");
    assert_eq!(tool.backups(), [report["backups"][0]["backup"].as_str().unwrap()]);
    assert_eq!(tool.manifest()["shards"][0]["archives"][0]["codec"], codec);
    tool.verify_by_load();
    server.kill9();
    restore_forms_and_compare(&tool, &mut server, &source, forms);
}

#[test]
fn redis_6_2_comes_back_from_gzip() {
    comes_back("redis-6.2", "gzip", Forms::Rdb);
}

#[test]
fn redis_7_0_comes_back_from_zstd() {
    comes_back("redis-7.0", "zstd", Forms::Rdb);
}

#[test]
fn redis_8_0_comes_back_from_plain_archives() {
    comes_back("redis-8.0", "none", Forms::Rdb);
}

#[test]
fn the_newest_redis_comes_back_from_zstd() {
    comes_back("redis-newest", "zstd", Forms::Rdb);
}

#[test]
fn valkey_8_1_comes_back_from_gzip() {
    comes_back("valkey-8.1", "gzip", Forms::Rdb);
}

#[test]
fn the_newest_valkey_comes_back_from_plain_archives() {
    comes_back("valkey-newest", "none", Forms::Rdb);
}

#[test]
fn redis_6_2_comes_back_from_its_rdb_and_from_its_single_append_only_file() {
    comes_back("redis-6.2", "zstd", Forms::Both);
}

#[test]
fn the_newest_redis_comes_back_from_its_rdb_and_from_its_append_only_files() {
    comes_back("redis-newest", "gzip", Forms::Both);
}
