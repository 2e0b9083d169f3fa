//! `lockc-tests bench`: what operations cost without BPF programs, with lockc, and with others.
//!
//! Prints `kernel RELEASE`, then `CONFIGURATION OPERATION INSTRUCTIONS` lines. `cargo xtask bench` reads them; it
//! boots the guest that makes a nanosecond one instruction.

pub(crate) mod ground;

use std::{
    fs,
    process::{Command, ExitCode},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};

use self::ground::{FILES, Ground, OVERLAY};
use crate::{
    harness::{
        Container, Context,
        container::DEADLINE,
        context::Amounts,
        process::{self, Output},
        say,
    },
    probe::OPERATIONS,
};

const USAGE: &str = "usage: lockc-tests bench CONFIGURATION...";
/// The configuration as shipped.
const CONFIG: &str = "/etc/lockc/lockc.toml";
/// What containers may not do under the default policy.
const HOST_ONLY: &[&str] = &["mount-umount"];
/// A kernel has settled by then: the clock is calibrated, and nothing of the boot is left to do.
const SETTLED: Duration = Duration::from_secs(8);

pub(crate) fn main(wanted: &[String]) -> Result<ExitCode> {
    ensure!(!wanted.is_empty(), "{USAGE}");
    let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
    settle()?;
    let bench = Bench {
        context: Context::new(Some("crun"), Amounts::SMALL, false)?,
        _ground: Ground::new()?,
    };
    let release = nix::sys::utsname::uname()?;
    say(format_args!("kernel {}", release.release().to_string_lossy()));
    for configuration in ["none", "lockc"] {
        if wanted.contains(&configuration) {
            bench.run(configuration)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Waits until the kernel has settled, and fails where nanoseconds would not be instructions.
fn settle() -> Result<()> {
    let path = "/proc/uptime";
    let uptime = fs::read_to_string(path).with_context(|| format!("read {path}"))?;
    let uptime = uptime.split(' ').next().unwrap_or_default().parse()?;
    thread::sleep(SETTLED.saturating_sub(Duration::from_secs_f64(uptime)));
    let path = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    let clock = fs::read_to_string(path).with_context(|| format!("read {path}"))?;
    ensure!(clock.trim() == "tsc", "the clock is {}, not tsc", clock.trim());
    Ok(())
}

struct Bench {
    context: Context,
    _ground: Ground,
}

impl Bench {
    fn run(&self, configuration: &str) -> Result<()> {
        match configuration {
            "none" => self.both("none"),
            "lockc" => {
                let config =
                    fs::read_to_string(CONFIG).with_context(|| format!("read {CONFIG}"))?;
                let _lockc = self.context.start_lockc(&config)?;
                self.both("lockc")
            }
            _ => bail!("no configuration {configuration}"),
        }
    }

    /// On the host, and in a container.
    fn both(&self, configuration: &str) -> Result<()> {
        on_host(configuration)?;
        self.contained(configuration)
    }

    fn contained(&self, configuration: &str) -> Result<()> {
        Ground::renew()?;
        let names = OPERATIONS.iter().map(|operation| operation.name);
        let args = ["/bin/probe", "measure"]
            .into_iter()
            .chain(names.filter(|name| !HOST_ONLY.contains(name)));
        let id = self.context.id(configuration);
        let mut bundle = self.context.bundle(&id, &args.collect::<Vec<_>>());
        bundle.bind(FILES.as_ref(), FILES).bind(OVERLAY.as_ref(), OVERLAY);
        let container = Container::new(self.context.runtime(), &id, &bundle)?;
        report(&format!("{configuration}-contained"), &container.run()?)
    }
}

fn on_host(configuration: &str) -> Result<()> {
    Ground::renew()?;
    let mut command = Command::new("/proc/self/exe");
    command.args(["probe", "measure"]).args(OPERATIONS.iter().map(|operation| operation.name));
    report(&format!("{configuration}-host"), &process::run(&mut command, DEADLINE)?)
}

/// Prints what a process has measured.
fn report(configuration: &str, output: &Output) -> Result<()> {
    let costs = output.stdout.trim_end().strip_prefix("measure OK ");
    let costs = costs.with_context(|| format!("{configuration}: {output}"))?;
    for cost in costs.split(' ') {
        let (operation, cost) = cost.split_once('=').with_context(|| format!("cost {cost:?}"))?;
        say(format_args!("{configuration} {operation} {cost}"));
    }
    Ok(())
}
