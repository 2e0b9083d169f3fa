//! The command line: one file per verb.

mod check;
mod events;
mod explain;
mod learn;
mod log;
mod metrics;
mod policy;
mod ps;
mod run;
mod screen;
mod status;
mod trial;
mod unload;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use jiff::Timestamp;

/// Makes the containers of this node contain
///
/// lockc enforces policies on containers of Docker, podman, containerd, k3s and
/// plain runc, crun and youki. The daemon is `lockc run`, which systemd starts;
/// its configuration is /etc/lockc/lockc.toml.
#[derive(Debug, Parser)]
#[command(name = "lockc", version, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Check(check::Check),
    Events(events::Events),
    Explain(explain::Explain),
    Learn(learn::Learn),
    Metrics(metrics::Metrics),
    Policy(policy::Policy),
    Ps(ps::Ps),
    Run(run::Run),
    Status(status::Status),
    #[command(name = "try")]
    Trial(trial::Trial),
    Unload(unload::Unload),
}

/// Does what the command line says.
pub fn main() -> ExitCode {
    let done = |()| ExitCode::SUCCESS;
    let outcome = match Cli::parse().verb {
        Verb::Check(check) => check.execute(),
        Verb::Events(events) => events.execute().map(done),
        Verb::Explain(explain) => Ok(explain.execute()),
        Verb::Learn(learn) => learn.execute().map(done),
        Verb::Metrics(metrics) => metrics.execute().map(done),
        Verb::Policy(policy) => policy.execute().map(done),
        Verb::Ps(ps) => ps.execute().map(done),
        Verb::Run(run) => run.execute().map(done),
        Verb::Status(status) => status.execute(),
        Verb::Trial(trial) => trial.execute().map(done),
        Verb::Unload(unload) => unload.execute(),
    };
    outcome.unwrap_or_else(|error| {
        complain(&error);
        ExitCode::FAILURE
    })
}

/// How a command prints what it has found.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum Format {
    /// For people
    #[default]
    // What `ps` called it.
    #[value(alias = "table")]
    Text,
    /// One JSON object
    Json,
}

fn complain(error: &anyhow::Error) {
    note(&format!("{error:#}"));
}

/// What does not belong to a command's output. If nobody reads it, it is said to nobody.
fn note(text: &str) {
    let _ = writeln!(io::stderr(), "lockc: {text}");
}

fn json(value: &impl serde::Serialize) -> serde_json::Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

/// Seconds since the epoch as RFC 3339 has it.
fn time(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok().and_then(|it| Timestamp::from_second(it).ok());
    time.map_or_else(|| seconds.to_string(), |time| time.to_string())
}

/// Prints to stdout, as it is.
fn print(text: &str) -> io::Result<()> {
    put(text, io::stdout().lock())
}

/// Prints to stdout, with its colours where that is a terminal that has some, and nobody has set `NO_COLOR`.
fn show(text: &str) -> io::Result<()> {
    put(text, anstream::stdout().lock())
}

/// A reader that has seen enough, as `head` has, is no failure.
fn put(text: &str, mut out: impl io::Write) -> io::Result<()> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome,
    }
}
