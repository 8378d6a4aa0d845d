//! How captured bytes become stored bytes and back. Sees chunks; never opens a file.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Codec {
    /// RFC 8878; unpack with `zstd -d`.
    #[default]
    Zstd,
    /// RFC 1952; unpack with `gzip -d`.
    Gzip,
    None,
}

impl Codec {
    /// What is appended to the archive's name, the dot included.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Zstd => ".zst",
            Self::Gzip => ".gz",
            Self::None => "",
        }
    }
}
