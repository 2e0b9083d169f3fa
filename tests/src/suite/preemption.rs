//! A kernel that can skip hooks is not relied on.

use std::{fs, process::Command};

use anyhow::{Context as _, Result, ensure};

use crate::{
    harness::{
        Context, Lockc,
        container::DEADLINE,
        daemon::LOCKC,
        process,
        runner::{Daemon, Test, With},
    },
    sys::is_before_6_2,
};

pub(crate) const TESTS: &[Test] = &[Test {
    group: "host",
    name: "preemption",
    daemon: Daemon::Own,
    with: With::One,
    run: preemption,
}];

pub(super) const MODEL: &str = "/sys/kernel/debug/sched/preempt";

/// Puts the model back that was there before.
pub(super) struct Restore(pub(super) String);

impl Drop for Restore {
    fn drop(&mut self) {
        // A kernel that has just taken one takes this one, too.
        let _ = fs::write(MODEL, &self.0);
    }
}

/// The model in force, if this kernel can change it.
pub(super) fn chosen() -> Option<String> {
    let text = fs::read_to_string(MODEL).ok()?;
    let (_, rest) = text.split_once('(')?;
    Some(rest.split_once(')')?.0.to_owned())
}

/// Before 6.2, a task that is preempted in a hook lets others pass it: with full preemption lockc does not
/// start there. From 6.2 on, and with another model, it does.
fn preemption(context: &Context) -> Result<()> {
    let config = context.scratch().join("preemption");
    let restore = chosen().map(Restore);
    let can_skip = is_before_6_2()?;
    ensure!(!can_skip || restore.is_some(), "the model of this kernel cannot be changed");
    if restore.is_some() {
        fs::write(MODEL, "full").with_context(|| format!("write {MODEL}"))?;
    }
    if can_skip {
        let path = context.scratch().join("preemption.toml");
        fs::write(&path, context.config())?;
        for verb in [&["run", "--config"][..], &["check", "--host", "--config"]] {
            let output = process::run(Command::new(LOCKC).args(verb).arg(&path), DEADLINE)?;
            ensure!(output.status.code() == Some(1), "{verb:?}: {output}");
            let said = format!("{}{}", output.stdout, output.stderr);
            ensure!(said.contains("preempt=voluntary"), "{verb:?} names no remedy: {output}");
        }
    } else {
        drop(Lockc::start(&config, &context.config())?);
    }
    if let Some(Restore(model)) = &restore {
        fs::write(MODEL, model).with_context(|| format!("write {MODEL}"))?;
    }
    drop(Lockc::start(&config, &context.config())?);
    Ok(())
}
