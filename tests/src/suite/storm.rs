//! A container that is denied something as often as it can try: what that costs the node, and what is told of it.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::unistd::{Pid, SysconfVar, sysconf};
use serde_json::Value;

use super::operations::json;
use crate::harness::{
    Container, Context,
    container::DEADLINE,
    process::wait_for,
    runner::{Daemon, Test, With},
    say,
    steady::Loop,
};

pub(crate) const TESTS: &[Test] =
    &[Test { group: "storm", name: "denials", daemon: Daemon::Own, with: With::One, run: denials }];

/// Denials until it is looked at what they cost.
const ENOUGH: u64 = 50_000;
/// Containers that start meanwhile.
const STARTS: usize = 3;
/// Most of one emulated processor that the daemon may take, in percent, with the questions that are asked here. The programs
/// send at most 64 events in a second for each container (`RATE_LIMIT`), however many denials there are; 9.4 was measured.
const SHARE: f64 = 25.0;

fn counter(status: &Value, name: &str) -> Result<u64> {
    status["counters"][name].as_u64().with_context(|| format!("no counter {name}: {status}"))
}

fn status() -> Result<Value> {
    json(&["status", "--format", "json"])
}

/// Processor time that a process has taken (`utime` and `stime` of `/proc/PID/stat`).
fn taken(pid: Pid) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| path.clone())?;
    let (_, fields) = stat.rsplit_once(')').with_context(|| path.clone())?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    let ticks = ticks.sum::<Result<u64, _>>().with_context(|| path.clone())?;
    let second = sysconf(SysconfVar::CLK_TCK)?.context("no clock ticks")?;
    Ok(Duration::from_millis(1000 * ticks / second.unsigned_abs()))
}

/// Each is counted, what is told of is told exactly, and who starts a container does not notice.
fn denials(context: &Context) -> Result<()> {
    let daemon = context.start_lockc(&context.config())?;
    let first = status()?;
    let storm = Loop::start(context, context.quickest(), "baseline", Duration::ZERO)?;
    let (before, began) = (counter(&status()?, "denied")?, Instant::now());
    let already = taken(daemon.pid()?)?;
    let denied = wait_for("denials", DEADLINE, || {
        let denied = counter(&status()?, "denied")? - before;
        Ok((denied >= ENOUGH).then_some(denied))
    })?;
    let (busy, elapsed) = (taken(daemon.pid()?)?.saturating_sub(already), began.elapsed());
    let share = 100.0 * busy.as_secs_f64() / elapsed.as_secs_f64();
    for number in 0..STARTS {
        let id = context.id(&format!("beside-{number}"));
        let bundle = context.token_bundle(&id, &["/bin/probe", "read", "/etc/hostname"]);
        let output = Container::new(context.quickest(), &id, &bundle)?.run()?;
        ensure!(output.status.success(), "a container beside: {output}");
    }
    let (read, refused) = storm.end()?;
    ensure!(read == 0, "{read} of {refused} were not refused");

    let last = status()?;
    let grown = |name: &str| Ok::<_, anyhow::Error>(counter(&last, name)? - counter(&first, name)?);
    let (all, suppressed, lost) = (grown("denied")?, grown("suppressed")?, grown("lost")?);
    ensure!(all == refused, "{refused} were refused, {all} counted");
    ensure!(lost == 0 && suppressed < all, "{lost} lost, {suppressed} of {all} not sent");
    ensure!(last["gate"]["late"] == 0 && grown("unregistered")? == 0, "{last}");
    let told = all - suppressed;
    wait_for("all events", DEADLINE, || {
        let text = super::operations::lockc(&["events", "--denied", "--format", "json"])?.stdout;
        let found = text.lines().count() as u64;
        ensure!(found <= told, "{found} events of {told}");
        Ok((found == told).then_some(()))
    })?;
    say(format_args!(
        "storm/denials: {denied} in {:.1} s, of which the daemon took {share:.1} % of a processor; \
         {told} of {all} told",
        elapsed.as_secs_f64()
    ));
    ensure!(share <= SHARE, "the daemon took {share:.1} % of a processor");
    Ok(())
}
