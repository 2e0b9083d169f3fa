//! Who decides, and keeps what it took.

use std::{
    cell::Cell,
    os::fd::BorrowedFd,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use lockc::{
    config::Config,
    runtime::{
        self, argv,
        bundle::Bundle,
        caller::Caller,
        cmdline::{self, Dialect, Verb},
        engine::identify,
        plan::{self, Plan},
    },
    watch::gate::{Decide, Decision},
};
use log::{Level, LevelFilter, Log, Metadata, Record};
use nix::unistd::Pid;

/// What is done about an event.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Mode {
    /// Allow at once.
    Allow,
    /// Decide as the daemon does.
    Decide,
    /// Take the steps of a decision one by one.
    Parts,
}

/// Name of the time until the answer was written.
pub(crate) const ANSWERED: &str = "answered";

/// What was measured, by name.
type Event = (&'static str, Duration);

/// Decides, and hears from the gate when it has answered.
pub(crate) struct Recorder {
    config: Config,
    mode: AtomicU8,
    events: Mutex<Vec<Event>>,
}

thread_local! {
    /// When this thread was asked.
    static ASKED: Cell<Option<Instant>> = const { Cell::new(None) };
}

impl Recorder {
    /// Makes itself the log too: the gate says what a decision has to say after the answer, which
    /// tells when that was written.
    pub(crate) fn install() -> &'static Self {
        let recorder = Box::leak(Box::new(Self {
            config: Config::default(),
            mode: AtomicU8::new(Mode::Allow as u8),
            events: Mutex::default(),
        }));
        if log::set_logger(recorder).is_ok() {
            log::set_max_level(LevelFilter::Info);
        }
        recorder
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.store(mode as u8, Ordering::Relaxed);
        self.take();
    }

    /// What has been measured since the last time.
    pub(crate) fn take(&self) -> Vec<Event> {
        std::mem::take(&mut *self.events.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&self, event: Event) {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }

    fn timed<T>(&self, name: &'static str, step: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = step();
        self.add((name, start.elapsed()));
        result
    }

    /// `runtime::examine`, step by step. A `runc init` ends after its command line.
    fn parts(&self, tid: Pid) -> Option<()> {
        let start = Instant::now();
        let argv = argv::read(tid).ok()?;
        let invocation = cmdline::parse(Dialect::Runc, &argv.words, argv.cut).ok()?;
        let command_line = start.elapsed();
        if name(Some(&invocation.verb)) == "init" {
            return None;
        }
        self.add(("command line", command_line));
        let caller = self.timed("caller", || Caller::read(tid)).ok()?;
        let Plan::New(new) = plan::plan(invocation, caller.ids.euid) else { return None };
        let bundle = self.timed("bundle", || Bundle::read(&caller, &new.target)).ok()?;
        let identity = self.timed("facts", || identify(&bundle, &new.target, &caller));
        self.timed("policy", || new.admit(&bundle.facts, identity, "runc", &self.config));
        Some(())
    }
}

fn name(verb: Option<&Verb>) -> &'static str {
    match verb {
        Some(Verb::Run(_)) => "run",
        Some(Verb::Init) => "init",
        _ => "other",
    }
}

impl Decide for &'static Recorder {
    fn decide(&self, tid: Pid, _exe: BorrowedFd<'_>) -> Decision {
        let mode = self.mode.load(Ordering::Relaxed);
        if mode == Mode::Parts as u8 {
            self.parts(tid);
        }
        if mode != Mode::Decide as u8 {
            return Decision::ALLOW;
        }
        let start = Instant::now();
        let examined = runtime::examine(tid, "runc", &self.config);
        self.add((name(examined.verb.as_ref()), start.elapsed()));
        ASKED.set(Some(start));
        Decision { message: Some((Level::Info, "answered".into())), ..Decision::ALLOW }
    }

    fn decide_late(&self, _tid: Pid) -> Decision {
        Decision::ALLOW
    }

    fn trouble(&self, message: String) {
        println!("trouble: {message}");
    }

    fn answered(&self, decision: Decision, _time: Duration, _late: bool) {
        if let Some((level, message)) = decision.message {
            log::log!(level, "{message}");
        }
    }

    fn alive(&self) {}
}

impl Log for Recorder {
    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, _record: &Record<'_>) {
        if let Some(start) = ASKED.take() {
            self.add((ANSWERED, start.elapsed()));
        }
    }

    fn flush(&self) {}
}
