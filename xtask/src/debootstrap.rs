//! Root directories made of Debian packages, by mmdebstrap.

use std::path::Path;

use anyhow::Result;

use crate::{apt::KEYRING, command, kernel::Architecture, mirror, setup::as_root};

/// Fills `root` with the essential packages of a suite, `packages`, and what they depend on.
pub(crate) fn debootstrap(
    root: &Path,
    suite: &str,
    architecture: Architecture,
    packages: &[&str],
    options: &[String],
    label: &str,
) -> Result<()> {
    let mirror = mirror::debian()?;
    command::run(
        as_root("mmdebstrap")
            .args(["--quiet", "--mode=root", "--variant=minbase", "--format=directory"])
            .arg(format!("--architectures={}", architecture.debian()))
            .arg(format!("--include={}", packages.join(",")))
            .arg("--aptopt=APT::Install-Recommends false")
            .arg("--dpkgopt=force-unsafe-io")
            .args(options)
            .arg(suite)
            .arg(root)
            .arg(format!("deb [signed-by={KEYRING}] {mirror} {suite} main")),
        label,
    )
}

/// Removes a directory whose files are root's.
pub(crate) fn remove(dir: &Path) -> Result<()> {
    command::run(as_root("rm").arg("-rf").arg("--one-file-system").arg(dir), "tidying up")
}
