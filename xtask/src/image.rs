//! The disk of a full guest: Debian 13 with systemd, Docker, containerd and
//! podman, made by mmdebstrap and put into an ext4 file system.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    apt::Suite,
    command,
    debootstrap::{debootstrap, remove},
    kernel::{Architecture, Files},
    paths::{self, Digest},
    setup::as_root,
};

const SUITE: &str = "trixie";

/// Besides the essential packages.
const PACKAGES: [&str; 29] = [
    "apparmor",
    "aardvark-dns",
    "busybox-static",
    "ca-certificates",
    "catatonit",
    "containerd",
    "crun",
    "dbus",
    "dbus-user-session",
    "docker-cli",
    "docker.io",
    "fuse-overlayfs",
    "iproute2",
    "iptables",
    "kmod",
    "libpam-systemd",
    "netavark",
    "nftables",
    "passt",
    "podman",
    "procps",
    "rpm",
    "runc",
    "slirp4netns",
    "systemd",
    "systemd-sysv",
    "udev",
    "uidmap",
    "util-linux",
];

/// Ordinary software, which the tests of compatibility run in containers.
const SOFTWARE: [&str; 15] = [
    "gdb",
    "git",
    "iputils-ping",
    "libc6-dev",
    "make",
    "nginx",
    "nodejs",
    "postgresql-17",
    "python3",
    "rsync",
    "sqlite3",
    "strace",
    "sudo",
    "tcc",
    "valkey-server",
];

/// Files that are not installed: documents, sources of locales, and LLVM, which the database would
/// compile queries with and which is as large as all other software.
const EXCLUDED: [&str; 8] = [
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/locale/*",
    "/usr/share/i18n/*",
    "/usr/lib/*/libLLVM*",
    "/usr/lib/*/libz3.so*",
    "/usr/lib/postgresql/*/bitcode/*",
    "/usr/lib/postgresql/*/llvmjit*",
];

/// Run by mmdebstrap on the finished root directory.
const FINISH: &str = include_str!("guest/full-image.sh");

/// Enough for the packages (about 890 MB) and for what tests write; sparse.
const SIZE: &str = "4G";

/// The image for this kernel, built unless it is there.
pub(crate) fn build(kernel: &Files, architecture: Architecture) -> Result<PathBuf> {
    if architecture != Architecture::X86_64 {
        bail!("there is no full image for {}", architecture.debian());
    }
    let suite = Suite::open(SUITE, architecture.debian())?;
    let mut digest = Digest::new();
    digest.add(&suite.release()?);
    for words in [&PACKAGES[..], &SOFTWARE, &EXCLUDED] {
        digest.add(words.join(" ").as_bytes());
    }
    digest.add(FINISH.as_bytes());
    digest.add(SIZE.as_bytes());
    digest.add(kernel.id.as_bytes());
    let dir = paths::vm("image")?;
    let image = dir.join(format!("full-{}.ext4", digest.hex()));
    if image.exists() {
        return Ok(image);
    }
    let work = dir.join("work");
    remove(&work)?;
    paths::create_dir(&work)?;
    let root = work.join("root");
    install(&work, &root, architecture)?;
    add_modules(&root, kernel)?;
    let fresh = work.join("image");
    command::run(
        as_root("mke2fs")
            .args(["-q", "-F", "-t", "ext4", "-L", "guest", "-E", "root_owner=0:0"])
            .args(["-O", "^has_journal", "-d"])
            .args([&root, &fresh])
            .arg(SIZE),
        "writing the full guest's disk",
    )?;
    // Whoever made it, QEMU reads it as we are.
    let owner = format!("{}:{}", nix::unistd::geteuid(), nix::unistd::getegid());
    command::run(as_root("chown").arg(owner).arg(&fresh), "handing over the disk")?;
    forget_others(&dir)?;
    fs::rename(&fresh, &image).with_context(|| format!("cannot rename to {}", image.display()))?;
    remove(&work)?;
    Ok(image)
}

/// Removes earlier images, which nothing names any more; each has 900 MB.
fn forget_others(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry.with_context(|| format!("cannot read {}", dir.display()))?.path();
        if path.extension().is_some_and(|it| it == "ext4") {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

fn install(work: &Path, root: &Path, architecture: Architecture) -> Result<()> {
    let finish = work.join("finish");
    fs::write(&finish, FINISH).with_context(|| format!("cannot write {}", finish.display()))?;
    let hook =
        format!("--customize-hook=sh -eu {} \"$1\" {}", finish.display(), architecture.debian());
    let options: Vec<_> = EXCLUDED
        .iter()
        .map(|path| format!("--dpkgopt=path-exclude={path}"))
        .chain([hook])
        .collect();
    let packages = [&PACKAGES[..], &SOFTWARE].concat();
    let label = "building the full guest's image (about a minute)";
    debootstrap(root, SUITE, architecture, &packages, &options, label)
}

/// Gives the guest its kernel's modules, with the index that modprobe needs.
fn add_modules(root: &Path, kernel: &Files) -> Result<()> {
    let into = root.join("usr/lib/modules");
    command::run(as_root("mkdir").arg("-p").arg(&into), "copying modules")?;
    command::run(as_root("cp").arg("-a").args([&kernel.modules, &into]), "copying modules")?;
    let release = kernel.modules.file_name().context("the modules have no release")?;
    command::run(as_root("cp").args([&kernel.builtin, &into.join(release)]), "copying modules")?;
    command::run(as_root("chown").args(["-R", "0:0"]).arg(&into), "copying modules")?;
    command::run(as_root("depmod").arg("-b").arg(root).arg(release), "indexing modules")
}
