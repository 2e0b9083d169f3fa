use std::fmt::Write as _;
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use super::*;

const EXAMPLE: &str = include_str!("../../../examples/config/lockc.toml");

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new("lockc.toml")).map_err(|error| error.to_string())
}

#[test]
fn the_shipped_file_says_what_is_built_in() {
    let mut config = parse(EXAMPLE).unwrap();
    assert_eq!(config, Config::default());
    // Each key of it has an effect of its own: none is only there for show.
    config.daemon.decision_timeout += Duration::from_millis(1);
    assert_ne!(config, Config::default());
}

#[test]
fn an_empty_file_means_the_built_in_values() {
    assert_eq!(parse("").unwrap(), Config::default());
    assert_eq!(parse("[daemon]\n[default]\n").unwrap(), Config::default());
}

/// The rules that the shipped file shows as comments.
#[test]
fn the_shipped_examples_are_right() {
    let start = EXAMPLE.find("# [[rule]]").unwrap();
    let rules: String = EXAMPLE[start..]
        .lines()
        .map(|line| line.trim_start_matches(['#', ' ']))
        .collect::<Vec<_>>()
        .join("\n");
    let config = parse(&rules).unwrap();
    let names: Vec<&str> = config.rules.iter().map(|rule| rule.name.as_str()).collect();
    assert_eq!(names, ["monitoring", "kiosk"]);
    assert_eq!(config.rules[0].matches.annotations.len(), 2);
}

#[test]
fn every_key_counts() {
    let config = parse(
        r#"
        [daemon]
        log_level = "trace"
        log_format = "json"
        on_error = "deny"
        decision_timeout_ms = 0x64

        [[runtime]]
        name = "runsc"
        paths = ["/opt/*/runsc"]

        [default]
        policy = "restricted"
        mode = "audit"

        [[rule]]
        name = "a"
        policy = "privileged"
        match.annotation."k.v/x" = "v*"
        "#,
    )
    .unwrap();
    assert_eq!(
        config.daemon,
        Daemon {
            log_level: LevelFilter::Trace,
            log_format: LogFormat::Json,
            on_error: OnError::Deny,
            decision_timeout: Duration::from_millis(100),
        }
    );
    let [runtime] = &config.runtimes[..] else { panic!("the list is replaced as a whole") };
    assert_eq!(
        (runtime.name.as_str(), &runtime.paths[..]),
        ("runsc", &["/opt/*/runsc".into()][..])
    );
    assert_eq!(config.default, Fallback { policy: Level::Restricted, mode: Mode::Audit });
    assert!(config.rules[0].matches.annotations["k.v/x"].is_match("v/w"));
    assert!(!config.rules[0].matches.annotations["k.v/x"].is_match("w"));
}

/// Each file in `tests/config` beside its expected report. `BLESS=1` writes the
/// reports anew.
#[test]
fn reports() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config");
    let mut files: Vec<PathBuf> = fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let name = Path::new(file.file_name().unwrap());
        let report = Config::parse(&text, name).expect_err("it is wrong").to_string() + "\n";
        let expected = file.with_extension("txt");
        if std::env::var_os("BLESS").is_some() {
            fs::write(&expected, &report).unwrap();
        }
        assert_eq!(report, fs::read_to_string(&expected).unwrap_or_default(), "{}", file.display());
    }
}

#[test]
fn what_is_not_implemented_is_refused_by_name() {
    for key in ["engine", "namespace", "image", "container", "runtime", "owner", "label.\"a.b\""] {
        let text = format!("[[rule]]\nname = \"r\"\npolicy = \"baseline\"\nmatch.{key} = \"x\"\n");
        let name = key.split('.').next().unwrap();
        let error = parse(&text).unwrap_err();
        let expected = format!("`{name}` in `rule.match` is not supported yet");
        assert!(error.contains(&expected), "{error}");
    }
    let error = parse("[policy.kiosk]\nextends = \"restricted\"\n").unwrap_err();
    assert!(error.contains("`policy` is not supported yet"), "{error}");
    let error = parse("[default]\npolicy = \"offline\"\n").unwrap_err();
    assert!(error.contains("policy `offline` is not supported yet"), "{error}");
}

#[test]
fn files_that_are_none() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lockc.toml");
    let load = || Config::load(&path).unwrap_err().to_string();
    assert_eq!(
        load(),
        format!(
            "{} does not exist; install the one that lockc ships (examples/config/lockc.toml), or \
             name another with --config",
            path.display()
        )
    );
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).unwrap();
    assert_eq!(load(), format!("{} is not a regular file", path.display()));
    fs::remove_file(&path).unwrap();
    fs::write(&path, " ".repeat(1 << 20)).unwrap();
    assert_eq!(Config::load(&path).unwrap(), Config::default());
    fs::write(&path, " ".repeat((1 << 20) + 1)).unwrap();
    assert_eq!(load(), format!("{} is longer than 1048576 bytes", path.display()));
    fs::write(&path, b"# x\n a\xff").unwrap();
    assert_eq!(load(), format!("{} is not UTF-8 at line 2, byte 3", path.display()));

    fs::write(&path, "").unwrap();
    let more = dir.path().join("lockc.d");
    fs::create_dir(&more).unwrap();
    assert_eq!(Config::load(&path).unwrap(), Config::default());
    fs::write(more.join("10-x.toml"), "").unwrap();
    assert!(load().contains("10-x.toml exists, but reading more than one file is not supported"));
}

/// As long and as deep as a file can be.
/// As many unknown keys.
fn lines(count: usize) -> String {
    let mut text = String::new();
    for n in 0..count {
        writeln!(text, "k{n:06}=1").unwrap();
    }
    text
}

#[test]
fn large_files_do_no_harm() {
    let most = usize::try_from(MAX_LEN).unwrap();
    let deep = most / 2 - 8;
    for text in [
        format!("{}a = 1", "a.".repeat(deep)),
        format!("[{}a]", "a.".repeat(deep)),
        format!("a = {}{}", "[".repeat(deep), "]".repeat(deep)),
        format!("a = {}", "{a=".repeat(most / 3 - 8)),
        "[".repeat(most),
        "[[rule]]\n".repeat(most / 9),
        lines(most / 10),
        "\u{e4}".repeat(most / 2),
    ] {
        let start = std::time::Instant::now();
        let message = parse(&text).unwrap_err();
        assert!(message.len() < 64 << 10, "{} bytes", message.len());
        // Seconds at most, in a debug build: what this is after is quadratic.
        let elapsed = start.elapsed();
        assert!(elapsed < Duration::from_secs(20), "{elapsed:?} for {}…", &text[..8]);
    }
    assert!(parse(&lines(100)).unwrap_err().ends_with("\nlockc.toml: 36 more problems"));
}

proptest::proptest! {
    #[test]
    fn never_panics(text in "([\\[\\]a-z=\".{}#\n_*ä-]|rule|match\\.|name|policy|paths){0,40}") {
        let _ = parse(&text);
    }
}
