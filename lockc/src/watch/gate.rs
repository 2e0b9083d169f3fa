//! The gate: threads that answer for tasks frozen in `execve`, and a watchdog
//! that answers when they cannot.
//!
//! Every event is answered exactly once, by whoever takes its ticket out of the
//! table first: the worker that decided, or the watchdog at the deadline. What
//! is logged is logged after the answer, because the log may itself be waiting
//! for a container.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::unistd::Pid;

use super::group::{Frozen, Group, Next};
use crate::event::record::Record;

/// Threads that answer.
const WORKERS: usize = 4;
/// Threads that may be stuck at once, each with a replacement. While more are, a thread of its own
/// answers without looking, as at the deadline.
const MAX_STUCK: usize = 64;
/// Pause after an error of the group itself, so that it cannot keep a core busy.
const ERROR_PAUSE: Duration = Duration::from_millis(10);

/// What is decided about one `execve`.
#[derive(Debug)]
pub struct Decision {
    /// Whether it may go on.
    pub allow: bool,
    /// What to say about it, after the answer.
    pub message: Option<(log::Level, String)>,
    /// What to keep of it, after the answer.
    pub event: Option<Box<Record>>,
}

impl Decision {
    /// It goes on, and there is nothing to say.
    pub const ALLOW: Self = Self { allow: true, message: None, event: None };
}

/// Who decides.
pub trait Decide: Send + Sync + 'static {
    /// Decides about the task that is frozen in thread `tid`, executing `exe`, and registers it.
    fn decide(&self, tid: Pid, exe: BorrowedFd<'_>) -> Decision;
    /// Decides without looking, when [`Decide::decide`] has taken too long.
    fn decide_late(&self, tid: Pid) -> Decision;
    /// A task was answered `time` after it was taken; `late` if that was at the deadline, or without a look. What there is
    /// to say about it is said now.
    fn answered(&self, decision: Decision, time: Duration, late: bool);
    /// The group reported an error, or lost events.
    fn trouble(&self, message: String);
    /// Called every [`Gate::start`]'s `pulse`, as long as the gate answers.
    fn alive(&self);
}

/// Whether a worker looks at what it answers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sight {
    Full,
    None,
}

struct Ticket {
    tid: Pid,
    exe: Arc<OwnedFd>,
    since: Instant,
    deadline: Instant,
}

#[derive(Default)]
struct Table {
    tickets: BTreeMap<u64, Ticket>,
    stuck: usize,
}

/// The gate's shared state.
pub struct Gate<D> {
    group: Arc<Group>,
    decide: D,
    /// In milliseconds.
    timeout: AtomicU64,
    table: Mutex<Table>,
    wake: Condvar,
    next_ticket: AtomicU64,
    stopping: AtomicBool,
    /// How often to say that the gate answers.
    pulse: Option<Duration>,
}

/// What was seen when the pulse was due.
#[derive(Clone, Copy)]
struct Look {
    at: Instant,
    waiting: bool,
    taken: u64,
}

impl Look {
    /// Whether somebody has waited since `before`, and nobody was taken.
    fn is_as(&self, before: &Self) -> bool {
        before.waiting && self.waiting && before.taken == self.taken
    }
}

impl<D> std::fmt::Debug for Gate<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl<D: Decide> Gate<D> {
    /// Starts the threads. Every `pulse` [`Decide::alive`] is called, unless a task waits that nobody takes.
    pub fn start(
        group: Arc<Group>,
        decide: D,
        timeout: Duration,
        pulse: Option<Duration>,
    ) -> std::io::Result<Arc<Self>> {
        let gate = Arc::new(Self {
            group,
            decide,
            timeout: AtomicU64::new(millis(timeout)),
            table: Mutex::default(),
            wake: Condvar::new(),
            next_ticket: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            pulse,
        });
        for _ in 0..WORKERS {
            gate.spawn_worker(Sight::Full)?;
        }
        let watchdog = Arc::clone(&gate);
        thread::Builder::new().name("watchdog".into()).spawn(move || watchdog.watch())?;
        Ok(gate)
    }

