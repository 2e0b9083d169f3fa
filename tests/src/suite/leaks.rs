//! Containers come and go by the thousand, and leave nothing; and nothing that costs at every start grows unseen.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::unistd::Pid;

use crate::{
    harness::{
        Container, Context, Runtime,
        container::DEADLINE,
        daemon::{pinned_map, tail},
        fixture::{SERVICE_ACCOUNT, TOKEN},
        holdings::{TIDY, resident, settled},
        process,
        runner::{Daemon, Test, With},
        say,
    },
    sys::{bpf, is_before_6_2},
};

pub(crate) const TESTS: &[Test] = &[
    test("failing-starts", failing_starts),
    test("huge-stacks", huge_stacks),
    Test { daemon: Daemon::Own, ..test("short-containers", short_containers) },
];

/// For every kernel, also those that run no LSM programs.
pub(crate) const END_TESTS: &[Test] = &[
    test("uncounted-ends", uncounted_ends),
    test("verified-instructions", verified_instructions),
    test("policies-of-self-test", policies_of_self_test),
];

const fn test(name: &'static str, run: fn(&Context) -> Result<()>) -> Test {
    Test { group: "leaks", name, daemon: Daemon::On, with: With::One, run }
}

/// Index of the counter of tasks whose end was not counted.
const UNCOUNTED: u32 = 5;
/// After how many short containers it says how far it is.
const SHORT_AT_ONCE: usize = 10_000;
/// Growth of the daemon's memory that is not a leak, in KiB.
const ALLOWANCE: u64 = 2048;

/// One start that fails: by turns there is no bundle, no program, or the id is not allowed.
fn fail(runtimes: &[Runtime], container: &Container, number: usize) -> Result<()> {
    // Mostly with the last one, which is the quickest where there are several.
    let (last, others) = runtimes.split_last().context("no runtime")?;
    let turn = number / 20;
    let runtime = if number.is_multiple_of(20) && !others.is_empty() {
        &others[turn % others.len()]
    } else {
        last
    };
    let output = if number.is_multiple_of(50) {
        container.run()?
    } else {
        let mut command: Command = runtime.command();
        let id = if number.is_multiple_of(7) { "not/allowed" } else { "lt-nobody" };
        process::run(command.args(["run", "--bundle", "/nowhere", id]), DEADLINE)?
    };
    ensure!(!output.status.success(), "a start that must fail: {output}");
    Ok(())
}

fn failing_starts(context: &Context) -> Result<()> {
    // One per thread, as an id can be in use once only; its program does not exist.
    let containers = (0..context.amounts.parallel)
        .map(|_| {
            let id = context.id("fails");
            Container::new(context.runtime(), &id, &context.bundle(&id, &["/bin/absent"]))
        })
        .collect::<Result<Vec<_>>>()?;
    let runtimes = context.runtimes();
    // Once before, so that what is allocated for good is allocated.
    for (number, container) in containers.iter().enumerate() {
        fail(runtimes, container, number * 50)?;
    }
    let total = context.amounts.failures;
    context.with_lockc(|lockc| {
        let before = settled(lockc, None)?;
        let memory = resident(lockc.pid()?)?;
        let logged = lockc.log()?.lines().count();
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let threads: Vec<_> = containers
                .iter()
                .map(|container| {
                    let next = &next;
                    scope.spawn(move || -> Result<()> {
                        loop {
                            let number = next.fetch_add(1, Ordering::Relaxed);
                            if number >= total {
                                return Ok(());
                            }
                            fail(runtimes, container, number)?;
                        }
                    })
                })
                .collect();
            threads
                .into_iter()
                .try_for_each(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?)
        })
        .with_context(|| format!("log:\n{}\n", tail(&lockc.log().unwrap_or_default(), 20)))?;
        lockc.check_alive()?;
        // One that is not taken up is refused, and the start fails as it must: nothing else says so.
        let log = lockc.log()?;
        let refused = log.lines().skip(logged).find(|line| line.contains("did not take up"));
        ensure!(refused.is_none(), "a registration was lost: {refused:?}");
        settled(lockc, Some(&before))?;
        let grown = resident(lockc.pid()?)?.saturating_sub(memory);
        ensure!(
            grown <= ALLOWANCE,
            "after {total} starts the daemon has grown from {memory} by {grown} KiB"
        );
        Ok(())
    })
}

