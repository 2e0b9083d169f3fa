//! What goes wrong with the daemon itself, and numbers that are used again: nothing gets loose by it, nobody is harmed,
//! and no runtime waits for longer than for a decision.

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Write as _},
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::instant::{ensure_refused, waits_for_fanotify};
use crate::{
    harness::{
        Bundle, Container, Context, Level, Lockc,
        container::DEADLINE,
        daemon::pinned_map,
        fixture::{SERVICE_ACCOUNT, TOKEN, busybox},
        process::{self, Output, Running, wait_for},
        runner::{Daemon, Test, With},
        steady::rename_layout,
    },
    sys::{self, bpf},
};

pub(crate) const TESTS: &[Test] = &[
    test("daemon-dies", Daemon::Own, daemon_dies),
    test("registered-after-restart", Daemon::Own, registered_after_restart),
    test("registered-after-upgrade", Daemon::Own, registered_after_upgrade),
    test("proc-unreadable", Daemon::Own, proc_unreadable),
    test("log-full", Daemon::Own, log_full),
    test("ids-reused", Daemon::On, ids_reused),
    test("pids-reused", Daemon::Own, pids_reused),
];

const fn test(name: &'static str, daemon: Daemon, run: fn(&Context) -> Result<()>) -> Test {
    Test { group: "faults", name, daemon, with: With::One, run }
}

/// Longest time that a container may take to run: `decision_timeout_ms`, which is 2 s here, and what an emulated
/// machine needs without lockc.
const SOON: Duration = Duration::from_secs(20);
/// Longest time until something is as it should be.
const TIDY: Duration = Duration::from_mins(1);

fn token() -> String {
    format!("{SERVICE_ACCOUNT}/token")
}

/// A container that has the token and sleeps.
fn sleeping(context: &Context) -> Result<Container> {
    let id = context.id("sleep");
    let bundle = context.token_bundle(&id, &["/bin/sleep", "1000"]);
    let container = Container::new(context.quickest(), &id, &bundle)?;
    container.start()?;
    Ok(container)
}

/// Runs a container that reads the token, and asks for the policy privileged; fails if that takes long.
fn run(context: &Context, spoil: impl FnOnce(&Bundle) -> Result<()>) -> Result<Output> {
    let id = context.id("asks");
    let mut bundle = context.token_bundle(&id, &["/bin/probe", "read", &token()]);
    Level::Privileged.annotate(&mut bundle);
    let container = Container::new(context.quickest(), &id, &bundle)?;
    spoil(&bundle)?;
    let begin = Instant::now();
    let output = container.run();
    let took = begin.elapsed();
    ensure!(took < SOON, "a start takes {took:?}: {output:?}");
    output
}

/// A daemon that decides gives it what it asks for.
fn ensure_decided(context: &Context) -> Result<()> {
    let output = run(context, |_| Ok(()))?;
    ensure!(output.stdout == format!("read OK {TOKEN}\n"), "not as decided: {output}");
    Ok(())
}

/// Where nobody decides, it has the default.
fn ensure_default(output: &Output) -> Result<()> {
    ensure!(output.stdout.starts_with("read EPERM open"), "not the default policy: {output}");
    Ok(())
}

/// A control group with a limit of memory; removed when dropped.
struct Memory(PathBuf);

impl Memory {
    fn limit(pid: Pid, bytes: u64) -> Result<Self> {
        let group = Self(PathBuf::from("/sys/fs/cgroup/lockc-tests-memory"));
        let Self(path) = &group;
        fs::create_dir_all(path)?;
        fs::write(path.join("memory.max"), bytes.to_string())?;
        // What the process has already counts elsewhere (cgroup-v2.rst, 6.12, "Memory Ownership").
        fs::write(path.join("cgroup.procs"), pid.to_string())?;
        Ok(group)
    }

    fn kills(&self) -> Result<u64> {
        let events = fs::read_to_string(self.0.join("memory.events"))?;
        let kills = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
        kills.context("no oom_kill")?.parse().context("no number")
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // Fails while the daemon is in it, which is another failure.
        let _ = fs::remove_dir(&self.0);
    }
}

/// The kernel ends a daemon that has no memory for a bundle; the next one aborts while it holds a runtime, as it does
/// when it panics (`panic = "abort"`). What runs stays contained, and what was held has the default policy.
fn daemon_dies(context: &Context) -> Result<()> {
    let mut lockc = context.start_lockc(&context.config())?;
    let container = sleeping(context)?;
    ensure_decided(context)?;
    let memory = Memory::limit(lockc.pid()?, 4 << 20)?;
    // No longer than a bundle may be.
    let output = run(context, |bundle| {
        let config = bundle.dir().join("config.json");
        let mut file = OpenOptions::new().append(true).open(config)?;
        Ok(file.write_all(&vec![b' '; 12 << 20])?)
    })?;
    let status = lockc.wait_for_end()?;
    ensure!(memory.kills()? > 0, "the daemon ended with {status}, and not for want of memory");
    drop(memory);
    ensure_default(&output).context("the one with the long bundle")?;
    ensure_refused(&container, "one that runs, without memory")?;
    ensure_default(&run(context, |_| Ok(()))?).context("one that starts, without memory")?;

    lockc.restart()?;
    ensure_refused(&container, "one that runs, after a restart")?;
    ensure_decided(context).context("after a restart")?;
    let output = held_by(context, &mut lockc).context("an abort")?;
    ensure_default(&output).context("the one that was held")?;
    ensure_refused(&container, "one that runs, after an abort")?;
    ensure_default(&run(context, |_| Ok(()))?).context("one that starts, after an abort")
}

