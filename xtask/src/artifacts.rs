//! Builds what goes into a guest: lockc, its guest-side tests and the example
//! configuration.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use crate::{
    command, crates, guest::Image, kernel::Architecture, package::Packages, paths, setup,
    tree::Tree,
};

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
        let tree = Tree::here();
        let dir = build(&tree, architecture, profile, "lockc")?;
        build(&tree, architecture, profile, "lockc-tests")?;
        Ok(Self { dir, packages: None })
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

/// Builds the binaries of one package, and gives the directory that they are in. One at a time: together, each would get
/// the features that the other asks of what both depend on, and what guests try would not be what is shipped.
pub(crate) fn build(
    tree: &Tree,
    architecture: Architecture,
    profile: &str,
    package: &str,
) -> Result<PathBuf> {
    setup::linker()?;
    let target = architecture.target();
    let mut build = tree.prepare(cargo());
    build
        .args(["build", "--locked", "--profile", profile, "--target", target, "-p", package])
        // Replaces what RUSTFLAGS says, too.
        .env("CARGO_ENCODED_RUSTFLAGS", remapped(tree, architecture)?);
    command::run(&mut build, &format!("building {package} for {target}"))?;
    Ok(tree.target().join(target).join(profile))
}

/// Flags by which sources have the same names on every machine; they end up in panic messages.
fn remapped(tree: &Tree, architecture: Architecture) -> Result<OsString> {
    let mut prefixes = vec![
        (tree.root().to_owned(), "/lockc".to_owned()),
        // What rustc says itself when it does not have these sources.
        (
            setup::sysroot()?.join("lib/rustlib/src/rust"),
            format!("/rustc/{}", setup::rustc_says("commit-hash")?),
        ),
    ];
    let crates = crates::directories(tree, architecture)?;
    prefixes.extend(crates.into_iter().map(|dir| (dir, "/crates".to_owned())));
    let mut flags = OsString::new();
    for (from, to) in prefixes {
        if !flags.is_empty() {
            flags.push("\u{1f}");
        }
        flags.push("--remap-path-prefix=");
        flags.push(from);
        flags.push("=");
        flags.push(to);
    }
    Ok(flags)
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
