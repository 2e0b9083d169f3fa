//! Runs the table of tests and prints one line for each.

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, bail};

use super::{
    container::Runtime,
    context::{Context, Phase},
    daemon::Lockc,
    process::all_threads,
};

/// Which runtimes a test runs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum With {
    /// runc as Debian has it, and a newer one or crun, by turns. With `--thorough` all of them.
    Each,
    /// runc or crun, by turns: for what a container may do once it has been set up. With `--thorough` both. The older
    /// runc, which copies itself at every start, takes an emulated machine the longest.
    EachKind,
    /// youki, too. It has bugs of its own: `youki run` may wait for ever for a container that ends at
    /// once.
    EachAndYouki,
    /// The first one.
    One,
}

impl With {
    /// Of those that take turns it is that of `turn`, counted from the first test; of none it is everybody's.
    fn wants(self, index: usize, runtime: &Runtime, turn: Option<usize>) -> bool {
        match self {
            Self::Each => match runtime.name {
                "runc" => true,
                "youki" => index == 0,
                name => is_turn_of(name, turn),
            },
            Self::EachKind => match runtime.name {
                // Where it is the only one.
                "runc" | "youki" => index == 0,
                name => is_turn_of(name, turn),
            },
            Self::EachAndYouki => true,
            Self::One => index == 0,
        }
    }
}

/// Whether it is the turn of crun, or else of the newer runc; without turns it always is.
fn is_turn_of(name: &str, turn: Option<usize>) -> bool {
    turn.is_none_or(|turn| turn.is_multiple_of(2) == (name != "crun"))
}

/// How a test wants lockc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Daemon {
    /// The test is run twice: with lockc off, then with it on.
    OffThenOn,
    /// The test runs once, with lockc on.
    On,
    /// The test runs once and starts lockc itself.
    Own,
}

/// One test.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Test {
    pub(crate) group: &'static str,
    pub(crate) name: &'static str,
    pub(crate) daemon: Daemon,
    pub(crate) with: With,
    pub(crate) run: fn(&Context) -> Result<()>,
}

/// A test and the index of its runtime.
type Case<'t> = (&'t Test, usize);

/// What became of a case so far.
#[derive(Debug, Default)]
struct Outcome {
    took: Duration,
    failure: Option<String>,
}

/// Runs the tests, and gives how many passed and how many failed.
pub(crate) fn run(context: &Context, tests: &[&Test], only_off: bool) -> (usize, usize) {
    let takes_turns = context.every_runtime().len() > 1 && !context.amounts.every_runtime;
    let cases: Vec<Case<'_>> = tests
        .iter()
        .enumerate()
        .flat_map(|(turn, test)| {
            let turn = takes_turns.then_some(turn);
            let runtimes = context.every_runtime().iter().enumerate();
            let wanted = runtimes.filter(|(index, runtime)| test.with.wants(*index, runtime, turn));
            let mut cases: Vec<Case<'_>> = wanted.map(|(index, _)| (*test, index)).collect();
            if cases.is_empty() {
                // Its turn is that of a runtime that is not there.
                cases.push((*test, 0));
            }
            cases
        })
        .collect();
    let mut tally =
        Tally { context, passed: 0, failed: 0, earlier: HashMap::new(), now: Arc::default() };

    if let Err(error) = Watch::start(&tally.now, context.amounts.longest) {
        return tally.give_up(&error.into());
    }

    for case in of(&cases, &[Daemon::OffThenOn]) {
        context.set_phase(Phase::Off);
        tally.run(case, only_off);
    }
    if only_off {
        return (tally.passed, tally.failed);
    }

    let on: Vec<Case<'_>> = of(&cases, &[Daemon::OffThenOn, Daemon::On]).collect();
    if !on.is_empty() {
        context.set_phase(Phase::On);
        match context.start_lockc(&context.config()) {
            Ok(lockc) => {
                *context.lockc() = Some(lockc);
                for case in on {
                    tally.run(case, true);
                }
                tally.stop();
            }
            Err(error) => {
                for case in on {
                    tally.finish(
                        case,
                        Outcome { failure: Some(format!("{error:#}")), ..Outcome::default() },
                    );
                }
            }
        }
    }

    for case in of(&cases, &[Daemon::Own]) {
        context.set_phase(Phase::Own);
        tally.run(case, true);
    }
    (tally.passed, tally.failed)
}

