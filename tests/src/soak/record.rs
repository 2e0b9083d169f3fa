//! What a soak has done, what went wrong, and what was going on then.

use std::{
    collections::VecDeque,
    fmt, fs,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::harness::{daemon::tail, say};

/// Actions that are kept for the first failure, and lines of the daemon's log.
const ACTIONS: usize = 60;
const LOG_LINES: usize = 80;

/// What is counted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Count {
    Starts,
    Execs,
    Kills,
    FailingStarts,
    Reloads,
    DaemonKills,
    Stops,
    Upgrades,
    /// Attacks that were refused, those of the loops not among them.
    Refused,
}

const COUNTS: usize = Count::Refused as usize + 1;

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// A container read what its level forbids.
    Escape,
    Failure,
}

/// An error that is an escape; every other one is a failure.
#[derive(Debug)]
pub(super) struct Escape(pub(super) String);

impl fmt::Display for Escape {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "ESCAPE: {}", self.0)
    }
}

impl std::error::Error for Escape {}

/// Shared by all threads.
#[derive(Debug)]
pub(super) struct Record {
    started: Instant,
    counts: [AtomicU64; COUNTS],
    escapes: AtomicU64,
    failures: AtomicU64,
    /// Milliseconds that the slowest ordinary work took.
    slowest: AtomicU64,
    actions: Mutex<VecDeque<String>>,
    over: AtomicBool,
    /// Where the daemon's logs are.
    logs: PathBuf,
}

impl Record {
    pub(super) fn new(logs: &Path) -> Self {
        Self {
            started: Instant::now(),
            counts: Default::default(),
            escapes: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            slowest: AtomicU64::new(0),
            actions: Mutex::default(),
            over: AtomicBool::new(false),
            logs: logs.to_owned(),
        }
    }

    pub(super) fn count(&self, what: Count) {
        self.counts[what as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn get(&self, what: Count) -> u64 {
        self.counts[what as usize].load(Ordering::Relaxed)
    }

    /// Daemons that were started after the first one.
    pub(super) fn restarts(&self) -> u64 {
        self.get(Count::DaemonKills) + self.get(Count::Stops) + self.get(Count::Upgrades)
    }

    /// Notes what somebody does.
    pub(super) fn note(&self, who: &str, what: fmt::Arguments<'_>) {
        let line = format!("{:7.1} s  {who}: {what}", self.started.elapsed().as_secs_f64());
        let mut actions = self.actions();
        if actions.len() == ACTIONS {
            actions.pop_front();
        }
        actions.push_back(line);
    }

    fn actions(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.actions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes how long ordinary work took.
    pub(super) fn took(&self, time: Duration) {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.slowest.fetch_max(millis, Ordering::Relaxed);
    }

    /// Whether something went wrong: everybody ends then.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Prints what went wrong; the first time also what was going on.
    pub(super) fn wrong(&self, who: &str, error: &anyhow::Error) {
        let wrong = if error.chain().any(<dyn std::error::Error>::is::<Escape>) {
            Wrong::Escape
        } else {
            Wrong::Failure
        };
        match wrong {
            Wrong::Escape => &self.escapes,
            Wrong::Failure => &self.failures,
        }
        .fetch_add(1, Ordering::Relaxed);
        let at = self.started.elapsed().as_secs_f64();
        // Nothing else is printed between the lines of the first failure.
        let actions = self.actions();
        let first = !self.over.swap(true, Ordering::Relaxed);
        say(format_args!("soak: {at:.1} s: {who}: {error:#}"));
        if first {
            say(format_args!("what was done before:"));
            actions.iter().for_each(|line| say(format_args!("  {line}")));
            say(format_args!("the daemon's log:"));
            let log = self.newest_log();
            // What the loops are denied all the while hides everything else.
            let telling: Vec<&str> = log.lines().filter(|line| !line.contains("-loop ")).collect();
            tail(&telling.join("\n"), LOG_LINES)
                .lines()
                .for_each(|line| say(format_args!("  {line}")));
        }
    }

    fn newest_log(&self) -> String {
        let generation = |path: &PathBuf| -> Option<u32> {
            path.file_name()?.to_str()?.strip_prefix("log.")?.parse().ok()
        };
        let paths = fs::read_dir(&self.logs).into_iter().flatten().flatten().map(|it| it.path());
        let newest = paths.filter(|path| generation(path).is_some()).max_by_key(generation);
        let log = newest.and_then(|path| fs::read(path).ok()).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Whether all went well, and the line that says what was done.
    pub(super) fn summary(&self, minutes: u64, seed: u64) -> (bool, String) {
        let (escapes, failures) =
            (self.escapes.load(Ordering::Relaxed), self.failures.load(Ordering::Relaxed));
        let is_well = !self.is_over() && escapes == 0 && failures == 0;
        let get = |what| self.get(what);
        let line = format!(
            "soak: {minutes} min, seed {seed}: {} starts, {} execs, {} kills, {} failing starts, \
             {} reloads, {} daemon kills, {} stops, {} upgrades; {} attacks refused, slowest work \
             {:.1} s; {escapes} escapes, {failures} failures, {}",
            get(Count::Starts),
            get(Count::Execs),
            get(Count::Kills),
            get(Count::FailingStarts),
            get(Count::Reloads),
            get(Count::DaemonKills),
            get(Count::Stops),
            get(Count::Upgrades),
            get(Count::Refused),
            Duration::from_millis(self.slowest.load(Ordering::Relaxed)).as_secs_f64(),
            if is_well { "nothing left" } else { "stopped at the first" },
        );
        (is_well, line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_escape_is_told_from_a_failure_below_its_context() {
        let record = Record::new("/absent".as_ref());
        record.note("one", format_args!("something"));
        record.count(Count::Starts);
        let (well, line) = record.summary(5, 1);
        assert!(well && line.starts_with("soak: 5 min, seed 1: 1 starts, 0 execs"), "{line}");
        assert!(line.ends_with("0 escapes, 0 failures, nothing left"), "{line}");
        record.wrong("one", &anyhow::Error::from(Escape("x".to_owned())).context("exec"));
        record.wrong("two", &anyhow::anyhow!("late"));
        let (well, line) = record.summary(5, 1);
        assert!(!well && line.contains("; 1 escapes, 1 failures,"), "{line}");
    }
}
