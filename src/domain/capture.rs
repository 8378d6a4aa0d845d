//! Which node gives each shard. Decides; never connects.

use schemars::JsonSchema;
use serde::Deserialize;

/// Whether a primary may be captured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PrimaryUse {
    Never,
    #[default]
    Fallback,
    Prefer,
}
