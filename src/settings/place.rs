//! Where in the config file a key stands, for errors that are found after it was read. Judges nothing.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::Spanned;

/// Every key of a config file with its line and column.
#[derive(Debug, Default)]
pub(super) struct Places(Keys);

type Keys = BTreeMap<String, Spanned<Value>>;

/// What stands behind a key: keys again, or something without any.
#[derive(Debug, Default)]
struct Value(Keys);

impl Places {
    /// The text was read as a config before; what cannot be read has no places.
    pub(super) fn of(text: &str) -> Self {
        Self(serde_saphyr::from_str::<Value>(text).unwrap_or_default().0)
    }

    /// Line and column of a value such as `sources.sessions.nodes`, or of the nearest that is there.
    pub(super) fn line_and_column(&self, place: &str) -> (u64, u64) {
        let (mut keys, mut found, mut rest) = (&self.0, (1, 1), place);
        // The name of a source may hold dots itself.
        let leads = |rest: &str, key: &str| {
            rest.strip_prefix(key).is_some_and(|after| after.is_empty() || after.starts_with('.'))
        };
        while let Some((key, Spanned { value, referenced, defined: _ })) =
            keys.iter().filter(|(key, _)| leads(rest, key)).max_by_key(|(key, _)| key.len())
        {
            found = (referenced.line(), referenced.column());
            rest = rest.get(key.len() + 1..).unwrap_or_default();
            keys = &value.0;
        }
        found
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut keys = Keys::new();
        while let Some((key, value)) = map.next_entry()? {
            keys.insert(key, value);
        }
        Ok(Value(keys))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::default())
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value, E> {
        Ok(Value::default())
    }

    fn visit_i64<E>(self, _: i64) -> Result<Value, E> {
        Ok(Value::default())
    }

    fn visit_u64<E>(self, _: u64) -> Result<Value, E> {
        Ok(Value::default())
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(Value::default())
    }

    fn visit_str<E>(self, _: &str) -> Result<Value, E> {
        Ok(Value::default())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_leads_to_its_line_and_a_missing_one_to_what_holds_it() {
        let text =
            "sources:\n  a:\n    nodes: [x, y]\n    auth: {username: b, level: 5}\nstores:\n";
        let places = Places::of(text);
        assert_eq!(places.line_and_column("sources.a.nodes"), (3, 12));
        assert_eq!(places.line_and_column("sources.a.auth.level"), (4, 32));
        assert_eq!(places.line_and_column("sources.a.auth.passwordFrom").0, 4);
        assert_eq!(places.line_and_column("schedules.daily"), (1, 1));
        let dotted = Places::of("a: {b: 1,\n b.c: {d: 2,\n e: 3}}");
        assert_eq!(dotted.line_and_column("a.b.c.e").0, 3);
        assert_eq!(Places::of("[").line_and_column("sources"), (1, 1));
    }
}
