//! Containers that run before lockc does.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::harness::{
    Container, Context, Lockc,
    bundle::{Bundle, LEVEL},
    daemon::{PINS, pinned_map, tail},
    fixture::{SERVICE_ACCOUNT, TOKEN},
    lurk::Lurk,
    process::wait_for,
    runner::{Daemon, Test, With},
    say,
    steady::{Loop, rename_layout},
};

pub(crate) const TESTS: &[Test] =
    &[test("running", With::Each, running), test("layout-changes", With::One, layout_changes)];

/// Those that do not depend on the kernel.
pub(crate) const DAEMON_TESTS: &[Test] = &[
    test("created", With::One, created),
    test("started-without", With::One, started_without),
    test("foreign-pins", With::One, foreign_pins),
    test("never-pauses", With::One, never_pauses),
];

const fn test(name: &'static str, with: With, run: fn(&Context) -> Result<()>) -> Test {
    Test { group: "adoption", name, daemon: Daemon::Own, with, run }
}

const PATIENCE: Duration = Duration::from_mins(1);

fn token() -> String {
    format!("{SERVICE_ACCOUNT}/token")
}

/// A container whose processes try to read the token when they are told to.
pub(super) struct Lurkers {
    container: Container,
    id: String,
    pub(super) lurk: Lurk,
}

impl Lurkers {
    pub(super) fn start(context: &Context, setup: impl FnOnce(&mut Bundle)) -> Result<Self> {
        let id = context.id("lurk");
        let lurk = Lurk::new(context, &id)?;
        let words = Lurk::words();
        let mut bundle = context.token_bundle(&id, &words.each_ref().map(String::as_str));
        let (from, to) = lurk.directory();
        bundle.privileged_capabilities().bind(from, to);
        setup(&mut bundle);
        let container = Container::new(context.runtime(), &id, &bundle)?;
        container.start()?;
        lurk.wait_for_start()?;
        Ok(Self { container, id, lurk })
    }

    pub(super) fn ensure_all(&mut self, what: &str) -> Result<()> {
        self.lurk.ensure_all(what)
    }

    /// What a process says that is brought in now.
    fn exec(&self) -> Result<String> {
        Ok(self.container.exec(&["/bin/probe", "read", &token()])?.stdout)
    }
}

/// The event of this operation and container, in the file alone.
fn event(lockc: &Lockc, operation: &str, id: &str) -> Result<Value> {
    let path = Path::new("/run/lockc/events.jsonl");
    wait_for(format_args!("an event {operation} of {id}"), PATIENCE, || {
        let text = fs::read_to_string(path).unwrap_or_default();
        let mut events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        Ok(events.find(|it| it["operation"] == operation && it["container"] == id))
    })
    .with_context(|| format!("log:\n{}", tail(&lockc.log().unwrap_or_default(), 30)))
}

/// Every process of a container that runs is contained when lockc is ready, and so is who comes later.
fn running(context: &Context) -> Result<()> {
    let mut lurkers = Lurkers::start(context, |_| ())?;
    lurkers.ensure_all(&format!("OK {TOKEN}"))?;
    ensure!(lurkers.exec()? == format!("read OK {TOKEN}\n"), "the token cannot be read without");

    let mut lockc = context.start_lockc(&context.config())?;
    lurkers.ensure_all("EPERM open")?;
    ensure!(lurkers.exec()?.starts_with("read EPERM open"), "exec into it is not contained");
    let ordinary = lurkers.container.exec(&["/bin/probe", "threads", "4"])?;
    ensure!(ordinary.stdout == "threads OK 4 threads, sum 10\n", "ordinary work: {ordinary}");
    let adopted = format!("adopted container={} policy=baseline", lurkers.id);
    lockc.wait_for_line("the adoption", |line| line.contains(&adopted))?;
    let event = event(&lockc, "adopted", &lurkers.id)?;
    for (key, wanted) in
        [("verdict", "noticed"), ("policy", "baseline"), ("mode", "enforce"), ("engine", "none")]
    {
        ensure!(event[key] == wanted, "{key}: {event}");
    }
    ensure!(event["pid"].as_u64() > Some(0) && event["why"].is_string(), "{event}");
    lockc.wait_for_line("a denial", |line| {
        line.contains("denied open ") && line.contains(&lurkers.id)
    })?;
    let records = lockc.holdings()?;
    drop(lurkers);
    wait_for("the end of its record", PATIENCE, || Ok((lockc.holdings()?.is_idle()).then_some(())))
        .with_context(|| format!("before {records:?}, after {:?}", lockc.holdings()))?;
    lockc.check_alive()
}

/// A container that was created before lockc came, and is started after it.
fn created(context: &Context) -> Result<()> {
    let first = |name: &str| -> Result<(Container, PathBuf)> {
        let id = context.id(name);
        let shared = context.scratch().join("shared").join(&id);
        fs::create_dir_all(&shared)?;
        let script = format!("/bin/probe read {} >/shared/out 2>&1; sleep 1000", token());
        let mut bundle = context.token_bundle(&id, &["/bin/sh", "-c", &script]);
        bundle.bind(&shared, "/shared");
        let container = Container::new(context.runtime(), &id, &bundle)?;
        container.create()?;
        Ok((container, shared.join("out")))
    };
    let said = |container: &Container, out: &Path| -> Result<String> {
        container.verb("start", &[])?.success("start")?;
        wait_for("its first act", PATIENCE, || {
            let said = fs::read_to_string(out).unwrap_or_default();
            Ok(said.ends_with('\n').then_some(said))
        })
    };
    let (without, out) = first("created-off")?;
    let said_without = said(&without, &out)?;
    ensure!(said_without == format!("read OK {TOKEN}\n"), "without lockc: {said_without}");
    drop(without);

    let (container, out) = first("created")?;
    let _lockc = context.start_lockc(&context.config())?;
    let said = said(&container, &out)?;
    ensure!(said.starts_with("read EPERM open"), "with lockc: {said}");
    Ok(())
}

