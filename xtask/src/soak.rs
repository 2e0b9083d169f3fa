//! `cargo xtask soak`: containers and the daemon come and go in a guest, for as long as one likes.

use std::{
    ffi::OsString,
    io,
    process::ExitCode,
    time::{Duration, SystemTime},
};

use anyhow::Result;

use crate::{artifacts::Artifacts, guest::Run, kernel::Kernel, setup};

/// Boots a throw-away guest and has several threads start, enter and kill containers of every
/// runtime there, while lockc is killed, stopped, reloaded and replaced.
///
/// Checks all the while that nobody gets what is forbidden and that ordinary work works, and at
/// quiet moments that nothing is left. The last line says what was done; the first failure, what
/// was going on. Exit code 0 only if all is well.
#[derive(Debug, clap::Args)]
pub(crate) struct Soak {
    /// How long, after the guest has booted
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    minutes: u64,
    /// What each thread does is the same for the same seed; another one each time unless given
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// The kernel to boot: Debian's newest of that line
    #[arg(long, value_enum, default_value = "6.12")]
    kernel: Kernel,
    /// Build with the profile `quick`: done sooner, slower in the guest
    #[arg(long)]
    quick: bool,
}

/// What booting, the first start of lockc and the end may take on an emulated machine, and a last
/// operation that hangs: the guest is to say so itself.
const GRACE: Duration = Duration::from_mins(15);
/// Seeds that are chosen are short enough to be typed.
const SEEDS: u64 = 1_000_000;

impl Soak {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let seed = self.seed.unwrap_or_else(chosen);
        let (minutes, seed) = (self.minutes.to_string(), seed.to_string());
        let command = ["/usr/bin/lockc-tests", "soak", "--minutes", &minutes, "--seed", &seed]
            .map(OsString::from);
        let run = Run::micro(self.kernel, Duration::from_secs(60 * self.minutes) + GRACE, &command);
        setup::packages()?;
        setup::linker()?;
        step("building lockc");
        let profile = if self.quick { "quick" } else { "release" };
        let artifacts = Artifacts::build_as(self.kernel.architecture(), profile)?;
        step("making the guest from Debian packages");
        run.prepare()?;
        step(&format!("booting the guest: {minutes} minutes, seed {seed}"));
        let code = run.run(&artifacts, &mut io::stdout(), &mut io::stderr())?;
        Ok(ExitCode::from(code))
    }
}

fn chosen() -> u64 {
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    time.as_secs() % SEEDS
}

fn step(what: &str) {
    eprintln!("soak: {what}");
}