/// Aborts the daemon while it holds a runtime; what that one's container says.
fn held_by(context: &Context, lockc: &mut Lockc) -> Result<Output> {
    let daemon = lockc.pid()?;
    let id = context.id("held");
    let bundle = context.token_bundle(&id, &["/bin/probe", "read", &token()]);
    let held = Container::new(context.quickest(), &id, &bundle)?;
    kill(daemon, Signal::SIGSTOP)?;
    std::thread::scope(|scope| {
        let run = scope.spawn(|| held.run());
        let waits =
            wait_for("a runtime that waits", TIDY, || Ok(waits_for_fanotify().then_some(())));
        kill(daemon, Signal::SIGABRT)?;
        kill(daemon, Signal::SIGCONT)?;
        let begin = Instant::now();
        let status = lockc.wait_for_end()?;
        let output = run.join().map_err(|_| anyhow!("a thread panicked"))?;
        ensure!(begin.elapsed() < SOON, "it waited for {:?}", begin.elapsed());
        ensure!(!status.success(), "the daemon ended with {status}");
        waits.and(output)
    })
}

/// Whoever starts as soon as a restarted daemon is ready has what that decides: programs of the one before do not come
/// in between and lose its registration.
fn registered_after_restart(context: &Context) -> Result<()> {
    ensure_decided_after(context, || Ok(()))
}

/// Nor do programs of another layout version, to which whoever starts is nobody they know.
fn registered_after_upgrade(context: &Context) -> Result<()> {
    ensure_decided_after(context, rename_layout)
}

fn ensure_decided_after(context: &Context, change: impl FnOnce() -> Result<()>) -> Result<()> {
    let mut lockc = context.start_lockc(&context.config())?;
    lockc.kill();
    change()?;
    lockc.restart()?;
    for _ in 0..3 {
        ensure_decided(context)?;
    }
    let log = lockc.log()?;
    let lost = log.lines().find(|line| line.contains("noticed unregistered"));
    ensure!(lost.is_none(), "a registration was not taken up: {lost:?}");
    Ok(())
}

/// A daemon that cannot read `/proc` knows nothing about whom it holds.
fn proc_unreadable(context: &Context) -> Result<()> {
    let config = context.config();
    let lockc = Lockc::start_with(&context.scratch().join("lockc"), &config, |command| {
        sys::own_mounts(command);
        Ok(())
    })?;
    let pid = lockc.pid()?.to_string();
    let inside = |words: &[&str]| -> Result<()> {
        let mut command = Command::new(busybox()?);
        command.args(["nsenter", "-t", &pid, "-m"]).args(words);
        process::run(&mut command, DEADLINE)?.success(words.join(" ")).map(drop)
    };
    ensure_decided(context)?;
    let cover = ["mount", "-t", "tmpfs", "none", "/proc"];
    inside(&cover)?;
    ensure_default(&run(context, |_| Ok(()))?)?;
    lockc.wait_for_line("the reason", |line| line.contains("cannot read /proc/"))?;
    inside(&["umount", "/proc"])?;
    ensure_decided(context).context("with /proc again")?;

    lockc.reload(&config.replacen("[daemon]\n", "[daemon]\non_error = \"deny\"\n", 1))?;
    inside(&cover)?;
    if let Ok(output) = run(context, |_| Ok(())) {
        ensure!(!output.status.success() && output.stdout.is_empty(), "it starts: {output}");
    }
    inside(&["umount", "/proc"])?;
    ensure_decided(context).context("with /proc again")
}

/// A small file system; unmounted when dropped.
struct Small(PathBuf);

impl Small {
    fn mount(dir: PathBuf) -> Result<Self> {
        fs::create_dir_all(&dir)?;
        mount(Some("tmpfs"), &dir, Some("tmpfs"), MsFlags::empty(), Some("size=64k"))?;
        Ok(Self(dir))
    }

