//! How what lockc costs grows: with rules, records of containers, tasks, and denials.

use std::{fs, time::Instant};

use anyhow::{Context as _, Result};

use super::{Bench, CONFIG, with_rules};
use crate::{
    harness::{Container, Lockc, container::DEADLINE, daemon::pinned_map, process::wait_for, say},
    sys::bpf,
};

/// Numbers of rules, as policies and rules in each: a policy has at most 1024, all of them 16 384.
const RULES: &[(usize, usize)] = &[(1, 1), (1, 10), (1, 100), (1, 1000), (10, 1000)];
/// Numbers of records.
const RECORDS: &[u64] = &[1, 10, 100, 1000, 10_000];
/// Numbers of tasks that a container has.
const TASKS: &[usize] = &[1, 10, 100, 1000, 10_000];
/// Numbers of denials in a second of the clock that counts instructions.
const DENIALS: &[usize] = &[1, 10, 100, 1000, 10_000, 100_000];
/// What is denied.
const DENIED: &str = "/b/denied";
/// Handles that no container has.
const FIRST: u64 = 1 << 60;
/// What is measured in a container: an open where the directory is remembered, and a rename, for which nothing is.
const OPERATIONS: &[&str] = &["open", "rename"];

impl Bench {
    /// Prints `scale WHAT NUMBER FIGURE VALUE` lines: instructions for `open`, `rename`, `denied`, and `start`, a container
    /// from beginning to end; `reload` in ms; `memory` of the daemon in KiB.
    pub(super) fn scale(&self) -> Result<()> {
        let config = fs::read_to_string(CONFIG).with_context(|| format!("read {CONFIG}"))?;
        let lockc = self.context.start_lockc(&config)?;
        for (policies, rules) in RULES {
            lockc.reload(&with_rules(&config, *policies, *rules))?;
            let tell = |figure: &str, value: f64| tell("rules", policies * rules, figure, value);
            tell("reload", reload_time(&lockc)?);
            self.figures(&lockc, tell)?;
        }
        lockc.reload(&config)?;
        for number in RECORDS {
            let _records = bpf::Full::add(&pinned_map("CONTAINERS")?, FIRST..FIRST + *number)
                .with_context(|| format!("add {number} records"))?;
            let number = usize::try_from(*number)?;
            self.figures(&lockc, |figure, value| tell("records", number, figure, value))?;
        }
        for number in TASKS {
            self.beside_tasks(&lockc, *number).with_context(|| format!("beside {number} tasks"))?;
        }
        lockc.reload(&format!("{config}\n[policy.baseline]\npaths.deny = [\"{DENIED}\"]\n"))?;
        fs::write(DENIED, "").with_context(|| format!("write {DENIED}"))?;
        for number in DENIALS {
            let args = ["/bin/probe", "open-denied", &number.to_string(), DENIED];
            let said = self.run_with("scale-denied", &args, |_| ())?.success("the probe")?.stdout;
            let cost = said.trim_end().split_once(" OK ").and_then(|(_, cost)| cost.parse().ok());
            tell("denials", *number, "denied", cost.with_context(|| said.clone())?);
            tell("denials", *number, "memory", resident(&lockc)?);
        }
        Ok(())
    }

    /// Measures beside a container that has so many tasks.
    fn beside_tasks(&self, lockc: &Lockc, number: usize) -> Result<()> {
        let shared = self.context.scratch().join("scale-tasks");
        fs::create_dir_all(&shared).with_context(|| format!("create {}", shared.display()))?;
        let verdicts = shared.join("verdicts");
        let _ = fs::remove_file(&verdicts);
        let args = ["/bin/probe", "crowd", &number.to_string(), "/shared/verdicts", DENIED];
        let mut bundle = self.context.bundle("scale-tasks", &args);
        bundle.bind(&shared, "/shared");
        let container = Container::new(self.context.runtime(), "scale-tasks", &bundle)?;
        container.start()?;
        wait_for("all tasks", DEADLINE, || Ok(verdicts.exists().then_some(())))?;
        self.figures(lockc, |figure, value| tell("tasks", number, figure, value))?;
        container.delete()
    }

    fn figures(&self, lockc: &Lockc, tell: impl Fn(&str, f64)) -> Result<()> {
        let output = self.measure(OPERATIONS, "scale", |_| ())?;
        for (operation, cost) in super::costs(&output)? {
            tell(operation, cost.parse().with_context(|| format!("cost {cost:?}"))?);
        }
        let bundle = self.context.bundle("scale-start", &["/bin/true"]);
        let container = Container::new(self.context.runtime(), "scale-start", &bundle)?;
        let begin = Instant::now();
        container.run()?.success("a container")?;
        tell("start", begin.elapsed().as_secs_f64() * 1e9);
        tell("memory", resident(lockc)?);
        Ok(())
    }
}

fn tell(what: &str, number: usize, figure: &str, value: f64) {
    say(format_args!("scale {what} {number} {figure} {value:.1}"));
}

/// What the daemon says of its last reload.
fn reload_time(lockc: &Lockc) -> Result<f64> {
    let log = lockc.log()?;
    let time = log.lines().rev().find_map(|line| {
        line.split_once("configuration in force after ")?.1.split_once(" ms")?.0.parse().ok()
    });
    time.with_context(|| format!("no reload: {log}"))
}

/// `VmRSS` of the daemon, in KiB (`proc_pid_status(5)`).
fn resident(lockc: &Lockc) -> Result<f64> {
    let path = format!("/proc/{}/status", lockc.pid()?);
    let status = fs::read_to_string(&path).with_context(|| path.clone())?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number =
        line.and_then(|line| line.split_whitespace().next()).with_context(|| path.clone())?;
    number.parse().with_context(|| path.clone())
}
