//! What is shipped for fleets goes with what lockc is: figures and keys that there are, a configuration that is usable.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use lockc::{
    config::{Checked, Config, Source},
    event::record::Record,
    policy::Mode,
    state::{Bucket, Container, Gate, Status, metrics},
};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

fn read(path: impl AsRef<Path>) -> String {
    let path = examples().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

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
    for file in ["prometheus/alerts.yml", "prometheus/alerts.test.yml", "grafana/lockc.json"] {
        let asked = names(&read(file));
        assert!(asked.len() > 6, "{file}: {asked:?}");
        let unknown: Vec<_> = asked.difference(&known).collect();
        assert!(unknown.is_empty(), "{file} asks for {unknown:?}");
    }
}

#[test]
fn figures_are_documented() {
    let known = names(&metrics::text(&Status::default(), &[]));
    let documented = names(&read("../docs/operations.md"));
    // Of a family the documents name its samples.
    let is_documented = |name: &String| documented.iter().any(|it| it.starts_with(name.as_str()));
    let missing: Vec<_> = known
        .iter()
        .filter(|name| !is_documented(name) && !is_documented(&format!("{name}_total")))
        .filter(|name| !["_sum", "_count"].iter().any(|end| name.ends_with(end)))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// The text below the first `content: |` of a file.
fn content(file: &str) -> String {
    let text = read(file);
    let mut lines =
        text.lines().skip_while(|line| line.trim_start() != "content: |").skip(1).peekable();
    let indent = lines.peek().map_or(0, |line| line.len() - line.trim_start().len());
    lines
        .map_while(|line| {
            line.split_at_checked(indent).filter(|(blank, _)| blank.trim().is_empty())
        })
        .flat_map(|(_, line)| [line, "\n"])
        .collect()
}

/// The drop-ins that cloud-init and Ansible write, beside the shipped file.
#[test]
fn drop_ins_are_usable() {
    for file in ["cloud-init/lockc.yaml", "ansible/inventory.yml"] {
        let source = |path: &str, text: String| Source { path: path.into(), text };
        let sources = vec![
            source("lockc.toml", read("config/lockc.toml")),
            source("lockc.d/fleet.toml", content(file)),
        ];
        let config = Checked::new(sources).usable().unwrap();
        assert_eq!(config.mode(&config.default.policy, None), Mode::Audit, "{file}");
    }
}

/// An event with every key.
fn full() -> Record {
    let text = || Some("text".to_owned());
    Record {
        schema: 1,
        id: "1".into(),
        time: "2026-01-31T12:00:00.000000Z".into(),
        verdict: "denied".into(),
        operation: "open".into(),
        container: "c1".into(),
        policy: "baseline".into(),
        mode: text(),
        path: text(),
        path_cut: true,
        address: Some(([127, 0, 0, 1], 80).into()),
        family: text(),
        detail: Some(1),
        pid: 1,
        tid: 1,
        comm: "cat".into(),
        runtime: text(),
        why: text(),
        engine: text(),
        name: text(),
        image: text(),
    }
}

fn keys() -> BTreeSet<String> {
    let json = serde_json::to_value(full()).unwrap();
    json.as_object().unwrap().keys().cloned().collect()
}

/// What stands between `begin` and `end`, wherever that is.
fn between<'a>(text: &'a str, begin: &str, end: &str) -> BTreeSet<&'a str> {
    text.split(begin).skip(1).filter_map(|rest| Some(rest.split_once(end)?.0.trim())).collect()
}

#[test]
fn collectors_are_tried_with_every_key() {
    let text = read("../xtask/src/examples/rsyslog.py");
    let (_, list) = text.split_once("KEYS = [").unwrap();
    let tried = list.split(']').next().unwrap().split('"').skip(1).step_by(2);
    assert_eq!(tried.map(str::to_owned).collect::<BTreeSet<_>>(), keys());
}

#[test]
fn collectors_name_keys_that_there_are() {
    let known = keys();
    let rsyslog = read("rsyslog/lockc.conf");
    let vector = read("vector/lockc.yaml");
    let fluent_bit = read("fluent-bit/lockc.yaml");
    for (file, named, added) in [
        ("rsyslog", between(&rsyslog, "set $!", " "), ["host", "unparsed"].as_slice()),
        ("vector's labels", between(&vector, "{{ ", " }}"), &["host"]),
        ("vector's time", between(&vector, "parse_timestamp!(.", ","), &[]),
        ("fluent-bit", between(&fluent_bit, "time_key: ", "\n"), &[]),
    ] {
        assert!(!named.is_empty(), "{file} names no key");
        for key in named {
            let is_added = added.contains(&key);
            assert!(is_added || known.contains(key), "{file}: {key}");
            // What a collector adds must not be a key of lockc's.
            assert!(!is_added || !known.contains(key), "{file} replaces {key}");
        }
    }
}

#[test]
fn collectors_read_the_file_of_events() {
    let file = Config::default().events.file;
    let file = file.to_str().unwrap();
    for (name, begin, end) in [
        ("rsyslog/lockc.conf", "input(type=\"imfile\" file=\"", "\""),
        ("vector/lockc.yaml", "include: [", ","),
        ("fluent-bit/lockc.yaml", " path: ", "\n"),
    ] {
        assert_eq!(between(&read(name), begin, end), BTreeSet::from([file]), "{name}");
    }
    let python = format!("EVENTS = pathlib.Path(\"{file}\")");
    assert!(read("../xtask/src/examples/rsyslog.py").contains(&python), "{python}");
}

#[test]
fn events_are_documented() {
    let docs = read("../docs/operations.md");
    let (_, events) = docs.split_once("## Events").unwrap();
    let events = events.split("\n## ").next().unwrap();
    let missing: Vec<_> =
        keys().into_iter().filter(|key| !events.contains(&format!("`{key}`"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// Ansible does not compare them.
#[test]
fn variables_of_the_role_are_described() {
    let variables = |file: &str, indent: &str| -> BTreeSet<String> {
        let text = read(Path::new("ansible/roles/lockc").join(file));
        let begin = format!("{indent}lockc_");
        text.lines()
            .filter(|line| line.starts_with(&begin))
            .filter_map(|line| Some(line.trim().split_once(':')?.0.to_owned()))
            .collect()
    };
    let described = variables("meta/argument_specs.yml", "      ");
    assert!(described.len() > 5, "{described:?}");
    assert_eq!(variables("defaults/main.yml", ""), described);
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
