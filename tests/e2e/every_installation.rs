//! Every installation while a writer writes through its service: backed up by its address, and out of its pods by each method
//! and in each form; loaded, and at a quiet moment equal to the live servers, value by value.

use std::path::PathBuf;

use redis_backup::domain::dataset::Names;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    cluster::wait_for,
    live::tally,
    namespace::PATIENCE,
    place::{
        ANALYTICS_ROW, ANALYTICS_TLS_ROW, GATEWAY_ROW, LEADERS_ROW, OPERATOR_ROW, PLAIN_ROW, Place,
        Row, SHOP_ROW,
    },
    product,
    servers::{
        dataset::{Digest, assert_same, fill},
        version::Version,
    },
    throw_away::Server,
    writer::Writer,
};

const KEYS: usize = 800;
const METHODS: [&str; 2] = ["bgsave", "replication"];

#[test]
fn plain_is_backed_up_while_it_is_written_to_and_comes_back_value_by_value() {
    backs_up(&PLAIN_ROW);
}

#[test]
fn shop_is_backed_up_while_it_is_written_to_and_comes_back_value_by_value() {
    backs_up(&SHOP_ROW);
}

#[test]
fn gateway_is_backed_up_while_it_is_written_to_and_comes_back_value_by_value() {
    backs_up(&GATEWAY_ROW);
}

#[test]
fn operator_is_backed_up_while_it_is_written_to_and_comes_back_value_by_value() {
    backs_up(&OPERATOR_ROW);
}

#[test]
fn analytics_is_backed_up_while_it_is_written_to_and_comes_back_value_by_value() {
    backs_up(&ANALYTICS_ROW);
}

#[test]
fn analytics_with_tls_is_backed_up_while_it_is_written_to_and_comes_back_value_by_value() {
    backs_up(&ANALYTICS_TLS_ROW);
}

#[test]
fn leaders_are_backed_up_while_they_are_written_to_and_come_back_value_by_value() {
    backs_up(&LEADERS_ROW);
}

fn backs_up(row: &'static Row) {
    let place = &Place::prepare(row);
    let (live, forms) = (place.live(), forms(row));
    live.each_primary(|connection| fill(connection, 51, KEYS));

    let password = row.password.as_ref();
    let writer = Writer::start(&place.namespace, row.image, row.dial, password, row.speaks_tls());
    wait_for("the writer", PATIENCE, || (live.counted() > 100).then_some(()));
    by_address(place);
    for method in METHODS {
        let before = live.counted();
        let manifest = out_of_its_pods(place, "written", method, forms);
        let after = live.counted();
        check(row, &manifest, method, forms);
        verify_by_load(place);
        for form in forms.split(',') {
            let counted = counted_in_backup(place, &manifest, form);
            let said = format!("{} {method} {form}: {before} {counted} {after}", row.name);
            assert!(before <= counted && counted <= after && before < after, "{said}");
        }
    }
    writer.stop();

    let quiet = live.digest();
    for method in METHODS {
        let manifest = out_of_its_pods(place, "quiet", method, forms);
        for form in forms.split(',') {
            assert_same(&quiet, &digest_of_backup(place, &manifest, form));
        }
    }
    assert_same(&quiet, &live.digest());
    place.holds_no_lease();
}

/// What is captured by each method. Append-only files are read by exec whatever the method.
const fn forms(row: &Row) -> &'static str {
    if row.has_aof { "rdb,aof" } else { "rdb" }
}

/// Over replication, by names and a password that somebody configured.
fn by_address(place: &Place) {
    let row = place.row;
    let secret = match &row.password {
        Some(_) if row.speaks_tls() => Some(("client", "password")),
        Some(password) => Some((password.secret, password.key)),
        None => None,
    };
    let from = secret.map(|(_, key)| format!("file:/secret/{key}"));
    let mut source = vec!["backup", "--source-name", "by-address", "--store", &place.store];
    source.extend(["--source-url", row.address]);
    source.extend(from.iter().flat_map(|from| ["--password-from", from]));
    if row.speaks_tls() {
        source.extend(["--tls-ca", "/secret/ca.crt", "--tls-server-name", "redis-analytics"]);
    }
    let secret = secret.map(|(name, _)| name);
    is_of_replicas(row, &product::run(&place.namespace, "by-address", secret, &source).well());
    let verify = ["verify", "--latest", "--level", "content", "--source-name", "by-address"];
    let verify = [&verify[..], &["--store", &place.store]].concat();
    let verified = product::run(&place.namespace, "by-address-verify", None, &verify).well();
    assert!(verified.contains("proven"), "{verified}");
}

