//! What a scan of an append-only file tells and the manifest of a backup may tell. Holds no key and no value.

use std::collections::BTreeSet;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::rdb::Content;

/// One file of an append-only set. Counts and times are those of its first `whole_bytes`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FileFacts {
    pub bytes: u64,
    /// End of the last whole command outside MULTI … EXEC. What follows is a command or transaction cut short.
    pub whole_bytes: u64,
    pub commands: u64,
    /// Lines that begin with `#`, which Redis 6.2 cannot load.
    pub annotations: u64,
    /// Of the first and the last `#TS:` annotation, which a server with `aof-timestamp-enabled yes` writes.
    #[schemars(with = "Option<String>")]
    pub first_timestamp: Option<Timestamp>,
    #[schemars(with = "Option<String>")]
    pub last_timestamp: Option<Timestamp>,
    /// The RDB that the file begins with.
    pub preamble: Option<Content>,
    /// Named by SELECT in the commands.
    pub databases: BTreeSet<u32>,
}

impl FileFacts {
    /// Bytes behind the last whole command, which a restore leaves out.
    pub const fn tail_bytes(&self) -> u64 {
        self.bytes.saturating_sub(self.whole_bytes)
    }
}
