use std::fmt::Write as _;
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::time::{ClockId, clock_gettime};

use super::*;
use crate::bpf::backend::Backend;
use crate::policy::{
    Access, Endpoint, NetworkMode, PathRule, Verdict,
    admission::{Control, Handling, Standard},
};

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

/// The tables that the shipped file shows as comments.
#[test]
fn the_shipped_examples_are_right() {
    let mut shown = false;
    let mut tables = String::new();
    for line in EXAMPLE.lines() {
        shown = line.starts_with("# [") || (shown && line.starts_with("# "));
        if shown {
            tables.push_str(line.trim_start_matches(['#', ' ']));
            tables.push('\n');
        }
    }
    let config = parse(&tables).unwrap();
    let names: Vec<&str> = config.rules.iter().map(|rule| rule.name.as_str()).collect();
    assert_eq!(names, ["monitoring", "kiosk", "containers of users"]);
    let matches = &config.rules[0].matches;
    assert!(matches.engine.is_some() && matches.namespace.is_some() && matches.container.is_some());
    assert!(config.policies["kiosk"].run_as_non_root());
}

/// No example has a mistake or causes a warning.
#[test]
fn the_examples_are_clean() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/config");
    let mut names = Vec::new();
    for entry in fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        let Checked { config, report, .. } = Checked::read(&path).unwrap();
        assert!(config.is_some(), "{report}");
        assert!(report.places().is_empty(), "{report}");
        names.push(path.file_stem().unwrap().to_str().unwrap().to_owned());
    }
    names.sort();
    let expected =
        ["air-gapped", "audit-first", "k3s", "kiosk-docker", "lockc", "minimal", "podman-rootless"];
    assert_eq!(names, expected);
}

/// Its rules go by what users of Docker choose: such a rule counts only if its policy is not looser
/// than the default.
#[test]
fn every_rule_of_the_kiosk_counts() {
    let config = parse(include_str!("../../../examples/config/kiosk-docker.toml")).unwrap();
    let default = config.policy(&config.default.policy).unwrap();
    assert_eq!(config.rules.len(), 2);
    for rule in &config.rules {
        let policy = config.policy(&rule.policy).unwrap();
        let (mode, default_mode) = (config.mode(&rule.policy, rule.mode), config.default_mode());
        assert!(!policy.is_looser_than(mode, default, default_mode), "{}", rule.name);
    }
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
        group = 0
        backend = "modify_return"
        require_full = false

        [[runtime]]
        name = "runsc"
        paths = ["/opt/*/runsc"]

        [default]
        policy = "restricted"
        mode = "audit"

        [[rule]]
        name = "a"
        policy = "privileged"
        mode = "enforce"
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
            group: Some(0),
            backend: Wanted::Only(Backend::ModifyReturn),
            require_full: false,
        }
    );
    let [runtime] = &config.runtimes[..] else { panic!("the list is replaced as a whole") };
    assert_eq!(
        (runtime.name.as_str(), &runtime.paths[..]),
        ("runsc", &["/opt/*/runsc".into()][..])
    );
    let default = Fallback { policy: "restricted".into(), mode: Mode::Audit };
    assert_eq!(config.default, default);
    let [rule] = &config.rules[..] else { panic!() };
    assert_eq!((rule.policy.as_str(), rule.mode), ("privileged", Some(Mode::Enforce)));
    assert!(rule.matches.annotations["k.v/x"].is_match("v/w"));
    assert!(!rule.matches.annotations["k.v/x"].is_match("w"));
}

