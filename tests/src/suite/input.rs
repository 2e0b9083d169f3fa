//! Bad input and bad luck: the daemon says what is wrong, stays, and enforces on.

use std::{
    fs::{self, OpenOptions},
    io::{BufWriter, Write as _},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::{signal::Signal, stat::Mode},
    unistd::mkfifo,
};

use crate::{
    harness::{
        Bundle, Container, Context, Level, Lockc, Phase,
        container::DEADLINE,
        daemon::{LOCKC, pinned_map},
        fixture::{SERVICE_ACCOUNT, TOKEN},
        process::{self, Running, wait_for},
        runner::{Daemon, Test, With},
    },
    sys::{self, bpf},
};

pub(crate) const TESTS: &[Test] = &[
    test("no-config", Daemon::Own, With::One, no_config),
    test("broken-config", Daemon::Own, With::One, broken_config),
    test("second-daemon", Daemon::On, With::One, second_daemon),
    test("bundles", Daemon::On, With::One, bundles),
    test("huge-bundle", Daemon::OffThenOn, With::One, huge_bundle),
    test("no-descriptors", Daemon::On, With::One, no_descriptors),
    test("map-full", Daemon::On, With::One, map_full),
    test("too-many-denials", Daemon::On, With::One, too_many_denials),
    test("killed-while-frozen", Daemon::On, With::One, killed_while_frozen),
    test("command-lines", Daemon::OffThenOn, With::EachAndYouki, command_lines),
    test("restore", Daemon::OffThenOn, With::Each, restore),
];

const fn test(
    name: &'static str,
    daemon: Daemon,
    with: With,
    run: fn(&Context) -> Result<()>,
) -> Test {
    Test { group: "input", name, daemon, with, run }
}

/// Longest time from the start of a runtime to the daemon's answer: `decision_timeout_ms` and some.
const ANSWER: Duration = Duration::from_secs(10);

/// Runs `lockc run` with a configuration that must stop it; what it said.
fn refused(config: &Path) -> Result<String> {
    let mut command = Command::new(LOCKC);
    let output = process::run(command.arg("run").arg("--config").arg(config), DEADLINE)?;
    ensure!(!output.status.success(), "{} is accepted: {output}", config.display());
    ensure!(
        output.stderr.contains(&*config.to_string_lossy()),
        "{} is not named: {output}",
        config.display()
    );
    Ok(output.stderr)
}

fn no_config(context: &Context) -> Result<()> {
    refused(&context.scratch().join("absent.toml"))?;
    let directory = context.scratch().join("directory.toml");
    fs::create_dir_all(&directory)?;
    refused(&directory).map(drop)
}

/// Every mistake is shown with the file, the line and the column.
fn broken_config(context: &Context) -> Result<()> {
    let path = context.scratch().join("broken.toml");
    for (text, line, column) in [
        ("[daemon\n", 1, 8),
        ("[daemon]\nlog_level = \"info\"\nlog_levle = 3\n", 3, 1),
        ("[default]\npolicy = \"basline\"\n", 2, 10),
        ("[default]\npolicy = 7\n", 2, 10),
        ("\n\n[[rule]]\nname = \"x\"\npolicy = \"baseline\"\nmatch.annotaton.x = \"y\"\n", 6, 7),
    ] {
        fs::write(&path, text)?;
        let said = refused(&path)?;
        let place = format!("{}:{line}:{column}", path.display());
        ensure!(said.contains(&place), "{text:?}: {place} is not in {said:?}");
    }
    fs::write(&path, b"[daemon]\nlog_level = \"\xff\"\n")?;
    refused(&path).map(drop)
}

/// There is one daemon at a time, and the attempt to start another leaves it alone.
fn second_daemon(context: &Context) -> Result<()> {
    let path = context.scratch().join("second.toml");
    fs::write(&path, context.config())?;
    let mut command = Command::new(LOCKC);
    let output = process::run(command.arg("run").arg("--config").arg(&path), DEADLINE)?;
    ensure!(!output.status.success(), "a second daemon runs: {output}");
    enforced(context)
}

