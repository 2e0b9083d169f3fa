//! The attacker: what runs inside a container as `/bin/probe` and tries things.
//!
//! `probe list ITEM…` tries each item in a process of its own and prints one line for each, so that
//! a whole group of attacks costs one container start. An item is `NAME:VERB ARG…`, its words
//! separated by blanks; the process that tries it is called NAME, and so does the denial in
//! lockc's log. The line says `NAME OK WHAT`, `NAME ERRNO STEP`, or `NAME UNFIT WHY` when the
//! attempt could not even be set up.

mod changes;
mod code;
mod crowd;
mod files;
mod host;
mod identity;
mod lurk;
mod machine;
mod measure;
mod mounts;
mod network;
mod operations;
mod ordinary;
mod spaces;

use std::{
    fmt,
    io::Write as _,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, bail};
use nix::{errno::Errno, unistd::alarm};

pub(crate) use crowd::open_close;
pub(crate) use operations::OPERATIONS;

/// Longest time one item may take, in seconds; `SIGALRM` ends it.
const ITEM_SECONDS: u32 = 60;

/// Why a verb did not succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The step that is under test was refused.
    Refused(&'static str, Errno),
    /// Something that the attempt needs is not there.
    Unfit(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(step, errno) => write!(out, "{errno:?} {step}"),
            Self::Unfit(why) => write!(out, "UNFIT {why}"),
        }
    }
}

/// What a verb found, in one line.
pub(crate) type Outcome = Result<String, Failure>;

/// Names the step that an error belongs to.
pub(crate) trait Step<T> {
    /// The step is what the attack is about.
    fn step(self, step: &'static str) -> Result<T, Failure>;
    /// The step merely prepares the attack.
    fn prepare(self, what: &str) -> Result<T, Failure>;
}

impl<T> Step<T> for nix::Result<T> {
    fn step(self, step: &'static str) -> Result<T, Failure> {
        self.map_err(|errno| Failure::Refused(step, errno))
    }

    fn prepare(self, what: &str) -> Result<T, Failure> {
        self.map_err(|errno| Failure::Unfit(format!("{what}: {errno:?}")))
    }
}

impl<T> Step<T> for std::io::Result<T> {
    fn step(self, step: &'static str) -> Result<T, Failure> {
        self.map_err(|error| match error.raw_os_error() {
            Some(errno) => Failure::Refused(step, Errno::from_raw(errno)),
            None => Failure::Unfit(format!("{step}: {error}")),
        })
    }

    fn prepare(self, what: &str) -> Result<T, Failure> {
        self.map_err(|error| Failure::Unfit(format!("{what}: {error}")))
    }
}

/// The command line of the probe, without its name.
pub(crate) fn main(args: &[String]) -> anyhow::Result<ExitCode> {
    match args.split_first() {
        Some((verb, items)) if verb == "list" => list(items),
        Some((verb, items)) if verb == "one" => one(items),
        Some((verb, args)) => Ok(report(verb, verb, args)),
        None => bail!("probe needs a verb"),
    }
}

/// Tries each item in its own process.
fn list(items: &[String]) -> anyhow::Result<ExitCode> {
    for item in items {
        let (name, _) = item.split_once(':').with_context(|| format!("no name in {item:?}"))?;
        // /proc/self/exe would name a file that an item may have hidden behind a mount.
        let status = Command::new("/bin/probe").args(["one", item]).status()?;
        if status.code().is_none() {
            say(format_args!("{name} UNFIT ended by {status}"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Tries one item in this process.
fn one(items: &[String]) -> anyhow::Result<ExitCode> {
    let [item] = items else { bail!("one needs one item") };
    let (name, line) = item.split_once(':').with_context(|| format!("no name in {item:?}"))?;
    let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
    let (verb, args) = words.split_first().context("no verb")?;
    let title = std::ffi::CString::new(name)?;
    nix::sys::prctl::set_name(&title)?;
    alarm::set(ITEM_SECONDS);
    Ok(report(name, verb, args))
}

/// Runs a verb and prints its line.
fn report(name: &str, verb: &str, args: &[String]) -> ExitCode {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match run(verb, &args) {
        Ok(what) => {
            say(format_args!("{name} OK {what}"));
            ExitCode::SUCCESS
        }
        Err(failure) => {
            say(format_args!("{name} {failure}"));
            ExitCode::FAILURE
        }
    }
}

/// Runs a verb.
fn run(verb: &str, args: &[&str]) -> Outcome {
    [
        code::verb,
        changes::verb,
        crowd::verb,
        files::verb,
        host::verb,
        identity::verb,
        lurk::verb,
        machine::verb,
        measure::verb,
        mounts::verb,
        network::verb,
        spaces::verb,
        ordinary::verb,
    ]
    .iter()
    .find_map(|group| group(verb, args))
    .unwrap_or_else(|| Err(Failure::Unfit(format!("no verb {verb} with {} words", args.len()))))
}

/// Prints one line in one write; a closed standard output is not the probe's business.
fn say(line: fmt::Arguments<'_>) {
    let line = format!("{line}\n");
    let _ = std::io::stdout().write_all(line.as_bytes());
}
