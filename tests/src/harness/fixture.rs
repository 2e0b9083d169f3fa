//! What lies on the host for the attackers to reach for: a service-account token, a file, copies of
//! runtime binaries, and the image that the containers run.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// First line of the token.
pub(crate) const TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.token";
/// First line of the host's secret file.
pub(crate) const SECRET: &str = "a secret of the host";
/// Where kubelet mounts the token in a container.
pub(crate) const SERVICE_ACCOUNT: &str = "/run/secrets/kubernetes.io/serviceaccount";

/// A projected volume as kubelet lays it out: a tmpfs with
/// `token → ..data/token`, `..data → ..2026_01_01_00_00_00.1` and the real file. Unmounted when
/// dropped.
#[derive(Debug)]
pub(crate) struct TokenVolume {
    dir: PathBuf,
}

impl TokenVolume {
    pub(crate) fn new(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        mount(Some("tmpfs"), dir, Some("tmpfs"), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("mount tmpfs on {}", dir.display()))?;
        let volume = Self { dir: dir.to_owned() };
        // Kubelet's layout: pkg/volume/util/atomic_writer.go, Kubernetes 1.33.
        let data = dir.join("..2026_01_01_00_00_00.1");
        fs::create_dir(&data)?;
        fs::write(data.join("token"), format!("{TOKEN}\n"))?;
        fs::set_permissions(data.join("token"), fs::Permissions::from_mode(0o644))?;
        symlink("..2026_01_01_00_00_00.1", dir.join("..data"))?;
        symlink("..data/token", dir.join("token"))?;
        // Something harmless on the same file system, which a pod may get as another volume.
        fs::create_dir(dir.join("harmless"))?;
        fs::write(dir.join("harmless/note"), "nothing here\n")?;
        Ok(volume)
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The token's path on the host.
    pub(crate) fn token(&self) -> PathBuf {
        self.dir.join("token")
    }

    /// The real file, behind both links.
    pub(crate) fn real(&self) -> PathBuf {
        self.dir.join("..2026_01_01_00_00_00.1/token")
    }
}

impl Drop for TokenVolume {
    fn drop(&mut self) {
        // Fails only when it is unmounted already.
        let _ = umount2(&self.dir, MntFlags::MNT_DETACH);
    }
}

/// Makes a root file system in `dir`: busybox and the probe, both copied, as attackers may write.
pub(crate) fn image(dir: &Path, busybox: &Path) -> Result<()> {
    for name in
        ["bin", "etc", "proc", "dev", "sys", "tmp", "run", "root", "data", "mnt", "mnt2", "srv"]
    {
        let path = dir.join(name);
        fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
    }
    fs::create_dir_all(dir.join("run/secrets/kubernetes.io/serviceaccount"))?;
    fs::create_dir_all(dir.join("var"))?;
    replace_link("/run", &dir.join("var/run"))?;
    fs::write(dir.join("etc/hostname"), "image\n")?;
    fs::write(dir.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    place(busybox, &dir.join("bin/busybox"))?;
    place(Path::new("/proc/self/exe"), &dir.join("bin/probe"))?;
    for applet in [
        "sh", "cat", "echo", "ls", "sort", "tr", "sleep", "true", "false", "head", "wc", "tee",
        "grep", "id", "stty", "tty", "mkdir", "rm", "touch", "env", "readlink", "od", "test",
        "seq", "kill", "stat", "ln", "mv", "cp", "uniq", "cut", "sed", "mount", "pwd", "chroot",
    ] {
        replace_link("busybox", &dir.join("bin").join(applet))?;
    }
    Ok(())
}

fn replace_link(target: &str, link: &Path) -> Result<()> {
    if link.symlink_metadata().is_err() {
        symlink(target, link).with_context(|| format!("link {}", link.display()))?;
    }
    Ok(())
}

/// Copies `from` to `to`, following links.
fn place(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to)
        .map(drop)
        .with_context(|| format!("copy {} to {}", from.display(), to.display()))
}

/// The host's busybox.
pub(crate) fn busybox() -> Result<PathBuf> {
    ["/bin/busybox", "/usr/bin/busybox"]
        .iter()
        .map(PathBuf::from)
        .find(|path| path.is_file())
        .context("no busybox on this machine")
}
