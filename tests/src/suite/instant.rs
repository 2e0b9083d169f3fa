//! No unprotected instant: a container's very first act meets its policy, whatever happens to the
//! runtime's binary and to the daemon meanwhile.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};

use crate::harness::{
    Container, Context, Lockc, Phase, Runtime,
    context::Amounts,
    fixture::{SERVICE_ACCOUNT, TOKEN, busybox},
    process::Running,
    runner::{Daemon, Test, With},
    traffic::Traffic,
};

pub(crate) const TESTS: &[Test] = &[
    Test {
        group: "instant",
        name: "together",
        daemon: Daemon::OffThenOn,
        with: With::One,
        run: together,
    },
    Test {
        group: "instant",
        name: "runtime-replaced",
        daemon: Daemon::OffThenOn,
        with: With::One,
        run: runtime_replaced,
    },
    Test {
        group: "instant",
        name: "daemon-killed",
        daemon: Daemon::Own,
        with: With::One,
        run: daemon_killed,
    },
    Test {
        group: "instant",
        name: "daemon-dead",
        daemon: Daemon::Own,
        with: With::One,
        run: daemon_dead,
    },
    Test {
        group: "instant",
        name: "daemon-stopped",
        daemon: Daemon::Own,
        with: With::One,
        run: daemon_stopped,
    },
];

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
        let script =
            "while cp \"$0\" \"$1.new\" && mv \"$1.new\" \"$1\"; do printf . >>\"$2\"; done";
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
    for Runtime { name, binary, state } in context.runtimes() {
        let copy = context.swap_dir().join(name);
        fs::copy(binary, &copy).with_context(|| format!("copy to {}", copy.display()))?;
        replacers.push(Replacer::start(binary, &copy)?);
        runtimes.push(Runtime { name, binary: copy, state: state.clone() });
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

/// A container that has the token and sleeps.
fn sleeping(context: &Context) -> Result<Container> {
    let id = context.id("sleep");
    let bundle = context.token_bundle(&id, &["/bin/sleep", "1000"]);
    let container = Container::new(context.runtime(), &id, &bundle)?;
    container.start()?;
    Ok(container)
}

fn ensure_refused(container: &Container, who: &str) -> Result<()> {
    let token = format!("{SERVICE_ACCOUNT}/token");
    let output = container.exec(&["/bin/probe", "read", &token])?;
    ensure!(output.stdout.starts_with("read EPERM open"), "{who}: {output}");
    Ok(())
}