/// Every key of a policy, as the type holds it.
#[test]
fn every_key_of_a_policy_counts() {
    let config = Config::understand(
        r#"
        [policy.child]
        extends = "kiosk"
        paths.deny = ["/etc/ssl/**"]
        paths.allow = ["/run/secrets/kubernetes.io/**"]
        io_uring = "deny"
        network.deny = ["10.0.0.0/8"]

        [policy.kiosk]
        extends = "baseline"
        mode = "audit"
        run_as_non_root = true
        user_namespaces = "allow"
        io_uring = "allow"
        paths.deny = ["/root/**", "/a"]
        paths.read_only = ["/etc/**"]
        paths.allow = ["/a/b"]
        paths.default = "deny"
        host_paths.deny = ["/var/run/docker.sock"]
        network.mode = "none"
        network.deny = ["169.254.169.254/32"]
        network.allow = ["10.0.0.0/8:443"]
        network.default = "deny"
        exec.allow = ["/usr/bin/**"]
        exec.deny = ["/usr/bin/nc"]
        exec.fileless = "deny"
        exec.drift = "deny"

        [policy.kiosk.admission]
        standard = "restricted"
        seccomp = "off"
        host_paths = "enforce"
        allow_capabilities = ["CAP_NET_ADMIN"]
        allow_host_paths = ["/srv/data/**"]

        [policy.baseline]
        mode = "enforce"
        "#,
        Path::new("lockc.toml"),
    );
    let kiosk = &config.policies["kiosk"];
    let rule = |path: &str| PathRule::new(path).unwrap();
    let endpoint = |text: &str| text.parse::<Endpoint>().unwrap();
    assert_eq!((kiosk.base, kiosk.mode), (Level::Baseline, Some(Mode::Audit)));
    assert!(kiosk.run_as_non_root());
    assert_eq!((kiosk.user_namespaces(), kiosk.io_uring()), (Access::Allow, Access::Allow));
    for (path, verdict) in [
        ("/root/x", Verdict::Deny),
        ("/a", Verdict::Deny),
        ("/a/b", Verdict::Allow),
        ("/etc/x", Verdict::ReadOnly),
        ("/run/secrets/kubernetes.io", Verdict::Deny),
    ] {
        assert_eq!(kiosk.paths.verdict(&rule(path)), verdict, "{path}");
    }
    assert_eq!(kiosk.paths.default, Access::Deny);
    assert_eq!(kiosk.host_paths, [rule("/var/run/docker.sock")]);
    assert_eq!((kiosk.network.mode, kiosk.network.default), (NetworkMode::None, Access::Deny));
    assert_eq!(kiosk.network.deny, [endpoint("169.254.169.254")]);
    assert_eq!(kiosk.network.allow, [endpoint("10.0.0.0/8:443")]);
    assert_eq!(kiosk.exec.allow.as_deref(), Some(&[rule("/usr/bin")][..]));
    assert_eq!(kiosk.exec.deny, [rule("/usr/bin/nc")]);
    assert_eq!((kiosk.exec.fileless, kiosk.exec.drift), (Access::Deny, Access::Deny));
    assert_eq!(kiosk.admission.standard, Standard::Restricted);
    for (control, handling) in [
        (Control::Seccomp, Handling::Off),
        (Control::HostPaths, Handling::Enforce),
        (Control::RunAsNonRoot, Handling::Enforce),
        (Control::PrivilegeEscalation, Handling::Audit),
    ] {
        assert_eq!(kiosk.admission.handling(control), handling, "{}", control.name());
    }
    assert_eq!(kiosk.admission.capabilities, ["CAP_NET_ADMIN"]);
    assert_eq!(kiosk.admission.host_paths, ["/srv/data"]);

    // Inherited, added to, replaced.
    let child = &config.policies["child"];
    assert_eq!((child.base, child.mode), (Level::Baseline, Some(Mode::Audit)));
    assert_eq!((child.user_namespaces(), child.io_uring()), (Access::Allow, Access::Deny));
    assert_eq!(child.network.deny.len(), 2);
    assert_eq!(child.paths.verdict(&rule("/run/secrets/kubernetes.io")), Verdict::Allow);
    assert_eq!(child.paths.verdict(&rule("/etc/ssl")), Verdict::Deny);
    assert_eq!(child.admission, kiosk.admission);
    assert_eq!(config.policies["baseline"].mode, Some(Mode::Enforce));
}

/// Each file in `tests/config`, or each directory of files, beside its expected report. `BLESS=1`
/// writes the reports anew.
#[test]
fn reports() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config");
    let mut cases: Vec<PathBuf> = fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir() || path.extension().is_some_and(|it| it == "toml"))
        .collect();
    cases.sort();
    assert!(!cases.is_empty());
    for case in cases {
        let main = if case.is_dir() { case.join("lockc.toml") } else { case.clone() };
        let mut checked = Checked::read(&main).unwrap();
        checked.check_runtimes(|_| true);
        assert!(!checked.report.is_empty(), "{}", case.display());
        let report = checked.report.to_string().replace(&format!("{}/", dir.display()), "") + "\n";
        let expected = case.with_extension("txt");
        if std::env::var_os("BLESS").is_some() {
            fs::write(&expected, &report).unwrap();
        }
        assert_eq!(report, fs::read_to_string(&expected).unwrap_or_default(), "{}", case.display());
    }
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
}

