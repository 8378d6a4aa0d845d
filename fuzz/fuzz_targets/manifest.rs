//! Any bytes are a manifest or an error; one that is read is the same when it is written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use redis_backup::domain::manifest::Manifest;

fuzz_target!(|bytes: &[u8]| {
    let Ok(manifest) = Manifest::decode(bytes) else { return };
    let _ = (manifest.keys(), manifest.stored_bytes(), manifest.is_encrypted());
    let text = manifest.encode().expect("what was read can be written");
    let again = Manifest::decode(&text).expect("what is written can be read");
    assert_eq!(again, manifest);
});