/// The kernel gives the daemon no huge pages: of 2 MiB each, for stacks that happened to lie right.
fn huge_stacks(context: &Context) -> Result<()> {
    let path = format!("/proc/{}/status", context.with_lockc(|lockc| lockc.pid())?);
    let status = fs::read_to_string(&path).with_context(|| path.clone())?;
    let line = status.lines().find(|line| line.starts_with("THP_enabled:"));
    ensure!(line == Some("THP_enabled:\t0"), "{path}: {line:?}");
    Ok(())
}

/// Containers that end as soon as they have begun, and whose ids are used again at once: each is refused the token, and
/// none leaves anything. Their runtime is one of ours, as a real one takes a hundred times as long.
fn short_containers(context: &Context) -> Result<()> {
    let (total, threads) = (context.amounts.short, context.amounts.parallel);
    let binary = context.node_bin().join("runc-short");
    fs::copy("/proc/self/exe", &binary).with_context(|| binary.display().to_string())?;
    let token = format!("{SERVICE_ACCOUNT}/token");
    let bundles = (0..threads)
        .map(|_| {
            let id = context.id("short");
            let bundle = context.token_bundle(&id, &["/bin/probe", "read", &token]);
            bundle.write()?;
            Ok((id, bundle.dir().to_owned()))
        })
        .collect::<Result<Vec<_>>>()?;
    let run = |id: &str, bundle: &Path| -> Result<String> {
        let mut command = Command::new(&binary);
        // That is how a test binary knows that it is to be the probe.
        command.arg0("probe").args(["run", "--bundle"]).arg(bundle).arg(id);
        Ok(process::run(&mut command, DEADLINE)?.success("run")?.stdout)
    };
    for (id, bundle) in &bundles {
        let said = run(id, bundle)?;
        ensure!(said.starts_with(&format!("read OK {TOKEN}\n")), "without lockc: {said:?}");
    }
    let mut lockc = context.start_lockc(&context.config())?;
    let next = AtomicUsize::new(0);
    let some = |most: usize| -> Result<()> {
        next.store(0, Ordering::Relaxed);
        std::thread::scope(|scope| {
            let one_by_one = |(id, bundle): &(String, PathBuf)| -> Result<()> {
                while next.fetch_add(1, Ordering::Relaxed) < most {
                    let said = run(id, bundle)?;
                    ensure!(said.starts_with("read EPERM open\n"), "{id} is not refused: {said:?}");
                }
                Ok(())
            };
            let threads: Vec<_> =
                bundles.iter().map(|bundle| scope.spawn(move || one_by_one(bundle))).collect();
            threads
                .into_iter()
                .try_for_each(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?)
        })
        .with_context(|| format!("log:\n{}\n", tail(&lockc.log().unwrap_or_default(), 20)))
    };
    // Some before, so that what is allocated for good is allocated.
    some(20 * threads)?;
    let (before, memory) = (settled(&lockc, None)?, resident(lockc.pid()?)?);
    let begin = Instant::now();
    for done in (0..total).step_by(SHORT_AT_ONCE) {
        some(SHORT_AT_ONCE.min(total - done))?;
        let (done, seconds) = (total.min(done + SHORT_AT_ONCE), begin.elapsed().as_secs());
        let memory = resident(lockc.pid()?)?;
        say(format_args!("leaks: {done} short containers in {seconds} s, {memory} KiB"));
    }
    let took = begin.elapsed().as_secs_f64();
    lockc.check_alive()?;
    let after = settled(&lockc, Some(&before))?;
    let grown = resident(lockc.pid()?)?.saturating_sub(memory);
    say(format_args!(
        "leaks: {total} short containers in {took:.0} s; resident memory {memory} KiB and {grown} more; before \
         {before:?}, after {after:?}"
    ));
    ensure!(grown <= ALLOWANCE, "after {total} starts the daemon has grown by {grown} KiB");
    let log = lockc.log()?;
    let lost = log.lines().position(|line| line.contains("noticed unregistered"));
    ensure!(lost.is_none(), "a registration was lost; log to there:\n{}", to_line(&log, lost));
    Ok(())
}

