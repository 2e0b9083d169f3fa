//! `cargo xtask package`: deb and rpm, as they are shipped.

mod check;
mod notices;
mod runtime;
mod sbom;
mod verify;

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::OnceLock,
};

use anyhow::{Context as _, Result};
use clap::ValueEnum as _;

use crate::{
    artifacts, command,
    kernel::Architecture,
    paths,
    setup::Tool,
    tree::{self, Tree},
};

/// Builds a deb and an rpm for each architecture, with manual pages, shell
/// completions and the notices of all that is linked, into target/packages, and
/// beside them an SBOM of each binary, and SHA256SUMS. Builds of one commit give
/// the same bytes, in whatever directory they are made.
#[derive(Debug, clap::Args)]
pub(crate) struct Package {
    /// For which machines; all unless given
    #[arg(value_enum, value_name = "ARCHITECTURE")]
    architectures: Vec<Architecture>,
    /// Builds them as another version, to try an upgrade
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    /// Fails when lintian or rpmlint complain of what is not excused
    #[arg(long)]
    check: bool,
    /// Builds all of it again, from a copy of the sources elsewhere, and fails
    /// unless every byte is the same
    #[arg(long)]
    verify: bool,
}

impl Package {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let all = Architecture::value_variants();
        let wanted = if self.architectures.is_empty() { all } else { &self.architectures };
        let make = |tree: &Tree| make(tree, wanted, self.version.as_deref());
        let tree = Tree::here();
        let (made, sums) = make(&tree)?;
        print!("{sums}");
        println!("in {}", tree.packages().display());
        let mut ok = true;
        if self.check {
            ok &= check::all(&made)?;
        }
        if self.verify {
            let copy = verify::copy()?;
            make(&copy)?;
            let binaries = wanted.iter().map(|it| binary(&tree, *it, "release"));
            let binaries: Vec<_> = binaries.collect();
            for binary in &binaries {
                ok &= verify::names_no_place(binary)?;
            }
            ok &= verify::compare(&tree, &copy, &[binaries, made].concat())?;
        }
        Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Makes what is shipped, and gives its paths and their sums.
fn make(
    tree: &Tree,
    architectures: &[Architecture],
    version: Option<&str>,
) -> Result<(Vec<PathBuf>, String)> {
    let mut made = Vec::new();
    for architecture in architectures {
        artifacts::build(tree, *architecture, "release", "lockc")?;
        notices::write(tree, *architecture, "release")?;
        made.push(deb(tree, *architecture, "release", version)?);
        made.push(rpm(tree, *architecture, "release", version)?);
        made.push(sbom::write(tree, *architecture, time())?);
    }
    let mut sums = Command::new("sha256sum");
    sums.args(made.iter().filter_map(|path| path.file_name())).current_dir(tree.packages());
    let sums = command::output(&mut sums, "adding up")?;
    let path = tree.packages().join("SHA256SUMS");
    fs::write(&path, &sums).with_context(|| format!("cannot write {}", path.display()))?;
    made.push(path);
    Ok((made, sums))
}

/// Packages of what is built with a profile, and those that say they are newer: for guests.
#[derive(Debug)]
pub(crate) struct Packages {
    pub(crate) debs: [PathBuf; 2],
    pub(crate) rpms: [PathBuf; 2],
}

impl Packages {
    pub(crate) fn make(architecture: Architecture, profile: &str) -> Result<Self> {
        let tree = Tree::here();
        notices::write(&tree, architecture, profile)?;
        let deb = |version| deb(&tree, architecture, profile, version);
        let rpm = |version| rpm(&tree, architecture, profile, version);
        Ok(Self {
            debs: [deb(None)?, deb(Some("99.0-1"))?],
            rpms: [rpm(None)?, rpm(Some("99.0"))?],
        })
    }
}

/// Makes a deb of what is built, and gives its path.
fn deb(
    tree: &Tree,
    architecture: Architecture,
    profile: &str,
    version: Option<&str>,
) -> Result<PathBuf> {
    let mut command = dated(tree.prepare(Tool::deb()?.command()));
    command
        .args(["--package", "lockc", "--no-build", "--no-strip", "--target", architecture.target()])
        .args(["--profile", profile, "--output"])
        .arg(directory(tree)?);
    if let Some(version) = version {
        command.args(["--deb-version", version]);
    }
    path_said(&command::output(&mut command, "making a deb")?, "deb")
}

/// As [`deb`], an rpm.
fn rpm(
    tree: &Tree,
    architecture: Architecture,
    profile: &str,
    version: Option<&str>,
) -> Result<PathBuf> {
    let mut command = dated(tree.prepare(Tool::generate_rpm()?.command()));
    command.current_dir(fresh(tree, architecture, profile)?);
    command.args(["--package", "lockc", "--target", architecture.target()]);
    command.args(["--profile", profile, "--output"]);
    let name = format!("lockc-{}-1.{}.rpm", version.unwrap_or(VERSION), architecture.name());
    let path = directory(tree)?.join(name);
    command.arg(&path);
    if let Some(version) = version {
        command.args(["--set-metadata", &format!("version = \"{version}\"")]);
    }
    command::run(&mut command, "making an rpm")?;
    Ok(path)
}

/// A copy of all that goes into an rpm: files get the earlier of their own time and the commit's (`SOURCE_DATE_EPOCH`,
/// cargo-generate-rpm 0.21), and may have been written before they were committed.
fn fresh(tree: &Tree, architecture: Architecture, profile: &str) -> Result<PathBuf> {
    let root = tree.target().join("rpm");
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("cannot remove {}", root.display()))?;
    }
    tree::copy_sources(tree.root(), &root)?;
    let built = binary(tree, architecture, profile);
    let copy = root.join("target").join(architecture.target()).join(profile);
    for name in ["lockc", "THIRD-PARTY", "THIRD-PARTY-rust-std.html"] {
        tree::copy_file(&built.with_file_name(name), &copy.join(name))?;
    }
    Ok(root)
}

