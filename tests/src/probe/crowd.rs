//! Many tasks in a container, and what an event costs one.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::{errno::Errno, unistd::pause};

use super::{Failure, Outcome, Step as _};

/// Enough for a thread that opens a file and waits; a thousand of them must fit.
const STACK: usize = 64 << 10;

pub(super) fn verb(verb: &str, args: &[&str]) -> Option<Outcome> {
    match (verb, args) {
        ("crowd", [count, out, path]) => Some(crowd(count, out, path)),
        ("open-close", [rounds, times, path]) => Some(cost(rounds, times, path)),
        ("open-denied", [times, path]) => Some(cost_denied(times, path)),
        _ => None,
    }
}

fn number(text: &str) -> Result<usize, Failure> {
    text.parse().map_err(|_| Failure::Unfit(format!("no number: {text}")))
}

/// So many tasks, each of which tries to open `path`; says in a line of `out` how many were refused, and stays.
fn crowd(count: &str, out: &str, path: &str) -> Outcome {
    let count = number(count)?;
    let (tried, refused) = (Barrier::new(count), AtomicUsize::new(0));
    let attempt = || {
        if File::open(path).is_err_and(|error| error.raw_os_error() == Some(Errno::EPERM as i32)) {
            refused.fetch_add(1, Ordering::Relaxed);
        }
        tried.wait();
    };
    thread::scope(|scope| {
        for _ in 1..count {
            let stay = || {
                attempt();
                loop {
                    pause();
                }
            };
            thread::Builder::new().stack_size(STACK).spawn_scoped(scope, stay).step("thread")?;
        }
        attempt();
        let line = format!("{} of {count}\n", refused.load(Ordering::Relaxed));
        let mut out = OpenOptions::new().append(true).create(true).open(out).prepare("open out")?;
        // One write: others write to the same file.
        out.write_all(line.as_bytes()).prepare("write out")?;
        loop {
            pause();
        }
    })
}

fn cost(rounds: &str, times: &str, path: &str) -> Outcome {
    let time = open_close(number(rounds)?, number(times)?, path).step("open")?;
    Ok(time.to_string())
}

/// Nanoseconds that it takes to be denied to open `path`, when that is tried so many times in a row, the first time in a while.
fn cost_denied(times: &str, path: &str) -> Outcome {
    let times = number(times)?;
    let denied = || match File::open(path) {
        Err(error) if error.raw_os_error() == Some(Errno::EPERM as i32) => Ok(()),
        opened => Err(Failure::Unfit(format!("{path}: {opened:?}"))),
    };
    denied()?;
    // What is told in a second is limited.
    thread::sleep(Duration::from_secs(2));
    let start = Instant::now();
    (0..times).try_for_each(|_| denied())?;
    Ok((start.elapsed().as_nanos() / times.max(1) as u128).to_string())
}

/// Nanoseconds that it takes to open and close a file: of so many rounds the quickest, which others disturbed least.
pub(crate) fn open_close(rounds: usize, times: usize, path: &str) -> std::io::Result<u128> {
    let mut quickest = u128::MAX;
    for _ in 0..rounds {
        let start = Instant::now();
        for _ in 0..times {
            drop(File::open(path)?);
        }
        quickest = quickest.min(start.elapsed().as_nanos() / times.max(1) as u128);
    }
    Ok(quickest)
}
