//! One run of one guest, from its parts to its exit code.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use crate::{artifacts::Artifacts, image, initramfs, kernel::Kernel, paths, qemu::Guest};

/// What a guest has besides its kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Image {
    /// busybox, runc and crun: boots in seconds
    Micro,
    /// Debian 13 with systemd, Docker, containerd and podman (not on arm64)
    Full,
}

/// Enough for two tasks to be at the same place at once.
pub(crate) const PROCESSORS: u8 = 2;

/// What to boot, what to run in it, and how long.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    pub(crate) kernel: Kernel,
    pub(crate) image: Image,
    /// A directory copied to /mnt/share.
    pub(crate) share: Option<&'a Path>,
    pub(crate) console: bool,
    pub(crate) processors: u8,
    /// Count instructions.
    pub(crate) counted: bool,
    pub(crate) append: &'a str,
    /// MiB
    pub(crate) memory: u32,
    pub(crate) timeout: Duration,
    pub(crate) command: &'a [OsString],
}

impl<'a> Run<'a> {
    /// The small guest, with nothing but its command.
    pub(crate) fn micro(kernel: Kernel, timeout: Duration, command: &'a [OsString]) -> Self {
        Self {
            kernel,
            image: Image::Micro,
            share: None,
            console: false,
            processors: PROCESSORS,
            counted: false,
            append: "",
            memory: 2048,
            timeout,
            command,
        }
    }

    /// Fetches and builds what the guest is made of, so that a later run only boots.
    pub(crate) fn prepare(&self) -> Result<()> {
        self.parts().map(drop)
    }

    /// Boots the guest and gives back its command's exit code.
    pub(crate) fn run(
        &self,
        artifacts: &Artifacts,
        out: &mut (dyn io::Write + Send),
        err: &mut (dyn io::Write + Send),
    ) -> Result<u8> {
        let mut parts = self.parts()?;
        let scratch = Scratch::new()?;
        let part = scratch.dir.join("run.cpio");
        let prefix = match self.image {
            Image::Micro => "",
            Image::Full => initramfs::OVERLAY,
        };
        initramfs::run_part(&part, prefix, artifacts, &script(self.command)?, self.share)?;
        parts.archives.push(part);
        let initrd = scratch.dir.join("initrd");
        initramfs::concatenate(&parts.archives, &initrd)?;
        Guest {
            architecture: self.kernel.architecture(),
            kernel: &parts.kernel,
            initrd: &initrd,
            append: self.append,
            disks: &parts.disks,
            memory: self.memory,
            timeout: self.timeout,
            console: self.console,
            processors: self.processors,
            counted: self.counted,
            dir: &scratch.dir,
        }
        .run(out, err)
    }

    fn parts(&self) -> Result<Parts> {
        let architecture = self.kernel.architecture();
        let _lock = paths::lock("parts")?;
        let files = self.kernel.fetch()?;
        let (archives, disks) = match self.image {
            Image::Micro => (initramfs::micro(&files, architecture)?, Vec::new()),
            Image::Full => {
                let disk = image::build(&files, architecture)?;
                (initramfs::full(&files, architecture)?, vec![disk])
            }
        };
        Ok(Parts { kernel: files.image, archives, disks })
    }
}

/// Cached files that a guest boots from.
#[derive(Debug)]
struct Parts {
    kernel: PathBuf,
    archives: Vec<PathBuf>,
    disks: Vec<PathBuf>,
}

/// The command as a shell script that becomes it.
fn script(command: &[OsString]) -> Result<String> {
    let mut script = String::from("exec");
    for word in command {
        script.push(' ');
        script.push_str(&quoted(word)?);
    }
    script.push('\n');
    Ok(script)
}

fn quoted(word: &OsStr) -> Result<String> {
    let Some(text) = word.to_str() else {
        bail!("the command is not UTF-8: {}", word.as_bytes().escape_ascii());
    };
    Ok(format!("'{}'", text.replace('\'', r"'\''")))
}

/// A directory for one run's files, removed afterwards.
#[derive(Debug)]
struct Scratch {
    dir: PathBuf,
}

impl Scratch {
    fn new() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let runs = paths::vm("runs")?;
        tidy(&runs);
        let dir = runs.join(format!("{}-{number}", std::process::id()));
        fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(Self { dir })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Left-over files cost disk space only.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Removes what runs have left that were killed.
fn tidy(runs: &Path) {
    for entry in fs::read_dir(runs).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.split('-').next()).unwrap_or_default();
        if !Path::new("/proc").join(pid).exists() {
            // Left-over files cost disk space only.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_survive_the_shell() {
        let words = ["sh", "-c", "echo 'a b' $HOME"].map(OsString::from);
        assert_eq!(script(&words).unwrap(), "exec 'sh' '-c' 'echo '\\''a b'\\'' $HOME'\n");
    }
}
