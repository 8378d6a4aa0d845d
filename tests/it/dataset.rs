//! The dataset of the tests and its digest, on every server: they would hide what a backup loses, were they wrong.

use redis::Value;

use crate::servers::{
    Version,
    dataset::{Digest, Writer, assert_same, fill},
    redis::Server,
    wait_for,
};

#[test]
fn every_server_round_trips_the_dataset_through_its_own_rdb() {
    for version in Version::all() {
        let mut server = Server::start(&version, &[]);
        fill(&mut server.connection(), 1, 2000);
        let before = Digest::of(&mut server.connection());
        assert!(before.len() > 1900, "{version}: {}", before.len());
        let () = server.command("SAVE");
        server.kill9();
        server.restart();
        assert_same(&before, &Digest::of(&mut server.connection()));
    }
}

#[test]
fn a_digest_sees_each_kind_of_change() {
    let server = Server::start(&Version::named("redis-8.0"), &[]);
    fill(&mut server.connection(), 2, 200);
    for line in [
        "HSET hash one 1 two 2",
        "XADD stream 1-1 field value",
        "XGROUP CREATE stream group 0",
        "ZADD zset 1 member",
        "RPUSH list a b",
    ] {
        let _: Value = server.command(line);
    }
    let mut before = Digest::of(&mut server.connection());
    for line in [
        "HSET hash one 2",
        "HPEXPIREAT hash 66666666666666 FIELDS 1 two",
        "XREADGROUP GROUP group consumer STREAMS stream >",
        "XACK stream group 1-1",
        "ZADD zset 1.0000000000000002 member",
        "LSET list 0 A",
        "PEXPIREAT list 99999999999999",
        "PEXPIREAT list 99999999999998",
        "DEL zset",
        "SADD new member",
        "MOVE new 3",
        "FUNCTION FLUSH",
    ] {
        let _: Value = server.command(line);
        let after = Digest::of(&mut server.connection());
        assert_eq!(
            before.differences(&after).len(),
            if line.starts_with("MOVE") { 2 } else { 1 },
            "{line}"
        );
        before = after;
    }
}

#[test]
fn a_writer_writes_until_it_is_stopped() {
    let server = Server::start(&Version::usual(), &[]);
    let writer = Writer::start(vec![server.connection()]);
    wait_for("the writer", || (server.command::<u64>("DBSIZE") > 100).then_some(()));
    assert!(writer.stop() > 0);
    let before = Digest::of(&mut server.connection());
    assert_same(&before, &Digest::of(&mut server.connection()));
}
