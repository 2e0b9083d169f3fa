//! `cargo xtask package`: deb and rpm, as they are shipped.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result};
use clap::ValueEnum as _;

use crate::{artifacts::Artifacts, command, kernel::Architecture, paths, setup::Tool};

/// Builds a deb and an rpm for each architecture, with manual pages and shell
/// completions, into target/packages, and SHA256SUMS beside them. Two builds of
/// one commit on one machine give the same bytes.
#[derive(Debug, clap::Args)]
pub(crate) struct Package {
    /// For which machines; all unless given
    #[arg(value_enum, value_name = "ARCHITECTURE")]
    architectures: Vec<Architecture>,
    /// Builds them as another version, to try an upgrade
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
}

impl Package {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let all = Architecture::value_variants();
        let wanted = if self.architectures.is_empty() { all } else { &self.architectures };
        let directory = directory();
        paths::create_dir(&directory)?;
        let mut made = Vec::new();
        for architecture in wanted {
            Artifacts::build(*architecture)?;
            made.push(deb(*architecture, "release", self.version.as_deref())?);
            made.push(rpm(*architecture, "release", self.version.as_deref())?);
        }
        let mut sums = Command::new("sha256sum");
        sums.current_dir(&directory).args(made.iter().filter_map(|path| path.file_name()));
        let sums = command::output(&mut sums, "adding up")?;
        let path = directory.join("SHA256SUMS");
        fs::write(&path, &sums).with_context(|| format!("cannot write {}", path.display()))?;
        print!("{sums}");
        println!("in {}", directory.display());
        Ok(ExitCode::SUCCESS)
    }
}

/// Where packages go.
fn directory() -> PathBuf {
    paths::target().join("packages")
}

/// Packages of what is built with a profile, and those that say they are newer: for guests.
#[derive(Debug)]
pub(crate) struct Packages {
    pub(crate) debs: [PathBuf; 2],
    pub(crate) rpms: [PathBuf; 2],
}

impl Packages {
    pub(crate) fn make(architecture: Architecture, profile: &str) -> Result<Self> {
        Ok(Self {
            debs: [deb(architecture, profile, None)?, deb(architecture, profile, Some("99.0-1"))?],
            rpms: [rpm(architecture, profile, None)?, rpm(architecture, profile, Some("99.0"))?],
        })
    }
}

/// Makes a deb of what is built, and gives its path.
fn deb(architecture: Architecture, profile: &str, version: Option<&str>) -> Result<PathBuf> {
    let mut command = dated(Tool::deb()?.command());
    command
        .args(["--package", "lockc", "--no-build", "--no-strip", "--target", architecture.target()])
        .args(["--profile", profile, "--output"])
        .arg(directory());
    if let Some(version) = version {
        command.args(["--deb-version", version]);
    }
    path_said(&command::output(&mut command, "making a deb")?, "deb")
}

/// As [`deb`], an rpm.
fn rpm(architecture: Architecture, profile: &str, version: Option<&str>) -> Result<PathBuf> {
    let mut command = dated(Tool::generate_rpm()?.command());
    command.args(["--package", "lockc", "--target", architecture.target()]);
    command.args(["--profile", profile, "--output"]);
    let name = format!(
        "lockc-{}-1.{}.rpm",
        version.unwrap_or(env!("CARGO_PKG_VERSION")),
        architecture.name()
    );
    let path = directory().join(name);
    command.arg(&path);
    if let Some(version) = version {
        command.args(["--set-metadata", &format!("version = \"{version}\"")]);
    }
    command::run(&mut command, "making an rpm")?;
    Ok(path)
}

/// What is in a package is as old as the commit, whenever it is built.
fn dated(mut command: Command) -> Command {
    let mut git = Command::new("git");
    git.current_dir(paths::workspace()).args(["log", "-1", "--format=%ct"]);
    // Sources without a history are as old as time.
    let time = command::output(&mut git, "asking git").unwrap_or_else(|_| "0".to_owned());
    command.env("SOURCE_DATE_EPOCH", time.trim());
    command
}

fn path_said(text: &str, extension: &str) -> Result<PathBuf> {
    let is_one = |path: &&Path| path.extension() == Some(OsStr::new(extension));
    let path = text.lines().map(|line| Path::new(line.trim())).find(is_one);
    Ok(path.with_context(|| format!("no path in {text:?}"))?.to_owned())
}
