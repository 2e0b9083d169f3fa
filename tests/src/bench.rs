//! `lockc-tests bench`: what operations cost without BPF programs, with lockc, and with others.
//!
//! Prints `kernel RELEASE`, then `CONFIGURATION OPERATION INSTRUCTIONS` lines. `cargo xtask bench` reads them; it
//! boots the guest that makes a nanosecond one instruction.

pub(crate) mod ground;
mod others;
mod scale;

use std::{
    fs,
    process::{Command, ExitCode},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use self::ground::{FILES, Ground, OVERLAY, PROGRAM};
use crate::{
    harness::{
        Bundle, Container, Context,
        container::DEADLINE,
        context::Amounts,
        process::{self, Output},
        say,
    },
    probe::OPERATIONS,
    sys::programs,
};

const USAGE: &str = "usage: lockc-tests bench CONFIGURATION... | scale";
/// The configuration as shipped.
const CONFIG: &str = "/etc/lockc/lockc.toml";
/// What containers may not do under the default policy.
const NOT_CONTAINED: &[&str] = &["mount-umount"];
type Change = fn(&str) -> String;
/// Configurations of lockc that only its containers are measured under, and what they make of the shipped one.
const VARIANTS: &[(&str, Change)] = &[
    ("audit", |config| config.replace("\nmode = \"enforce\"", "\nmode = \"audit\"")),
    ("rules-100", |config| with_rules(config, 1, 100)),
    ("rules-1000", |config| with_rules(config, 1, 1000)),
    ("rules-10000", |config| with_rules(config, 10, 1000)),
];
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
    bench.warm_up()?;
    let release = nix::sys::utsname::uname()?;
    say(format_args!("kernel {}", release.release().to_string_lossy()));
    if wanted == ["scale"] {
        bench.scale()?;
    } else {
        bench.run(&wanted)?;
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
    fn run(&self, wanted: &[&str]) -> Result<()> {
        let wants = |name: &str| wanted.contains(&name);
        if wants("none") {
            on_host("none", "measure", &[])?;
            self.contained("none", |_| ())?;
        }
        if wants("landlock") {
            // Nobody may mount under Landlock.
            on_host("landlock", "measure-landlocked", NOT_CONTAINED)?;
        }
        if wants("apparmor") {
            others::load_profile()?;
            self.contained("apparmor", |bundle| {
                bundle.config["process"]["apparmorProfile"] = others::PROFILE.into();
            })?;
        }
        let config = fs::read_to_string(CONFIG).with_context(|| format!("read {CONFIG}"))?;
        let lockc = self.context.start_lockc(&config)?;
        if wants("lockc") {
            on_host("lockc", "measure", &[])?;
            self.contained("lockc", |_| ())?;
        }
        for (name, change) in VARIANTS {
            if wants(name) {
                lockc.reload(&change(&config))?;
                self.contained(name, |_| ())?;
            }
        }
        let targets = programs::targets()?;
        drop(lockc);
        if wants("unloaded") {
            on_host("unloaded", "measure", &[])?;
        }
        if wants("modify-return") {
            let config = config.replace("\nbackend = \"auto\"", "\nbackend = \"modify_return\"");
            let _lockc = self.context.start_lockc(&config)?;
            on_host("modify-return", "measure", &[])?;
            self.contained("modify-return", |_| ())?;
        }
        if wants("floor") {
            let links = targets.into_iter().map(programs::attach_nothing);
            let _links = links.collect::<nix::Result<Vec<_>>>().context("attach nothing")?;
            on_host("floor", "measure", &[])?;
        }
        // Last: a few instructions of each open stay when a mark is gone.
        if wants("fanotify") {
            let _others = others::allow_execve(PROGRAM)?;
            on_host("fanotify", "measure", &[])?;
        }
        if wants("fapolicyd") {
            let _others = others::start_fapolicyd()?;
            // It marks what is mounted, and then that is busy for a moment.
            on_host("fapolicyd", "measure", NOT_CONTAINED)?;
        }
        Ok(())
    }

    /// Runs a container, and everything once. The first control group with a memory controller makes every allocation
    /// that is accounted for dearer, on the host too, and for good.
    fn warm_up(&self) -> Result<()> {
        let bundle = self.context.bundle("warm-up", &["/bin/true"]);
        let container = Container::new(self.context.runtime(), "warm-up", &bundle)?;
        container.run()?.success("the first container")?;
        measured_on_host("measure", &[])?.success("the first round").map(drop)
    }

    fn contained(&self, configuration: &str, change: impl FnOnce(&mut Bundle)) -> Result<()> {
        let names: Vec<_> = names(NOT_CONTAINED).collect();
        report(&format!("{configuration}-contained"), &self.measure(&names, configuration, change)?)
    }

    /// What a container has measured.
    fn measure(
        &self,
        names: &[&str],
        configuration: &str,
        change: impl FnOnce(&mut Bundle),
    ) -> Result<Output> {
        Ground::renew()?;
        let args = [&["/bin/probe", "measure"], names].concat();
        self.run_with(configuration, &args, change)
    }

    /// What a container has said that has the files.
    fn run_with(
        &self,
        what: &str,
        args: &[&str],
        change: impl FnOnce(&mut Bundle),
    ) -> Result<Output> {
        let id = self.context.id(what);
        let mut bundle = self.context.bundle(&id, args);
        bundle.bind(FILES.as_ref(), FILES).bind(OVERLAY.as_ref(), OVERLAY);
        change(&mut bundle);
        Container::new(self.context.runtime(), &id, &bundle)?.run()
    }
}

/// Names of the operations, without some.
fn names(without: &[&str]) -> impl Iterator<Item = &'static str> {
    let names = OPERATIONS.iter().map(|operation| operation.name);
    names.filter(|name| !without.contains(name))
}

