//! `cargo xtask setup`: what this machine needs to build and boot lockc.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail};

use crate::{artifacts::cargo, command, kernel::Architecture, paths};

/// Installs what is missing: packages by apt (with sudo unless root), bpf-linker
/// under target/tools. The other verbs do this themselves when they need it.
#[derive(Debug, clap::Args)]
pub(crate) struct Setup {}

impl Setup {
    #[expect(clippy::unused_self, reason = "every verb is called the same way")]
    pub(crate) fn run(self) -> Result<ExitCode> {
        packages()?;
        linker()?;
        println!("everything is there");
        Ok(ExitCode::SUCCESS)
    }
}

/// A Debian package we need, and the file that shows it is installed.
const NEEDED: [(&str, &str); 16] = [
    ("qemu-system-x86", "qemu-system-x86_64"),
    ("qemu-system-arm", "qemu-system-aarch64"),
    ("binutils", "readelf"),
    ("crun", "crun"),
    ("e2fsprogs", "mke2fs"),
    ("gcc", "cc"),
    ("kmod", "depmod"),
    ("libc6-dev", "/usr/include/stdlib.h"),
    ("libseccomp-dev", "/usr/include/seccomp.h"),
    ("mmdebstrap", "mmdebstrap"),
    ("pkg-config", "pkg-config"),
    ("runc", "runc"),
    ("util-linux", "setpriv"),
    ("xz-utils", "xz"),
    ("zstd", "zstd"),
    ("debian-archive-keyring", "/usr/share/keyrings/debian-archive-keyring.gpg"),
];

/// Installs the packages that are missing.
pub(crate) fn packages() -> Result<()> {
    let missing: Vec<_> =
        NEEDED.iter().filter(|(_, proof)| !is_installed(proof)).map(|(name, _)| *name).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !is_installed("apt-get") {
        let all: Vec<_> =
            NEEDED.iter().map(|(name, proof)| format!("  {proof} (Debian: {name})")).collect();
        bail!(
            "this is no Debian or Ubuntu; the guests are made from Debian packages, so besides \
             apt-get, apt-cache and dpkg-deb please install:\n{}",
            all.join("\n")
        );
    }
    let label = format!("installing {}", missing.join(", "));
    let apt = |arguments: &[&str]| {
        let mut command = as_root("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").args(arguments);
        command::run(&mut command, &label)
    };
    apt(&["update"])?;
    apt(&[&["install", "--yes", "--no-install-recommends"], missing.as_slice()].concat())
}

/// The program, through sudo unless we are root.
pub(crate) fn as_root(program: &str) -> Command {
    if nix::unistd::geteuid().is_root() {
        Command::new(program)
    } else {
        let mut command = Command::new("sudo");
        command.arg(program);
        command
    }
}

fn is_installed(proof: &str) -> bool {
    if proof.starts_with('/') {
        return Path::new(proof).exists();
    }
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .any(|dir| dir.join(proof).is_file())
}

/// Links BPF objects. Built against the LLVM of the pinned Rust toolchain, so
/// that the two agree on LLVM's bitcode, and nothing depends on the system's.
const LINKER_VERSION: &str = "0.13.0";

pub(crate) fn linker() -> Result<()> {
    let tools = paths::tools();
    let binary = tools.join("bin/bpf-linker");
    if let Ok(version) =
        command::output(Command::new(&binary).arg("--version"), "asking bpf-linker")
        && version.split_whitespace().any(|word| word == LINKER_VERSION)
    {
        return Ok(());
    }
    let sysroot = command::output(
        Command::new("rustc").args(["--print", "sysroot"]).current_dir(paths::workspace()),
        "fetching the Rust toolchain",
    )?;
    let libraries = Path::new(sysroot.trim()).join("lib");
    let llvm = fs::read_dir(&libraries)
        .with_context(|| format!("cannot read {}", libraries.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("libLLVM.so.") && name.contains("-rust-")
        })
        .with_context(|| format!("no libLLVM in {}", libraries.display()))?;
    let prefix = tools.join("llvm");
    paths::create_dir(&prefix.join("lib"))?;
    let link = prefix.join("lib/libLLVM.so");
    if link.is_symlink() {
        fs::remove_file(&link).with_context(|| format!("cannot remove {}", link.display()))?;
    }
    std::os::unix::fs::symlink(&llvm, &link)
        .with_context(|| format!("cannot link {}", link.display()))?;
    let host = host()?;
    command::run(
        cargo()
            .env("LLVM_PREFIX", &prefix)
            .env("RUSTFLAGS", format!("-C link-arg=-Wl,-rpath,{}", libraries.display()))
            .args(["install", "bpf-linker", "--version", LINKER_VERSION, "--locked", "--force"])
            .args(["--no-default-features", "--features", "llvm-22", "--target", &host])
            .arg("--root")
            .arg(&tools),
        "building bpf-linker (about two minutes)",
    )
}

/// The toolchain's own target, for tools that run on this machine and link its
/// C library, unlike everything else in this workspace.
fn host() -> Result<String> {
    let version = command::output(
        Command::new("rustc").arg("-vV").current_dir(paths::workspace()),
        "asking rustc",
    )?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc does not name its host")?.to_owned())
}

/// An OCI runtime that Debian has no package of.
const YOUKI_VERSION: &str = "0.7.0";

/// A youki for guests of this architecture, and what names it. It links libseccomp, which ties it to
/// the C library of the machine that builds it: guests of another architecture have none.
pub(crate) fn youki(architecture: Architecture) -> Result<Option<(String, PathBuf)>> {
    let host = host()?;
    if host != format!("{}-unknown-linux-gnu", architecture.name()) {
        return Ok(None);
    }
    let id = format!("youki_{YOUKI_VERSION}");
    let root = paths::tools().join(&id);
    let binary = root.join("bin/youki");
    if !binary.is_file() {
        command::run(
            cargo()
                .env("CARGO_PROFILE_RELEASE_STRIP", "true")
                .args(["install", "youki", "--version", YOUKI_VERSION, "--locked", "--force"])
                // Guests without systemd have no use for the rest.
                .args(["--no-default-features", "--features", "v1,v2,seccomp"])
                .args(["--target", &host])
                .arg("--root")
                .arg(&root),
            "building youki (about two minutes)",
        )?;
    }
    Ok(Some((id, binary)))
}

const DENY_VERSION: &str = "0.20.2";

/// cargo-deny under target/tools.
#[derive(Debug)]
pub(crate) struct CargoDeny(PathBuf);

impl CargoDeny {
    /// Builds it unless it is there at our version.
    pub(crate) fn install() -> Result<Self> {
        let tools = paths::tools();
        let binary = tools.join("bin/cargo-deny");
        let version = command::output(Command::new(&binary).arg("--version"), "asking cargo-deny");
        if !version.is_ok_and(|text| text.split_whitespace().any(|word| word == DENY_VERSION)) {
            command::run(
                cargo()
                    .args(["install", "cargo-deny", "--version", DENY_VERSION, "--locked"])
                    // Not optimised: fast enough, and built in less than half the time.
                    .args(["--force", "--debug"])
                    .args(["--target", &host()?])
                    .arg("--root")
                    .arg(&tools),
                "building cargo-deny (a few minutes)",
            )?;
        }
        Ok(Self(binary))
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.0);
        command.current_dir(paths::workspace());
        command
    }
}