/// The daemon lives, and a container that starts now is contained.
fn enforced(context: &Context) -> Result<()> {
    context.with_lockc(Lockc::check_alive)?;
    let id = context.id("good");
    let token = format!("{SERVICE_ACCOUNT}/token");
    let bundle = context.token_bundle(&id, &["/bin/probe", "read", &token]);
    let output = Container::new(context.runtime(), &id, &bundle)?.run()?;
    ensure!(output.stdout.starts_with("read EPERM open"), "a good container: {output}");
    Ok(())
}

/// A container that must not start, whatever the reason that its runtime gives.
fn ensure_no_start(context: &Context) -> Result<()> {
    let id = context.id("unwanted");
    let container =
        Container::new(context.runtime(), &id, &context.bundle(&id, &["/bin/echo", "started"]))?;
    // Refused in execve, the runtime itself does not start.
    if let Ok(output) = container.run() {
        ensure!(!output.status.success() && output.stdout.is_empty(), "it starts: {output}");
    }
    Ok(())
}

/// A daemon without a free descriptor cannot look at a runtime, which does not start then.
fn no_descriptors(context: &Context) -> Result<()> {
    let pid = context.with_lockc(|lockc| lockc.pid())?;
    let before = sys::limit_descriptors(pid, 3)?;
    let refused = ensure_no_start(context);
    sys::limit_descriptors(pid, before)?;
    refused?;
    context.with_lockc(|lockc| {
        lockc.wait_for_line("the reason", |line| line.contains("cannot read from fanotify"))
    })?;
    enforced(context)
}

/// A container that there is no room for in the kernel side does not start.
fn map_full(context: &Context) -> Result<()> {
    let full = bpf::Full::fill(&pinned_map("CONTAINERS")?, 1 << 60)?;
    ensure_no_start(context)?;
    drop(full);
    context.with_lockc(|lockc| {
        lockc.wait_for_line("the reason", |line| line.contains("did not take up its registration"))
    })?;
    enforced(context)
}

/// A container that makes more denials than are worth reporting: the rest is counted, and said.
fn too_many_denials(context: &Context) -> Result<()> {
    let id = context.id("noisy");
    let script = format!(
        "for i in $(seq 2000); do read x <{SERVICE_ACCOUNT}/token; done 2>/dev/null; echo done"
    );
    let bundle = context.token_bundle(&id, &["/bin/sh", "-c", &script]);
    let output = Container::new(context.runtime(), &id, &bundle)?.run()?;
    ensure!(output.stdout == "done\n", "the container: {output}");
    context.with_lockc(|lockc| {
        lockc.wait_for_line("the count", |line| line.contains("events not reported"))?;
        let reported = lockc.denials(&id)?.len();
        ensure!((1..2000).contains(&reported), "{reported} of 2000 denials are reported");
        Ok(())
    })
}

/// Spoils the `config.json` at a path.
type Spoil = fn(&Path) -> Result<()>;

/// Ways to spoil `config.json`.
const SPOILT: [(&str, Spoil); 10] = [
    ("absent", |path| Ok(fs::remove_file(path)?)),
    ("empty", |path| Ok(fs::write(path, "")?)),
    ("truncated", |path| {
        let text = fs::read(path)?;
        Ok(fs::write(path, &text[..text.len() / 2])?)
    }),
    ("not-utf8", |path| Ok(fs::write(path, b"{\"ociVersion\": \"\xff\xfe\x80\"}")?)),
    ("nested", |path| Ok(fs::write(path, "[".repeat(1_000_000))?)),
    ("nested-objects", |path| Ok(fs::write(path, "{\"a\":".repeat(200_000))?)),
    ("null", |path| Ok(fs::write(path, "null")?)),
    ("directory", |path| {
        fs::remove_file(path)?;
        Ok(fs::create_dir(path)?)
    }),
    ("loop", |path| {
        fs::remove_file(path)?;
        Ok(symlink("config.json", path)?)
    }),
    ("zero", |path| {
        fs::remove_file(path)?;
        Ok(symlink("/dev/zero", path)?)
    }),
];

/// The runtime fails as it does without lockc, and soon; nothing else happens.
fn bundles(context: &Context) -> Result<()> {
    for (what, spoil) in SPOILT {
        let id = context.id(what);
        let bundle = context.bundle(&id, &["/bin/true"]);
        let container = Container::new(context.runtime(), &id, &bundle)?;
        spoil(&bundle.dir().join("config.json")).with_context(|| format!("make it {what}"))?;
        let output = container.run()?;
        ensure!(!output.status.success(), "{what}: {output}");
        context.with_lockc(Lockc::check_alive).with_context(|| what.to_owned())?;
    }
    fifo(context).context("FIFO")?;
    enforced(context)
}