/// Containers that start while the daemon is dead have the default policy until it is back, and then their own.
fn started_without(context: &Context) -> Result<()> {
    let mut lockc = context.start_lockc(&context.config())?;
    lockc.kill();
    let mut free = Lurkers::start(context, |bundle| {
        bundle.annotation(LEVEL, "privileged");
    })?;
    let mut kept = Lurkers::start(context, |_| ())?;
    free.ensure_all("EPERM open")?;
    kept.ensure_all("EPERM open")?;
    lockc.restart()?;
    free.ensure_all(&format!("OK {TOKEN}"))?;
    kept.ensure_all("EPERM open")?;
    let line = format!("recognised container={} policy=privileged", free.id);
    lockc.wait_for_line("what is known of it", |it| it.contains(&line))?;
    // Both have a name now, and one another policy.
    for (lurkers, policy) in [(&free, "privileged"), (&kept, "baseline")] {
        let event = event(&lockc, "adopted", &lurkers.id)?;
        ensure!(event["policy"] == policy, "{event}");
    }
    Ok(())
}

/// A daemon whose maps have another layout takes over from one that runs.
fn layout_changes(context: &Context) -> Result<()> {
    let mut lockc = context.start_lockc(&context.config())?;
    let mut lurkers = Lurkers::start(context, |bundle| {
        bundle.annotation(LEVEL, "restricted");
    })?;
    lurkers.ensure_all("EPERM open")?;
    lockc.kill();
    rename_layout()?;
    lockc.restart()?;
    lurkers.ensure_all("EPERM open")?;
    let left: Vec<_> = fs::read_dir(PINS)?.flatten().collect();
    ensure!(left.len() == 1, "pins of another layout are left: {left:?}");
    ensure!(lurkers.exec()?.starts_with("read EPERM open"), "exec into it is not contained");
    lockc.check_alive()
}

/// Pins that are other maps than they should be, or not there, are set aside; what the programs hold counts.
fn foreign_pins(context: &Context) -> Result<()> {
    let mut lockc = context.start_lockc(&context.config())?;
    let mut lurkers = Lurkers::start(context, |bundle| {
        bundle.annotation(LEVEL, "restricted");
    })?;
    lurkers.ensure_all("EPERM open")?;
    let refused = |lockc: &Lockc, lurkers: &mut Lurkers| {
        let log = || tail(&lockc.log().unwrap_or_default(), 10);
        lurkers.ensure_all("EPERM open").with_context(|| format!("log:\n{}", log()))
    };
    let expect = |lockc: &Lockc, trouble: Option<&str>| {
        let log = lockc.log()?;
        let line = log.lines().find(|line| line.contains("setting these pins aside"));
        let is_right = match trouble {
            Some(trouble) => line.is_some_and(|line| line.contains(trouble)),
            None => line.is_none(),
        };
        ensure!(is_right, "expected {trouble:?} in the log:\n{log}");
        Ok(())
    };
    lockc.kill();
    let (labels, clock) = (pinned_map("LABELS")?, pinned_map("CLOCK")?);
    let between = labels.with_file_name("between");
    fs::rename(&labels, &between)?;
    fs::rename(&clock, &labels)?;
    fs::rename(&between, &clock)?;
    lockc.restart()?;
    refused(&lockc, &mut lurkers)?;
    expect(&lockc, Some("another map"))?;
    lockc.kill();
    fs::remove_file(pinned_map("LABELS")?)?;
    fs::remove_file(pinned_map("CONTAINERS")?)?;
    lockc.restart()?;
    refused(&lockc, &mut lurkers)?;
    ensure!(lurkers.exec()?.starts_with("read EPERM open"), "exec into it is not contained");
    expect(&lockc, Some("is not there"))?;
    lockc.kill();
    lockc.restart()?;
    refused(&lockc, &mut lurkers)?;
    expect(&lockc, None)?;
    let left: Vec<_> = fs::read_dir(PINS)?.flatten().collect();
    ensure!(left.len() == 1, "pins that were set aside are left: {left:?}");
    lockc.check_alive()
}

/// Enforcement does not pause while the daemon is killed and started again, every third time with another layout.
fn never_pauses(context: &Context) -> Result<()> {
    let (read, _) = Loop::start(context, context.runtime(), "restricted", Duration::ZERO)?.end()?;
    ensure!(read > 0, "the loop cannot read without lockc either");
    let mut lockc = context.start_lockc(&context.config())?;
    let looping = Loop::start(context, context.runtime(), "restricted", context.amounts.rest)?;
    let begin = Instant::now();
    for number in 1..=context.amounts.restarts {
        lockc.kill();
        if number.is_multiple_of(3) {
            rename_layout()?;
        }
        lockc.restart().with_context(|| format!("restart {number}"))?;
        if number.is_multiple_of(50) {
            let seconds = begin.elapsed().as_secs();
            say(format_args!("adoption: {number} restarts in {seconds} s"));
        }
    }
    lockc.check_alive()?;
    let (read, refused) = looping.end()?;
    say(format_args!(
        "adoption: {} restarts, {} with another layout: {read} reads let through, {refused} refused",
        context.amounts.restarts,
        context.amounts.restarts / 3
    ));
    ensure!(read == 0 && refused > 100, "{read} reads were let through, {refused} refused");
    Ok(())
}
