//! Any bytes, in any pieces, are an RDB or an error; never a panic, and never one thing whole and another in pieces.
#![no_main]

use libfuzzer_sys::fuzz_target;
use redis_backup::domain::rdb::{Expectations, Scanned, Scanner, SlotRange};

mod pieces;

fuzz_target!(|bytes: &[u8]| {
    let expectations = Expectations {
        slots: vec![SlotRange { first: 0, last: 8191 }],
        biggest_keys_max: usize::from(bytes.last().copied().unwrap_or(0) % 8),
    };
    let whole = scan([bytes], &expectations);
    assert_eq!(scan(pieces::of(bytes), &expectations), whole, "it depends on how it is cut");
});

fn scan<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
    expectations: &Expectations,
) -> Result<Scanned, String> {
    let mut scanner = Scanner::new(expectations);
    for piece in pieces {
        if let Err(error) = scanner.feed(piece) {
            let again = scanner.feed(b"x").unwrap_err();
            assert_eq!(again, error, "after an error every call gives the same one");
            return Err(error.to_string());
        }
    }
    scanner.finish().map_err(|error| error.to_string())
}
