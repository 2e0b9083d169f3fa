//! Contents of `config.json`.
#![no_main]

use std::{error::Error as _, path::Path};

use libfuzzer_sys::fuzz_target;
use lockc::{
    config::Config,
    runtime::{
        bundle::parse,
        cmdline::{Dialect, parse as parse_cmdline},
        engine::{BundlePlace, Keeper, Records, identity},
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
            let place = BundlePlace { path: "/b".into(), keeper: Keeper::Root };
            let identity = identity(&facts, &place, &new.target.id, &Records::default());
            match new.admit(&facts, identity, "runc", &config) {
                // A label may ask for more.
                Action::Create { decision, .. } => {
                    assert!(config.policy(&decision.policy).is_some())
                }
                Action::Deny { why } => assert!(!why.contains(char::is_control), "{why:?}"),
                action => panic!("{action:?}"),
            }
        }
        Err(error) => {
            assert!(error.to_string().contains("config.json"));
            let source = error.source().map(ToString::to_string).unwrap_or_default();
            assert!(!source.contains(char::is_control), "{source:?}");
        }
    }
});
