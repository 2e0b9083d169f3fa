//! lockc as a service of systemd's.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use nix::{sys::signal::Signal, unistd::Pid};
use serde_json::Value;

use crate::harness::{
    Container, Context, Lockc,
    bundle::LEVEL,
    daemon::{LOCKC, tail},
    engine::Sleeper,
    fixture::SERVICE_ACCOUNT,
    process::{self, wait_for},
    runner::{Daemon, Test, With},
    systemd::{self, DEADLINE, systemctl},
};

pub(crate) const TESTS: &[Test] =
    &[test("hung", hung), test("stopped", stopped), test("journal", structured)];

const fn test(name: &'static str, run: fn(&Context) -> Result<()>) -> Test {
    Test { group: "service", name, daemon: Daemon::Own, with: With::One, run }
}

const UNIT: &str = "lockc-test.service";
/// The unit that packages install.
const INSTALLED: &str = include_str!("../../../deb/lockc.service");
/// Where units are for this boot.
const UNITS: &str = "/run/systemd/system";

/// Ends the service, and what it enforces.
struct Service;

impl Drop for Service {
    fn drop(&mut self) {
        // What is left of it fails the next test.
        let _ = systemctl(&["kill", "--signal=KILL", UNIT]);
        let _ = systemctl(&["stop", UNIT]);
        let _ = systemctl(&["reset-failed", UNIT]);
        let unit = Path::new(UNITS).join(UNIT);
        if fs::remove_file(&unit).is_ok() {
            let _ = fs::remove_dir_all(unit.with_added_extension("d"));
            let _ = systemctl(&["daemon-reload"]);
        }
        let _ = Lockc::unload();
    }
}

impl Service {
    /// Starts it as the packages do, with less patience.
    fn start(config: &Path) -> Result<Self> {
        let service = Self;
        let mut command = Command::new("systemd-run");
        command.arg(format!("--unit={UNIT}")).arg("--service-type=notify");
        for property in [
            "WatchdogSec=10",
            "WatchdogSignal=SIGKILL",
            "Restart=always",
            "RestartSec=1",
            "TimeoutStartSec=200",
        ] {
            command.args(["--property", property]);
        }
        command.arg(LOCKC).args(["run", "--config"]).arg(config);
        process::run(&mut command, DEADLINE)?.success("systemd-run")?;
        Ok(service)
    }

    /// Installs the unit as it is shipped, with a configuration of the test's, and starts it. What `systemd-run` makes
    /// cannot be started again.
    fn install(config: &Path) -> Result<Self> {
        let service = Self;
        let unit = Path::new(UNITS).join(UNIT);
        let drop_ins = unit.with_added_extension("d");
        fs::create_dir_all(&drop_ins)?;
        fs::write(&unit, INSTALLED)?;
        let command = format!("{LOCKC} run --config {}", config.display());
        let changed = format!("[Service]\nExecStart=\nExecStart={command}\nTimeoutStartSec=200\n");
        fs::write(drop_ins.join("test.conf"), changed)?;
        systemctl(&["daemon-reload"])?;
        systemctl(&["start", UNIT])?;
        Ok(service)
    }
}

fn show(property: &str) -> Result<String> {
    systemd::show(UNIT, property)
}

fn main_pid() -> Result<Pid> {
    Ok(Pid::from_raw(show("MainPID")?.parse().context("MainPID is no number")?))
}

/// Waits until another daemon than `before` is ready.
fn wait_for_another(before: Pid) -> Result<()> {
    // The process first: until systemd has noticed the end of the old one, it says that the service is active.
    let is_ready = || -> Result<bool> {
        let now = main_pid()?;
        Ok(now != before && now.as_raw() != 0 && show("ActiveState")? == "active")
    };
    wait_for("a new daemon", DEADLINE, || Ok(is_ready()?.then_some(())))
}

/// A daemon that hangs, as if stopped by a debugger, holds up starts until systemd misses its pulse and ends it. What
/// waited goes on under the safe default, and a new daemon takes over.
fn hung(context: &Context) -> Result<()> {
    let config = context.scratch().join("service.toml");
    fs::write(&config, context.config())?;
    let _service = Service::start(&config)?;
    let first = main_pid()?;
    nix::sys::signal::kill(first, Signal::SIGSTOP)?;

    let id = context.id("hung");
    let token = format!("{SERVICE_ACCOUNT}/token");
    let bundle = context.token_bundle(&id, &["/bin/probe", "read", &token]);
    let output = Container::new(context.runtime(), &id, &bundle)?.run()?;
    ensure!(output.stdout.starts_with("read EPERM open"), "while lockc hangs: {output}");
    let restarts: u32 = show("NRestarts")?.parse().unwrap_or(0);
    let is_other = main_pid()? != first || restarts > 0;
    ensure!(is_other, "the container did not wait for the daemon that hangs");

    wait_for_another(first)?;
    let second = main_pid()?;
    let output = Container::new(context.runtime(), &context.id("hung"), &bundle)?.run()?;
    ensure!(output.stdout.starts_with("read EPERM open"), "with the new daemon: {output}");
    // A pulse that lasts: systemd has heard of it since.
    let heard = || show("WatchdogTimestampMonotonic");
    let before = heard()?;
    wait_for("a pulse", DEADLINE, || Ok((heard()? != before).then_some(())))?;
    ensure!(main_pid()? == second, "systemd has ended a daemon that is well");
    Ok(())
}

