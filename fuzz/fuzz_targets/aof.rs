//! Any bytes, in any pieces, are an append-only file or an error; what is called whole is whole when the rest is cut away.
#![no_main]

use libfuzzer_sys::fuzz_target;
use redis_backup::domain::{
    aof::{Scanned, Scanner},
    rdb::Expectations,
};

mod pieces;

fuzz_target!(|bytes: &[u8]| {
    let whole = scan([bytes]);
    assert_eq!(scan(pieces::of(bytes)), whole, "it depends on how it is cut");
    let Ok(Scanned { facts, .. }) = whole else { return };
    assert_eq!(facts.bytes, bytes.len() as u64);
    let end = usize::try_from(facts.whole_bytes).expect("no more than there are");
    let cut = scan([&bytes[..end]]).expect("what is whole is no error").facts;
    assert_eq!(cut.whole_bytes, facts.whole_bytes, "cut to what is whole, it is not whole");
    assert_eq!((cut.commands, &cut.databases), (facts.commands, &facts.databases));
});

fn scan<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Scanned, String> {
    let mut scanner = Scanner::new(&Expectations::default());
    let mut before = 0;
    for piece in pieces {
        if let Err(error) = scanner.feed(piece) {
            let again = scanner.feed(b"x").expect_err("an error stays");
            assert_eq!(again, error, "after an error every call gives the same one");
            return Err(error.to_string());
        }
        assert!(scanner.whole_bytes() >= before, "what was whole is so no more");
        before = scanner.whole_bytes();
    }
    scanner.finish().map_err(|error| error.to_string())
}
