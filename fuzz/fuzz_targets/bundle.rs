//! Contents of `config.json`.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use lockc::{
    config::Config,
    runtime::{
        bundle::parse,
        cmdline::{Dialect, parse as parse_cmdline},
        plan::{Action, Plan, plan},
    },
};

fuzz_target!(|data: &[u8]| {
    match parse(data, Path::new("config.json")) {
        Ok(facts) => {
            let config = Config::default();
            let words = [b"runc".to_vec(), b"create".to_vec(), b"c".to_vec()];
            let Ok(invocation) = parse_cmdline(Dialect::Runc, &words, false) else { return };
            let Plan::New(new) = plan(invocation, nix::unistd::Uid::from_raw(0)) else { return };
            match new.admit(&facts, "runc", &config) {
                // A label may ask for more.
                Action::Create { decision, .. } => assert!(config.policy(&decision.policy).is_some()),
                action => assert!(matches!(action, Action::Deny { .. })),
            }
        }
        Err(error) => assert!(error.to_string().contains("config.json")),
    }
});
