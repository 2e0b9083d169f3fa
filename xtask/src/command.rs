//! Running other programs: quietly, with what they said shown when they fail.

use std::{
    ffi::OsStr,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

/// A step that takes longer than this says what it is doing, and then again at
/// every interval.
const PATIENCE: Duration = Duration::from_secs(3);
const INTERVAL: Duration = Duration::from_secs(30);

/// `program arg arg`, as one would type it.
fn line(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Runs `command` and gives back its stdout; a failure carries all it said.
/// If it takes long, `label` goes to stderr, so that nobody waits in the dark.
pub(crate) fn output(command: &mut Command, label: &str) -> Result<String> {
    let what = line(command);
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {what}"))?;
    let output = patiently(label, || child.wait_with_output())
        .with_context(|| format!("cannot wait for {what}"))?;
    if !output.status.success() {
        let out = String::from_utf8_lossy(&output.stdout);
        let err = String::from_utf8_lossy(&output.stderr);
        bail!("{what}: {}\n{}", output.status, format!("{out}{err}").trim_end());
    }
    String::from_utf8(output.stdout).with_context(|| format!("the output of {what} is not UTF-8"))
}

/// As [`output`], for programs of which only success matters.
pub(crate) fn run(command: &mut Command, label: &str) -> Result<()> {
    output(command, label).map(drop)
}

/// Runs one check; its findings go to the terminal when there are any.
pub(crate) fn check(what: &str, command: &mut Command) -> bool {
    match output(command, what) {
        Ok(_) => {
            println!("ok     {what}");
            true
        }
        Err(error) => {
            println!("FAILED {what}\n{error:#}");
            false
        }
    }
}

/// Does `work`, and prints `label` to stderr if it is not done soon.
pub(crate) fn patiently<T>(label: &str, work: impl FnOnce() -> T) -> T {
    let (done, wait) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            let started = Instant::now();
            let mut patience = PATIENCE;
            while wait.recv_timeout(patience) == Err(mpsc::RecvTimeoutError::Timeout) {
                match started.elapsed().as_secs() {
                    ..=10 => eprintln!("xtask: {label} ..."),
                    seconds => eprintln!("xtask: {label} ... {seconds} s"),
                }
                patience = INTERVAL;
            }
        });
        let result = work();
        drop(done);
        result
    })
}
