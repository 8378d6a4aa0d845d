//! Writes values of every kind, the same for the same seed. Reads nothing back.

use rand::{RngExt, SeedableRng, rngs::StdRng};
use redis::{Cmd, Connection, Value, cmd};

use super::{Knows, milliseconds, select, send};

const BATCH: usize = 500;

/// One in this many keys has a time to live; another one in fifty lives two seconds.
const EXPIRES_EVERY: usize = 5;

/// Expiry times are whole multiples of this on servers that tell only what is left.
pub(super) const COARSE_MILLISECONDS: i64 = 10_000;

const KINDS: [fn(&mut Maker) -> Vec<Cmd>; 20] = [
    Maker::text,
    Maker::integer,
    Maker::binary,
    Maker::compressible,
    Maker::bitmap,
    Maker::sketch,
    Maker::short_list,
    Maker::long_list,
    Maker::integer_set,
    Maker::small_set,
    Maker::big_set,
    Maker::small_sorted_set,
    Maker::big_sorted_set,
    Maker::places,
    Maker::small_hash,
    Maker::big_hash,
    Maker::hash_with_expiring_fields,
    Maker::stream,
    Maker::emptied_stream,
    Maker::empty_text,
];

const LIBRARIES: [&str; 2] = [
    "#!lua name=first\nredis.register_function('answer', function() return 42 end)",
    "#!lua name=second\nredis.register_function{function_name='reads', callback=function(keys) \
     return redis.call('GET', keys[1]) end, flags={'no-writes'}}",
];

/// Writes `count` keys of all kinds into several databases, and functions. Several thousand keys need some seconds.
///
/// On a Cluster call it with each primary and the same seed: each takes the keys that are its own.
pub fn fill(connection: &mut Connection, seed: u64, count: usize) {
    let knows = Knows::ask(connection);
    let now = milliseconds(connection);
    let mut maker = Maker { random: StdRng::seed_from_u64(seed), key: Vec::new(), knows, now };
    let mut batches = vec![Vec::new(); knows.databases.len()];
    for index in 0..count {
        let database = maker.random.random_range(0..batches.len());
        batches[database].extend(maker.key(index));
        if batches[database].len() >= BATCH {
            let batch = std::mem::take(&mut batches[database]);
            write(connection, knows.databases[database], &batch);
        }
    }
    for (database, batch) in knows.databases.iter().zip(&batches) {
        write(connection, *database, batch);
    }
    if knows.functions {
        for library in LIBRARIES {
            let mut load = cmd("FUNCTION");
            let () = load.arg("LOAD").arg("REPLACE").arg(library).query(connection).unwrap();
        }
    }
}

fn write(connection: &mut Connection, database: u32, commands: &[Cmd]) {
    select(connection, database);
    for (answer, command) in send(connection, commands).iter().zip(commands) {
        if let Value::ServerError(error) = answer {
            let is_elsewhere = error.code() == "MOVED";
            assert!(is_elsewhere, "{error}: {}", command.get_packed_command().escape_ascii());
        }
    }
    select(connection, 0);
}

struct Maker {
    random: StdRng,
    key: Vec<u8>,
    knows: Knows,
    now: i64,
}

impl Maker {
    fn key(&mut self, index: usize) -> Vec<Cmd> {
        self.key = match index % 7 {
            _ if index == 0 => Vec::new(),
            0 => format!("{{tag:{}}}:{index}", index % 11).into_bytes(),
            1 => [b"\0\xff\r\n \"".as_slice(), index.to_string().as_bytes()].concat(),
            2 => index.to_string().into_bytes(),
            3 => [b"long:".repeat(100).as_slice(), index.to_string().as_bytes()].concat(),
            _ => format!("key:{index}").into_bytes(),
        };
        let mut commands = KINDS[index % KINDS.len()](self);
        if index % EXPIRES_EVERY == 2 {
            let at = self.far();
            commands.push(self.command("PEXPIREAT").arg(at).take());
        } else if index % 50 == 1 {
            commands.push(self.command("PEXPIRE").arg(2000).take());
        }
        commands
    }

