//! What is shipped for fleets goes with what lockc is: figures that there are, a configuration that is usable.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{collections::BTreeSet, fs, path::Path};

use lockc::{
    config::{Checked, Source},
    policy::Mode,
    state::{Bucket, Container, Gate, Status, metrics},
};

/// Names that begin like lockc's figures.
fn names(text: &str) -> BTreeSet<String> {
    let is_part = |char: char| char.is_ascii_alphanumeric() || char == '_';
    let words = text.split(|char| !is_part(char));
    words.filter(|word| word.starts_with("lockc_")).map(str::to_owned).collect()
}

#[test]
fn alerts_and_dashboards_ask_for_figures_that_there_are() {
    let gate = Gate { buckets: vec![Bucket::default()], ..Gate::default() };
    let status = Status { gate, ..Status::default() };
    let known = names(&metrics::text(&status, &[Container::default()]));
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    for file in ["prometheus/alerts.yml", "grafana/lockc.json"] {
        let asked = names(&fs::read_to_string(examples.join(file)).unwrap());
        assert!(asked.len() > 6, "{file}: {asked:?}");
        let unknown: Vec<_> = asked.difference(&known).collect();
        assert!(unknown.is_empty(), "{file} asks for {unknown:?}");
    }
}

#[test]
fn figures_are_documented() {
    let known = names(&metrics::text(&Status::default(), &[]));
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations.md");
    let documented = names(&fs::read_to_string(docs).unwrap());
    // Of a family the documents name its samples.
    let is_documented = |name: &String| documented.iter().any(|it| it.starts_with(name.as_str()));
    let missing: Vec<_> = known
        .iter()
        .filter(|name| !is_documented(name) && !is_documented(&format!("{name}_total")))
        .filter(|name| !["_sum", "_count"].iter().any(|end| name.ends_with(end)))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// The drop-in that cloud-init writes, beside the shipped file.
#[test]
fn the_drop_in_of_cloud_init_is_usable() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let snippet = fs::read_to_string(examples.join("cloud-init/lockc.yaml")).unwrap();
    let block = snippet.lines().skip_while(|line| line.trim() != "content: |").skip(1);
    let text: String =
        block.map_while(|line| line.strip_prefix("      ")).flat_map(|line| [line, "\n"]).collect();
    let shipped = fs::read_to_string(examples.join("config/lockc.toml")).unwrap();
    let source = |path: &str, text: String| Source { path: path.into(), text };
    let sources = vec![source("lockc.toml", shipped), source("lockc.d/fleet.toml", text)];
    let config = Checked::new(sources).usable().unwrap();
    assert_eq!(config.mode(&config.default.policy, None), Mode::Audit);
}

/// systemd breaks a cycle at boot by not starting one of its units. A service without `DefaultDependencies=no` comes after
/// `basic.target`, and that after every socket.
#[test]
fn the_unit_comes_before_no_socket() {
    let unit = include_str!("../../deb/lockc.service");
    let lines = unit.lines().filter_map(|line| line.strip_prefix("Before="));
    let before: Vec<_> = lines.flat_map(str::split_whitespace).collect();
    assert!(before.contains(&"docker.service"), "{before:?}");
    assert!(!before.iter().any(|unit| unit.ends_with(".socket")), "{before:?}");
}
