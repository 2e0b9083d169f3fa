//! `cargo xtask vm`: runs a command in a throw-away guest.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use crate::{artifacts::Artifacts, initramfs, kernel::Kernel, paths, qemu::Guest, setup};

/// Runs a command in a throw-away QEMU guest with the freshly built lockc in it,
/// and gives back its output and exit code.
///
/// The guest has lockc and lockc-tests in /usr/bin, lockc's example configuration
/// in /etc/lockc, busybox, runc (older than 1.2), crun, and a newer runc in
/// /opt/runc-new. Nothing it does outlives it, and it has no network.
#[derive(Debug, clap::Args)]
pub(crate) struct Vm {
    /// The kernel to boot: Debian's newest of that line
    #[arg(long, value_enum, default_value = "6.12")]
    kernel: Kernel,
    /// The user land: micro (busybox, a few seconds) or full (systemd, Docker, podman)
    #[arg(long, value_enum, default_value = "micro")]
    image: Image,
    /// A directory to see at /mnt/share; a copy: what the guest writes there is lost
    #[arg(long, value_name = "DIR")]
    share: Option<PathBuf>,
    /// Show the kernel's console on stderr
    #[arg(long)]
    console: bool,
    /// Add to the kernel's command line, e.g. lsm=landlock,yama
    #[arg(long, value_name = "WORDS", default_value = "", hide_default_value = true)]
    append: String,
    /// The guest's memory in MiB
    #[arg(long, value_name = "MIB", default_value_t = 2048)]
    memory: u32,
    /// Give up after that long
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u64,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Image {
    Micro,
    Full,
}

impl Vm {
    pub(crate) fn run(self) -> Result<ExitCode> {
        setup::packages()?;
        if self.image == Image::Full {
            bail!("the full image is not there yet");
        }
        let artifacts = Artifacts::build(self.kernel.architecture())?;
        let run = Run {
            kernel: self.kernel,
            share: self.share.as_deref(),
            console: self.console,
            append: &self.append,
            memory: self.memory,
            timeout: Duration::from_secs(self.timeout),
            command: &self.command,
        };
        let code = run.micro(&artifacts, &mut io::stdout(), &mut io::stderr())?;
        Ok(ExitCode::from(code))
    }
}

/// One run of one guest, as the verbs share it.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    pub(crate) kernel: Kernel,
    pub(crate) share: Option<&'a Path>,
    pub(crate) console: bool,
    pub(crate) append: &'a str,
    pub(crate) memory: u32,
    pub(crate) timeout: Duration,
    pub(crate) command: &'a [OsString],
}

impl Run<'_> {
    pub(crate) fn micro(
        &self,
        artifacts: &Artifacts,
        out: &mut (dyn io::Write + Send),
        err: &mut (dyn io::Write + Send),
    ) -> Result<u8> {
        let files = self.kernel.fetch()?;
        let mut parts = initramfs::base(&files, self.kernel.architecture())?;
        let scratch = Scratch::new()?;
        let part = scratch.dir.join("run.cpio");
        initramfs::run_part(&part, Some(artifacts), &script(self.command)?, self.share)?;
        parts.push(part);
        let initrd = scratch.dir.join("initrd");
        initramfs::concatenate(&parts, &initrd)?;
        Guest {
            architecture: self.kernel.architecture(),
            kernel: &files.image,
            initrd: &initrd,
            append: self.append,
            disks: &[],
            memory: self.memory,
            timeout: self.timeout,
            console: self.console,
            dir: &scratch.dir,
        }
        .run(out, err)
    }
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
        let dir = paths::vm("runs")?.join(format!("{}-{number}", std::process::id()));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_survive_the_shell() {
        let words = ["sh", "-c", "echo 'a b' $HOME"].map(OsString::from);
        assert_eq!(script(&words).unwrap(), "exec 'sh' '-c' 'echo '\\''a b'\\'' $HOME'\n");
    }
}