    /// One hour to twelve days ahead.
    fn far(&mut self) -> i64 {
        let at = self.now + self.random.random_range(3_600_000..1_000_000_000);
        if self.knows.absolute_expiry { at } else { at / COARSE_MILLISECONDS * COARSE_MILLISECONDS }
    }

    /// With the key as the first argument.
    fn command(&self, name: &str) -> Command {
        let mut command = cmd(name);
        command.arg(&self.key);
        Command(command)
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.random.fill(&mut bytes[..]);
        bytes
    }

    fn text(&mut self) -> Vec<Cmd> {
        let value = format!("value {}", self.random.random::<u64>());
        vec![self.command("SET").arg(value).take()]
    }

    fn empty_text(&mut self) -> Vec<Cmd> {
        vec![self.command("SET").arg("").take()]
    }

    /// Of each width that RDB has a form for.
    fn integer(&mut self) -> Vec<Cmd> {
        let value = self.random.random::<i64>() >> self.random.random_range(0..64);
        vec![self.command("SET").arg(value).take()]
    }

    fn binary(&mut self) -> Vec<Cmd> {
        let length = if self.random.random_ratio(1, 20) { 100_000 } else { 300 };
        let length = self.random.random_range(1..=length);
        let mut value = self.bytes(length);
        value.extend(b"\0\r\n\xff\xfe");
        vec![self.command("SET").arg(value).take()]
    }

    fn compressible(&mut self) -> Vec<Cmd> {
        let value = b"abcdefgh ".repeat(self.random.random_range(10..3000));
        vec![self.command("SET").arg(value).take()]
    }

    fn bitmap(&mut self) -> Vec<Cmd> {
        let bits = [3, 1000, self.random.random_range(0..400_000)];
        bits.map(|bit| self.command("SETBIT").arg(bit).arg(1).take()).to_vec()
    }

    /// A `HyperLogLog`, sparse or dense.
    fn sketch(&mut self) -> Vec<Cmd> {
        let count = if self.random.random_ratio(1, 4) { 4000 } else { 40 };
        let members: Vec<u64> = (0..count).map(|_| self.random.random()).collect();
        vec![self.command("PFADD").arg(members).take()]
    }

    fn short_list(&mut self) -> Vec<Cmd> {
        let mut members = vec![b"7".to_vec(), b"-70000".to_vec(), b"".to_vec()];
        members.push(self.bytes(20));
        vec![self.command("RPUSH").arg(members).take()]
    }

    /// Of several nodes, some with one element too big for a shared node.
    fn long_list(&mut self) -> Vec<Cmd> {
        let mut members: Vec<Vec<u8>> =
            (0..700).map(|n| format!("element number {n}").into_bytes()).collect();
        members.push(self.bytes(10_000));
        members.push(b"z".repeat(20_000));
        members.push(self.bytes(30));
        vec![self.command("RPUSH").arg(members).take()]
    }

    fn integer_set(&mut self) -> Vec<Cmd> {
        let shift = [48, 20, 0][self.random.random_range(0..3)];
        let members: Vec<i64> = (0..30).map(|_| self.random.random::<i64>() >> shift).collect();
        vec![self.command("SADD").arg(members).take()]
    }

    fn small_set(&mut self) -> Vec<Cmd> {
        let members: Vec<Vec<u8>> = (0..10).map(|length| self.bytes(length)).collect();
        vec![self.command("SADD").arg(members).take()]
    }

    fn big_set(&mut self) -> Vec<Cmd> {
        let members: Vec<String> =
            (0..600).map(|n| format!("{n}:{}", self.random.random::<u32>())).collect();
        vec![self.command("SADD").arg(members).take()]
    }

    fn small_sorted_set(&mut self) -> Vec<Cmd> {
        let mut command = self.command("ZADD");
        for score in ["-inf", "inf", "0", "-0.5", "3.141592653589793", "1e-300", "1e300", "17"] {
            command = command.arg(score).arg(self.bytes(8));
        }
        vec![command.take()]
    }