    /// How long a task waits at most.
    fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout.load(Ordering::Relaxed))
    }

    /// Changes how long tasks that come from now on wait at most.
    pub fn set_timeout(&self, timeout: Duration) {
        self.timeout.store(millis(timeout), Ordering::Relaxed);
    }

    /// Lets no further task in. Those that wait go on when the group is closed, under the safe
    /// default.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.group.stop();
        self.wake.notify_all();
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // The table is whole between any two statements that change it.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spawn_worker(self: &Arc<Self>, sight: Sight) -> std::io::Result<()> {
        let gate = Arc::clone(self);
        thread::Builder::new().name("gate".into()).spawn(move || gate.work(sight))?;
        Ok(())
    }

    fn work(self: &Arc<Self>, sight: Sight) {
        loop {
            if sight == Sight::None && self.table().stuck <= MAX_STUCK {
                return;
            }
            match self.group.next() {
                Ok(Next::Frozen(frozen)) => {
                    if !self.serve(frozen, sight) {
                        return; // late: a replacement has taken this thread's place
                    }
                }
                Ok(Next::Overflow) => {
                    self.decide.trouble("fanotify lost events: its queue was full".into());
                }
                Ok(Next::Stopped) => return,
                Err(error) => {
                    // EMFILE, ENFILE or ENOMEM: the kernel has denied that task. Others wait.
                    self.decide.trouble(format!("cannot read from fanotify: {error}"));
                    thread::sleep(ERROR_PAUSE);
                }
            }
        }
    }

    /// Decides and answers; false when the watchdog has answered before and this thread has been
    /// replaced.
    fn serve(&self, frozen: Frozen, sight: Sight) -> bool {
        let Frozen { tid, exe } = frozen;
        let exe = Arc::new(exe);
        let number = self.next_ticket.fetch_add(1, Ordering::Relaxed);
        let since = Instant::now();
        let ticket = Ticket { tid, exe: Arc::clone(&exe), since, deadline: since + self.timeout() };
        {
            let mut table = self.table();
            let is_next = table.tickets.values().all(|other| ticket.deadline < other.deadline);
            table.tickets.insert(number, ticket);
            if is_next {
                self.wake.notify_one();
            }
        }
        let decision = match sight {
            Sight::Full => self.decide.decide(tid, exe.as_fd()),
            Sight::None => self.decide.decide_late(tid),
        };
        let mut table = self.table();
        let Some(ticket) = table.tickets.remove(&number) else {
            let was_replaced = table.stuck <= MAX_STUCK;
            table.stuck = table.stuck.saturating_sub(1);
            return !was_replaced;
        };
        drop(table);
        self.answer(&ticket, &decision);
        self.decide.answered(decision, ticket.since.elapsed(), sight == Sight::None);
        true
    }

    fn answer(&self, ticket: &Ticket, decision: &Decision) {
        // A task that was killed meanwhile is answered like any other: the kernel keeps its event
        // until then (fs/notify/fanotify/fanotify.c, FAN_EVENT_CANCELED, 6.12). What was
        // registered for it is swept up later.
        if let Err(error) = self.group.answer(ticket.exe.as_fd(), decision.allow) {
            self.decide.trouble(format!("cannot answer for thread {}: {error}", ticket.tid));
        }
    }

    fn sleep<'t>(
        &self,
        table: MutexGuard<'t, Table>,
        until: Option<Instant>,
    ) -> MutexGuard<'t, Table> {
        let Some(until) = until else {
            return self.wake.wait(table).unwrap_or_else(PoisonError::into_inner);
        };
        let time = until.saturating_duration_since(Instant::now());
        self.wake.wait_timeout(table, time).unwrap_or_else(PoisonError::into_inner).0
    }

    fn look(&self) -> Look {
        Look {
            at: Instant::now(),
            // Who cannot ask does not know of anybody who waits.
            waiting: self.group.is_waiting().unwrap_or(false),
            taken: self.next_ticket.load(Ordering::Relaxed),
        }
    }

    /// Says that the gate answers, unless a task has waited since `before` for longer than all threads may take for
    /// those that came earlier.
    fn pulse(&self, before: &mut Look, pulse: Duration) {
        let now = self.look();
        if !now.is_as(before) {
            *before = now;
        }
        if now.at - before.at <= self.timeout() + pulse {
            self.decide.alive();
        } else {
            self.decide.trouble("a start waits, and no thread takes it".into());
        }
    }

    /// Sleeps until the oldest ticket is due; answers for it then.
    fn watch(self: &Arc<Self>) {
        let mut seen = self.look();
        let mut beat = self.pulse.map(|pulse| (seen.at + pulse, pulse));
        let mut table = self.table();
        while !self.stopping.load(Ordering::Relaxed) {
            let next =
                table.tickets.iter().map(|(number, ticket)| (ticket.deadline, *number)).min();
            let now = Instant::now();
            if let Some((at, pulse)) = beat
                && at <= now
            {
                drop(table);
                self.pulse(&mut seen, pulse);
                beat = Some((now + pulse, pulse));
                table = self.table();
                continue;
            }
            let Some((_, number)) = next.filter(|(due, _)| *due <= now) else {
                let times = next.map(|(due, _)| due).into_iter().chain(beat.map(|(at, _)| at));
                table = self.sleep(table, times.min());
                continue;
            };
            let Some(ticket) = table.tickets.remove(&number) else {
                continue;
            };
            table.stuck += 1;
            let replacement = match table.stuck {
                ..=MAX_STUCK => Some(Sight::Full),
                stuck => (stuck == MAX_STUCK + 1).then_some(Sight::None),
            };
            drop(table);
            let decision = self.decide.decide_late(ticket.tid);
            self.answer(&ticket, &decision);
            let time = ticket.since.elapsed();
            if let Some(sight) = replacement
                && let Err(error) = self.spawn_worker(sight)
            {
                self.decide.trouble(format!("cannot start a thread: {error}"));
            }
            self.decide.answered(decision, time, true);
            table = self.table();
        }
    }
}

fn millis(timeout: Duration) -> u64 {
    u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
