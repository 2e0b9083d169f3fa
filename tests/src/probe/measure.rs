//! What operations cost, in rounds of one and the same thing.
//!
//! Made for a machine whose clock counts instructions: there a round repeats to the instruction unless a timer
//! interrupts it, and the median of many is a round that none did.

use std::time::Instant;

use super::{Failure, Outcome, Step as _, operations::OPERATIONS};

/// Does the thing once. `nix::Result`, so that nothing is allocated between two looks at the clock.
pub(super) type Work = Box<dyn FnMut() -> nix::Result<()>>;

/// One thing to measure.
pub(crate) struct Operation {
    pub(crate) name: &'static str,
    /// How often the clock is looked at. The first round, which warms up, does not count.
    pub(super) rounds: usize,
    /// How often it is done in between.
    pub(super) times: u32,
    /// Makes what it needs.
    pub(super) prepare: fn() -> Result<Work, Failure>,
}

pub(super) fn verb(verb: &str, args: &[&str]) -> Option<Outcome> {
    (verb == "measure").then(|| measure(args))
}

/// `NAME=COST` for each operation of these names, in nanoseconds for each time.
fn measure(names: &[&str]) -> Outcome {
    let clock = median(&mut rounds(101, 1, || Ok(())).prepare("look at the clock")?);
    let costs = names.iter().map(|name| {
        let operation = OPERATIONS.iter().find(|operation| operation.name == *name);
        let operation = operation.ok_or_else(|| Failure::Unfit(format!("no operation {name}")))?;
        Ok(format!("{name}={:.1}", cost(operation, clock)?))
    });
    Ok(costs.collect::<Result<Vec<_>, Failure>>()?.join(" "))
}

fn cost(operation: &Operation, clock: f64) -> Result<f64, Failure> {
    let mut work = (operation.prepare)()?;
    let mut costs = rounds(operation.rounds, operation.times, &mut work).step(operation.name)?;
    Ok((median(&mut costs[1..]) - clock) / f64::from(operation.times))
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

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{measure, median};

    #[test]
    fn the_median_is_not_moved_by_interrupts() {
        assert!((median(&mut [5.0, 90.0, 5.0, 5.0, 70.0]) - 5.0).abs() < f64::EPSILON);
        assert!(median(&mut []).abs() < f64::EPSILON);
    }

    #[test]
    fn what_needs_no_ground_is_measured() {
        let said = measure(&["kill"]).unwrap();
        assert!(said.strip_prefix("kill=").unwrap().parse::<f64>().unwrap() > 0.0, "{said}");
        assert!(measure(&["fly"]).is_err());
    }
}