#[test]
fn drop_ins() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lockc.toml");
    let rule = |name: &str| {
        format!("[[rule]]\nname = \"{name}\"\npolicy = \"restricted\"\nmatch.owner = \"{name}\"\n")
    };
    fs::write(&path, format!("[default]\npolicy = \"privileged\"\n{}", rule("1"))).unwrap();
    let more = dir.path().join(DROP_INS);
    fs::create_dir(&more).unwrap();
    let names = |config: &Config| -> Vec<String> {
        config.rules.iter().map(|rule| rule.name.clone()).collect()
    };
    assert_eq!(names(&Config::load(&path).unwrap()), ["1"]);
    fs::write(more.join("20-x.toml"), rule("3")).unwrap();
    fs::write(more.join("10-x.toml"), format!("[default]\nmode = \"audit\"\n{}", rule("2")))
        .unwrap();
    fs::write(more.join(".10-x.toml"), "not read").unwrap();
    fs::write(more.join("README"), "not read").unwrap();
    let config = Config::load(&path).unwrap();
    assert_eq!(names(&config), ["1", "2", "3"]);
    assert_eq!(config.default, Fallback { policy: "privileged".into(), mode: Mode::Audit });

    let load = || Config::load(&path).unwrap_err().to_string();
    fs::create_dir(more.join("30.toml")).unwrap();
    assert_eq!(load(), format!("{} is not a regular file", more.join("30.toml").display()));
    fs::remove_dir(more.join("30.toml")).unwrap();
    for n in 0..=MAX_DROP_INS {
        fs::write(more.join(format!("{n}.toml")), "").unwrap();
    }
    assert_eq!(load(), format!("{} has more than {MAX_DROP_INS} files", more.display()));
    fs::remove_dir_all(&more).unwrap();
    fs::write(&more, "").unwrap();
    assert!(load().starts_with("cannot read"), "a file where the directory should be");
}

/// A chain of policies that each add as many paths as they can.
#[test]
fn path_rules_are_bounded() {
    let mut text = String::new();
    for n in 0..MAX_OWN_POLICIES {
        let base = if n == 0 { "baseline".to_owned() } else { format!("p{:03}", n - 1) };
        let paths: Vec<String> = (0..100).map(|at| format!("\"/{n}/{at}\"")).collect();
        writeln!(text, "[policy.p{n:03}]\nextends = \"{base}\"").unwrap();
        writeln!(text, "paths.deny = [{}]", paths.join(",")).unwrap();
    }
    let error = parse(&text).unwrap_err();
    assert!(error.contains("the policies up to `p017` have more than 16384 path rules"), "{error}");
    assert_eq!(error.matches("more than").count(), 1, "{error}");
    let text =
        text.replace("paths.deny", "network.deny").replace("\"/", "\"10.").replace('/', ".0.");
    let error = parse(&text).unwrap_err();
    assert!(error.contains("have more than 16384 network rules"), "{error}");
    assert_eq!(error.matches("more than").count(), 1, "{error}");
    let many: Vec<String> = (0..=MAX_RULES_PER_POLICY).map(|at| format!("\"/{at}\"")).collect();
    let error =
        parse(&format!("[policy.baseline]\npaths.deny = [{}]\n", many.join(","))).unwrap_err();
    assert!(error.contains("`deny` has more than 1024 entries"), "{error}");
    let policies: String = (0..=MAX_OWN_POLICIES).fold(String::new(), |mut text, n| {
        writeln!(text, "[policy.p{n}]\nextends = \"baseline\"").unwrap();
        text
    });
    assert!(parse(&policies).unwrap_err().contains("more than 128 [policy] tables"));
}

/// As many unknown keys as fit.
fn lines(count: usize) -> String {
    let mut text = String::new();
    for n in 0..count {
        writeln!(text, "k{n:06}=1").unwrap();
    }
    text
}

/// As long and as deep as a file can be.
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
        // Of this thread, whatever else the machine does.
        let used = || clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap();
        let start = used();
        let message = parse(&text).unwrap_err();
        assert!(message.len() < 64 << 10, "{} bytes", message.len());
        // Seconds at most, in a debug build: what this is after is quadratic.
        let elapsed = used().saturating_sub(start);
        assert!(elapsed < Duration::from_secs(20), "{elapsed:?} for {}…", &text[..8]);
    }
    assert!(parse(&lines(100)).unwrap_err().ends_with("\nlockc.toml: 36 more problems"));
}

proptest::proptest! {
    #[test]
    fn never_panics(text in "([\\[\\]a-z=\".{}#\n_*ä-]|rule|match\\.|name|policy|paths|extends|admission){0,40}") {
        let _ = parse(&text);
    }
}
