//! Compares the model of the runtimes' command lines with the runtimes.
//!
//! Random words are given to `create`, in a directory without a `config.json` and
//! with bundles that do not exist, so that every attempt ends when the runtime
//! enters its bundle; its message tells which one that was.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use lockc::runtime::cmdline::{CmdlineError, Dialect, Verb, parse};
use proptest::{
    prelude::*,
    strategy::ValueTree as _,
    test_runner::{Config, TestRunner},
};

/// Which bundle the runtime went for; `None` if it refused the command line.
type Seen = Option<Option<PathBuf>>;

fn words() -> impl Strategy<Value = Vec<String>> {
    let bundle = prop_oneof![
        Just("/nowhere/a"),
        Just("/nowhere/b"),
        Just("id"),
        Just("create"),
        Just("--no-pivot"),
        Just("-"),
        Just("--"),
    ];
    let word = prop_oneof![
        8 => prop_oneof![
            Just("--bundle"), Just("-b"), Just("-bundle"), Just("--bun"), Just("--bundle=/nowhere/c"),
            Just("-b=/nowhere/d"), Just("-b/nowhere/e"), Just("--bundle="), Just("--bundle=--")
        ],
        6 => bundle,
        6 => prop_oneof![
            Just("--no-pivot"), Just("-no-pivot"), Just("--no-new-keyring"), Just("--no-pivot=false"),
            Just("--pid-file"), Just("--pid-file=x"), Just("-pid-file"), Just("--pid"),
            Just("--preserve-fds"), Just("--preserve-fds=1"), Just("1"), Just("--console-socket"),
            Just("--unheard-of"), Just("--help=false"), Just("--n")
        ],
        2 => Just("id2"),
    ];
    let free = prop::collection::vec(word.prop_map(str::to_owned), 0..7);
    (free, any::<bool>()).prop_map(|(mut words, id)| {
        if id {
            words.push("id".to_owned());
        }
        words
    })
}

fn run(runtime: &str, dir: &Path, line: &[String]) -> String {
    let output = Command::new(runtime).args(line).current_dir(dir).output().unwrap();
    assert!(!output.status.success() || !output.stdout.is_empty(), "{line:?} succeeded");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// `chdir PATH: …` and `specification file config.json not found` (runc 1.1).
fn seen_by_runc(message: &str) -> Seen {
    let at = |start: &str, end: &str| {
        let (_, rest) = message.split_once(start)?;
        rest.split_once(end).map(|(path, _)| PathBuf::from(path))
    };
    if let Some(path) = at("chdir ", ": no such file") {
        return Some(Some(path));
    }
    message.contains("config.json not found").then_some(None)
}

/// ``chdir `PATH` failed``, ``realpath `PATH` failed`` and ``open `config.json` ``
/// (crun 1.8).
fn seen_by_crun(message: &str) -> Seen {
    for start in ["chdir `", "realpath `"] {
        if let Some((_, rest)) = message.split_once(start) {
            let (path, _) = rest.split_once('`').unwrap();
            return Some(Some(path.into()));
        }
    }
    message.contains("`config.json`").then_some(None)
}

fn compare(runtime: &str, dialect: Dialect, seen: fn(&str) -> Seen) {
    let version = Command::new(runtime).arg("--version").output();
    assert!(
        version.is_ok(),
        "cannot run {runtime} to compare with: `cargo xtask setup` installs it"
    );
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root").to_str().unwrap().to_owned();
    let cases = std::env::var("LOCKC_CASES").map_or(150, |cases| cases.parse().unwrap());
    let mut runner =
        TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(cases) });
    let mut understood = 0;
    runner
        .run(&words(), |words| {
            let mut line = vec!["--root".to_owned(), root.clone(), "create".to_owned()];
            line.extend(words);
            let message = run(runtime, dir.path(), &line);
            let argv: Vec<Vec<u8>> =
                [runtime.to_owned()].iter().chain(&line).map(|word| word.clone().into()).collect();
            let model = parse(dialect, &argv, false);
            let bundle = match &model {
                Ok(invocation) => match &invocation.verb {
                    Verb::Create(target) => Some(target.bundle.clone()),
                    _ => None,
                },
                Err(_) => None,
            };
            // What versions of a runtime read differently is an error. A bad id is one to both,
            // but the runtimes look for the bundle first, also for one with an empty name.
            let excused =
                matches!(model, Err(CmdlineError::Ambiguous | CmdlineError::BadId { .. }))
                    || message.contains("realpath ``");
            if let Some(seen) = seen(&message).filter(|_| !excused) {
                prop_assert_eq!(
                    bundle,
                    Some(seen),
                    "{:?}: {:?}; it says: {}",
                    line,
                    model,
                    message
                );
            }
            Ok(())
        })
        .unwrap();
    // The words must not be so odd that nothing is compared.
    for _ in 0..1000 {
        let words = words().new_tree(&mut runner).unwrap().current();
        let mut argv = vec![runtime.into(), b"create".to_vec()];
        argv.extend(words.into_iter().map(Vec::from));
        understood += usize::from(parse(dialect, &argv, false).is_ok());
    }
    assert!(understood > 50, "only {understood} of 1000 lines are understood");
}

#[test]
fn runc() {
    compare("runc", Dialect::Runc, seen_by_runc);
}

#[test]
fn crun() {
    compare("crun", Dialect::Crun, seen_by_crun);
}
