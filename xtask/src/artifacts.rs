//! Builds what goes into a guest: lockc, its guest-side tests and the example
//! configuration.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use crate::{command, kernel::Architecture, paths, setup};

/// Binaries of one architecture, freshly built.
#[derive(Debug)]
pub(crate) struct Artifacts {
    dir: PathBuf,
}

impl Artifacts {
    /// Builds them with the release profile, as they are shipped.
    pub(crate) fn build(architecture: Architecture) -> Result<Self> {
        setup::linker()?;
        let target = architecture.target();
        command::run(
            cargo().args([
                "build",
                "--release",
                "--target",
                target,
                "-p",
                "lockc",
                "-p",
                "lockc-tests",
            ]),
            &format!("building lockc for {target}"),
        )?;
        Ok(Self { dir: paths::target().join(target).join("release") })
    }

    /// Where each file goes in the guest, and where it is now.
    pub(crate) fn files(&self) -> Vec<(&'static str, PathBuf)> {
        let mut files = vec![
            ("usr/bin/lockc", self.dir.join("lockc")),
            ("usr/bin/lockc-tests", self.dir.join("lockc-tests")),
        ];
        let config = paths::workspace().join("examples/config/lockc.toml");
        if config.is_file() {
            files.push(("etc/lockc/lockc.toml", config));
        }
        files
    }
}

/// The cargo that runs us, in the workspace.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(Path::new(paths::workspace()));
    // Set by the cargo that runs us, for us alone.
    for name in ["CARGO_MANIFEST_DIR", "CARGO_PKG_NAME", "CARGO_PKG_VERSION"] {
        cargo.env_remove(name);
    }
    cargo
}
