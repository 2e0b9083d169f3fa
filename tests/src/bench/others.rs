//! Others that watch or restrict, to compare with.

use std::process::Command;

use anyhow::Result;

use crate::harness::{
    container::DEADLINE,
    process::{self, Running, wait_for},
};

/// What `cargo xtask bench` shares: AppArmor's parser, and a profile as Docker's default one.
const PARSER: &str = "/mnt/share/apparmor_parser";
const PROFILES: &str = "/mnt/share/profile";
/// Name of the profile.
pub(super) const PROFILE: &str = "lockc-bench";

pub(super) fn load_profile() -> Result<()> {
    let mut parser = Command::new(PARSER);
    parser.args(["--skip-cache", "--replace", PROFILES]);
    process::run(&mut parser, DEADLINE)?.success(PARSER).map(drop)
}

/// Somebody who allows every `execve` of a file, while this is kept.
pub(super) fn allow_execve(path: &str) -> Result<Running> {
    let mut command = Command::new("/proc/self/exe");
    let mut running = Running::start(command.args(["probe", "allow-execve", path]))?;
    wait_for("the mark", DEADLINE, || Ok((running.stdout() == "ready\n").then_some(())))?;
    Ok(running)
}
