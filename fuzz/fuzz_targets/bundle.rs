//! Contents of `config.json`.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use lockc::{
    config::Config,
    policy::{Subject, decide},
    runtime::bundle::parse,
};

fuzz_target!(|data: &[u8]| {
    match parse(data, Path::new("config.json")) {
        Ok(facts) => {
            let config = Config::default();
            let owner = nix::unistd::Uid::from_raw(0);
            let decision = decide(Subject { owner, facts: &facts }, &config);
            assert_eq!(decision.policy, config.default.policy);
        }
        Err(error) => assert!(error.to_string().contains("config.json")),
    }
});
