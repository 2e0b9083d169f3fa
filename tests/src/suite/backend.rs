//! The two ways in which decisions get into the kernel: what is said of them, and going from one to the other.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{
    operations::json,
    preemption::{MODEL, Restore, chosen},
};
use crate::harness::{
    Context,
    container::DEADLINE,
    daemon::LOCKC,
    process::{self, Output, wait_for},
    runner::{Daemon, Test, With},
    steady::Loop,
};
use crate::sys::runs_lsm_programs;

/// For kernels that run LSM programs.
pub(crate) const TESTS: &[Test] = &[test("switch", switch)];

/// For kernels that do not.
pub(crate) const STOCK_TESTS: &[Test] =
    &[test("stock-kernel", stock_kernel), test("preempted", preempted)];

const fn test(name: &'static str, run: fn(&Context) -> Result<()>) -> Test {
    Test { group: "backend", name, daemon: Daemon::Own, with: With::One, run }
}

fn configured(context: &Context, backend: &str, require_full: bool) -> String {
    let keys = format!("[daemon]\nbackend = \"{backend}\"\nrequire_full = {require_full}\n");
    context.config().replacen("[daemon]\nrequire_full = false\n", &keys, 1)
}

fn status() -> Result<Value> {
    json(&["status", "--format", "json"])
}

fn denied() -> Result<u64> {
    status()?["counters"]["denied"].as_u64().context("no counter of denials")
}

/// A node gets the boot parameter, or loses it: what is denied stays so, and is told of once.
fn switch(context: &Context) -> Result<()> {
    let (read, _) = Loop::start(context, context.quickest(), "baseline", Duration::ZERO)?.end()?;
    ensure!(read > 0, "the loop cannot read without lockc either");
    let config = |backend| configured(context, backend, false);
    let mut lockc = context.start_lockc(&config("lsm"))?;
    let before = denied()?;
    let looping = Loop::start(context, context.quickest(), "baseline", Duration::from_millis(1))?;
    for backend in ["modify_return", "modify_return", "lsm"] {
        let seen = denied()?;
        lockc.kill();
        fs::write(lockc.config_path(), config(backend))?;
        lockc.restart()?;
        let said = status()?["backend"].clone();
        ensure!(said == backend, "{said} instead of {backend}");
        wait_for("denials by it", DEADLINE, || Ok((denied()? > seen + 50).then_some(())))?;
    }
    let (read, refused) = looping.end()?;
    let counted = denied()? - before;
    ensure!(read == 0, "{read} reads were let through, {refused} refused");
    ensure!(counted == refused, "{refused} were refused, {counted} counted");
    lockc.check_alive()
}

/// Runs a verb of lockc with a configuration.
fn with(context: &Context, verb: &[&str], config: &str) -> Result<Output> {
    let path: PathBuf = context.scratch().join("backend.toml");
    fs::write(&path, config)?;
    process::run(Command::new(LOCKC).args(verb).arg("--config").arg(&path), DEADLINE)
}

/// It refuses, and names what is not enforced and what to do.
fn refuses(context: &Context, config: &str, expected: &[&str]) -> Result<()> {
    for verb in [&["run"][..], &["check", "--host"]] {
        let output = with(context, verb, config)?;
        ensure!(output.status.code() == Some(1), "{verb:?}: {output}");
        let said = format!("{}{}", output.stdout, output.stderr);
        for words in expected {
            ensure!(said.contains(words), "{verb:?} does not say {words:?}: {output}");
        }
    }
    Ok(())
}

/// Without `bpf` among the security modules, LSM programs would load and never run.
fn stock_kernel(context: &Context) -> Result<()> {
    ensure!(!runs_lsm_programs(), "this kernel has bpf among its security modules");
    refuses(context, &configured(context, "lsm", true), &["lsm=", "/etc/default/grub"])?;
    never_run(context)?;

    let mut lockc = context.start_lockc(&configured(context, "auto", false))?;
    let said = status()?;
    ensure!(said["backend"] == "modify_return", "{said}");
    let output = with(context, &["check", "--host"], &configured(context, "auto", false))?;
    // Not as an error.
    ensure!(output.stdout.contains("\nbackend: modify_return"), "{output}");
    lockc.check_alive()
}

/// Who has no look taken at the list finds out from the self-test: what is attached and never runs denies nothing.
fn never_run(context: &Context) -> Result<()> {
    let path = context.scratch().join("never-run.toml");
    fs::write(&path, configured(context, "lsm", true))?;
    let mut command = Command::new(LOCKC);
    command.env("LOCKC_CHECK_LSM_SKIP", "1").args(["run", "--config"]).arg(&path);
    let output = process::run(&mut command, DEADLINE)?;
    ensure!(output.status.code() == Some(1), "{output}");
    let expected = "self-test: file_open should deny what was tried, but it succeeded";
    ensure!(output.stderr.contains(expected), "{output}");
    Ok(())
}

/// Programs that modify return values can be skipped where the kernel preempts itself: lockc says so, and does not start
/// unless it is told to.
fn preempted(context: &Context) -> Result<()> {
    let strict = configured(context, "auto", true);
    let Some(restore) = chosen().map(Restore) else {
        let version = fs::read_to_string("/proc/sys/kernel/version")?;
        ensure!(!version.contains("PREEMPT"), "the model of this kernel cannot be changed");
        return context.start_lockc(&strict)?.check_alive();
    };
    fs::write(MODEL, "full").with_context(|| format!("write {MODEL}"))?;
    refuses(context, &strict, &["is fully preemptible", "lsm="])?;
    let lockc = context.start_lockc(&configured(context, "auto", false))?;
    let gaps = status()?["gaps"].clone();
    ensure!(gaps[0].as_str().is_some_and(|gap| gap.contains("fully preemptible")), "{gaps}");
    drop(lockc);

    // Newer kernels have no other model on some architectures.
    if fs::write(MODEL, "voluntary").is_ok() {
        let lockc = context.start_lockc(&strict)?;
        ensure!(status()?["gaps"] == Value::Array(Vec::new()), "{}", status()?);
        drop(lockc);
    }
    drop(restore);
    Ok(())
}