    /// Takes what room there is; the file that has it.
    fn fill(&self) -> Result<PathBuf> {
        let path = self.0.join("filler");
        let mut filler = File::create(&path)?;
        loop {
            match filler.write_all(&[0; 4096]) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(path),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Fails only when it is unmounted already.
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// The disk is full on which the log lies: the daemon decides and enforces, and logs again when there is room.
fn log_full(context: &Context) -> Result<()> {
    let disk = Small::mount(context.scratch().join("full"))?;
    let log = disk.0.join("log");
    let file = OpenOptions::new().append(true).create_new(true).open(&log)?;
    let filler = disk.fill()?;
    let dir = context.scratch().join("lockc");
    let mut lockc = Lockc::start_with(&dir, &context.config(), |command| {
        command.stderr(file);
        Ok(())
    })?;
    let container = sleeping(context)?;
    ensure_refused(&container, "one without annotation")?;
    ensure_decided(context)?;
    ensure!(fs::metadata(&log)?.len() == 0, "there was room for the log");
    fs::remove_file(filler)?;
    ensure_decided(context)?;
    wait_for("lines", TIDY, || {
        Ok(fs::read_to_string(&log)?.contains("registered container=").then_some(()))
    })?;
    lockc.check_alive()
}

/// The same id again and again, at once: each time the container has the policy of this time.
fn ids_reused(context: &Context) -> Result<()> {
    let id = context.id("again");
    for turn in 0..20 {
        let mut bundle = context.token_bundle(&id, &["/bin/probe", "read", &token()]);
        let wanted = if turn % 5 == 4 {
            Level::Privileged.annotate(&mut bundle);
            format!("read OK {TOKEN}")
        } else {
            "read EPERM open".to_owned()
        };
        let output = Container::new(context.quickest(), &id, &bundle)?.run()?;
        ensure!(output.stdout.starts_with(&wanted), "turn {turn}: {output}");
    }
    context.with_lockc(|lockc| {
        wait_for("the end of all records", TIDY, || Ok(lockc.holdings()?.is_idle().then_some(())))
            .with_context(|| format!("{:?}", lockc.holdings()))
    })
}

/// Starts a program with this process id.
fn start_as(pid: u32, command: &mut Command) -> Result<Running> {
    let wanted = Pid::from_raw(pid.cast_signed());
    // Somebody else may fork between the two.
    for _ in 0..100 {
        fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string())?;
        let running = Running::start(command)?;
        if running.pid() == wanted {
            return Ok(running);
        }
    }
    bail!("no process gets the id {pid}")
}

/// A process of the host with the id of one that was contained is none of the container's, and nobody takes up what was
/// registered for an earlier process with the same id.
fn pids_reused(context: &Context) -> Result<()> {
    let mut lockc = context.start_lockc(&context.config())?;
    let mut reads = Command::new(busybox()?);
    reads.arg("cat").arg(context.token().token());
    let mut host = |pid: u32| -> Result<()> {
        let output = start_as(pid, &mut reads)?.finish(DEADLINE)?;
        ensure!(output.stdout.contains(TOKEN), "a process of the host: {output}");
        Ok(())
    };
    let container = sleeping(context)?;
    ensure_refused(&container, "the container")?;
    let pid = container.state()?["pid"].as_u64().context("no pid")?;
    drop(container);
    host(u32::try_from(pid)?).context("with the id of one that was contained")?;

    // Its execve fails once it is registered: the environment is too long (6.8 and later open the file first).
    let id = context.id("asks");
    let mut bundle = context.token_bundle(&id, &["/bin/probe", "read", &token()]);
    Level::Privileged.annotate(&mut bundle);
    let container = Container::new(context.quickest(), &id, &bundle)?;
    let mut command = container.command("run", &[]);
    command.env("PADDING", "x".repeat(256 << 10));
    let pending = pinned_map("PENDING")?;
    let registered = || -> Result<Vec<u32>> {
        let keys = bpf::keys(&pending)?;
        let tids = keys.iter().map(|key| Ok(u32::from_ne_bytes(key.as_slice().try_into()?)));
        tids.collect()
    };
    let daemon = lockc.pid()?;
    let tids = wait_for("two registrations", TIDY, || {
        for _ in 0..2 {
            let started = Running::start(&mut command);
            ensure!(started.is_err(), "it starts with a long environment");
        }
        // Unless it has swept them up already.
        kill(daemon, Signal::SIGSTOP)?;
        let tids = registered()?;
        // One more may be left of the last time; what starts next would wait for a stopped daemon for ever.
        if tids.len() != 2 {
            kill(daemon, Signal::SIGCONT)?;
        }
        Ok((tids.len() == 2).then_some(tids))
    })?;
    lockc.kill();
    let [one, other] = tids[..] else { bail!("registered are {tids:?}, not two") };
    let output = start_as(one, &mut container.command("run", &[]))?.finish(DEADLINE)?;
    ensure_default(&output).context("a runtime with the id of an earlier one")?;
    host(other).context("with the id of a runtime")?;
    ensure!(registered()?.is_empty(), "registrations are left: {:?}", registered()?);
    // That of the safe default.
    let records = pinned_map("CONTAINERS")?;
    wait_for("the end of all records", TIDY, || Ok((bpf::keys(&records)?.len() == 1).then_some(())))
}
