//! What runtimes, those of users too, write about their containers. The first byte says which file
//! it is.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use lockc::runtime::{
    cmdline::Dialect,
    state::{FILES, understand},
};

fuzz_target!(|data: &[u8]| {
    let Some((first, json)) = data.split_first() else { return };
    let name = FILES[usize::from(*first == b'c')];
    let path = Path::new("/run/runtime/id").join(name);
    match understand(json, name, path) {
        Ok(state) => {
            assert_eq!(state.dialect == Dialect::Crun, name == "status");
            let bundle = state.bundle.to_str().expect("text");
            assert!(bundle.starts_with('/') && bundle.len() <= 4096 && !bundle.contains('\0'));
            // As crun or youki write it.
            let json = serde_json::json!({ "bundle": bundle }).to_string();
            let again = understand(json.as_bytes(), name, "/s".into());
            assert_eq!(again.expect("understood").bundle, state.bundle);
        }
        Err(error) => {
            let error = error.to_string();
            assert!(error.contains("/run/runtime/id/"), "{error}");
            assert!(!error.contains(char::is_control), "{error:?}");
        }
    }
});
