//! No unprotected instant: a container's very first act meets its policy, whatever happens to the
//! runtime's binary and to the daemon meanwhile.

use std::{
    fs::{self, File},
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::harness::{
    Container, Context, Lockc, Phase, Runtime,
    context::Amounts,
    fixture::{SERVICE_ACCOUNT, TOKEN, busybox},
    process::{Running, wait_for},
    runner::{Daemon, Test, With},
    traffic::Traffic,
};

pub(crate) const TESTS: &[Test] = &[
    test("together", Daemon::OffThenOn, together),
    test("daemon-dead", Daemon::Own, daemon_dead),
    test("new-runtimes", Daemon::Own, new_runtimes),
];

/// Those in which the kernel does nothing that it does not do in the others.
pub(crate) const DAEMON_TESTS: &[Test] = &[
    test("runtime-replaced", Daemon::OffThenOn, runtime_replaced),
    test("daemon-killed", Daemon::Own, daemon_killed),
    test("daemon-stopped", Daemon::Own, daemon_stopped),
    test("daemon-hung", Daemon::Own, daemon_hung),
];

const fn test(name: &'static str, daemon: Daemon, run: fn(&Context) -> Result<()>) -> Test {
    Test { group: "instant", name, daemon, with: With::One, run }
}

/// What many containers saw.
#[derive(Debug, Default)]
struct Seen {
    read: usize,
    refused: usize,
    /// What went wrong otherwise, of the first few.
    strange: Vec<String>,
}

impl Seen {
    fn add(&mut self, said: Result<String>) {
        match said {
            Ok(said) if said.starts_with(&format!("read OK {TOKEN}")) => self.read += 1,
            Ok(said) if said.starts_with("read EPERM open") => self.refused += 1,
            Ok(said) => self.strange.push(said),
            Err(error) => self.strange.push(format!("{error:#}")),
        }
        self.strange.truncate(5);
    }

    fn ensure_all(&self, enforced: bool, count: usize) -> Result<()> {
        let (good, what) =
            if enforced { (self.refused, "were refused") } else { (self.read, "read the token") };
        ensure!(
            good == count,
            "of {count} containers, {} read the token and {} were refused, where all {what} \
             should stand; others said {:?}",
            self.read,
            self.refused,
            self.strange
        );
        Ok(())
    }
}

/// Runs containers whose first act is to read the token, as many at once as the amounts say, with
/// `runtimes` in turn.
fn storm(context: &Context, runtimes: &[Runtime], count: usize) -> Result<Seen> {
    let containers = runtimes
        .iter()
        .cycle()
        .take(count)
        .map(|runtime| {
            let id = context.id("storm");
            let token = format!("{SERVICE_ACCOUNT}/token");
            let bundle = context.token_bundle(&id, &["/bin/probe", "read", &token]);
            Container::new(runtime, &id, &bundle)
        })
        .collect::<Result<Vec<_>>>()?;
    let (next, seen) = (AtomicUsize::new(0), Mutex::new(Seen::default()));
    std::thread::scope(|scope| {
        for _ in 0..context.amounts.parallel {
            scope.spawn(|| {
                while let Some(container) = containers.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let said = container.run().map(|output| {
                        if output.stdout.is_empty() { output.to_string() } else { output.stdout }
                    });
                    seen.lock().unwrap_or_else(PoisonError::into_inner).add(said);
                }
            });
        }
    });
    seen.into_inner().map_err(|_| anyhow!("a thread panicked"))
}

/// How many containers the phase takes: without lockc, a few show that the attack works.
fn count(context: &Context) -> usize {
    let Amounts { containers, parallel, .. } = context.amounts;
    if context.phase() == Phase::Off { containers.min(2 * parallel) } else { containers }
}

/// All at once.
fn together(context: &Context) -> Result<()> {
    let traffic = Traffic::start(context.token().token());
    let count = count(context);
    let seen = storm(context, context.runtimes(), count)?;
    seen.ensure_all(context.phase() == Phase::On, count)?;
    traffic.end()
}

