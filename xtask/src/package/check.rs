//! What the packagers' own lints say about packages. What they may say is excused, with a reason each, in
//! `deb/lintian-overrides` and `rpm/rpmlint.toml`.

use std::{ffi::OsStr, path::PathBuf, process::Command};

use anyhow::Result;

use crate::{command, paths, setup};

/// Whether they have no complaint about any of these files.
pub(super) fn all(files: &[PathBuf]) -> Result<bool> {
    setup::install(&[("lintian", "lintian"), ("rpm", "rpm"), ("rpmlint", "rpmlint")])?;
    let mut ok = true;
    for file in files {
        let mut lint = match file.extension().and_then(OsStr::to_str) {
            Some("deb") => lintian(),
            Some("rpm") => rpmlint(),
            _ => continue,
        };
        ok &= command::check(&file.display().to_string(), lint.arg(file));
    }
    Ok(ok)
}

fn lintian() -> Command {
    let mut lintian = Command::new("lintian");
    // Not the configuration of who runs it.
    lintian.args(["--no-cfg", "--allow-root", "--fail-on", "error,warning"]);
    lintian
}

fn rpmlint() -> Command {
    let mut rpmlint = Command::new("rpmlint");
    rpmlint.arg("--strict").arg("--config").arg(paths::workspace().join("rpm/rpmlint.toml"));
    rpmlint
}
