//! Judges bundles that engines wrote (`tests/bundles/README.md`).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::{fmt::Write as _, fs, path::Path};

use lockc::{
    policy::admission::{Admission, Handling, Standard, evaluate},
    runtime::bundle::parse,
};

/// What both standards say about every bundle, as the golden files have it.
///
/// `LOCKC_BLESS=1` writes them anew.
#[test]
fn bundles_of_engines() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bundles");
    let mut engines: Vec<_> =
        fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    engines.retain(|path| path.is_dir());
    engines.sort();
    assert!(!engines.is_empty());
    for engine in engines {
        let mut bundles: Vec<_> =
            fs::read_dir(&engine).unwrap().map(|entry| entry.unwrap().path()).collect();
        bundles.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
        bundles.sort();
        let mut text = String::new();
        for bundle in &bundles {
            let facts = parse(&fs::read(bundle).unwrap(), bundle).unwrap();
            for (name, standard) in
                [("baseline", Standard::Baseline), ("restricted", Standard::Restricted)]
            {
                let what = bundle.file_stem().unwrap().to_str().unwrap();
                writeln!(text, "== {what}, {name}").unwrap();
                for finding in evaluate(&facts, &Admission::new(standard, Handling::Enforce)) {
                    let control = finding.control.name();
                    writeln!(text, "{control}: {}; {}", finding.found, finding.remedy).unwrap();
                }
            }
        }
        let golden = engine.with_extension("txt");
        if std::env::var_os("LOCKC_BLESS").is_some() {
            fs::write(&golden, &text).unwrap();
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        assert_eq!(text, expected, "{}", golden.display());
    }
}
