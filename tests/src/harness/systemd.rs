//! systemd, in the full guest.

use std::{process::Command, time::Duration};

use anyhow::Result;

use super::process;

/// From `systemctl` to the end of what it was asked for: a start of lockc takes ten seconds on an emulated machine.
pub(crate) const DEADLINE: Duration = Duration::from_mins(4);

/// What it said.
pub(crate) fn systemctl(arguments: &[&str]) -> Result<String> {
    let output = process::run(Command::new("systemctl").args(arguments), DEADLINE)?;
    Ok(output.success("systemctl")?.stdout)
}

/// A property of a unit.
pub(crate) fn show(unit: &str, property: &str) -> Result<String> {
    let output = systemctl(&["show", "--value", "--property", property, unit])?;
    Ok(output.trim().to_owned())
}
