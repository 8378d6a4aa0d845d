//! Any text is a configuration or one error that names its place; never a panic.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use redis_backup::settings::Settings;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = str::from_utf8(bytes) else { return };
    match Settings::parse(Path::new("config.yaml"), text) {
        Ok(settings) => {
            for name in settings.source_names() {
                let _ = settings.location(&name);
                let _ = settings.forms_of(&name);
                let _ = settings.server_binary(&name);
            }
            for store in settings.schedules().flat_map(|schedule| schedule.store_names()) {
                let _ = settings.store(&store);
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
