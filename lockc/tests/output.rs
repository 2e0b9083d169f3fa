//! What commands print, where it goes and how they end: on terminals of several widths, into pipes that nobody reads, with
//! words that they do not know, for who may not, and while no daemon runs.
//!
//! Needs root, to be another user; and that no lockc runs here. `LOCKC_BLESS=1` writes what is expected anew.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::Read as _,
    os::unix::{
        fs::PermissionsExt as _,
        process::{CommandExt as _, ExitStatusExt as _},
    },
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Output, Stdio},
};

use clap::CommandFactory as _;
use lockc::commands::Cli;
use nix::pty::{Winsize, openpty};
use tempfile::TempDir;

/// A user who may nothing.
const NOBODY: u32 = 65_534;
const EVENTS: &str = r#"{"schema":1,"id":"7","time":"2026-01-31T12:00:00.000000Z","verdict":"allowed","operation":"start","container":"21a4eaa55872eeb491808b03fc60b010bf33505c6cbf887ed66627537fc52544","policy":"baseline","mode":"enforce","pid":5,"tid":5,"comm":"","runtime":"/usr/bin/runc","why":"rule `everything that is not named` matches","engine":"docker","name":"web"}
{"schema":1,"id":"8","time":"2026-01-31T12:00:01.000000Z","verdict":"denied","operation":"open","container":"21a4eaa55872eeb491808b03fc60b010bf33505c6cbf887ed66627537fc52544","policy":"baseline","path":"/run/secrets/kubernetes.io/serviceaccount/token","pid":6,"tid":6,"comm":"cat","engine":"docker","name":"web"}
{"schema":1,"id":"9","time":"2026-01-31T12:00:02.000000Z","verdict":"audited","operation":"mount","container":"b","policy":"web","pid":7,"tid":7,"comm":"mount \u001b[31m"}
{"schema":1,"id":"10","time":"2026-01-31T12:00:03.000000Z","verdict":"noticed","operation":"gone","container":"b","policy":"web","pid":7,"tid":7,"comm":"mount"}
"#;
const CONFIG: &str = "[policy.web]\nextends = \"baseline\"\nmode = \"audit\"\n";

/// Files that commands are about.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("lockc.toml"), CONFIG).unwrap();
        fs::write(dir.path().join("events.jsonl"), EVENTS).unwrap();
        let bundle = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bundles/docker/plain.json");
        fs::create_dir(dir.path().join("bundle")).unwrap();
        fs::copy(bundle, dir.path().join("bundle/config.json")).unwrap();
        Self(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A command; words that begin with `@` are paths of files.
    fn command(&self, words: &[&str]) -> Command {
        self.command_of(env!("CARGO_BIN_EXE_lockc").as_ref(), words)
    }

    fn command_of(&self, program: &Path, words: &[&str]) -> Command {
        let mut command = Command::new(program);
        for word in words {
            match word.strip_prefix('@') {
                Some(name) => command.arg(self.path(name)),
                None => command.arg(word),
            };
        }
        // What is shown depends on more variables than one would name here, as on CI, which is said to have colours.
        command.stdin(Stdio::null()).env_clear().env("TERM", "xterm");
        command
    }

    /// As somebody who is not root, and whom no file is open to.
    fn as_nobody(&self, words: &[&str]) -> Output {
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        mode(self.0.path(), 0o711);
        mode(&self.path("events.jsonl"), 0o600);
        mode(&self.path("lockc.toml"), 0o600);
        // Who is nobody cannot get to where it was built.
        let program = self.path("lockc");
        fs::copy(env!("CARGO_BIN_EXE_lockc"), &program).unwrap();
        mode(&program, 0o755);
        let mut command = self.command_of(&program, words);
        command.uid(NOBODY).gid(NOBODY).current_dir("/").output().unwrap()
    }
}

