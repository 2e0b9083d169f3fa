//! Making attempts, in a child.

use std::{
    io::{self, Read as _},
    os::fd::AsFd as _,
    path::Path,
    sync::mpsc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{Signal, kill},
        wait::waitpid,
    },
    unistd::{ForkResult, Pid, fork},
};

use super::{
    super::calls,
    SelfTestError,
    attempts::{Attempt, Outcome},
    place::Place,
};

/// None of the attempts waits for anything.
const PATIENCE: Duration = Duration::from_secs(20);
/// What a child says of an attempt that it cannot make. Other numbers are errors, and 0 is none.
const NOT_TRIED: i32 = -1;

type Attempts = Vec<&'static Attempt>;
type Answer = io::Result<Vec<Outcome>>;

/// Who makes attempts.
pub(super) trait Actor {
    /// Makes attempts at `place`, one after the other, until all are made or one has ended the child that makes them. Gives
    /// the place back.
    fn act(&self, place: Place, attempts: Attempts) -> (Option<Place>, Answer);
}

/// The daemon, which is contained by nothing.
#[derive(Debug)]
pub(super) struct Host;

impl Actor for Host {
    fn act(&self, place: Place, attempts: Attempts) -> (Option<Place>, Answer) {
        let answer = in_child(&place, &attempts);
        (Some(place), answer)
    }
}

/// A thread that is a contained task. It cannot make a place for what it tries: that is denied.
#[derive(Debug)]
pub(super) struct Contained {
    orders: Option<mpsc::Sender<(Place, Attempts)>>,
    answers: mpsc::Receiver<(Place, Answer)>,
    thread: Option<JoinHandle<()>>,
}

impl Contained {
    /// Starts one under the policy with this id; it ends when it is dropped.
    pub(super) fn enter(policy: u64) -> Self {
        let (orders, taken) = mpsc::channel::<(Place, Attempts)>();
        let (told, answers) = mpsc::channel();
        let (entered, has_entered) = mpsc::channel::<()>();
        let thread = thread::spawn(move || {
            calls::enter_self_test(policy);
            drop(entered);
            for (place, attempts) in taken {
                let answer = in_child(&place, &attempts);
                let _ = told.send((place, answer));
            }
        });
        // Nothing comes: it is dropped.
        let _ = has_entered.recv();
        Self { orders: Some(orders), answers, thread: Some(thread) }
    }
}

impl Actor for Contained {
    fn act(&self, place: Place, attempts: Attempts) -> (Option<Place>, Answer) {
        if let Some(orders) = &self.orders {
            // Whoever does not take it does not answer.
            let _ = orders.send((place, attempts));
        }
        match self.answers.recv() {
            Ok((place, answer)) => (Some(place), answer),
            Err(_) => (None, Err(io::Error::other("the thread of the self-test ended"))),
        }
    }
}

impl Drop for Contained {
    fn drop(&mut self) {
        drop(self.orders.take());
        // What it said is known already.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Makes attempts, and says what came of each. A child that one of them ends, as a filter of system calls may, is
/// followed by another for the rest.
pub(super) fn make(
    base: &Path,
    attempts: &[&'static Attempt],
    actor: &impl Actor,
) -> Result<Vec<Outcome>, SelfTestError> {
    let failed = |source| SelfTestError::Prepare { path: base.to_owned(), source };
    let mut outcomes = Vec::with_capacity(attempts.len());
    while let Some(rest) = attempts.get(outcomes.len()..)
        && !rest.is_empty()
    {
        let place = Place::make(base).map_err(failed)?;
        let (_place, answer) = actor.act(place, rest.to_vec());
        outcomes.extend(answer.map_err(failed)?);
        if outcomes.len() < attempts.len() {
            outcomes.push(Outcome::Ended);
        }
    }
    Ok(outcomes)
}

fn in_child(place: &Place, attempts: &[&Attempt]) -> Answer {
    let (here, there) = io::pipe()?;
    // SAFETY: the child makes system calls only, with what was prepared before, until it exits.
    match unsafe { fork() }? {
        ForkResult::Child => {
            for attempt in attempts {
                say(&there, (attempt.act)(place));
            }
            // SAFETY: no preconditions; nothing of the parent's is cleaned up here.
            unsafe { libc::_exit(0) }
        }
        ForkResult::Parent { child } => {
            drop(there);
            let said = listen(here);
            if said.is_err() {
                // It may be gone.
                let _ = kill(child, Signal::SIGKILL);
            }
            reap(child);
            Ok(said?.chunks_exact(size_of::<i32>()).map(parse).collect())
        }
    }
}

fn say(to: &io::PipeWriter, outcome: Outcome) {
    let number = match outcome {
        Outcome::Done => 0,
        Outcome::Failed(errno) => errno as i32,
        Outcome::NotTried | Outcome::Ended => NOT_TRIED,
    };
    // Less than a pipe takes at once, of which the parent misses what does not come.
    let _ = nix::unistd::write(to, &number.to_ne_bytes());
}

fn parse(bytes: &[u8]) -> Outcome {
    match bytes.try_into().map(i32::from_ne_bytes) {
        Ok(0) => Outcome::Done,
        Ok(NOT_TRIED) | Err(_) => Outcome::NotTried,
        Ok(number) => Outcome::Failed(Errno::from_raw(number)),
    }
}

/// Everything until the child closes its end.
fn listen(mut from: io::PipeReader) -> io::Result<Vec<u8>> {
    let end = Instant::now() + PATIENCE;
    let mut said = Vec::new();
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let wait = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut polled = [PollFd::new(from.as_fd(), PollFlags::POLLIN)];
        match poll(&mut polled, wait) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
        }
        let mut bytes = [0; 512];
        match from.read(&mut bytes)? {
            0 => return Ok(said),
            count => said.extend(bytes.iter().take(count)),
        }
    }
}

fn reap(child: Pid) {
    while waitpid(child, None) == Err(Errno::EINTR) {}
}
