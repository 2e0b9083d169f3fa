//! `cargo xtask demo`: what lockc does, shown on real containers.

use std::{ffi::OsString, io, process::ExitCode, time::Duration};

use anyhow::Result;

use crate::{artifacts::Artifacts, guest::Run, kernel::Kernel, setup};

/// Boots a throw-away guest, installs lockc in it, and tries to get out of real
/// containers with lockc off and on.
///
/// Nothing on this machine changes but missing packages and target/. Exit code 0
/// only if every row of the table is as expected.
#[derive(Debug, clap::Args)]
pub(crate) struct Demo {
    /// The kernel to boot: Debian's newest of that line
    #[arg(long, value_enum, default_value = "6.12")]
    kernel: Kernel,
}

impl Demo {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let command = ["/usr/bin/lockc-tests", "demo"].map(OsString::from);
        let run = Run::micro(self.kernel, Duration::from_mins(10), &command);
        step("looking for what this machine needs");
        setup::packages()?;
        setup::linker()?;
        step("building lockc");
        let artifacts = Artifacts::build(self.kernel.architecture())?;
        step("making the guest from Debian packages");
        run.prepare()?;
        step("booting the guest");
        let code = run.run(&artifacts, &mut io::stdout(), &mut io::stderr())?;
        Ok(ExitCode::from(code))
    }
}

fn step(what: &str) {
    eprintln!("demo: {what}");
}
