//! Reads every value of a server back and tells two servers' values apart. Writes nothing.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the values of the redis crate are not our own"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use redis::{Cmd, Connection, Value, cmd};
use sha2::{Digest as _, Sha256};

use super::{Knows, fill::COARSE_MILLISECONDS, milliseconds, select, send};

const BATCH: usize = 200;
const SHOWN_BYTES: usize = 160;
const SHOWN_DIFFERENCES: usize = 20;

/// All that a server holds.
#[derive(Clone, Debug)]
pub struct Digest {
    entries: BTreeMap<(u32, Vec<u8>), Entry>,
    /// Name and code.
    functions: BTreeMap<String, String>,
    /// By the server's clock, after the last value was read.
    taken_at_milliseconds: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    kind: String,
    /// Short values as they are, long ones as their SHA-256.
    value: String,
    expires_at_milliseconds: Option<i64>,
}

#[derive(Clone, Copy, Debug)]
enum Streams {
    Whole,
    /// What Redis 6.2 tells already, and a replica as its primary.
    Common,
}

/// Fails with the differences, if there are any.
#[track_caller]
pub fn assert_same(source: &Digest, restored: &Digest) {
    let differences = source.differences(restored);
    assert!(
        differences.is_empty(),
        "{} differences, of {} keys:\n{}",
        differences.len(),
        source.len(),
        differences[..differences.len().min(SHOWN_DIFFERENCES)].join("\n")
    );
}

impl Digest {
    pub fn of(connection: &mut Connection) -> Self {
        Self::read(connection, Streams::Whole)
    }

    /// Without what a replica or a server of another version tells otherwise of a stream.
    pub fn portable(connection: &mut Connection) -> Self {
        Self::read(connection, Streams::Common)
    }

    fn read(connection: &mut Connection, streams: Streams) -> Self {
        let knows = Knows::ask(connection);
        let mut entries = BTreeMap::new();
        for database in databases(connection) {
            select(connection, database);
            for batch in keys(connection).chunks(BATCH) {
                for (key, entry) in read(connection, batch, knows, streams) {
                    entries.insert((database, key), entry);
                }
            }
        }
        select(connection, 0);
        let functions = if knows.functions { functions(connection) } else { BTreeMap::new() };
        Self { entries, functions, taken_at_milliseconds: milliseconds(connection) }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Without the keys that begin so.
    pub fn without(mut self, prefix: &str) -> Self {
        self.entries.retain(|(_, key), _| !key.starts_with(prefix.as_bytes()));
        self
    }

    /// Both together: the shards of a Cluster.
    pub fn with(mut self, other: Self) -> Self {
        for (key, entry) in other.entries {
            assert!(self.entries.insert(key.clone(), entry).is_none(), "{} twice", name(&key));
        }
        self.functions.extend(other.functions);
        self.taken_at_milliseconds = self.taken_at_milliseconds.max(other.taken_at_milliseconds);
        self
    }

    /// One line for each key or function that is not the same. What has expired meanwhile is left out,
    /// and what is about to: servers that tell only the time left give it roughly.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let soon =
            self.taken_at_milliseconds.max(other.taken_at_milliseconds) + COARSE_MILLISECONDS;
        let is_alive = |entry: &&Entry| entry.expires_at_milliseconds.is_none_or(|at| at > soon);
        let keys: BTreeSet<_> = self.entries.keys().chain(other.entries.keys()).collect();
        let of_keys = keys.into_iter().filter_map(|key| {
            let here = self.entries.get(key).filter(is_alive);
            let there = other.entries.get(key).filter(is_alive);
            (here != there).then(|| format!("{}: {}\n  now {}", name(key), told(here), told(there)))
        });
        let libraries: BTreeSet<_> = self.functions.keys().chain(other.functions.keys()).collect();
        let changed = libraries.into_iter().filter_map(|library| {
            let (here, there) = (self.functions.get(library), other.functions.get(library));
            (here != there).then(|| format!("function {library}: {here:?}\n  now {there:?}"))
        });
        of_keys.chain(changed.take(1)).collect()
    }
}

