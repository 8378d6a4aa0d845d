//! How each type and opcode of an RDB lies in its bytes, as data. Reads nothing itself.
//!
//! Layouts: `rdbLoadRioWithLoadingCtx` and `rdbLoadObject` in rdb.c of Redis 8.6 and Valkey 9.1,
//! `rdbLoadKeyMetadata` in Redis's keymeta.c, `clusterRDBLoadSlotImport` in Valkey's
//! `cluster_migrateslots.c`.

use super::{Magic, ValueType, error::Fault};

/// An item of the stream: a key with its value, or what an opcode says.
#[derive(Debug)]
pub(super) struct Layout {
    /// As it stands in an error: "the element count of `a list`".
    pub(super) subject: &'static str,
    /// None for an opcode.
    pub(super) value_type: Option<ValueType>,
    /// A hash in a form that has room for an expiry of each field.
    pub(super) has_field_expiry: bool,
    pub(super) fields: &'static [Field],
}

#[derive(Debug)]
pub(super) enum Field {
    /// A string whose beginning matters.
    Captured(Captured),
    Database,
    ExpirySeconds,
    ExpiryMilliseconds,
    /// A string that need not be looked at.
    Text(&'static str),
    /// A length or another whole number.
    Number(&'static str),
    /// This many bytes.
    Bytes(&'static str, u8),
    /// A double as text: a byte for its length, of which 253 to 255 are numbers of their own.
    AsciiDouble(&'static str),
    /// A count, and that many times these fields.
    Many(&'static str, &'static [Field]),
    QuicklistContainer,
    ModuleId,
    /// The number that announces when a module wants its data back.
    ModuleWhenOpcode,
    /// What a module wrote, readable without it up to its end marker.
    ModuleValue,
    /// Four characters that name a class of key metadata, a version and flags.
    MetadataClass,
}

impl Field {
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Captured(captured) => captured.name(),
            Self::Database => "the number",
            Self::ExpirySeconds | Self::ExpiryMilliseconds => "the time",
            Self::QuicklistContainer => "a node's container",
            Self::ModuleId => "the module's id",
            Self::ModuleWhenOpcode => "the moment",
            Self::ModuleValue => "the module's data",
            Self::MetadataClass => "the class",
            Self::Text(name)
            | Self::Number(name)
            | Self::Bytes(name, _)
            | Self::AsciiDouble(name)
            | Self::Many(name, _) => name,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Captured {
    Key,
    AuxName,
    AuxText,
    FunctionCode,
}

impl Captured {
    /// How much of it is kept; all of it is read.
    pub(super) const fn kept_bytes_max(self) -> usize {
        match self {
            Self::Key | Self::AuxName => 128,
            // A library's first line names it.
            Self::AuxText | Self::FunctionCode => 1024,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Key => "the key",
            Self::AuxName => "the name",
            Self::AuxText => "the text",
            Self::FunctionCode => "the code",
        }
    }
}

/// Stream, group, consumer, pending entry, and the item itself.
pub(super) const DEPTH_MAX: usize = 4;

pub(super) const OPCODE_END: u8 = 255;
const OPCODE_FUNCTION_PRE_RELEASE: u8 = 246;
const TYPE_MODULE_PRE_RELEASE: u8 = 6;

/// Redis and Valkey gave 22 and 243 different meanings.
pub(super) fn of(magic: Magic, code: u8) -> Result<&'static Layout, Fault> {
    let layout = match (code, magic) {
        (0, _) => &STRING,
        (1, _) => &LIST,
        (2, _) => &SET,
        (3, _) => &SORTED_SET_ASCII,
        (4, _) => &HASH,
        (5, _) => &SORTED_SET,
        (7, _) => &MODULE,
        (9 | 13 | 16, _) => &HASH_PACKED,
        (10, _) => &LIST_PACKED,
        (11 | 20, _) => &SET_PACKED,
        (12 | 17, _) => &SORTED_SET_PACKED,
        (14, _) => &QUICKLIST,
        (15, _) => &STREAM_1,
        (18, _) => &QUICKLIST_2,
        (19, _) => &STREAM_2,
        (21, _) => &STREAM_3,
        (22, Magic::Redis) => &HASH_EXPIRY_PRE_RELEASE,
        (22, Magic::Valkey) => &HASH_EXPIRY_VALKEY,
        (23, Magic::Redis) => &HASH_PACKED_EXPIRY_PRE_RELEASE,
        (24, Magic::Redis) => &HASH_EXPIRY,
        (25, Magic::Redis) => &HASH_PACKED_EXPIRY,
        (26, Magic::Redis) => &STREAM_4,
        (243, Magic::Redis) => &KEY_METADATA,
        (243, Magic::Valkey) => &SLOT_IMPORT,
        (244, _) => &SLOT_INFO,
        (245, _) => &FUNCTION,
        (247, _) => &MODULE_AUX,
        (248, _) => &IDLE,
        (249, _) => &FREQUENCY,
        (250, _) => &AUX,
        (251, _) => &RESIZE,
        (252, _) => &EXPIRY_MILLISECONDS,
        (253, _) => &EXPIRY_SECONDS,
        (254, _) => &SELECT,
        (TYPE_MODULE_PRE_RELEASE | OPCODE_FUNCTION_PRE_RELEASE, _) => {
            return Err(Fault::PreRelease(code));
        }
        (_, _) => return Err(Fault::UnknownType(code)),
    };
    Ok(layout)
}

const fn value(subject: &'static str, value_type: ValueType, fields: &'static [Field]) -> Layout {
    Layout { subject, value_type: Some(value_type), has_field_expiry: false, fields }
}

const fn expiring_hash(fields: &'static [Field]) -> Layout {
    Layout {
        subject: "a hash with expiring fields",
        value_type: Some(ValueType::Hash),
        has_field_expiry: true,
        fields,
    }
}

const fn opcode(subject: &'static str, fields: &'static [Field]) -> Layout {
    Layout { subject, value_type: None, has_field_expiry: false, fields }
}

use Field::{AsciiDouble, Bytes, Many, Number, Text};

const KEY: Field = Field::Captured(Captured::Key);

pub(super) static STRING: Layout = value("a string", ValueType::String, &[KEY, Text("the value")]);

static LIST: Layout =
    value("a list", ValueType::List, &[KEY, Many("the element count", &[Text("an element")])]);
static LIST_PACKED: Layout = value("a list", ValueType::List, &[KEY, Text("the ziplist")]);
static QUICKLIST: Layout =
    value("a list", ValueType::List, &[KEY, Many("the node count", &[Text("a node")])]);
static QUICKLIST_2: Layout = value(
    "a list",
    ValueType::List,
    &[KEY, Many("the node count", &[Field::QuicklistContainer, Text("a node")])],
);

static SET: Layout =
    value("a set", ValueType::Set, &[KEY, Many("the element count", &[Text("an element")])]);
static SET_PACKED: Layout = value("a set", ValueType::Set, &[KEY, Text("the packed elements")]);

static SORTED_SET_ASCII: Layout = value(
    "a sorted set",
    ValueType::SortedSet,
    &[KEY, Many("the element count", &[Text("an element"), AsciiDouble("a score")])],
);
static SORTED_SET: Layout = value(
    "a sorted set",
    ValueType::SortedSet,
    &[KEY, Many("the element count", &[Text("an element"), Bytes("a score", 8)])],
);
static SORTED_SET_PACKED: Layout =
    value("a sorted set", ValueType::SortedSet, &[KEY, Text("the packed elements")]);

static HASH: Layout = value(
    "a hash",
    ValueType::Hash,
    &[KEY, Many("the field count", &[Text("a field"), Text("a value")])],
);
static HASH_PACKED: Layout = value("a hash", ValueType::Hash, &[KEY, Text("the packed fields")]);
static HASH_EXPIRY: Layout = expiring_hash(&[
    KEY,
    Bytes("the earliest expiry of a field", 8),
    Many("the field count", &[Number("a field's expiry"), Text("a field"), Text("a value")]),
]);
static HASH_EXPIRY_PRE_RELEASE: Layout = expiring_hash(&[
    KEY,
    Many("the field count", &[Number("a field's expiry"), Text("a field"), Text("a value")]),
]);
static HASH_PACKED_EXPIRY: Layout =
    expiring_hash(&[KEY, Bytes("the earliest expiry of a field", 8), Text("the packed fields")]);
static HASH_PACKED_EXPIRY_PRE_RELEASE: Layout = expiring_hash(&[KEY, Text("the packed fields")]);
static HASH_EXPIRY_VALKEY: Layout = expiring_hash(&[
    KEY,
    Many("the field count", &[Text("a field"), Text("a value"), Bytes("a field's expiry", 8)]),
]);

static MODULE: Layout =
    value("a module's value", ValueType::Module, &[KEY, Field::ModuleId, Field::ModuleValue]);

const STREAM_NODES: Field = Many("the node count", &[Text("a node's first id"), Text("a node")]);
const STREAM_LENGTH: Field = Number("the entry count");
const STREAM_LAST_TIME: Field = Number("the last id's time");
const STREAM_LAST_SEQUENCE: Field = Number("the last id's sequence");
const STREAM_FIRST_TIME: Field = Number("the first id's time");
const STREAM_FIRST_SEQUENCE: Field = Number("the first id's sequence");
const STREAM_DELETED_TIME: Field = Number("the highest deleted id's time");
const STREAM_DELETED_SEQUENCE: Field = Number("the highest deleted id's sequence");
const STREAM_ADDED: Field = Number("the number of entries ever added");

const GROUP_NAME: Field = Text("a group's name");
const GROUP_LAST_TIME: Field = Number("a group's last id's time");
const GROUP_LAST_SEQUENCE: Field = Number("a group's last id's sequence");
const GROUP_READ: Field = Number("a group's number of entries read");
const GROUP_PENDING: Field = Many(
    "a group's pending count",
    &[
        Bytes("a pending entry's id", 16),
        Bytes("a pending entry's delivery time", 8),
        Number("a pending entry's delivery count"),
    ],
);

const CONSUMER_NAME: Field = Text("a consumer's name");
const CONSUMER_SEEN: Field = Bytes("a consumer's seen time", 8);
const CONSUMER_ACTIVE: Field = Bytes("a consumer's active time", 8);
const CONSUMER_PENDING: Field =
    Many("a consumer's pending count", &[Bytes("a consumer's pending id", 16)]);
const CONSUMERS_1: Field =
    Many("a group's consumer count", &[CONSUMER_NAME, CONSUMER_SEEN, CONSUMER_PENDING]);
const CONSUMERS_3: Field = Many(
    "a group's consumer count",
    &[CONSUMER_NAME, CONSUMER_SEEN, CONSUMER_ACTIVE, CONSUMER_PENDING],
);

const GROUPS_1: Field = Many(
    "the group count",
    &[GROUP_NAME, GROUP_LAST_TIME, GROUP_LAST_SEQUENCE, GROUP_PENDING, CONSUMERS_1],
);
const GROUPS_2: Field = Many(
    "the group count",
    &[GROUP_NAME, GROUP_LAST_TIME, GROUP_LAST_SEQUENCE, GROUP_READ, GROUP_PENDING, CONSUMERS_1],
);
const GROUPS_3: Field = Many(
    "the group count",
    &[GROUP_NAME, GROUP_LAST_TIME, GROUP_LAST_SEQUENCE, GROUP_READ, GROUP_PENDING, CONSUMERS_3],
);

const PRODUCERS: Field = Many(
    "the producer count",
    &[
        Text("a producer's name"),
        Many(
            "a producer's id count",
            &[
                Text("an idempotent id"),
                Number("an idempotent id's entry's time"),
                Number("an idempotent id's entry's sequence"),
            ],
        ),
    ],
);

static STREAM_1: Layout = value(
    "a stream",
    ValueType::Stream,
    &[KEY, STREAM_NODES, STREAM_LENGTH, STREAM_LAST_TIME, STREAM_LAST_SEQUENCE, GROUPS_1],
);
static STREAM_2: Layout = value(
    "a stream",
    ValueType::Stream,
    &[
        KEY,
        STREAM_NODES,
        STREAM_LENGTH,
        STREAM_LAST_TIME,
        STREAM_LAST_SEQUENCE,
        STREAM_FIRST_TIME,
        STREAM_FIRST_SEQUENCE,
        STREAM_DELETED_TIME,
        STREAM_DELETED_SEQUENCE,
        STREAM_ADDED,
        GROUPS_2,
    ],
);
static STREAM_3: Layout = value(
    "a stream",
    ValueType::Stream,
    &[
        KEY,
        STREAM_NODES,
        STREAM_LENGTH,
        STREAM_LAST_TIME,
        STREAM_LAST_SEQUENCE,
        STREAM_FIRST_TIME,
        STREAM_FIRST_SEQUENCE,
        STREAM_DELETED_TIME,
        STREAM_DELETED_SEQUENCE,
        STREAM_ADDED,
        GROUPS_3,
    ],
);
static STREAM_4: Layout = value(
    "a stream",
    ValueType::Stream,
    &[
        KEY,
        STREAM_NODES,
        STREAM_LENGTH,
        STREAM_LAST_TIME,
        STREAM_LAST_SEQUENCE,
        STREAM_FIRST_TIME,
        STREAM_FIRST_SEQUENCE,
        STREAM_DELETED_TIME,
        STREAM_DELETED_SEQUENCE,
        STREAM_ADDED,
        GROUPS_3,
        Number("the seconds for which idempotent ids are kept"),
        Number("the number of idempotent ids that are kept"),
        PRODUCERS,
        Number("the number of idempotent ids ever added"),
        Number("the number of duplicates ever refused"),
    ],
);

static KEY_METADATA: Layout =
    opcode("key metadata", &[Many("the class count", &[Field::MetadataClass, Field::ModuleValue])]);
static SLOT_IMPORT: Layout = opcode(
    "a slot import",
    &[Text("the job"), Many("the range count", &[Number("a first slot"), Number("a last slot")])],
);
static SLOT_INFO: Layout = opcode(
    "a slot hint",
    &[Number("the slot"), Number("the key count"), Number("the expiry count")],
);
static FUNCTION: Layout = opcode("a function library", &[Field::Captured(Captured::FunctionCode)]);
static MODULE_AUX: Layout = opcode(
    "a module's auxiliary data",
    &[Field::ModuleId, Field::ModuleWhenOpcode, Number("the moment"), Field::ModuleValue],
);
static IDLE: Layout = opcode("an idle time", &[Number("the seconds")]);
static FREQUENCY: Layout = opcode("an access frequency", &[Bytes("the counter", 1)]);
static AUX: Layout = opcode(
    "an auxiliary field",
    &[Field::Captured(Captured::AuxName), Field::Captured(Captured::AuxText)],
);
static RESIZE: Layout =
    opcode("a size hint", &[Number("the key count"), Number("the expiry count")]);
static EXPIRY_MILLISECONDS: Layout = opcode("an expiry", &[Field::ExpiryMilliseconds]);
static EXPIRY_SECONDS: Layout = opcode("an expiry", &[Field::ExpirySeconds]);
static SELECT: Layout = opcode("a database", &[Field::Database]);

#[cfg(test)]
mod tests {
    use super::*;

    fn depth(fields: &[Field]) -> usize {
        1 + fields
            .iter()
            .map(|field| if let Many(_, inner) = field { depth(inner) } else { 0 })
            .max()
            .unwrap_or(0)
    }

    #[test]
    fn no_layout_is_empty_or_deeper_than_the_scanner_can_follow() {
        for magic in [Magic::Redis, Magic::Valkey] {
            for code in 0..=255 {
                let Ok(layout) = of(magic, code) else { continue };
                assert!(!layout.fields.is_empty());
                assert!(depth(layout.fields) <= DEPTH_MAX, "{}", layout.subject);
            }
        }
    }
}