/// The service keeps enforcing when it is stopped, takes over when it is started, and comes back when the kernel kills it
/// for memory or a bug ends it.
fn stopped(context: &Context) -> Result<()> {
    let config = context.scratch().join("service.toml");
    fs::write(&config, context.config())?;
    let running = Sleeper::start(context, &[])?;
    running.ensure(true, "without lockc")?;
    let _service = Service::install(&config)?;
    running.ensure(false, "when lockc has started")?;

    systemctl(&["stop", UNIT])?;
    ensure!(show("ActiveState")? == "inactive", "the service is not stopped");
    running.ensure(false, "when lockc has stopped")?;
    let privileged = format!("--annotation={LEVEL}=privileged");
    let new = Sleeper::start(context, &[&privileged])?;
    new.ensure(false, "which was started while lockc was stopped")?;
    systemctl(&["start", UNIT])?;
    running.ensure(false, "when lockc has started again")?;
    let by_its_own = new.ensure(true, "when lockc has started again, by its own policy");
    by_its_own.with_context(|| journal().unwrap_or_default())?;

    for (how, end) in [("oom-kill", out_of_memory as fn() -> Result<()>), ("signal", abort)] {
        let before = main_pid()?;
        end().context(how)?;
        wait_for_another(before).context(how)?;
        let said = journal()?;
        let failed = format!("Failed with result '{how}'");
        ensure!(said.contains(&failed), "no {failed:?} in {}", tail(&said, 20));
        running.ensure(false, &format!("after {how}"))?;
        new.ensure(true, &format!("after {how}"))?;
    }
    Ok(())
}

/// Leaves the service no memory: the kernel kills it.
fn out_of_memory() -> Result<()> {
    let group = show("ControlGroup")?;
    let limit = Path::new("/sys/fs/cgroup").join(group.trim_start_matches('/')).join("memory.max");
    fs::write(&limit, "0").with_context(|| format!("write {}", limit.display()))
}

/// What a panic ends with, as lockc is built. The guest keeps no core dumps, or the result were another.
fn abort() -> Result<()> {
    nix::sys::signal::kill(main_pid()?, Signal::SIGABRT).context("send SIGABRT")
}

/// A denial is in the journal with all that its event has, each as a field, whatever the container calls itself.
fn structured(context: &Context) -> Result<()> {
    const COMM: &str = "x\nLOCKC_A=1";
    let config = context.scratch().join("service.toml");
    let events = context.scratch().join("service.jsonl");
    let file = format!("\n[events]\nfile = \"{}\"\n", events.display());
    fs::write(&config, context.config() + &file)?;
    let _service = Service::install(&config)?;

    let id = context.id("journal");
    let script = format!(
        "printf 'x\\nLOCKC_A=1' > /proc/self/comm; read line < {SERVICE_ACCOUNT}/token; echo end"
    );
    let bundle = context.token_bundle(&id, &["/bin/sh", "-c", &script]);
    let output = Container::new(context.runtime(), &id, &bundle)?.run()?;
    ensure!(output.stdout == "end\n", "{output}");

    let find = |operation: &str| -> Result<(Value, Value)> {
        let of_container = format!("LOCKC_CONTAINER={id}");
        let of_operation = format!("LOCKC_OPERATION={operation}");
        let entry = wait_for(format_args!("{operation} in the journal"), DEADLINE, || {
            let said = journal_of(&["--output=json", &of_container, &of_operation])?;
            said.lines().next().map(|line| Ok(serde_json::from_str::<Value>(line)?)).transpose()
        })?;
        let event =
            wait_for(format_args!("{operation} in {}", events.display()), DEADLINE, || {
                let text = fs::read_to_string(&events)?;
                let mut lines =
                    text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
                Ok(lines.find(|it| it["id"] == entry["LOCKC_EVENT_ID"]))
            })?;
        Ok((entry, event))
    };
    for (operation, priority) in [("start", "6"), ("open", "4")] {
        let (entry, event) = find(operation)?;
        for (key, value) in event.as_object().context("an event that is no object")? {
            let key = if key == "id" { "event_id" } else { key };
            let name = format!("LOCKC_{}", key.to_uppercase());
            let wanted = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            ensure!(entry[&name] == wanted, "{name} is not {wanted:?}: {entry}");
        }
        for (name, wanted) in
            [("PRIORITY", priority), ("SYSLOG_IDENTIFIER", "lockc"), ("_SYSTEMD_UNIT", UNIT)]
        {
            ensure!(entry[name] == wanted, "{name}: {entry}");
        }
        ensure!(entry["MESSAGE_ID"].as_str().is_some_and(|it| it.len() == 32), "{entry}");
        ensure!(entry["MESSAGE"].as_str().is_some_and(|it| it.contains(&id)), "{entry}");
    }
    let (denial, _) = find("open")?;
    for (name, wanted) in [("LOCKC_VERDICT", "denied"), ("LOCKC_COMM", COMM)] {
        ensure!(denial[name] == wanted, "{name}: {denial}");
    }
    let path = denial["LOCKC_PATH"].as_str().unwrap_or_default();
    ensure!(path.ends_with("/token"), "{denial}");
    ensure!(denial["LOCKC_A"].is_null(), "a container has made a field: {denial}");
    // What is no event is there, too.
    ensure!(journal()?.contains("enforcing: "), "{}", tail(&journal()?, 20));
    Ok(())
}

/// What systemd and the service have said.
fn journal() -> Result<String> {
    journal_of(&["--output=cat"])
}

fn journal_of(arguments: &[&str]) -> Result<String> {
    let mut command = Command::new("journalctl");
    command.args(["--unit", UNIT, "--no-pager"]).args(arguments);
    Ok(process::run(&mut command, DEADLINE)?.success("journalctl")?.stdout)
}