fn name((database, key): &(u32, Vec<u8>)) -> String {
    format!("database {database} key \"{}\"", shortened(key.escape_ascii().to_string()))
}

fn told(entry: Option<&Entry>) -> String {
    entry.map_or("absent".to_owned(), |Entry { kind, value, expires_at_milliseconds }| {
        let expiry = expires_at_milliseconds.map_or(String::new(), |at| format!(" until {at}"));
        format!("{kind}{expiry} {value}")
    })
}

fn databases(connection: &mut Connection) -> Vec<u32> {
    let info: String = cmd("INFO").arg("keyspace").query(connection).unwrap();
    let lines = info.lines().filter_map(|line| line.strip_prefix("db")?.split_once(':'));
    lines.map(|(number, _)| number.parse().unwrap()).collect()
}

fn keys(connection: &mut Connection) -> Vec<Vec<u8>> {
    // A rehash makes SCAN return a key twice.
    let mut keys = BTreeSet::new();
    let mut cursor = 0_u64;
    loop {
        let found: Vec<Vec<u8>>;
        (cursor, found) = cmd("SCAN").arg(cursor).arg("COUNT").arg(1000).query(connection).unwrap();
        keys.extend(found);
        if cursor == 0 {
            return keys.into_iter().collect();
        }
    }
}

fn read(
    connection: &mut Connection,
    keys: &[Vec<u8>],
    knows: Knows,
    streams: Streams,
) -> Vec<(Vec<u8>, Entry)> {
    let expiry = if knows.absolute_expiry { "PEXPIRETIME" } else { "PTTL" };
    let questions: Vec<Cmd> =
        keys.iter().flat_map(|key| [of("TYPE", key), of(expiry, key)]).collect();
    let now = milliseconds(connection);
    let answers = send(connection, &questions);
    let mut found = Vec::new();
    for (key, answers) in keys.iter().zip(answers.chunks(2)) {
        let (kind, expiry) = (text(&answers[0]), &answers[1]);
        let expires_at_milliseconds = match expiry {
            Value::Int(-1) => None,
            Value::Int(at) if knows.absolute_expiry => Some(*at),
            Value::Int(left) => {
                let coarse = COARSE_MILLISECONDS;
                Some((now + left + coarse / 2) / coarse * coarse)
            }
            other => panic!("{other:?} is no expiry time"),
        };
        // An expired key is still listed by SCAN; it has no type any more.
        if kind != "none" {
            found.push((key, kind, expires_at_milliseconds));
        }
    }
    let reads: Vec<Cmd> = found.iter().map(|(key, kind, _)| read_command(key, kind)).collect();
    let values = send(connection, &reads);
    let mut entries = Vec::new();
    for ((key, kind, expires_at_milliseconds), value) in found.into_iter().zip(values) {
        let mut value = canonical(&kind, &value, streams);
        if kind == "hash" && knows.field_expiry {
            value += &field_expiries(connection, key);
        }
        entries
            .push((key.clone(), Entry { kind, value: shortened(value), expires_at_milliseconds }));
    }
    entries
}

fn of(command: &str, key: &[u8]) -> Cmd {
    cmd(command).arg(key).clone()
}

fn read_command(key: &[u8], kind: &str) -> Cmd {
    match kind {
        "string" => of("GET", key),
        "list" => of("LRANGE", key).arg(0).arg(-1).clone(),
        "set" => of("SMEMBERS", key),
        "zset" => of("ZRANGE", key).arg(0).arg(-1).arg("WITHSCORES").clone(),
        "hash" => of("HGETALL", key),
        // All entries and all that is pending in all groups.
        "stream" => cmd("XINFO").arg("STREAM").arg(key).arg("FULL").arg("COUNT").arg(0).clone(),
        // A module's type has no reading command that we could know.
        _ => of("DUMP", key),
    }
}

