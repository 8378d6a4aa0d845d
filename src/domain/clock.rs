//! How far clocks may differ. Decides from moments; never looks at a clock.

use jiff::{SignedDuration, Timestamp};

const WARN_BEYOND: SignedDuration = SignedDuration::from_secs(60);
const REFUSE_BEYOND: SignedDuration = SignedDuration::from_mins(10);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Skew {
    Fine,
    /// Worth a word; ids and schedules are a little off.
    Warn(String),
    /// Backups would be sorted and expired wrongly.
    Refuse(String),
}

/// `who` names the other clock, such as "the store".
pub fn compare(who: &str, theirs: Timestamp, ours: Timestamp) -> Skew {
    let skew = theirs.duration_since(ours);
    let text = || {
        let direction = if skew.is_negative() { "behind" } else { "ahead of" };
        format!("the clock of {who} is {} s {direction} ours", skew.abs().as_secs())
    };
    if skew.abs() > REFUSE_BEYOND {
        Skew::Refuse(text())
    } else if skew.abs() > WARN_BEYOND {
        Skew::Warn(text())
    } else {
        Skew::Fine
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_is_fine_more_is_told_and_ten_refuse() {
        let ours: Timestamp = "2026-11-20T02:00:00Z".parse().unwrap();
        let at = |seconds| compare("x", ours + SignedDuration::from_secs(seconds), ours);
        assert_eq!(at(60), Skew::Fine);
        assert_eq!(at(-61), Skew::Warn("the clock of x is 61 s behind ours".to_owned()));
        assert_eq!(at(601), Skew::Refuse("the clock of x is 601 s ahead of ours".to_owned()));
    }
}
