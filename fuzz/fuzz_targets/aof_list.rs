//! Any bytes are a list of append-only files or an error; one that is read is read again as it is written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use redis_backup::domain::aof::list::{FileList, check_name};

fuzz_target!(|bytes: &[u8]| {
    let Ok(list) = FileList::parse(bytes) else { return };
    for file in list.files() {
        check_name(&file.name).expect("only plain names are taken");
    }
    let text = list.encode();
    let again = FileList::parse(text.as_bytes()).expect("what is written can be read");
    assert_eq!(again.encode(), text);
    assert!(again.load_order().eq(list.load_order()), "the order of loading changed");
});