/// Everything that prints, but for what changes the machine.
const PRINTING: &[&[&str]] = &[
    &["--help"],
    &["--version"],
    &["run", "--help"],
    &["ps"],
    &["ps", "--wide"],
    &["ps", "--format", "json"],
    &["status"],
    &["metrics"],
    &["events", "--file", "@events.jsonl"],
    &["events", "--file", "@events.jsonl", "--format", "json"],
    &["check", "--config", "@lockc.toml"],
    &["check", "--config", "@lockc.toml", "--format", "json", "--host"],
    &["check", "--config", "@absent.toml"],
    &["policy", "show", "web", "--config", "@lockc.toml"],
    &["policy", "show", "web", "--config", "@lockc.toml", "--format", "json"],
    &["explain", "--config", "@lockc.toml", "@bundle"],
    &["explain", "--config", "@lockc.toml", "--format", "json", "@bundle"],
    &["explain", "--config", "@lockc.toml", "@absent"],
    &["learn", "--config", "@lockc.toml", "--file", "@events.jsonl"],
    &["try", "--config", "@lockc.toml", "@lockc.toml"],
    &["unload", "--help"],
    &["no-such-verb"],
];

/// Ends with what it would have ended with if somebody had read it.
#[test]
fn a_pipe_that_nobody_reads_is_no_failure_and_no_panic() {
    let files = Files::new();
    for words in PRINTING {
        let read = files.command(words).output().unwrap();
        assert!(!read.stdout.is_empty() || !read.stderr.is_empty(), "{words:?} prints nothing");
        let closed = || {
            let (reader, writer) = std::io::pipe().unwrap();
            drop(reader);
            writer
        };
        let status = files.command(words).stdout(closed()).stderr(Stdio::null()).status();
        assert_same(words, read.status, status.unwrap());
        let status = files.command(words).stdout(closed()).stderr(closed()).status();
        assert_same(words, read.status, status.unwrap());
        let status = files.command(words).stdout(Stdio::null()).stderr(closed()).status();
        assert_same(words, read.status, status.unwrap());
    }
}

fn assert_same(words: &[&str], wanted: ExitStatus, found: ExitStatus) {
    assert_eq!((found.code(), found.signal()), (wanted.code(), None), "{words:?}");
}

/// The commands, each with the words that lead to it.
fn commands(command: &clap::Command, before: &[String], all: &mut Vec<Vec<String>>) {
    for part in command.get_subcommands() {
        let words = [before, &[part.get_name().to_owned()]].concat();
        commands(part, &words, all);
        all.push(words);
    }
}

#[test]
fn bad_arguments_end_with_2_and_say_what_is_wrong() {
    let files = Files::new();
    let mut all = Vec::new();
    commands(&Cli::command(), &[], &mut all);
    assert!(all.len() > 10, "{all:?}");
    let mut cases: Vec<(Vec<String>, &str)> = all
        .into_iter()
        .map(|words| {
            ([words, vec!["--no-such".to_owned()]].concat(), "unexpected argument '--no-such'")
        })
        .collect();
    let more: &[(&[&str], &str)] = &[
        (&["no-such-verb"], "unrecognized subcommand 'no-such-verb'"),
        (&["ps", "--format", "xml"], "invalid value 'xml' for '--format <FORMAT>'"),
        (&["ps", "web"], "unexpected argument 'web'"),
        (&["events", "--since", "yesterday"], "nor a duration as `90m`"),
        (&["events", "--container"], "a value is required for '--container <ID|NAME>'"),
        (&["explain"], "required arguments were not provided"),
        (&["explain", "x", "--event", "7"], "cannot be used with"),
        (&["explain", "--owner", "root", "x"], "invalid value 'root' for '--owner <UID>'"),
        (&["policy", "show"], "required arguments were not provided"),
        (&["try"], "required arguments were not provided"),
    ];
    cases.extend(
        more.iter().map(|(words, why)| (words.iter().map(|it| (*it).to_owned()).collect(), *why)),
    );
    for (words, why) in cases {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let output = files.command(&words).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{words:?}: {said}");
        assert!(said.starts_with("error: ") && said.contains(why), "{words:?}: {said}");
    }
    // Without a verb there is the help.
    let output = files.command(&[]).output().unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
}