/// A process that replaces a file by new copies of another, by `rename`, as a package manager does
/// it, until it is dropped. It is a process of its own because containers that are started meanwhile
/// would inherit the descriptor of a copy in the making, which makes it busy for `execve`.
struct Replacer {
    process: Running,
    /// Grows by one byte with every replacement.
    count: PathBuf,
}

impl Replacer {
    fn start(original: &Path, path: &Path) -> Result<Self> {
        let count = path.with_extension("count");
        fs::write(&count, "")?;
        // Without the pause there is little else that an emulated machine gets done.
        let script = "while cp \"$0\" \"$1.new\" && mv \"$1.new\" \"$1\"; do \
                      printf . >>\"$2\"; sleep 1; done";
        let mut command = Command::new(busybox()?);
        command.args(["sh", "-c", script]).args([original, path, &count]);
        Ok(Self { process: Running::start(&mut command)?, count })
    }

    /// How often the file has been replaced.
    fn replaced(&mut self) -> Result<u64> {
        if let Some(status) = self.process.ended()? {
            bail!("the replacing process ended: {status}: {}", self.process.stderr());
        }
        Ok(fs::metadata(&self.count)?.len())
    }
}

/// Configured runtimes that get replaced again and again while they start containers.
fn runtime_replaced(context: &Context) -> Result<()> {
    let (mut runtimes, mut replacers) = (Vec::new(), Vec::new());
    for Runtime { name, binary, state, .. } in context.runtimes() {
        let copy = context.swap_dir().join(name);
        fs::copy(binary, &copy).with_context(|| format!("copy to {}", copy.display()))?;
        replacers.push(Replacer::start(binary, &copy)?);
        runtimes.push(Runtime { name, binary: copy, state: state.clone(), user: None });
    }
    let count = count(context);
    let seen = storm(context, &runtimes, count)?;
    for mut replacer in replacers {
        let replaced = replacer.replaced()?;
        ensure!(replaced > 1, "a runtime was replaced {replaced} times only");
    }
    seen.ensure_all(context.phase() == Phase::On, count)
}

/// The daemon is killed and restarted all the while.
fn daemon_killed(context: &Context) -> Result<()> {
    let mut lockc = context.start_lockc(&context.config())?;
    let traffic = Traffic::start(context.token().token());
    let count = count(context);
    let stop = AtomicBool::new(false);
    let (seen, restarts) = std::thread::scope(|scope| {
        let killer = scope.spawn(|| -> Result<usize> {
            let mut restarts = 0;
            while !stop.load(Ordering::Relaxed) {
                lockc.kill();
                lockc.restart()?;
                restarts += 1;
            }
            Ok(restarts)
        });
        let seen = storm(context, context.runtimes(), count);
        stop.store(true, Ordering::Relaxed);
        (seen, killer.join())
    });
    let restarts = restarts.map_err(|_| anyhow!("the killing thread panicked"))??;
    ensure!(restarts > 0, "the daemon was never restarted");
    seen?.ensure_all(true, count)?;
    traffic.end()
}

/// The daemon is dead: containers start, with the default policy, and running ones keep theirs.
fn daemon_dead(context: &Context) -> Result<()> {
    let mut lockc = context.start_lockc(&context.config())?;
    let container = sleeping(context)?;
    lockc.kill();
    ensure_refused(&container, "a running container after SIGKILL")?;
    let count = context.amounts.parallel;
    storm(context, context.runtimes(), count)?.ensure_all(true, count).context("after SIGKILL")?;

    // The next daemon takes over what runs.
    lockc.restart()?;
    ensure_refused(&container, "a running container after the restart")?;
    storm(context, context.runtimes(), 1)?.ensure_all(true, 1).context("after the restart")
}

