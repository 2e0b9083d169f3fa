//! What the gate does, in numbers.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::state::{Bucket, Gate};

/// Upper bounds of the buckets of [`Gate`], in microseconds: from a decision on a quick machine to the longest deadline.
const BOUNDS: [u64; 17] = [
    50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000,
    1_000_000, 2_000_000, 5_000_000, 10_000_000,
];

/// Counts answers.
#[derive(Debug, Default)]
pub(super) struct Meter {
    allowed: AtomicU64,
    denied: AtomicU64,
    late: AtomicU64,
    sum_us: AtomicU64,
    /// One more than there are bounds.
    buckets: [AtomicU64; BOUNDS.len() + 1],
}

impl Meter {
    /// Counts an answer that took `time`.
    pub(super) fn count(&self, time: Duration, allow: bool, is_late: bool) {
        let add = |to: &AtomicU64, what| to.fetch_add(what, Ordering::Relaxed);
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        add(if allow { &self.allowed } else { &self.denied }, 1);
        add(&self.late, u64::from(is_late));
        add(&self.sum_us, micros);
        let bucket = BOUNDS.partition_point(|bound| *bound < micros);
        add(&self.buckets[bucket], 1);
    }

    /// What was counted.
    pub(super) fn read(&self) -> Gate {
        let get = |of: &AtomicU64| of.load(Ordering::Relaxed);
        let bounds = BOUNDS.iter().copied().map(Some).chain([None]);
        let buckets = self.buckets.iter().zip(bounds);
        Gate {
            allowed: get(&self.allowed),
            denied: get(&self.denied),
            late: get(&self.late),
            buckets: buckets
                .map(|(count, up_to_us)| Bucket { up_to_us, count: get(count) })
                .collect(),
            sum_us: get(&self.sum_us),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_is_in_one_bucket() {
        let meter = Meter::default();
        for (micros, allow, late) in
            [(50, true, false), (51, true, false), (900, false, false), (20_000_000, false, true)]
        {
            meter.count(Duration::from_micros(micros), allow, late);
        }
        let Gate { allowed, denied, late, buckets, sum_us } = meter.read();
        assert_eq!((allowed, denied, late, sum_us), (2, 2, 1, 20_001_001));
        let filled: Vec<_> =
            buckets.iter().filter(|it| it.count > 0).map(|it| it.up_to_us).collect();
        assert_eq!(filled, [Some(50), Some(100), Some(1_000), None]);
        assert!(BOUNDS.is_sorted());
    }
}
