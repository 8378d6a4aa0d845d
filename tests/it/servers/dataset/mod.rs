//! Every kind of value that a server knows: written, read back whole, compared value by value.

mod digest;
mod fill;
mod writer;

pub use digest::{Digest, assert_same};
pub use fill::fill;
pub use writer::Writer;

use redis::{Connection, ConnectionLike, Pipeline, Value};

use super::Version;

/// Where keys are written; a Cluster has the first alone.
const DATABASES: [u32; 4] = [0, 1, 5, 15];

/// What a server can do, asked from itself.
#[derive(Clone, Copy, Debug)]
struct Knows {
    functions: bool,
    absolute_expiry: bool,
    field_expiry: bool,
    databases: &'static [u32],
}

impl Knows {
    fn ask(connection: &mut Connection) -> Self {
        let mut knows = |command: &str| {
            let known: Vec<Value> =
                redis::cmd("COMMAND").arg("INFO").arg(command).query(connection).unwrap();
            !matches!(known[0], Value::Nil)
                && !matches!(&known[0], Value::Array(words) if words.is_empty())
        };
        let (functions, absolute_expiry, field_expiry) =
            (knows("function"), knows("pexpiretime"), knows("hpexpiretime"));
        let info: String = redis::cmd("INFO").arg("cluster").query(connection).unwrap();
        let is_cluster = info.contains("cluster_enabled:1");
        let databases = if is_cluster { &DATABASES[..1] } else { &DATABASES };
        Self { functions, absolute_expiry, field_expiry, databases }
    }
}

/// Sends all; one answer each, of which any may be an error.
fn send(connection: &mut Connection, commands: &[redis::Cmd]) -> Vec<Value> {
    if commands.is_empty() {
        return Vec::new();
    }
    let mut pipeline = Pipeline::with_capacity(commands.len());
    for command in commands {
        pipeline.add_command(command.clone());
    }
    let packed = pipeline.get_packed_pipeline();
    connection.req_packed_commands(&packed, 0, commands.len()).expect("the server answers")
}

fn select(connection: &mut Connection, database: u32) {
    let () = redis::cmd("SELECT").arg(database).query(connection).unwrap();
}

fn milliseconds(connection: &mut Connection) -> i64 {
    let (seconds, micros): (i64, i64) = redis::cmd("TIME").query(connection).unwrap();
    seconds * 1000 + micros / 1000
}

#[test]
fn every_server_round_trips_the_dataset_through_its_own_rdb() {
    for version in Version::all() {
        let mut server = super::redis::Server::start(&version, &[]);
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
    let server = super::redis::Server::start(&Version::named("redis-8.0"), &[]);
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
    let server = super::redis::Server::start(&Version::usual(), &[]);
    let writer = Writer::start(vec![server.connection()]);
    super::wait_for("the writer", || (server.command::<u64>("DBSIZE") > 100).then_some(()));
    assert!(writer.stop() > 0);
    let before = Digest::of(&mut server.connection());
    assert_same(&before, &Digest::of(&mut server.connection()));
}