fn of<'c, 't>(cases: &'c [Case<'t>], daemons: &'c [Daemon]) -> impl Iterator<Item = Case<'t>> + 'c {
    cases.iter().copied().filter(|(test, _)| daemons.contains(&test.daemon))
}

struct Tally<'c> {
    context: &'c Context,
    passed: usize,
    failed: usize,
    /// What the phase before the last one left, by label.
    earlier: HashMap<String, Outcome>,
    now: Arc<Now>,
}

/// Which test is run, and since when.
type Now = Mutex<Option<(String, Instant)>>;

/// Ends everything when a test hangs, and says which: otherwise the guest's own end would come first, and say nothing.
struct Watch;

impl Watch {
    fn start(now: &Arc<Now>, longest: Duration) -> std::io::Result<()> {
        let now = Arc::clone(now);
        thread::Builder::new().name("watch".into()).spawn(move || {
            loop {
                thread::sleep(Duration::from_secs(5));
                let now = lock(&now);
                let Some((label, since)) = now.as_ref() else { continue };
                if since.elapsed() > longest {
                    super::say(format_args!("FAILED {label}: not done within {longest:?}"));
                    for line in all_threads().lines() {
                        super::say(format_args!("    {line}"));
                    }
                    std::process::exit(1);
                }
            }
        })?;
        Ok(())
    }
}

fn lock(now: &Now) -> MutexGuard<'_, Option<(String, Instant)>> {
    now.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tally<'_> {
    /// Runs a case unless it has failed already; prints its line when this `is_last` phase ends it.
    fn run(&mut self, case: Case<'_>, is_last: bool) {
        let (test, index) = case;
        let label = self.label(case);
        let mut outcome = self.earlier.remove(&label).unwrap_or_default();
        if outcome.failure.is_none() {
            self.context.use_runtime(index);
            let start = Instant::now();
            *lock(&self.now) = Some((label.clone(), start));
            // A panic is one failed test, where the build unwinds.
            let result = catch_unwind(AssertUnwindSafe(|| (test.run)(self.context)))
                .unwrap_or_else(|_| Err(anyhow!("panicked")));
            *lock(&self.now) = None;
            outcome.took += start.elapsed();
            let phase = if self.context.phase() == Phase::Off { "lockc off: " } else { "" };
            outcome.failure = result.err().map(|error| format!("{phase}{error:#}"));
        }
        if is_last {
            self.finish(case, outcome);
        } else {
            self.earlier.insert(label, outcome);
        }
    }

    fn give_up(mut self, error: &anyhow::Error) -> (usize, usize) {
        self.failed += 1;
        super::say(format_args!("FAILED to start: {error:#}"));
        (self.passed, self.failed)
    }

    fn label(&self, (test, index): Case<'_>) -> String {
        let Test { group, name, .. } = test;
        if test.with == With::One {
            format!("{group}/{name}")
        } else {
            format!("{group}/{name}[{}]", self.context.every_runtime()[index].name)
        }
    }

    fn finish(&mut self, case: Case<'_>, outcome: Outcome) {
        let label = self.label(case);
        let seconds = outcome.took.as_secs_f64();
        match outcome.failure {
            None => {
                self.passed += 1;
                super::say(format_args!("ok {label} ({seconds:.1} s)"));
            }
            Some(failure) => {
                self.failed += 1;
                let mut lines = failure.lines();
                let first = lines.next().unwrap_or_default();
                super::say(format_args!("FAILED {label}: {first}"));
                lines.for_each(|line| super::say(format_args!("    {line}")));
            }
        }
    }

    /// Ends the shared daemon: it must still be there, and end cleanly.
    fn stop(&mut self) {
        let stopped = match self.context.lockc().take() {
            None => Err(anyhow!("the shared daemon is lost")),
            Some(mut lockc) => end(&mut lockc),
        };
        match stopped {
            Ok(()) => {
                self.passed += 1;
                super::say(format_args!("ok daemon/stop"));
            }
            Err(error) => {
                self.failed += 1;
                super::say(format_args!("FAILED daemon/stop: {error:#}"));
            }
        }
    }
}

fn end(lockc: &mut Lockc) -> Result<()> {
    lockc.check_alive()?;
    lockc.stop()?;
    if std::fs::read_dir(super::daemon::PINS)?.next().is_none() {
        bail!("SIGTERM has removed the enforcement");
    }
    Lockc::unload()
}