/// Runtimes that the daemon has never seen, as it is dead: by a name that a glob of the configuration stands for, and by
/// that of the copy which runc makes of itself in memory, whatever it is called itself. crun under another name is none.
fn new_runtimes(context: &Context) -> Result<()> {
    let mut lockc = context.start_lockc(&context.config())?;
    lockc.kill();
    let runtime = context.runtime();
    let binary = &runtime.binary;
    let (known, other) =
        (context.node_bin().join("runc-new"), context.scratch().join("of-no-known-name"));
    for path in [&known, &other] {
        fs::copy(binary, path).with_context(|| format!("copy to {}", path.display()))?;
    }
    let copy_at = |path: &Path| Runtime { binary: path.to_owned(), ..runtime.clone() };
    storm(context, &[copy_at(&known)], 1)?.ensure_all(true, 1).context("by a glob")?;
    let seals = context.runtime().kind() == "runc";
    storm(context, &[copy_at(&other)], 1)?.ensure_all(seals, 1).context("by another name")?;
    // The kernel puts `memfd:` before it.
    for (comment, is_known) in [("runc_cloned:/proc/self/exe", true), ("other", seals)] {
        let memfd = in_memory(binary, comment)?;
        let path = format!("/proc/{}/fd/{}", std::process::id(), memfd.as_raw_fd());
        let seen = storm(context, &[copy_at(path.as_ref())], 1)?;
        seen.ensure_all(is_known, 1).with_context(|| format!("from memory as {comment}"))?;
    }
    fs::remove_file(known)?;
    fs::remove_file(other).map_err(Into::into)
}

/// A copy of a file, in memory.
fn in_memory(path: &Path, comment: &str) -> Result<File> {
    let mut file = File::from(memfd_create(comment, MFdFlags::MFD_CLOEXEC)?);
    std::io::copy(&mut File::open(path)?, &mut file)?;
    Ok(file)
}

/// SIGTERM ends the daemon, not the enforcement; `unload` does.
fn daemon_stopped(context: &Context) -> Result<()> {
    let mut lockc = context.start_lockc(&context.config())?;
    let container = sleeping(context)?;
    lockc.stop()?;
    ensure_refused(&container, "a running container after SIGTERM")?;
    storm(context, context.runtimes(), 1)?.ensure_all(true, 1).context("after SIGTERM")?;
    drop(container);
    Lockc::unload()?;
    storm(context, context.runtimes(), 1)?.ensure_all(false, 1).context("after lockc unload")
}

/// What waits for a daemon that hangs goes on under the safe default when that is killed.
fn daemon_hung(context: &Context) -> Result<()> {
    let mut lockc = context.start_lockc(&context.config())?;
    nix::sys::signal::kill(lockc.pid()?, nix::sys::signal::Signal::SIGSTOP)?;
    let id = context.id("hung");
    let token = format!("{SERVICE_ACCOUNT}/token");
    let bundle = context.token_bundle(&id, &["/bin/probe", "read", &token]);
    let container = Container::new(context.runtime(), &id, &bundle)?;
    let output = std::thread::scope(|scope| {
        let run = scope.spawn(|| container.run());
        let waits = wait_for("a runtime that waits", Duration::from_mins(1), || {
            Ok(waits_for_fanotify().then_some(()))
        });
        lockc.kill();
        let output = run.join().map_err(|_| anyhow!("a thread panicked"))?;
        waits.and(output)
    })?;
    ensure!(output.stdout.starts_with("read EPERM open"), "after the kill: {output}");
    lockc.restart()?;
    storm(context, context.runtimes(), 1)?.ensure_all(true, 1).context("after a restart")
}

/// Whether some process waits for the answer to a permission event (`fanotify_get_response`,
/// fs/notify/fanotify/fanotify.c, 6.1 to 7.0).
pub(super) fn waits_for_fanotify() -> bool {
    fs::read_dir("/proc").into_iter().flatten().flatten().any(|process| {
        let place = fs::read_to_string(process.path().join("wchan")).unwrap_or_default();
        place.starts_with("fanotify")
    })
}

/// A container that has the token and sleeps.
fn sleeping(context: &Context) -> Result<Container> {
    let id = context.id("sleep");
    let bundle = context.token_bundle(&id, &["/bin/sleep", "1000"]);
    let container = Container::new(context.runtime(), &id, &bundle)?;
    container.start()?;
    Ok(container)
}

pub(super) fn ensure_refused(container: &Container, who: &str) -> Result<()> {
    let token = format!("{SERVICE_ACCOUNT}/token");
    let output = container.exec(&["/bin/probe", "read", &token])?;
    ensure!(output.stdout.starts_with("read EPERM open"), "{who}: {output}");
    Ok(())
}
