//! `cargo xtask vm`: runs a command in a throw-away guest.

use std::{ffi::OsString, io, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Result;

use crate::{
    artifacts::Artifacts,
    guest::{Image, PROCESSORS, Run},
    kernel::Kernel,
    setup,
};

/// Runs a command in a throw-away QEMU guest with the freshly built lockc in it,
/// and gives back its output and exit code.
///
/// The guest has lockc and lockc-tests in /usr/bin, lockc's example configuration
/// in /etc/lockc, busybox, runc (older than 1.2), crun; the micro guest also youki
/// (not on arm64) and a newer runc in /opt/runc-new. Nothing it does outlives it, and it has no network.
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
    /// Count instructions: one processor, whose clock advances by a nanosecond with each
    #[arg(long)]
    counted: bool,
    /// Add to the kernel's command line, e.g. lsm=landlock,yama
    #[arg(long, value_name = "WORDS", default_value = "", hide_default_value = true)]
    append: String,
    /// The guest's memory in MiB
    #[arg(long, value_name = "MIB", default_value_t = 2048)]
    memory: u32,
    /// Build with the profile `quick`: done sooner, slower in the guest
    #[arg(long)]
    quick: bool,
    /// Give up after that long
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u64,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

impl Vm {
    pub(crate) fn run(self) -> Result<ExitCode> {
        setup::packages()?;
        let artifacts = Artifacts::build_for(
            self.image,
            self.kernel.architecture(),
            if self.quick { "quick" } else { "release" },
        )?;
        let run = Run {
            kernel: self.kernel,
            image: self.image,
            share: self.share.as_deref(),
            console: self.console,
            processors: PROCESSORS,
            counted: self.counted,
            append: &self.append,
            memory: self.memory,
            timeout: Duration::from_secs(self.timeout),
            command: &self.command,
        };
        let code = run.run(&artifacts, &mut io::stdout(), &mut io::stderr())?;
        Ok(ExitCode::from(code))
    }
}