/// Exit code, stdout and the one line of stderr.
fn told(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn while_no_daemon_runs_every_command_says_so() {
    let files = Files::new();
    let run = |words: &[&str]| told(&files.command(words).output().unwrap());
    let note = "lockc: lockc is not running; nothing is enforced\n";
    assert_eq!(
        run(&["status"]),
        (Some(1), "not running; nothing is enforced\n".into(), String::new())
    );
    let head = "CONTAINER  NAME  POLICY  MODE  TASKS  DENIED\n";
    assert_eq!(run(&["ps"]), (Some(0), head.into(), note.into()));
    let (code, figures, said) = run(&["metrics"]);
    assert_eq!((code, said.as_str()), (Some(0), ""));
    assert!(figures.contains("\nlockc_up 0\n"), "{figures}");
    let (code, tried, said) = run(&["try", "@lockc.toml", "--config", "@lockc.toml"]);
    assert_eq!(
        (code, tried.as_str(), said.as_str()),
        (Some(0), "0 of 0 containers would change\n", note)
    );
    let (code, none, said) = run(&["events", "--file", "@absent.jsonl"]);
    assert_eq!((code, none.as_str(), said.as_str()), (Some(0), "", ""));
}

#[test]
fn who_may_not_is_told_in_one_line() {
    let files = Files::new();
    let cases: &[(&[&str], i32, &str)] = &[
        (&["ps"], 1, "lockc is not running, and what is pinned in the kernel is for root to see"),
        (
            &["events", "--file", "@events.jsonl"],
            1,
            "cannot read events from @events.jsonl: Permission denied (os error 13)",
        ),
        (
            &["events", "--config", "@lockc.toml"],
            1,
            "cannot read @lockc.toml: Permission denied (os error 13)",
        ),
        (
            &["learn", "--config", "@lockc.toml"],
            1,
            "cannot read @lockc.toml: Permission denied (os error 13)",
        ),
        (
            &["policy", "show", "web", "--config", "@lockc.toml"],
            1,
            "cannot read @lockc.toml: Permission denied (os error 13)",
        ),
        (
            &["explain", "x", "--config", "@lockc.toml"],
            2,
            "cannot read @lockc.toml: Permission denied (os error 13)",
        ),
        (
            &["run", "--config", "@lockc.toml"],
            1,
            "cannot read @lockc.toml: Permission denied (os error 13)",
        ),
        (&["try", "@lockc.toml"], 1, "`lockc try` needs root"),
        (&["unload"], 1, "`lockc unload` needs root"),
        (
            &["metrics", "--output", "@lockc.prom"],
            1,
            "cannot write @lockc.prom: Permission denied (os error 13)",
        ),
    ];
    let directory = format!("{}/", files.0.path().display());
    for (words, code, why) in cases {
        let (found, out, said) = told(&files.as_nobody(words));
        let wanted = format!("lockc: {why}\n");
        assert_eq!((found, out.as_str()), (Some(*code), ""), "{words:?}: {said}");
        assert_eq!(said.replace(&directory, "@"), wanted, "{words:?}");
    }
}

/// With 64 MiB of memory, from a file that takes more as records.
#[test]
fn a_file_of_events_was_in_memory_as_a_whole() {
    let files = Files::new();
    let mut text = String::new();
    for number in 100..60_000 {
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            r#"{{"schema":1,"id":"{number}","time":"2026-01-31T12:00:00.000000Z","verdict":"audited","operation":"start","container":"{:0500}","policy":"web","pid":1,"tid":1,"comm":"x","why":"w"}}"#,
            number % 7
        );
    }
    let file = files.path("long.jsonl");
    fs::write(&file, EVENTS.to_owned() + &text).unwrap();
    let config = format!("{CONFIG}[events]\nfile = \"{}\"\n", file.display());
    fs::write(files.path("lockc.toml"), config).unwrap();
    for (words, wanted) in [
        (&["learn", "--config", "@lockc.toml"][..], "# not allowed: start (x, 59900 times)"),
        (&["explain", "--config", "@lockc.toml", "--event", "59999"], "policy: web, @lockc.toml:1"),
    ] {
        let lockc = files.command(words);
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -v 65536 && exec \"$@\"", "sh"]);
        command.arg(lockc.get_program()).args(lockc.get_args());
        let (code, out, said) = told(&command.output().unwrap());
        let out = out.replace(&format!("{}/", files.0.path().display()), "@");
        assert!(code == Some(0) && out.contains(wanted), "{words:?}: {code:?} {out} {said}");
    }
}

