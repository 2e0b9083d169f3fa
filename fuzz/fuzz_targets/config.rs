//! Contents of `lockc.toml`.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use lockc::config::{Config, ConfigError};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(error) = Config::parse(text, Path::new("lockc.toml")) {
        assert!(error.to_string().starts_with("lockc.toml:"));
        let ConfigError::Invalid(report) = error else { panic!("{error}") };
        assert!(report.is_fatal());
    }
});