    fn big_sorted_set(&mut self) -> Vec<Cmd> {
        let mut command = self.command("ZADD");
        for member in 0..200 {
            let score = (self.random.random::<f64>() - 0.5) * 1e9;
            command = command.arg(score).arg(format!("member {member}"));
        }
        vec![command.take()]
    }

    fn places(&mut self) -> Vec<Cmd> {
        let command = self.command("GEOADD").arg(13.361_389).arg(38.115_556).arg("Palermo");
        vec![command.arg(15.087_269).arg(37.502_669).arg("Catania").take()]
    }

    fn small_hash(&mut self) -> Vec<Cmd> {
        let mut command = self.command("HSET");
        for length in 0..12 {
            command = command.arg(format!("field {length}")).arg(self.bytes(length));
        }
        vec![command.take()]
    }

    fn big_hash(&mut self) -> Vec<Cmd> {
        let mut command = self.command("HSET");
        for field in 0..600 {
            command = command.arg(format!("field {field}")).arg(self.random.random::<u32>());
        }
        let long = self.bytes(200);
        vec![command.arg(b"long\0").arg(long).take()]
    }

    /// A small or a big hash; a server that knows no expiry of fields gets it without.
    fn hash_with_expiring_fields(&mut self) -> Vec<Cmd> {
        let fields = if self.random.random() { 6 } else { 700 };
        let mut command = self.command("HSET");
        for field in 0..fields {
            command = command.arg(format!("field {field}")).arg(self.random.random::<u16>());
        }
        let mut commands = vec![command.take()];
        if self.knows.field_expiry {
            for field in [1, 3, 4] {
                let expire = self
                    .command("HPEXPIREAT")
                    .arg(self.now + self.random.random_range(3_600_000..1_000_000_000));
                commands.push(expire.arg("FIELDS").arg(1).arg(format!("field {field}")).take());
            }
        }
        commands
    }

    /// With groups, consumers, entries delivered, acknowledged and deleted.
    fn stream(&mut self) -> Vec<Cmd> {
        let mut commands = Vec::new();
        for entry in 1..=self.random.random_range(5..150) {
            let add = self.command("XADD").arg(format!("{}-{}", entry / 3 + 1, entry));
            let add = add.arg("field").arg(self.bytes(12)).arg("same").arg("text");
            // Entries with the fields of the one before and with others are stored differently.
            let add = if entry % 4 == 0 { add.arg("more").arg(entry) } else { add };
            commands.push(add.take());
        }
        commands.push(self.command("XDEL").arg("1-2").arg("2-4").take());
        for (group, start) in [("readers", "0"), ("idle", "$")] {
            commands.push(self.group("CREATE").arg(group).arg(start).take());
        }
        commands.push(self.group("CREATECONSUMER").arg("readers").arg("waiting").take());
        for (consumer, count) in [("first", 2), ("second\0", 3)] {
            let mut read = cmd("XREADGROUP");
            read.arg("GROUP").arg("readers").arg(consumer).arg("COUNT").arg(count);
            commands.push(read.arg("STREAMS").arg(&self.key).arg(">").clone());
        }
        commands.push(self.command("XACK").arg("readers").arg("1-1").take());
        commands
    }

    fn emptied_stream(&mut self) -> Vec<Cmd> {
        vec![
            self.command("XADD").arg("5-1").arg("field").arg("value").take(),
            self.command("XDEL").arg("5-1").take(),
            self.group("CREATE").arg("group").arg("0").take(),
        ]
    }

    fn group(&self, verb: &str) -> Command {
        let mut command = cmd("XGROUP");
        command.arg(verb).arg(&self.key);
        Command(command)
    }
}

/// A command built by value.
struct Command(Cmd);

impl Command {
    fn arg(mut self, argument: impl redis::ToRedisArgs) -> Self {
        self.0.arg(argument);
        self
    }

    fn take(self) -> Cmd {
        self.0
    }
}
