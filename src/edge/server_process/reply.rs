//! What a server's replies say of its dataset. Reads texts and values; never asks.

use std::collections::BTreeMap;

use redis::Value;

use crate::domain::rdb::DatabaseFacts;

/// A field of INFO.
pub(super) fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':'))
}

pub(super) fn number(info: &str, name: &str) -> Option<u64> {
    field(info, name)?.parse().ok()
}

/// `db0:keys=3,expires=1,avg_ttl=0` of INFO keyspace; what a newer server appends is passed over.
pub(super) fn keyspace(info: &str) -> Option<BTreeMap<u32, DatabaseFacts>> {
    let mut databases = BTreeMap::new();
    for line in info.lines() {
        let parted = line.trim_end().strip_prefix("db").and_then(|rest| rest.split_once(':'));
        // Redis 8 has lines such as `db0_distrib_strings_sizes:…` beside.
        let Some((Ok(number), counts)) = parted.map(|(number, counts)| (number.parse(), counts))
        else {
            continue;
        };
        let count = |name: &str| {
            let named = |part: &str| part.strip_prefix(name)?.strip_prefix('=')?.parse().ok();
            counts.split(',').find_map(named)
        };
        let facts = DatabaseFacts { keys: count("keys")?, expires: count("expires")? };
        databases.insert(number, facts);
    }
    Some(databases)
}

/// Library names of FUNCTION LIST, sorted.
pub(super) fn libraries(reply: &Value) -> Option<Vec<String>> {
    let Value::Array(libraries) = reply else { return None };
    let mut names = libraries.iter().map(library_name).collect::<Option<Vec<String>>>()?;
    names.sort();
    Some(names)
}

fn library_name(library: &Value) -> Option<String> {
    // RESP2 flattens the map.
    let Value::Array(fields) = library else { return None };
    let (pairs, _) = fields.as_chunks::<2>();
    pairs.iter().find_map(|[name, value]| {
        (text(name)? == "library_name").then(|| text(value).map(str::to_owned))?
    })
}

fn text(value: &Value) -> Option<&str> {
    if let Value::BulkString(bytes) = value {
        return std::str::from_utf8(bytes).ok();
    }
    if let Value::SimpleString(text) = value { Some(text) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keyspace_of_every_version_is_read() {
        let info = "# Keyspace\r\ndb0:keys=15,expires=2,avg_ttl=0\r\ndb11:keys=1,expires=0,avg_ttl=0,subexpiry=1\r\n# Keysizes\r\ndb0_distrib_strings_sizes:1=1\r\n";
        let facts = |keys, expires| DatabaseFacts { keys, expires };
        assert_eq!(keyspace(info), Some(BTreeMap::from([(0, facts(15, 2)), (11, facts(1, 0))])));
        assert_eq!(keyspace("# Keyspace\r\n"), Some(BTreeMap::new()));
        assert_eq!(keyspace("db0:keys=many,expires=0"), None);
    }

    #[test]
    fn library_names_are_found_in_a_flattened_map() {
        let word = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let library = |name: &str| {
            Value::Array(vec![
                word("library_name"),
                word(name),
                word("engine"),
                word("LUA"),
                word("functions"),
                Value::Array(Vec::new()),
            ])
        };
        let reply = Value::Array(vec![library("b"), library("a")]);
        assert_eq!(libraries(&reply), Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(libraries(&Value::Array(Vec::new())), Some(Vec::new()));
        assert_eq!(libraries(&Value::Nil), None);
    }
}
