//! A micro guest's file system: archives that the kernel unpacks one over the
//! other. The userland and the modules change with their packages only and are
//! cached; what was just built is added for each run.

use std::{
    fs,
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::{
    artifacts::Artifacts,
    cpio::Archive,
    kernel::{Architecture, Files},
    paths::{self, Digest},
    userland::{self, Userland},
};

/// Runs the command and reports, in both kinds of guest.
const REPORT: &str = include_str!("guest/report.sh");

const SCRIPTS: [(&str, &str); 2] =
    [("init", include_str!("guest/init.sh")), (".guest/report", REPORT)];

const FULL_INIT: &str = include_str!("guest/full-init.sh");
const FULL_UNIT: &str = include_str!("guest/lockc-guest.service");

/// Modules the init scripts load where the kernel does not have them built in.
const MICRO_MODULES: [&str; 4] = ["virtio_pci", "virtio_console", "overlay", "fuse"];
const FULL_MODULES: [&str; 3] = ["virtio_pci", "virtio_blk", "ext4"];

const ACCOUNTS: [(&str, &str); 7] = [
    (
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\n\
         nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n\
         edge:x:1000:1000::/home/edge:/bin/sh\n",
    ),
    ("etc/group", "root:x:0:\ntty:x:5:\nnogroup:x:65534:\nedge:x:1000:\n"),
    ("etc/subuid", "edge:100000:65536\n"),
    ("etc/subgid", "edge:100000:65536\n"),
    ("etc/hosts", "127.0.0.1 localhost guest\n"),
    ("etc/hostname", "guest\n"),
    ("etc/os-release", "ID=lockc-guest\nNAME=\"lockc micro guest\"\n"),
];

/// Where a full guest's boot archive keeps the files that go over its root.
pub(crate) const OVERLAY: &str = ".overlay/";

/// The cached archives of a micro guest, in the order the kernel has to see them.
pub(crate) fn micro(kernel: &Files, architecture: Architecture) -> Result<Vec<PathBuf>> {
    let userland = Userland::fetch(architecture)?;
    let mut digest = Digest::new();
    for id in &userland.ids {
        digest.add(id.as_bytes());
    }
    for (name, text) in SCRIPTS.iter().chain(&ACCOUNTS) {
        digest.add(name.as_bytes());
        digest.add(text.as_bytes());
    }
    let name = format!("userland-{}-{}", architecture.debian(), digest.hex());
    let userland = cached(&name, |archive| write_userland(archive, &userland))?;
    Ok(vec![userland, modules(kernel, &MICRO_MODULES)?])
}

/// The cached archives that boot a full guest from its disk.
pub(crate) fn full(kernel: &Files, architecture: Architecture) -> Result<Vec<PathBuf>> {
    let (id, busybox) = userland::busybox(architecture)?;
    let mut digest = Digest::new();
    digest.add(id.as_bytes());
    for text in [FULL_INIT, REPORT, FULL_UNIT] {
        digest.add(text.as_bytes());
    }
    let boot = cached(&format!("boot-{}-{}", architecture.debian(), digest.hex()), |archive| {
        for dir in ["dev", "proc", "sys", "mnt/root", OVERLAY] {
            archive.directory(dir)?;
        }
        archive.copy("bin/busybox", &busybox)?;
        archive.file(&format!("{OVERLAY}.guest/report"), 0o755, REPORT.as_bytes())?;
        let units = format!("{OVERLAY}etc/systemd/system");
        let unit = "lockc-guest.service";
        archive.file(&format!("{units}/{unit}"), 0o644, FULL_UNIT.as_bytes())?;
        archive
            .symlink(&format!("{units}/multi-user.target.wants/{unit}"), &format!("../{unit}"))?;
        archive.file("init", 0o755, FULL_INIT.as_bytes())
    })?;
    Ok(vec![boot, modules(kernel, &FULL_MODULES)?])
}

fn modules(kernel: &Files, wanted: &[&str]) -> Result<PathBuf> {
    let mut digest = Digest::new();
    digest.add(kernel.id.as_bytes());
    digest.add(wanted.join(" ").as_bytes());
    cached(&format!("modules-{}", digest.hex()), |archive| {
        for (number, (name, content)) in kernel.load_order(wanted)?.iter().enumerate() {
            archive.file(&format!(".guest/modules/{number:02}-{name}.ko"), 0o644, content)?;
        }
        Ok(())
    })
}

/// What changes from run to run: the command, the freshly built binaries, the
/// shared directory. `prefix` is where in the archive the guest's root is.
pub(crate) fn run_part(
    path: &Path,
    prefix: &str,
    artifacts: &Artifacts,
    script: &str,
    share: Option<&Path>,
) -> Result<()> {
    write(path, |archive| {
        archive.file(&format!("{prefix}.guest/command"), 0o755, script.as_bytes())?;
        for (guest, file) in artifacts.files() {
            archive.copy(&format!("{prefix}{guest}"), &file)?;
        }
        match share {
            Some(share) => archive.tree(&format!("{prefix}mnt/share"), share),
            None => Ok(()),
        }
    })
}

fn write_userland(archive: &mut Archive<BufWriter<fs::File>>, userland: &Userland) -> Result<()> {
    for dir in [
        "dev",
        "etc",
        "home/edge",
        "mnt/root",
        "opt",
        "proc",
        "root",
        "run",
        "sys",
        "tmp",
        "usr/bin",
        "usr/sbin",
        "usr/lib",
        "usr/lib64",
        "usr/local/bin",
        "usr/local/sbin",
        "var/lib",
        "var/log",
        ".guest",
    ] {
        archive.directory(dir)?;
    }
    for (name, to) in [
        ("bin", "usr/bin"),
        ("sbin", "usr/sbin"),
        ("lib", "usr/lib"),
        ("lib64", "usr/lib64"),
        ("var/run", "../run"),
    ] {
        archive.symlink(name, to)?;
    }
    for (name, text) in ACCOUNTS {
        archive.file(name, 0o644, text.as_bytes())?;
    }
    for (name, text) in SCRIPTS {
        archive.file(name, 0o755, text.as_bytes())?;
    }
    for (guest, file) in &userland.files {
        archive.copy(guest, file)?;
    }
    Ok(())
}

fn cached(
    name: &str,
    fill: impl FnOnce(&mut Archive<BufWriter<fs::File>>) -> Result<()>,
) -> Result<PathBuf> {
    let path = paths::vm("initramfs")?.join(format!("{name}.cpio"));
    if !path.exists() {
        let fresh = path.with_extension("writing");
        write(&fresh, fill)?;
        fs::rename(&fresh, &path)
            .with_context(|| format!("cannot rename to {}", path.display()))?;
    }
    Ok(path)
}

fn write(
    path: &Path,
    fill: impl FnOnce(&mut Archive<BufWriter<fs::File>>) -> Result<()>,
) -> Result<()> {
    let file =
        fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut archive = Archive::new(BufWriter::new(file));
    fill(&mut archive)?;
    archive.finish()?.flush().with_context(|| format!("cannot write {}", path.display()))
}

/// Puts archives together into the one file that QEMU loads.
pub(crate) fn concatenate(parts: &[PathBuf], into: &Path) -> Result<()> {
    let mut out =
        fs::File::create(into).with_context(|| format!("cannot write {}", into.display()))?;
    for part in parts {
        let mut from =
            fs::File::open(part).with_context(|| format!("cannot open {}", part.display()))?;
        std::io::copy(&mut from, &mut out)
            .with_context(|| format!("cannot copy {}", part.display()))?;
    }
    Ok(())
}