/// The value as text in an order that does not depend on how the server keeps it.
fn canonical(kind: &str, value: &Value, streams: Streams) -> String {
    match (kind, value) {
        ("set", Value::Array(members)) => sorted(members.iter().map(rendered).collect()),
        // Versions write the same score in several ways.
        ("zset", Value::Array(words)) => words
            .chunks(2)
            .map(|pair| format!("{}={:?}", rendered(&pair[0]), score(&pair[1])))
            .collect::<Vec<_>>()
            .join(" "),
        ("hash", Value::Array(words)) => sorted(
            words
                .chunks(2)
                .map(|pair| format!("{}={}", rendered(&pair[0]), rendered(&pair[1])))
                .collect(),
        ),
        ("stream", _) => match streams {
            Streams::Whole => without(value, &|name| name.starts_with("radix-tree")),
            Streams::Common => without(value, &is_not_everywhere),
        },
        _ => rendered(value),
    }
}

/// How the index of a stream is laid out is no part of its value either.
fn is_not_everywhere(name: &str) -> bool {
    const OMITTED: [&str; 7] = [
        "entries-added",
        "max-deleted-entry-id",
        "recorded-first-entry-id",
        "entries-read",
        "lag",
        "active-time",
        // A replica writes down when it heard of the consumer.
        "seen-time",
    ];
    name.starts_with("radix-tree") || OMITTED.contains(&name) || is_of_deduplication(name)
}

/// Redis 8.6 counts the producers of a stream.
fn is_of_deduplication(name: &str) -> bool {
    ["idmp", "iids", "pids"].iter().any(|part| name.starts_with(part))
}

/// Rendered, without the pairs whose names are left out, at every depth.
fn without(value: &Value, is_left_out: &dyn Fn(&str) -> bool) -> String {
    let Value::Array(words) = value else { return rendered(value) };
    let mut parts = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let is_out =
            matches!(word, Value::BulkString(name) if str::from_utf8(name).is_ok_and(is_left_out));
        if is_out {
            words.next();
        } else {
            parts.push(without(word, is_left_out));
        }
    }
    format!("[{}]", parts.join(" "))
}

fn field_expiries(connection: &mut Connection, key: &[u8]) -> String {
    let mut fields: Vec<Vec<u8>> = of("HKEYS", key).query(connection).unwrap();
    fields.sort();
    if fields.is_empty() {
        return String::new();
    }
    let mut ask = of("HPEXPIRETIME", key);
    let at: Vec<i64> = ask.arg("FIELDS").arg(fields.len()).arg(&fields).query(connection).unwrap();
    let expiring = fields.iter().zip(at).filter(|(_, at)| *at >= 0);
    expiring.fold(String::new(), |mut all, (field, at)| {
        write!(all, " {} until {at}", field.escape_ascii()).unwrap();
        all
    })
}

fn functions(connection: &mut Connection) -> BTreeMap<String, String> {
    let libraries: Vec<BTreeMap<String, Value>> =
        cmd("FUNCTION").arg("LIST").arg("WITHCODE").query(connection).unwrap();
    libraries
        .iter()
        .map(|library| (text(&library["library_name"]), text(&library["library_code"])))
        .collect()
}

fn sorted(mut parts: Vec<String>) -> String {
    parts.sort();
    parts.join(" ")
}

fn score(value: &Value) -> f64 {
    text(value).parse().expect("a score is a number")
}

fn text(value: &Value) -> String {
    match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::SimpleString(text) => text.clone(),
        other => panic!("{other:?} is no text"),
    }
}

fn rendered(value: &Value) -> String {
    match value {
        Value::BulkString(bytes) => format!("\"{}\"", bytes.escape_ascii()),
        Value::Array(values) => {
            format!("[{}]", values.iter().map(rendered).collect::<Vec<_>>().join(" "))
        }
        Value::ServerError(error) => panic!("a value cannot be read: {error}"),
        other => format!("{other:?}"),
    }
}

fn shortened(text: String) -> String {
    if text.len() <= SHOWN_BYTES {
        return text;
    }
    let digest = hex::encode(Sha256::digest(&text));
    format!("{}… {} bytes, sha256 {digest}", &text[..SHOWN_BYTES / 2], text.len())
}
