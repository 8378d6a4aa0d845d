//! How numbers are shown to people.

use bytesize::ByteSize;
use jiff::Timestamp;

pub(crate) fn bytes(bytes: u64) -> String {
    ByteSize(bytes).display().iec().to_string()
}

/// Thousands apart: `2 500 000` reads better than `2500000` at 3 a.m.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// `1 key`, `20 011 keys`.
pub(crate) fn counted(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(number), if number == 1 { "" } else { "s" })
}

/// None where a shard's RDB is newer than this program.
pub(crate) fn keys(keys: Option<u64>) -> String {
    keys.map_or("an unknown number of keys".to_owned(), |number| counted(number, "key"))
}

/// To the second, in UTC, as the ids of backups are.
pub(crate) fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

pub(crate) fn seconds(seconds: f64) -> String {
    if seconds < 60.0 {
        format!("{seconds:.1} s")
    } else {
        let minutes = (seconds / 60.0).floor();
        format!("{minutes:.0} min {:.0} s", seconds - minutes * 60.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(2_500_000), "2 500 000");
        assert_eq!(counted(1, "key"), "1 key");
        assert_eq!(counted(20_011, "key"), "20 011 keys");
        assert_eq!(bytes(64 << 20), "64.0 MiB");
        assert_eq!(seconds(2.04), "2.0 s");
        assert_eq!(seconds(125.0), "2 min 5 s");
    }
}
