//! Standard streams: what the runtime handed over stays usable by every name it has, be it a pipe,
//! a file of the host or a terminal.

use std::{fs, fs::File, process::Stdio};

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::harness::{
    Bundle, Context,
    container::DEADLINE,
    process::Running,
    runner::{Daemon, Test, With},
    same_output,
    terminal::{self, ConsoleSocket},
};

pub(crate) const TESTS: &[Test] = &[
    test("pipe", With::EachKind, pipe),
    test("file", With::EachKind, file),
    test("terminal-passed", With::EachKind, terminal_passed),
    test("terminal", With::EachKind, terminal),
    test("console-socket", With::EachKind, console_socket),
    test("terminal-exec", With::EachKind, terminal_exec),
];

const fn test(name: &'static str, with: With, run: fn(&Context) -> Result<()>) -> Test {
    Test { group: "stdio", name, daemon: Daemon::OffThenOn, with, run }
}

/// Writes by every name. Shells reopen, the probe opens, both for each stream.
const SCRIPT: &str = "echo one; echo two >/dev/stdout; echo three >>/dev/stderr; \
                      echo four >/proc/self/fd/1; sh -c 'echo five >/dev/stderr'; \
                      /bin/probe reopen-stdio; (sh -c 'echo six >>/dev/fd/1')";

fn speak(bundle: &mut Bundle) {
    bundle.config["process"]["args"] = json!(["/bin/sh", "-c", SCRIPT]);
}

fn pipe(context: &Context) -> Result<()> {
    same_output(context, "pipe", speak, |container| {
        let mut command = container.command("run", &[]);
        let mut running = Running::start(command.stdin(Stdio::piped()))?;
        running.feed(b"some input\n")?;
        let output = running.finish(DEADLINE)?.success("run")?;
        Ok(format!("{}--\n{}", output.stdout, output.stderr))
    })
}

/// Log files, as a shim or a service manager hands them over.
fn file(context: &Context) -> Result<()> {
    let [input, output, error] =
        ["in", "out", "err"].map(|name| context.scratch().join(format!("stdio.{name}")));
    fs::write(&input, "some input\n")?;
    same_output(context, "file", speak, |container| {
        // As a log is: open for appending, not for reading.
        let log = |path| File::options().create(true).append(true).open(path);
        for path in [&output, &error] {
            fs::write(path, "")?;
        }
        let (input, out, err) = (File::open(&input)?, log(&output)?, log(&error)?);
        container.run_detached(|command| {
            command.stdin(input).stdout(out).stderr(err);
        })?;
        Ok(format!("{}--\n{}", fs::read_to_string(&output)?, fs::read_to_string(&error)?))
    })
}

/// A terminal of the host as the three streams, the container having none of its own.
fn terminal_passed(context: &Context) -> Result<()> {
    let script = "exec 2>&1; echo one; echo two >/dev/stdout; echo three >/dev/stderr; \
                  echo type now; read line </dev/stdin; echo \"$line\"; test -t 0 && echo terminal; \
                  stty -F /dev/stdin | head -1; cat /dev/null";
    let setup = |bundle: &mut Bundle| {
        bundle.config["process"]["args"] = json!(["/bin/sh", "-c", script]);
    };
    same_output(context, "passed", setup, |container| {
        terminal::run_beside(&mut container.command("run", &["--detach"]), "typed\n", DEADLINE)
    })
}

const TTY_SCRIPT: &str = "echo one; echo two >/dev/tty; echo three >/dev/stdout; tty; stty | head -1; ls /dev/pts; \
                          echo type now; read line; echo \"$line\"; /bin/probe threads 2";

fn tty(bundle: &mut Bundle) {
    bundle.terminal();
    // Executed processes do not have it.
    let script = format!("echo zero >/dev/console; {TTY_SCRIPT}");
    bundle.config["process"]["args"] = json!(["/bin/sh", "-c", script]);
}

/// A terminal of the container's own, which the runtime couples to ours.
fn terminal(context: &Context) -> Result<()> {
    same_output(context, "tty", tty, |container| {
        terminal::run(&mut container.command("run", &[]), "typed\n", DEADLINE)
    })
}

/// A terminal that the runtime hands over through a socket, as shims have it done.
fn console_socket(context: &Context) -> Result<()> {
    let path = context.scratch().join("console");
    same_output(context, "console", tty, |container| {
        let socket = ConsoleSocket::new(&path)?;
        let path = path.to_str().context("the scratch directory's name is text")?;
        let mut command = container.command("create", &["--console-socket", path]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let creating = Running::start_as_is(&mut command)?;
        let master = socket.receive(DEADLINE)?;
        creating.finish(DEADLINE)?.success("create")?;
        container.verb("start", &[])?.success("start")?;
        terminal::converse(master, "typed\n", DEADLINE)
    })
}

/// A terminal for a process that is executed into a container without one.
fn terminal_exec(context: &Context) -> Result<()> {
    let sleep = |bundle: &mut Bundle| {
        bundle.config["process"]["args"] = json!(["/bin/sleep", "1000"]);
    };
    same_output(context, "tty-exec", sleep, |container| {
        container.start()?;
        let mut command = container.exec_command(&["--tty"], &["/bin/sh", "-c", TTY_SCRIPT]);
        terminal::run(&mut command, "typed\n", DEADLINE)
    })
}
