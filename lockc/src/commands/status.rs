//! `lockc status`: what is in force.

use std::{fs, io::ErrorKind, path::Path, process::ExitCode};

use anyhow::{Context as _, Result};
use nix::fcntl::{Flock, FlockArg};

use crate::{
    bpf::pin,
    daemon::status::{DIRECTORY, State},
};

/// Shows whether the daemon runs, and whether the configuration on disk is what it enforces.
///
/// Exit codes: 0 it runs and the configuration is in force, 1 it does not run or cannot be asked, 3 the
/// configuration on disk is not in force.
#[derive(Debug, clap::Args)]
pub(super) struct Status {}

impl Status {
    #[expect(clippy::unused_self, reason = "every verb is called the same way")]
    #[expect(clippy::print_stdout, reason = "what the command is for")]
    pub(super) fn execute(self) -> Result<ExitCode> {
        if !is_running()? {
            println!("not running; {}", left(Path::new(pin::ROOT)));
            return Ok(ExitCode::FAILURE);
        }
        let state =
            State::read().with_context(|| format!("cannot read {DIRECTORY}/status.json"))?;
        let State { pid, default_policy, default_mode, rules, runtime_files, .. } = &state;
        println!("running: pid {pid}");
        println!("default policy: {default_policy} ({default_mode})");
        println!("rules: {rules}");
        println!("runtime files: {runtime_files}");
        match &state.stale {
            None => {
                println!("configuration: {} is in force", state.config.display());
                Ok(ExitCode::SUCCESS)
            }
            Some(problem) => {
                println!("configuration: {} is NOT in force:", state.config.display());
                println!("{problem}");
                Ok(ExitCode::from(3))
            }
        }
    }
}

/// What is in force without a daemon.
fn left(pins: &Path) -> &'static str {
    // Others than root may not look.
    match fs::symlink_metadata(pins) {
        Err(error) if error.kind() == ErrorKind::NotFound => "nothing is enforced",
        _ => "what was enforced stays so until `lockc unload`",
    }
}

/// The daemon holds a lock for as long as it lives.
fn is_running() -> Result<bool> {
    let path = Path::new(DIRECTORY).join("lock");
    let file = match fs::File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error).with_context(|| format!("cannot open {}", path.display())),
    };
    Ok(Flock::lock(file, FlockArg::LockSharedNonblock).is_err())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_pins_nothing_is_enforced() {
        let directory = tempfile::tempdir().unwrap();
        assert!(left(directory.path()).contains("stays so"));
        assert_eq!(left(&directory.path().join("lockc")), "nothing is enforced");
    }
}
