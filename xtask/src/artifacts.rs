//! Builds what goes into a guest: lockc, its guest-side tests and the example
//! configuration.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use crate::{command, guest::Image, kernel::Architecture, package::Packages, paths, setup};

/// Binaries of one architecture, freshly built.
#[derive(Debug)]
pub(crate) struct Artifacts {
    dir: PathBuf,
    /// Packages, for guests that can install some.
    packages: Option<Packages>,
}

impl Artifacts {
    /// Builds them with the release profile, as they are shipped.
    pub(crate) fn build(architecture: Architecture) -> Result<Self> {
        Self::build_as(architecture, "release")
    }

    /// Builds them with another profile.
    pub(crate) fn build_as(architecture: Architecture, profile: &str) -> Result<Self> {
        setup::linker()?;
        let target = architecture.target();
        command::run(
            cargo().args([
                "build",
                "--profile",
                profile,
                "--target",
                target,
                "-p",
                "lockc",
                "-p",
                "lockc-tests",
            ]),
            &format!("building lockc for {target}"),
        )?;
        Ok(Self { dir: paths::target().join(target).join(profile), packages: None })
    }

    /// As [`Self::build_as`], with what an image can do with them.
    pub(crate) fn build_for(
        image: Image,
        architecture: Architecture,
        profile: &str,
    ) -> Result<Self> {
        let mut artifacts = Self::build_as(architecture, profile)?;
        if image == Image::Full {
            artifacts.packages = Some(Packages::make(architecture, profile)?);
        }
        Ok(artifacts)
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
        if let Some(Packages { debs: [deb, next_deb], rpms: [rpm, next_rpm] }) = &self.packages {
            files.push(("usr/share/lockc-tests/lockc_amd64.deb", deb.clone()));
            files.push(("usr/share/lockc-tests/lockc-next.deb", next_deb.clone()));
            let script = paths::workspace().join("vagrant/provision.sh");
            files.push(("usr/share/lockc-tests/provision.sh", script));
            files.push(("usr/share/lockc-tests/lockc.rpm", rpm.clone()));
            files.push(("usr/share/lockc-tests/lockc-next.rpm", next_rpm.clone()));
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
