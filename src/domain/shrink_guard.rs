//! Whether a backup holds so much less than those before it that somebody should look. Decides; never refuses a backup.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::manifest::Manifest;

/// So many of the recent good backups stand for what is usual.
pub const COMPARED: usize = 5;

/// Fewer of them say nothing, unless a person accepted one of them as normal.
const COMPARED_MIN: usize = 3;

/// How far a backup may fall below the median of the recent good ones before it is suspect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limit {
    /// Suspect below so many percent of the median, in keys or in bytes; 0 never suspects.
    pub percent_min: u8,
}

impl Default for Limit {
    fn default() -> Self {
        Self { percent_min: 50 }
    }
}

/// What is compared. Bytes are those of the RDB before compression, for a codec changes no data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub keys: Option<u64>,
    pub bytes: Option<u64>,
}

impl Size {
    pub fn of(manifest: &Manifest) -> Self {
        let bytes = manifest.shards.iter().map(|shard| Some(shard.rdb_content()?.bytes()));
        Self { keys: manifest.keys(), bytes: bytes.sum() }
    }
}

/// What is usual here: the recent good backups, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Baseline {
    pub sizes: Vec<Size>,
    /// The last of them was accepted by a person; none before it counts.
    pub ends_with_accepted: bool,
}

impl Baseline {
    /// Nothing older changes the answer any more.
    pub fn is_complete(&self) -> bool {
        self.sizes.len() >= COMPARED || self.ends_with_accepted
    }

    fn is_enough(&self) -> bool {
        self.sizes.len() >= COMPARED_MIN || self.ends_with_accepted
    }
}

/// The verdict of the shrink guard, as the manifest holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShrinkGuard {
    /// Too few backups before this one, or nothing that both of them count.
    #[default]
    NotChecked,
    Passed(Comparison),
    Suspect(Comparison),
}

/// A backup beside the median of so many before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Comparison {
    pub compared: usize,
    pub percent_min: u8,
    pub keys: Option<Change>,
    pub bytes: Option<Change>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Change {
    pub median: u64,
    pub now: u64,
}

impl Change {
    fn is_below(self, percent_min: u8) -> bool {
        u128::from(self.now) * 100 < u128::from(self.median) * u128::from(percent_min)
    }
}

/// What shrank, for people.
impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { compared, percent_min, keys, bytes } = self;
        let shrunk =
            [(keys, "keys"), (bytes, "bytes of RDB")].into_iter().filter_map(|(change, noun)| {
                let Change { median, now } =
                    change.filter(|change| change.is_below(*percent_min))?;
                Some(format!("{noun} shrank from {median} to {now}"))
            });
        let shrunk: Vec<String> = shrunk.collect();
        let backups = if *compared == 1 { "good backup" } else { "good backups" };
        write!(
            f,
            "{}, below {percent_min} % of the median of the last {compared} {backups}",
            shrunk.join(" and ")
        )
    }
}

pub fn judge(now: Size, baseline: &Baseline, limit: Limit) -> ShrinkGuard {
    let sizes = &baseline.sizes;
    if limit.percent_min == 0 || !baseline.is_enough() {
        return ShrinkGuard::NotChecked;
    }
    let change = |of: fn(&Size) -> Option<u64>| {
        let known = sizes.iter().map(of).collect::<Option<Vec<u64>>>()?;
        Some(Change { median: median(known)?, now: of(&now)? })
    };
    let comparison = Comparison {
        compared: sizes.len(),
        percent_min: limit.percent_min,
        keys: change(|size| size.keys),
        bytes: change(|size| size.bytes),
    };
    let changes = [comparison.keys, comparison.bytes];
    if changes.iter().all(Option::is_none) {
        ShrinkGuard::NotChecked
    } else if changes.iter().flatten().any(|change| change.is_below(limit.percent_min)) {
        ShrinkGuard::Suspect(comparison)
    } else {
        ShrinkGuard::Passed(comparison)
    }
}

/// Of an even number, the lower of the two in the middle.
fn median(mut values: Vec<u64>) -> Option<u64> {
    values.sort_unstable();
    values.get(values.len().checked_sub(1)? / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(keys: u64, bytes: u64) -> Size {
        Size { keys: Some(keys), bytes: Some(bytes) }
    }

    fn baseline(keys: &[u64]) -> Baseline {
        let sizes = keys.iter().map(|&keys| size(keys, keys * 100)).collect();
        Baseline { sizes, ends_with_accepted: false }
    }

    #[track_caller]
    fn check(before: &[u64], now: Size, is_suspect: bool) {
        let judged = judge(now, &baseline(before), Limit::default());
        assert_eq!(matches!(judged, ShrinkGuard::Suspect(_)), is_suspect, "{judged:?}");
        assert_ne!(judged, ShrinkGuard::NotChecked);
    }

    #[test]
    fn less_than_half_of_the_usual_keys_or_bytes_is_suspect() {
        check(&[100, 100, 100], size(50, 5000), false);
        check(&[100, 100, 100], size(49, 5000), true);
        check(&[100, 100, 100], size(100, 4999), true);
        check(&[100, 100, 100], size(0, 0), true);
        check(&[0, 0, 0], size(0, 0), false);
    }

    #[test]
    fn one_odd_backup_does_not_move_the_median() {
        check(&[1, 100, 100, 100, 100], size(49, 9000), true);
        check(&[100_000, 100, 100, 100, 90], size(60, 9000), false);
    }

    #[test]
    fn too_few_backups_say_nothing_but_an_accepted_one_does() {
        let now = size(1, 1);
        assert_eq!(judge(now, &baseline(&[100, 100]), Limit::default()), ShrinkGuard::NotChecked);
        let accepted = Baseline { ends_with_accepted: true, ..baseline(&[100]) };
        assert!(matches!(judge(now, &accepted, Limit::default()), ShrinkGuard::Suspect(_)));
        assert!(accepted.is_complete() && !baseline(&[1, 2, 3, 4]).is_complete());
    }

    #[test]
    fn what_cannot_be_counted_is_not_compared() {
        let unread = |bytes| Size { keys: None, bytes: Some(bytes) };
        check(&[100, 100, 100], unread(10_000), false);
        check(&[100, 100, 100], unread(10), true);
        let nothing = Size { keys: None, bytes: None };
        let judged = judge(nothing, &baseline(&[1, 1, 1]), Limit::default());
        assert_eq!(judged, ShrinkGuard::NotChecked);
    }

    #[test]
    fn the_guard_can_be_turned_off() {
        let judged = judge(size(0, 0), &baseline(&[9, 9, 9]), Limit { percent_min: 0 });
        assert_eq!(judged, ShrinkGuard::NotChecked);
    }

    #[test]
    fn a_suspect_backup_tells_what_shrank_from_what_to_what() {
        let judged = judge(size(10, 9000), &baseline(&[100, 100, 100]), Limit::default());
        let ShrinkGuard::Suspect(comparison) = judged else { unreachable!("{judged:?}") };
        assert_eq!(
            comparison.to_string(),
            "keys shrank from 100 to 10, below 50 % of the median of the last 3 good backups"
        );
    }
}
