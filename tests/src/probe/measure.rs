//! What operations cost, in rounds of one and the same thing.
//!
//! Made for a machine whose clock counts instructions: there a round repeats to the instruction unless a timer
//! interrupts it or an allocator needs a new page, and the least of many is a round without either.

use std::{fs::File, io::Write as _, time::Instant};

use nix::{
    fcntl::AT_FDCWD,
    sys::{
        fanotify::{
            EventFFlags, Fanotify, FanotifyResponse, InitFlags, MarkFlags, MaskFlags, Response,
        },
        wait::waitpid,
    },
    unistd::ForkResult,
};

use super::{Failure, Outcome, Step as _, operations::OPERATIONS, say};
use crate::sys::{self, landlock};

/// Does the thing once. `nix::Result`, so that nothing is allocated between two looks at the clock.
pub(super) type Work = Box<dyn FnMut() -> nix::Result<()>>;

/// One thing to measure.
pub(crate) struct Operation {
    pub(crate) name: &'static str,
    /// In how many processes it is measured: where its memory lies is part of what some things cost.
    pub(super) processes: usize,
    /// How often the clock is looked at.
    pub(super) rounds: usize,
    /// How often it is done in between.
    pub(super) times: u32,
    /// Makes what it needs.
    pub(super) prepare: fn() -> Result<Work, Failure>,
}

pub(super) fn verb(verb: &str, args: &[&str]) -> Option<Outcome> {
    match (verb, args) {
        ("measure", names) => Some(measure(names)),
        ("measure-landlocked", names) => Some(measure_landlocked(names)),
        ("allow-execve", [program]) => Some(allow_execve(program)),
        _ => None,
    }
}

/// The same under Landlock, with one rule that allows all.
fn measure_landlocked(names: &[&str]) -> Outcome {
    landlock::restrict_to(File::open("/").prepare("open /")?).prepare("landlock")?;
    measure(names)
}

/// Has the kernel ask before anybody executes the program, and says yes.
fn allow_execve(program: &str) -> Outcome {
    let group = Fanotify::init(InitFlags::FAN_CLASS_CONTENT, EventFFlags::O_RDONLY);
    let group = group.prepare("fanotify_init")?;
    let (add, mask) = (MarkFlags::FAN_MARK_ADD, MaskFlags::FAN_OPEN_EXEC_PERM);
    group.mark(add, mask, AT_FDCWD, Some(program)).prepare("fanotify_mark")?;
    say(format_args!("ready"));
    loop {
        for event in group.read_events().step("read events")? {
            if let Some(fd) = event.fd() {
                let answer = FanotifyResponse::new(fd, Response::FAN_ALLOW);
                group.write_response(answer).step("answer")?;
            }
        }
    }
}

/// `NAME=COST` for each operation of these names, in nanoseconds for each time.
fn measure(names: &[&str]) -> Outcome {
    let clock = least(&rounds(101, 1, || Ok(())).prepare("look at the clock")?);
    let costs = names.iter().map(|name| {
        let operation = OPERATIONS.iter().find(|operation| operation.name == *name);
        let operation = operation.ok_or_else(|| Failure::Unfit(format!("no operation {name}")))?;
        let attempts = (0..operation.processes).map(|_| in_child(|| cost(operation, clock)));
        let costs = attempts.collect::<Result<Vec<_>, Failure>>()?;
        Ok(format!("{name}={:.1}", least(&costs)))
    });
    Ok(costs.collect::<Result<Vec<_>, Failure>>()?.join(" "))
}

fn cost(operation: &Operation, clock: f64) -> Result<f64, Failure> {
    let mut work = (operation.prepare)()?;
    let costs = rounds(operation.rounds, operation.times, &mut work).step(operation.name)?;
    Ok((least(&costs) - clock) / f64::from(operation.times))
}

/// What a new process finds out.
fn in_child(measure: impl FnOnce() -> Result<f64, Failure>) -> Result<f64, Failure> {
    let (from, to) = std::io::pipe().prepare("pipe")?;
    match sys::fork().prepare("fork")? {
        ForkResult::Child => {
            let said = match measure() {
                Ok(cost) => cost.to_string(),
                Err(failure) => failure.to_string(),
            };
            let written = (&to).write_all(said.as_bytes());
            std::process::exit(i32::from(written.is_err()))
        }
        ForkResult::Parent { child } => {
            drop(to);
            let said = std::io::read_to_string(from).prepare("read from the child")?;
            waitpid(child, None).prepare("wait")?;
            said.parse().map_err(|_| Failure::Unfit(said))
        }
    }
}

/// Nanoseconds that each round takes.
fn rounds(
    count: usize,
    times: u32,
    mut work: impl FnMut() -> nix::Result<()>,
) -> nix::Result<Vec<f64>> {
    (0..count)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..times {
                work()?;
            }
            Ok(start.elapsed().as_secs_f64() * 1e9)
        })
        .collect()
}

fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

#[cfg(test)]
mod tests {
    use super::{OPERATIONS, cost, least, measure};

    #[test]
    fn what_needs_no_ground_is_measured() {
        let kill = OPERATIONS.iter().find(|operation| operation.name == "kill").unwrap();
        assert!(cost(kill, 0.0).unwrap() > 0.0);
        assert!(cost(kill, 1e12).unwrap() < 0.0, "looking at the clock is not part of it");
        assert!(measure(&["fly"]).is_err());
    }

    #[test]
    fn the_least_counts() {
        assert!((least(&[90.0, 5.0, 7.0]) - 5.0).abs() < f64::EPSILON);
    }
}
