//! Log events as OTLP requests in JSON, one a line, as an OpenTelemetry collector's receivers read them. Sends nothing.
//!
//! The form is that of `opentelemetry/proto/logs/v1/logs.proto` in the JSON encoding of the OTLP specification.

use std::fmt;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields, FormattedFields,
        format::{JsonFields, Writer},
    },
    registry::{LookupSpan, Scope},
};

const SERVICE: &str = env!("CARGO_PKG_NAME");

/// Formats each event as a request of its own, its spans' fields among its attributes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Otlp {
    pub(super) clock: fn() -> Timestamp,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> FormatEvent<S, JsonFields> for Otlp {
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result
    where
        JsonFields: for<'a> FormatFields<'a>,
    {
        let mut fields = Fields::default();
        // The innermost span is the last to say what a field is.
        for span in context.event_scope().into_iter().flat_map(Scope::from_root) {
            let extensions = span.extensions();
            let formatted = extensions.get::<FormattedFields<JsonFields>>();
            let map = formatted.and_then(|it| serde_json::from_str::<Map<_, _>>(&it.fields).ok());
            fields.attributes.extend(map.into_iter().flatten());
        }
        event.record(&mut fields);
        let metadata = event.metadata();
        let request = request(fields, *metadata.level(), metadata.target(), (self.clock)());
        writeln!(writer, "{request}")
    }
}

#[derive(Debug, Default)]
struct Fields {
    message: String,
    attributes: Map<String, Value>,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.attributes.insert(field.name().to_owned(), value.into());
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.attributes.insert(field.name().to_owned(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.attributes.insert(field.name().to_owned(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.attributes.insert(field.name().to_owned(), value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

fn request(fields: Fields, level: Level, target: &str, at: Timestamp) -> Value {
    let Fields { message, attributes } = fields;
    let service = [("service.name", SERVICE), ("service.version", env!("CARGO_PKG_VERSION"))];
    let resource = service.map(|(key, value)| attribute(key, &value.into()));
    let attributes: Vec<Value> =
        attributes.iter().map(|(key, value)| attribute(key, value)).collect();
    let time = at.as_nanosecond().to_string();
    let record = json!({
        "timeUnixNano": time,
        "observedTimeUnixNano": time,
        "severityNumber": severity(level),
        "severityText": level.as_str(),
        "body": {"stringValue": message},
        "attributes": attributes,
    });
    json!({"resourceLogs": [{
        "resource": {"attributes": resource},
        "scopeLogs": [{"scope": {"name": target}, "logRecords": [record]}],
    }]})
}

fn attribute(key: &str, value: &Value) -> Value {
    let value = match value {
        Value::Bool(value) => json!({"boolValue": value}),
        // 64-bit numbers are strings, as in every JSON form of protocol buffers.
        Value::Number(number) if !number.is_f64() => json!({"intValue": number.to_string()}),
        Value::Number(number) => json!({"doubleValue": number}),
        Value::String(text) => json!({"stringValue": text}),
        Value::Null | Value::Array(_) | Value::Object(_) => {
            json!({"stringValue": value.to_string()})
        }
    };
    json!({"key": key, "value": value})
}

/// `SeverityNumber` of `logs.proto`.
const fn severity(level: Level) -> u8 {
    match level {
        Level::TRACE => 1,
        Level::DEBUG => 5,
        Level::INFO => 9,
        Level::WARN => 13,
        Level::ERROR => 17,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_request_with_its_fields_typed() {
        let mut fields = Fields { message: "committed".to_owned(), ..Fields::default() };
        fields.attributes.insert("source".to_owned(), "sessions".into());
        fields.attributes.insert("keys".to_owned(), 7_u64.into());
        let request = request(fields, Level::WARN, "redis_backup", Timestamp::UNIX_EPOCH);
        let logs = &request["resourceLogs"][0];
        assert_eq!(logs["resource"]["attributes"][0]["value"]["stringValue"], "redis-backup");
        let record = &logs["scopeLogs"][0]["logRecords"][0];
        assert_eq!(record["timeUnixNano"], "0");
        assert_eq!(
            (&record["severityNumber"], &record["severityText"]),
            (&13.into(), &"WARN".into())
        );
        assert_eq!(record["body"]["stringValue"], "committed");
        let keys = json!({"key": "keys", "value": {"intValue": "7"}});
        let source = json!({"key": "source", "value": {"stringValue": "sessions"}});
        assert_eq!(record["attributes"], json!([keys, source]));
    }
}