/// A FIFO, at which the runtime waits for ever, but the daemon does not.
fn fifo(context: &Context) -> Result<()> {
    let id = context.id("fifo");
    let bundle = context.bundle(&id, &["/bin/true"]);
    let container = Container::new(context.runtime(), &id, &bundle)?;
    let path = bundle.dir().join("config.json");
    fs::remove_file(&path)?;
    mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR)?;
    // Starting it returns once its execve has succeeded: once the daemon has answered.
    let (sender, receiver) = std::sync::mpsc::channel();
    let mut command = container.command("run", &[]);
    command.stdin(Stdio::null());
    std::thread::spawn(move || sender.send(Running::start(&mut command)));
    let mut running = receiver.recv_timeout(ANSWER).context("the daemon does not answer")??;
    running.kill();
    Ok(())
}

/// A `config.json` of 100 MB, which the runtime reads to its end and the daemon does not.
fn huge_bundle(context: &Context) -> Result<()> {
    let id = context.id("huge");
    let token = format!("{SERVICE_ACCOUNT}/token");
    let mut bundle = context.token_bundle(&id, &["/bin/probe", "read", &token]);
    // What lockc has not read to the end it does not believe.
    Level::Privileged.annotate(&mut bundle);
    let container = Container::new(context.runtime(), &id, &bundle)?;
    let mut file =
        BufWriter::new(OpenOptions::new().append(true).open(bundle.dir().join("config.json"))?);
    let blanks = vec![b' '; 1 << 20];
    for _ in 0..100 {
        file.write_all(&blanks)?;
    }
    file.into_inner()?;
    let output = container.run();
    fs::remove_dir_all(bundle.dir())?;
    let output = output?;
    if context.phase() == Phase::Off {
        ensure!(output.stdout.contains(TOKEN), "lockc off: {output}");
        return Ok(());
    }
    ensure!(output.stdout.starts_with("read EPERM open"), "{output}");
    enforced(context)
}

/// A runtime that is killed while the daemon holds it in its `execve`.
fn killed_while_frozen(context: &Context) -> Result<()> {
    let daemon = context.with_lockc(|lockc| lockc.pid())?;
    let busybox = crate::harness::fixture::busybox()?;
    for _ in 0..3 {
        let id = context.id("frozen");
        let bundle = context.bundle(&id, &["/bin/true"]);
        let container = Container::new(context.runtime(), &id, &bundle)?;
        let start = container.command("run", &[]);
        // A shell in between, as starting the runtime itself would not return.
        let mut command = Command::new(&busybox);
        command.args(["sh", "-c", "exec \"$@\"", "sh"]).arg(start.get_program());
        command.args(start.get_args()).stdin(Stdio::null());

        nix::sys::signal::kill(daemon, Signal::SIGSTOP).context("stop the daemon")?;
        let frozen = Running::start(&mut command).and_then(|mut running| {
            let syscall = format!("/proc/{}/syscall", running.pid());
            let execve = nix::libc::SYS_execve.to_string();
            let frozen = wait_for("execve", ANSWER, || {
                // The shell's own execve has long returned: it is the runtime's that lasts.
                let name = fs::read_to_string(format!("/proc/{}/comm", running.pid()))?;
                let line = fs::read_to_string(&syscall)?;
                ensure!(!name.starts_with("runc"), "the runtime was not held");
                Ok((line.split(' ').next() == Some(&execve)).then_some(()))
            });
            running.kill();
            frozen
        });
        nix::sys::signal::kill(daemon, Signal::SIGCONT).context("continue the daemon")?;
        frozen?;
    }
    enforced(context)
}