/// An event that denied nothing: what was decided, and no advice.
#[test]
fn what_was_only_noticed_was_explained_as_denied() {
    let files = Files::new();
    let config = format!("{CONFIG}[events]\nfile = \"{}\"\n", files.path("events.jsonl").display());
    fs::write(files.path("lockc.toml"), config).unwrap();
    let words = ["explain", "--config", "@lockc.toml", "--event", "10"];
    let (code, out, _) = told(&files.command(&words).output().unwrap());
    assert!(code == Some(0) && out.contains("\npolicy: web, "), "{out}");
    assert!(!out.contains("den") && !out.contains("allow"), "{out}");
}

/// What a command shows on a terminal of `width` columns.
fn on_terminal(mut command: Command, width: u16) -> String {
    let size = Winsize { ws_row: 24, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = openpty(&size, None).unwrap();
    let mut child = command.stdout(pty.slave).stderr(Stdio::null()).spawn().unwrap();
    // Its copies of the terminal go with it, or there were no end.
    drop(command);
    let mut shown = Vec::new();
    let mut chunk = [0; 4096];
    let mut terminal = File::from(pty.master);
    // Fails when nobody has the terminal any more.
    while let Ok(count @ 1..) = terminal.read(&mut chunk) {
        shown.extend_from_slice(&chunk[..count]);
    }
    child.wait().unwrap();
    String::from_utf8(shown).unwrap().replace("\r\n", "\n")
}

fn expect(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/output").join(name);
    if std::env::var_os("LOCKC_BLESS").is_some() {
        fs::write(&path, found).unwrap();
    }
    let wanted = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, wanted, "{}", path.display());
}

#[test]
fn what_is_shown_fits_the_terminal() {
    let files = Files::new();
    for (name, words) in [("events", &["events", "--file", "@events.jsonl"][..]), ("ps", &["ps"])] {
        for width in [40, 80, 200] {
            let shown = on_terminal(files.command(words), width);
            let plain = anstream::adapter::strip_str(&shown).to_string();
            let longest = plain.lines().map(|line| line.chars().count()).max();
            assert!(longest <= Some(width.into()), "{name} at {width}: {plain}");
            expect(&format!("{name}-{width}.txt"), &plain);
        }
        let piped = told(&files.command(words).output().unwrap()).1;
        expect(&format!("{name}-pipe.txt"), &piped);
    }
}

#[test]
fn colours_are_for_terminals_that_have_some() {
    let files = Files::new();
    let events = || files.command(&["events", "--file", "@events.jsonl"]);
    let shown = on_terminal(events(), 80);
    for wanted in [
        "\u{1b}[31mdenied\u{1b}[0m",
        "\u{1b}[33maudited\u{1b}[0m",
        "\u{1b}[2mnoticed\u{1b}[0m",
        "Z allowed start",
    ] {
        assert!(shown.contains(wanted), "{wanted:?}: {shown:?}");
    }
    // Those of the commands, and none of a container's.
    assert_eq!(shown.matches('\u{1b}').count(), 6, "{shown:?}");
    for (variable, value) in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let mut command = events();
        command.env(variable, value);
        let shown = on_terminal(command, 80);
        assert!(
            shown.contains("Z denied open") && !shown.contains('\u{1b}'),
            "{variable}: {shown:?}"
        );
    }
    let piped = told(&events().output().unwrap()).1;
    assert!(piped.contains("Z denied open") && !piped.contains('\u{1b}'), "{piped:?}");
}