/// The version of everything in the workspace.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Where packages go.
fn directory(tree: &Tree) -> Result<PathBuf> {
    let directory = tree.packages();
    paths::create_dir(&directory)?;
    Ok(directory)
}

/// lockc, as it is built with a profile.
fn binary(tree: &Tree, architecture: Architecture, profile: &str) -> PathBuf {
    tree.target().join(architecture.target()).join(profile).join("lockc")
}

/// What is in a package is as old as the commit, whenever it is built.
fn dated(mut command: Command) -> Command {
    command.env("SOURCE_DATE_EPOCH", time());
    command
}

/// Seconds since 1970; asked for once, as a commit may come between two builds.
fn time() -> &'static OsStr {
    static TIME: OnceLock<OsString> = OnceLock::new();
    TIME.get_or_init(|| {
        if let Some(time) = env::var_os("SOURCE_DATE_EPOCH") {
            return time;
        }
        let mut git = Command::new("git");
        git.current_dir(paths::workspace()).args(["log", "-1", "--format=%ct"]);
        // Sources without a history are as old as time.
        let time = command::output(&mut git, "asking git").unwrap_or_else(|_| "0".to_owned());
        time.trim().into()
    })
}

/// The SHA-256 of a file, in hexadecimal.
fn sha256(path: &Path) -> Result<String> {
    let text = command::output(Command::new("sha256sum").arg(path), "adding up")?;
    // A name with a backslash or a line feed has a backslash before the sum.
    let sum = text.split_whitespace().next().map(|sum| sum.trim_start_matches('\\'));
    Ok(sum.with_context(|| format!("no sum in {text:?}"))?.to_owned())
}

fn path_said(text: &str, extension: &str) -> Result<PathBuf> {
    let is_one = |path: &&Path| path.extension() == Some(OsStr::new(extension));
    let path = text.lines().map(|line| Path::new(line.trim())).find(is_one);
    Ok(path.with_context(|| format!("no path in {text:?}"))?.to_owned())
}