/// The lines of a log before this one, and it.
fn to_line(log: &str, number: Option<usize>) -> String {
    let lines: Vec<&str> = log.lines().take(number.map_or(0, |it| it + 1)).collect();
    tail(&lines.join("\n"), 20)
}

/// The record of the self-test outlived its tasks for as long as the kernel kept those, and kept its policies.
fn policies_of_self_test(_: &Context) -> Result<()> {
    let policies = bpf::dump(&pinned_map("POLICY_NAMES")?)?;
    let has = |start: &[u8; 8]| {
        let word = format!("{:x}", u64::from_le_bytes(*start));
        policies.iter().any(|policy| policy.contains(&word))
    };
    ensure!(has(b"baseline"), "the default policy is not among {policies:?}");
    ensure!(!has(b"self-tes"), "a policy of the self-test is left: {policies:?}");
    Ok(())
}

/// Kernels before 6.2 do not count the end of a task that comes while a hook runs on the same processor;
/// the container's record goes all the same.
fn uncounted_ends(context: &Context) -> Result<()> {
    let id = context.id("churn");
    let bundle = context.bundle(&id, &["/bin/probe", "churn", "300"]);
    let container = Container::new(context.runtime(), &id, &bundle)?;
    let uncounted = || -> Result<u64> {
        let map = pinned_map("COUNTERS")?;
        Ok(bpf::counter(&map, UNCOUNTED)?)
    };
    context.with_lockc(|lockc| {
        if is_before_6_2()? {
            let before = uncounted()?;
            process::wait_for("an end that is not counted", TIDY * 3, || {
                container.run()?.success("run")?;
                Ok((uncounted()? > before).then_some(()))
            })?;
        } else {
            container.run()?.success("run")?;
            ensure!(uncounted()? == 0, "a program could not read the label of a task at its end");
        }
        settled(lockc, None).map(drop)
    })
}

/// What the verifier goes through is what a start takes longest for, and the kernel refuses a program of more than a
/// million instructions; the figures are in docs/kernel-support.md.
fn verified_instructions(context: &Context) -> Result<()> {
    const MOST: u64 = 30_000;
    const IN_ALL: u64 = 250_000;
    let pid = context.with_lockc(|lockc| lockc.pid())?;
    let counts = verified(pid)?;
    let (most, sum) = (counts.iter().max().copied().unwrap_or(0), counts.iter().sum::<u64>());
    say(format_args!(
        "leaks/verified-instructions: {} programs, {sum} in all, {most} in one",
        counts.len()
    ));
    ensure!(counts.len() > 50 && most > 1000, "{} programs with {sum}: too few", counts.len());
    ensure!(most < MOST && sum < IN_ALL, "{} programs, {sum} in all, {most} in one", counts.len());
    Ok(())
}

/// Instructions verified, by program that the process holds (`bpf_prog_show_fdinfo`, kernel/bpf/syscall.c, 6.1).
fn verified(pid: Pid) -> Result<Vec<u64>> {
    let mut counts = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        // A descriptor may be closed meanwhile; programs stay.
        let Ok(info) = fs::read_to_string(entry?.path()) else { continue };
        let count = info.lines().find_map(|line| line.strip_prefix("verified_insns:"));
        if let Some(count) = count {
            counts.push(count.trim().parse().context("verified_insns is no number")?);
        }
    }
    Ok(counts)
}
