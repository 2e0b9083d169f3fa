//! Who starts, enters and kills containers all the while.

use std::{
    fmt::Arguments,
    fs,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    random::Random,
    record::{Count, Escape, Record},
};
use crate::harness::{
    Bundle, Container, Context, Level, Runtime,
    container::DEADLINE,
    fixture::{SERVICE_ACCOUNT, TOKEN},
    process::{self, Output},
};

/// Longest time one start or `exec` may take. Runtimes wait while a daemon starts, which takes an emulated machine that
/// has more to do than it can half a minute and more.
const SLOW: Duration = Duration::from_mins(2);
/// Containers that one worker has at most.
const HELD: usize = 3;
const LEVELS: [Level; 3] = [Level::Restricted, Level::Baseline, Level::Privileged];

/// What the workers share.
#[derive(Debug)]
pub(super) struct Shared {
    bundles: PathBuf,
    image: PathBuf,
    token: PathBuf,
    pub(super) runtimes: Vec<Runtime>,
    ids: AtomicU32,
    /// Odd while no daemon is ready, and another number with every daemon.
    daemon: AtomicU64,
    pub(super) record: Record,
}

impl Shared {
    pub(super) fn new(context: &Context, record: Record) -> Self {
        Self {
            bundles: context.scratch().join("bundles"),
            image: context.image(),
            token: context.token().dir().to_owned(),
            runtimes: context.every_runtime().to_vec(),
            ids: AtomicU32::new(0),
            daemon: AtomicU64::new(1),
            record,
        }
    }

    /// A daemon is ready, or is not any more.
    pub(super) fn daemon_changes(&self) {
        self.daemon.fetch_add(1, Ordering::SeqCst);
    }

    /// Does `work`; whether one daemon was ready all the while.
    fn under_daemon<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<(T, bool)> {
        let before = self.daemon.load(Ordering::SeqCst);
        let done = work()?;
        let is_same = before == self.daemon.load(Ordering::SeqCst);
        Ok((done, is_same && before.is_multiple_of(2)))
    }

    fn bundle(&self, level: Level, args: &[&str]) -> (String, Bundle) {
        let id = format!("soak-{}", self.ids.fetch_add(1, Ordering::Relaxed));
        let mut bundle = Bundle::new(self.bundles.join(&id), &self.image, args);
        bundle.bind(&self.token, SERVICE_ACCOUNT);
        level.annotate(&mut bundle);
        (id, bundle)
    }
}

/// A container that a worker holds.
struct Held {
    container: Container,
    bundle: Bundle,
    level: Level,
    /// Whether a daemon has decided about it.
    is_known: bool,
    what: String,
}

/// One thread.
pub(super) struct Worker<'s> {
    shared: &'s Shared,
    name: String,
    random: Random,
    held: Vec<Held>,
}

impl<'s> Worker<'s> {
    pub(super) fn new(shared: &'s Shared, number: u64, random: Random) -> Self {
        Self { shared, name: format!("worker {number}"), random, held: Vec::new() }
    }

    /// Works until then, or until something goes wrong, and leaves no container.
    pub(super) fn work(mut self, until: Instant) {
        let record = &self.shared.record;
        while Instant::now() < until && !record.is_over() {
            if let Err(error) = self.act() {
                record.wrong(&self.name, &error);
            }
        }
        while !self.held.is_empty() && !record.is_over() {
            if let Err(error) = self.kill() {
                record.wrong(&self.name, &error);
            }
        }
    }

    fn act(&mut self) -> Result<()> {
        match self.random.below(100) {
            0..30 => self.run(),
            30..50 if self.held.len() < HELD => self.start(),
            50..80 if !self.held.is_empty() => self.exec(),
            90..100 => self.fail(),
            _ if self.held.is_empty() => self.start(),
            _ => self.kill(),
        }
    }

    fn note(&self, what: Arguments<'_>) {
        self.shared.record.note(&self.name, what);
    }

    /// Does ordinary work, which must not take long.
    fn timed<T>(&self, what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.note(format_args!("{what}"));
        let start = Instant::now();
        let done = work();
        let took = start.elapsed();
        self.note(format_args!("{what}: {:.1} s", took.as_secs_f64()));
        self.shared.record.took(took);
        let done = done.with_context(|| what.to_owned())?;
        ensure!(took < SLOW, "{what}: took {took:?}");
        Ok(done)
    }

    /// A script that attacks and does ordinary work, what it says besides, and its exit code.
    fn script(&mut self) -> (String, String, i32) {
        let (word, code) = (self.random.below(1 << 30).to_string(), self.random.below(100));
        let script =
            format!("/bin/probe read {SERVICE_ACCOUNT}/token; echo word {word} | cat; exit {code}");
        (script, format!("word {word}"), i32::try_from(code).unwrap_or_default())
    }