/// By their own names, with the password of their own Secret. Gives the manifest.
fn out_of_its_pods(place: &Place, when: &str, method: &str, forms: &str) -> Value {
    let name = format!("{when}-{method}");
    let said = place.back_up(&name, &["--method", method, "--capture", forms]).well();
    is_of_replicas(place.row, &said);
    assert!(said.contains("reached by the IPs of its pods"), "{said}");
    place.manifest()
}

fn is_of_replicas(row: &Row, said: &str) {
    let is_alone = row.replicas_of_each == 0;
    assert_eq!(said.contains("capture: the primary"), is_alone, "{said}");
    assert_ne!(said.contains("capture: a replica"), is_alone, "{said}");
}

/// The manifest says what was captured, and how.
fn check(row: &Row, manifest: &Value, method: &str, forms: &str) {
    let shards = manifest["shards"].as_array().unwrap();
    assert_eq!(shards.len(), row.shards, "{manifest:#}");
    let from = if row.replicas_of_each == 0 { "primary" } else { "replica" };
    for shard in shards {
        assert_eq!(shard["rdb"]["method"], method, "{shard:#}");
        assert_eq!(shard["rdb"]["capturedFrom"], from, "{shard:#}");
        assert_eq!(shard["aof"].is_null(), !forms.contains("aof"), "{shard:#}");
    }
}

/// Read back whole, and loaded by a server of the same version.
fn verify_by_load(place: &Place) {
    let binary = binary(place.row);
    let how = ["verify", "--level", "load", "--server-binary", binary.to_str().unwrap()];
    let verified = product::reported_here(&[&how[..], &place.latest()].concat());
    assert_eq!(verified["backups"][0]["proven"], true, "{verified:#}");
}

fn binary(row: &Row) -> PathBuf {
    Version::named(row.server).program("redis-server")
}

/// What the writer had counted; each count with as many elements beside it.
fn counted_in_backup(place: &Place, manifest: &Value, form: &str) -> u64 {
    let servers = loaded(place, manifest, form).into_iter();
    let tallies = servers.map(|(mut server, _folder)| {
        let (counted, listed) = tally(server.connection());
        assert_eq!(counted, listed, "{}: a script half done, in {form}", place.row.name);
        counted
    });
    tallies.sum()
}

fn digest_of_backup(place: &Place, manifest: &Value, form: &str) -> Digest {
    let servers = loaded(place, manifest, form).into_iter();
    let digests = servers.map(|(mut server, _folder)| Digest::portable(server.connection()));
    digests.reduce(Digest::with).unwrap()
}

/// A private server for each shard of the newest backup.
fn loaded(place: &Place, manifest: &Value, form: &str) -> Vec<(Server, TempDir)> {
    let shards = manifest["shards"].as_array().unwrap().iter();
    shards.map(|shard| loaded_shard(place, &shard["shard"].to_string(), form)).collect()
}

fn loaded_shard(place: &Place, shard: &str, form: &str) -> (Server, TempDir) {
    let folder = TempDir::new().unwrap();
    let binary = binary(place.row);
    let appendonly = form == "aof";
    let mut how = vec!["restore", "--from", form, "--data-dir", folder.path().to_str().unwrap()];
    how.extend(["--server-binary", binary.to_str().unwrap()]);
    how.extend(["--redis-defaults", "--appendonly", if appendonly { "yes" } else { "no" }]);
    if place.row.is_cluster {
        how.extend(["--shard", shard]);
    }
    how.extend(place.latest());
    product::run_here(&how).well();
    let names = Names { appendonly, ..Names::default() };
    (Server::start(&binary, folder.path(), &names), folder)
}