/// Command lines as engines write them, and as nobody does. The annotation in the bundle asks for
/// the policy privileged, and gets it only when the command line has led to the bundle.
fn command_lines(context: &Context) -> Result<()> {
    let token = format!("{SERVICE_ACCOUNT}/token");
    let run =
        |id: &str, directory: Option<&Path>, words: &[&str]| -> Result<_> {
            let mut bundle: Bundle = context.token_bundle(id, &["/bin/probe", "read", &token]);
            Level::Privileged.annotate(&mut bundle);
            let container = Container::new(context.runtime(), id, &bundle)?;
            let path = bundle.dir().to_string_lossy().into_owned();
            let root = context.runtime().state.to_string_lossy().into_owned();
            let mut command = Command::new(&context.runtime().binary);
            command.args(words.iter().map(|word| {
                word.replace("BUNDLE", &path).replace("ROOT", &root).replace("ID", id)
            }));
            if let Some(directory) = directory {
                command.current_dir(directory);
            }
            let output = process::run(&mut command, DEADLINE)?;
            drop(container);
            Ok(output)
        };
    let long = format!("lt-{}", "x".repeat(120));
    let here = |id: &str| context.scratch().join("bundles").join(id);
    let lines: &[(&str, bool, &[&str])] = &[
        ("lt-plain", false, &["--root", "ROOT", "run", "--bundle", "BUNDLE", "ID"]),
        ("lt-equals", false, &["--root=ROOT", "run", "--bundle=BUNDLE", "ID"]),
        ("lt-short", false, &["--root", "ROOT", "run", "-b", "BUNDLE", "ID"]),
        ("lt-here", true, &["--root", "ROOT", "run", "ID"]),
        ("lt-dot", true, &["--root", "ROOT", "run", "--bundle", ".", "ID"]),
        ("delete", false, &["--root", "ROOT", "run", "--bundle", "BUNDLE", "delete"]),
        ("exec", false, &["--root", "ROOT", "run", "--bundle", "BUNDLE", "ID"]),
        ("lt_a.b+c-1", false, &["--root", "ROOT", "run", "--bundle", "BUNDLE", "ID"]),
        (&long, false, &["--root", "ROOT", "run", "--bundle", "BUNDLE", "ID"]),
        ("lt-debug", false, &["--debug", "--root", "ROOT", "run", "-b", "BUNDLE", "ID"]),
    ];
    for (id, inside, words) in lines {
        fs::create_dir_all(here(id))?;
        let directory = inside.then(|| here(id));
        let output = run(id, directory.as_deref(), words)?;
        ensure!(output.stdout.contains("read OK "), "{words:?} as {id}: {output}");
    }
    Ok(())
}

/// `restore` lets CRIU make tasks that no execve puts into the container: refused. A program called
/// criu stands for it.
fn restore(context: &Context) -> Result<()> {
    let directory = context.scratch().join("criu-bin");
    let images = context.scratch().join("criu-images");
    let ran = context.scratch().join("criu-ran");
    for directory in [&directory, &images] {
        fs::create_dir_all(directory)?;
    }
    let criu = directory.join("criu");
    let busybox = crate::harness::fixture::busybox()?;
    fs::write(&criu, format!("#!{} sh\necho ran >>{}\n", busybox.display(), ran.display()))?;
    fs::set_permissions(&criu, fs::Permissions::from_mode(0o755))?;

    let try_to = |level: Level| -> Result<bool> {
        let id = context.id("restore");
        let mut bundle = context.bundle(&id, &["/bin/true"]);
        level.annotate(&mut bundle);
        let container = Container::new(context.runtime(), &id, &bundle)?;
        let _ = fs::remove_file(&ran);
        let images = images.to_str().context("the scratch directory's name is text")?;
        let mut command = container.command("restore", &["--image-path", images]);
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", directory.display()));
        command.stdin(Stdio::null());
        // A refusal of the execve itself is a failure to start.
        if let Ok(running) = Running::start(&mut command) {
            let output = running.finish(DEADLINE)?;
            ensure!(!output.status.success(), "a restore from nothing succeeds: {output}");
        }
        Ok(ran.exists())
    };
    if context.phase() == Phase::Off {
        context.record("restore", try_to(Level::Baseline)?.to_string());
        return Ok(());
    }
    for level in [Level::Baseline, Level::Restricted] {
        ensure!(!try_to(level)?, "{}: the runtime has executed criu", level.name());
    }
    let off = context.recorded("restore")? == "true";
    let privileged = try_to(Level::Privileged)?;
    ensure!(privileged == off, "privileged: criu executed {privileged}, without lockc {off}");
    enforced(context)
}