fn on_host(configuration: &str, verb: &str, without: &[&str]) -> Result<()> {
    report(&format!("{configuration}-host"), &measured_on_host(verb, without)?)
}

fn measured_on_host(verb: &str, without: &[&str]) -> Result<Output> {
    Ground::renew()?;
    let mut command = Command::new("/proc/self/exe");
    process::run(command.args(["probe", verb]).args(names(without)), DEADLINE)
}

/// Prints what a process has measured.
fn report(configuration: &str, output: &Output) -> Result<()> {
    for (operation, cost) in costs(output).context(configuration.to_owned())? {
        say(format_args!("{configuration} {operation} {cost}"));
    }
    Ok(())
}

/// Operations, and what each has cost.
fn costs(output: &Output) -> Result<Vec<(&str, &str)>> {
    let costs = output.stdout.trim_end().split_once(" OK ").map(|(_, costs)| costs);
    let costs = costs.with_context(|| output.to_string())?.split(' ');
    costs.map(|cost| cost.split_once('=').with_context(|| format!("cost {cost:?}"))).collect()
}

/// The configuration with as many rules about paths in each of so many policies; the first of them is the default one.
fn with_rules(config: &str, policies: usize, rules: usize) -> String {
    let policies = (0..policies).map(|policy| {
        let (name, extends) = match policy {
            0 => ("baseline".to_owned(), ""),
            _ => (format!("other-{policy}"), "extends = \"baseline\"\n"),
        };
        let paths: Vec<_> =
            (0..rules).map(|rule| format!("\"/srv/data/{:03}/{rule:05}\"", rule % 97)).collect();
        format!("\n[policy.{name}]\n{extends}paths.deny = [{}]\n", paths.join(", "))
    });
    [config.to_owned()].into_iter().chain(policies).collect()
}

#[cfg(test)]
mod tests {
    use super::{VARIANTS, with_rules};

    #[test]
    fn variants_vary() {
        let config = include_str!("../../examples/config/lockc.toml");
        assert!(VARIANTS.iter().all(|(_, change)| change(config) != config));
        let rules = with_rules("", 2, 3);
        assert_eq!(rules.matches("/srv/data").count(), 6);
        assert!(rules.contains("[policy.other-1]\nextends = \"baseline\"\n"), "{rules}");
    }
}
