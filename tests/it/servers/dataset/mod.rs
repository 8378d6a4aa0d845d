//! Every kind of value that a server knows: written, read back whole, compared value by value.

mod digest;
mod fill;
mod writer;

pub use digest::{Digest, assert_same};
pub use fill::fill;
pub use writer::Writer;

use redis::{Connection, ConnectionLike, Pipeline, Value};

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
