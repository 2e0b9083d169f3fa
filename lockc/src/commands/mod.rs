//! The command line: one file per verb.

mod check;
mod explain;
mod log;
mod policy;
mod run;
mod status;
mod unload;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::{Parser, Subcommand};

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
    Explain(explain::Explain),
    Policy(policy::Policy),
    Run(run::Run),
    Status(status::Status),
    Unload(unload::Unload),
}

/// Does what the command line says.
pub fn main() -> ExitCode {
    let done = |()| ExitCode::SUCCESS;
    let outcome = match Cli::parse().verb {
        Verb::Check(check) => check.execute(),
        Verb::Explain(explain) => Ok(explain.execute()),
        Verb::Policy(policy) => policy.execute().map(done),
        Verb::Run(run) => run.execute().map(done),
        Verb::Status(status) => status.execute(),
        Verb::Unload(unload) => unload.execute(),
    };
    outcome.unwrap_or_else(|error| {
        complain(&error);
        ExitCode::FAILURE
    })
}

#[expect(clippy::print_stderr, reason = "a command that fails says so on stderr")]
fn complain(error: &anyhow::Error) {
    eprintln!("lockc: {error:#}");
}

/// Prints to stdout. A reader that has seen enough, as `head` has, is no failure.
fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome,
    }
}
