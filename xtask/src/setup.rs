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
const NEEDED: [(&str, &str); 17] = [
    ("qemu-system-x86", "qemu-system-x86_64"),
    ("qemu-system-arm", "qemu-system-aarch64"),
    ("binutils", "readelf"),
    ("crun", "crun"),
    ("e2fsprogs", "mke2fs"),
    ("g++", "c++"),
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

/// Installs the packages that everything needs.
pub(crate) fn packages() -> Result<()> {
    install(&NEEDED)
}

/// Installs those of these packages that are missing.
pub(crate) fn install(needed: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<_> =
        needed.iter().filter(|(_, proof)| !is_installed(proof)).map(|(name, _)| *name).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !is_installed("apt-get") {
        let all: Vec<_> =
            needed.iter().map(|(name, proof)| format!("  {proof} (Debian: {name})")).collect();
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
    let libraries = sysroot()?.join("lib");
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
    let build = || {
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
    };
    cached(&binary, LINKER_VERSION, build)
}

/// Takes a tool from this user's cache, or builds it and leaves a copy there: other clones and worktrees of the project
/// want the same ones, and they take minutes each.
fn cached(binary: &Path, version: &str, build: impl FnOnce() -> Result<()>) -> Result<()> {
    let Some(copy) = in_cache(binary, version)? else { return build() };
    if copy.is_file() {
        paths::create_dir(binary.parent().unwrap_or(binary))?;
        fs::copy(&copy, binary).with_context(|| format!("cannot copy {}", copy.display()))?;
        // A copy of half a file, or for libraries that are gone, does not run.
        if command::output(Command::new(binary).arg("--version"), "asking it").is_ok() {
            return Ok(());
        }
    }
    build()?;
    let fresh = copy.with_extension(std::process::id().to_string());
    let stored = fs::copy(binary, &fresh).and_then(|_| fs::rename(&fresh, &copy));
    if let Err(error) = stored {
        eprintln!("xtask: cannot keep {} for other clones: {error}", copy.display());
    }
    Ok(())
}

/// Where the cache has a tool of this version, built by this toolchain; nothing without a home.
fn in_cache(binary: &Path, version: &str) -> Result<Option<PathBuf>> {
    let home = env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    let cache = env::var_os("XDG_CACHE_HOME").filter(|cache| !cache.is_empty()).map(PathBuf::from);
    let Some(cache) = cache.or_else(|| Some(home?.join(".cache"))) else { return Ok(None) };
    let dir = cache.join("lockc-xtask");
    if fs::create_dir_all(&dir).is_err() {
        return Ok(None); // a home that cannot be written
    }
    let rustc = |arguments: &[&str]| {
        let mut command = Command::new("rustc");
        command.args(arguments).current_dir(paths::workspace());
        command::output(&mut command, "asking rustc")
    };
    let mut digest = paths::Digest::new();
    for text in [version, &rustc(&["-vV"])?, &rustc(&["--print", "sysroot"])?] {
        digest.add(text.as_bytes());
    }
    let name = binary.file_name().unwrap_or_default().to_string_lossy();
    Ok(Some(dir.join(format!("{name}-{version}-{}", digest.hex()))))
}

/// Where the toolchain is.
pub(crate) fn sysroot() -> Result<PathBuf> {
    let sysroot = command::output(
        Command::new("rustc").args(["--print", "sysroot"]).current_dir(paths::workspace()),
        "fetching the Rust toolchain",
    )?;
    Ok(PathBuf::from(sysroot.trim()))
}

/// The toolchain's own target, for tools that run on this machine and link its
/// C library, unlike everything else in this workspace.
pub(crate) fn host() -> Result<String> {
    rustc_says("host")
}

/// What the toolchain says about itself (`rustc -vV`).
pub(crate) fn rustc_says(key: &str) -> Result<String> {
    let said = command::output(
        Command::new("rustc").arg("-vV").current_dir(paths::workspace()),
        "asking rustc",
    )?;
    let value = said.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
    Ok(value.with_context(|| format!("rustc does not name its {key}"))?.to_owned())
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
        let build = || {
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
            )
        };
        cached(&binary, YOUKI_VERSION, build)?;
    }
    Ok(Some((id, binary)))
}

/// A subcommand of cargo's under target/tools.
#[derive(Debug)]
pub(crate) struct Tool {
    name: &'static str,
    version: &'static str,
    binary: PathBuf,
}

impl Tool {
    pub(crate) fn deny() -> Result<Self> {
        Self::install("cargo-deny", "0.20.2")
    }

    pub(crate) fn deb() -> Result<Self> {
        Self::install("cargo-deb", "3.8.0")
    }

    pub(crate) fn generate_rpm() -> Result<Self> {
        Self::install("cargo-generate-rpm", "0.21.1")
    }

    /// Builds it unless it is there at our version.
    fn install(name: &'static str, version: &'static str) -> Result<Self> {
        let tools = paths::tools();
        let tool = Self { name, version, binary: tools.join("bin").join(name) };
        if tool.is_there() {
            return Ok(tool);
        }
        let build = || {
            command::run(
                cargo()
                    .args(["install", name, "--version", version, "--locked"])
                    // Not optimised: fast enough, and built in less than half the time.
                    .args(["--force", "--debug"])
                    .args(["--target", &host()?])
                    .arg("--root")
                    .arg(&tools),
                &format!("building {name} (a few minutes)"),
            )
        };
        cached(&tool.binary, version, build)?;
        Ok(tool)
    }

    fn is_there(&self) -> bool {
        let said = command::output(Command::new(&self.binary).arg("--version"), "asking it");
        said.is_ok_and(|text| text.split_whitespace().any(|word| word == self.version))
    }

    /// As cargo calls it, in the workspace.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.current_dir(paths::workspace()).arg(self.name.trim_start_matches("cargo-"));
        command
    }
}