    /// The attack must have failed if the level forbids it, and succeeded otherwise if it `must`; what
    /// else the script did must have worked.
    fn judge(
        &self,
        output: &Output,
        level: Level,
        must: bool,
        (word, code): (&str, i32),
    ) -> Result<()> {
        let (attack, rest) = output.stdout.split_once('\n').unwrap_or_default();
        let has_read = attack == format!("read OK {TOKEN}");
        if has_read && level != Level::Privileged {
            bail!(Escape(format!("it has read the token: {output}")));
        }
        if attack.starts_with("read EPERM open") {
            self.shared.record.count(Count::Refused);
            ensure!(level != Level::Privileged || !must, "what is privileged is refused: {output}");
        } else {
            ensure!(has_read, "neither read nor refused: {output}");
        }
        let is_well = rest.trim_end() == word && output.status.code() == Some(code);
        ensure!(is_well, "ordinary work: expected `{word}` and {code}: {output}");
        Ok(())
    }

    /// Half of the time crun, by far the quickest: an emulated machine needs half a minute for a start by an old runc
    /// when it has more to do.
    fn choose(&mut self) -> (&'s Runtime, Level) {
        let runtimes = &self.shared.runtimes;
        let any = self.random.one_of(runtimes);
        let quickest = runtimes.iter().find(|it| it.kind() == "crun");
        let runtime = quickest.filter(|_| self.random.below(2) == 0).unwrap_or(any);
        (runtime, *self.random.one_of(&LEVELS))
    }

    /// A container from its start to its end.
    fn run(&mut self) -> Result<()> {
        let (runtime, level) = self.choose();
        if runtime.kind() == "youki" {
            // `youki run` may wait for ever for a container that ends at once.
            return if self.held.len() < HELD { self.start() } else { self.kill() };
        }
        let (script, word, code) = self.script();
        let (id, bundle) = self.shared.bundle(level, &["/bin/sh", "-c", &script]);
        let container = Container::new(runtime, &id, &bundle)?;
        let what = format!("{} run {id} ({})", runtime.name, level.name());
        let work = || self.shared.under_daemon(|| container.run());
        let (output, is_known) = self.timed(&what, work)?;
        self.shared.record.count(Count::Starts);
        self.judge(&output, level, is_known, (&word, code)).context(what)?;
        tidy(&bundle)
    }

    /// A container that stays.
    fn start(&mut self) -> Result<()> {
        let (runtime, level) = self.choose();
        let (id, bundle) = self.shared.bundle(level, &["/bin/sleep", "100000"]);
        let container = Container::new(runtime, &id, &bundle)?;
        let what = format!("{} {id} ({})", runtime.name, level.name());
        let work = || self.shared.under_daemon(|| container.start());
        let ((), is_known) = self.timed(&format!("start {what}"), work)?;
        self.shared.record.count(Count::Starts);
        self.held.push(Held { container, bundle, level, is_known, what });
        Ok(())
    }

    fn exec(&mut self) -> Result<()> {
        let (script, word, code) = self.script();
        let index = usize::try_from(self.random.below(self.held.len() as u64))?;
        let held = &self.held[index];
        let what = format!("exec {}", held.what);
        let args = ["/bin/sh", "-c", &script];
        let work = || self.shared.under_daemon(|| held.container.exec(&args));
        let (output, same_daemon) = self.timed(&what, work)?;
        self.shared.record.count(Count::Execs);
        self.judge(&output, held.level, same_daemon && held.is_known, (&word, code)).context(what)
    }

    /// The end of a container that stays: by its runtime, or behind its back.
    fn kill(&mut self) -> Result<()> {
        let index = usize::try_from(self.random.below(self.held.len() as u64))?;
        let Held { container, bundle, what, .. } = self.held.swap_remove(index);
        match self.random.below(3) {
            0 => {
                self.note(format_args!("kill {what}"));
                container.verb("kill", &["KILL"])?.success(&what)?;
            }
            1 => {
                self.note(format_args!("SIGKILL to the first process of {what}"));
                let state = container.state()?;
                let pid = state["pid"].as_i64().context("no pid in the state")?;
                kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGKILL).context("kill")?;
            }
            _ => self.note(format_args!("delete --force {what}")),
        }
        let work = || container.delete();
        self.timed(&format!("the end of {what}"), work)?;
        self.shared.record.count(Count::Kills);
        tidy(&bundle)
    }

    /// A start that must fail: no bundle, an id that is not allowed, or no program.
    fn fail(&mut self) -> Result<()> {
        let (runtime, level) = self.choose();
        let how = self.random.below(if runtime.kind() == "youki" { 2 } else { 3 });
        let what = format!("{} starts what cannot be started ({how})", runtime.name);
        let output = if how == 2 {
            let (id, bundle) = self.shared.bundle(level, &["/bin/absent"]);
            let container = Container::new(runtime, &id, &bundle)?;
            let output = self.timed(&what, || container.run())?;
            tidy(&bundle)?;
            output
        } else {
            let id = if how == 1 { "not/allowed" } else { "soak-nobody" };
            let mut command: Command = runtime.command();
            command.args(["create", "--bundle", "/nowhere", id]);
            self.timed(&what, || process::run(&mut command, DEADLINE))?
        };
        ensure!(!output.status.success(), "{what}, and it did: {output}");
        self.shared.record.count(Count::FailingStarts);
        Ok(())
    }
}

/// Bundles by the thousand would fill the guest's memory.
fn tidy(bundle: &Bundle) -> Result<()> {
    fs::remove_dir_all(bundle.dir()).context("remove the bundle")
}
