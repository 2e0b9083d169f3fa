//! Percentiles for people.

use std::time::Duration;

/// Prints median, 99th percentile and maximum.
pub(crate) fn percentiles(what: &str, times: impl Iterator<Item = Duration>) {
    let mut times: Vec<_> = times.collect();
    times.sort_unstable();
    let at = |share: usize| times.get(times.len().saturating_sub(1) * share / 1000);
    let shown = [("p50", 500), ("p99", 990), ("max", 1000)]
        .map(|(name, share)| format!("{name} {:>9.1?}", at(share).copied().unwrap_or_default()));
    println!("  {what:<14} {}  ({})", shown.join("  "), times.len());
}

/// Prints how much longer the second of each pair took.
pub(crate) fn difference(pairs: &[(Duration, Duration)]) {
    let mut differences: Vec<f64> =
        pairs.iter().map(|(a, b)| (b.as_secs_f64() - a.as_secs_f64()) * 1e6).collect();
    differences.sort_unstable_by(f64::total_cmp);
    let at = |quarter: usize| {
        differences.get(differences.len().saturating_sub(1) * quarter / 4).copied().unwrap_or(0.0)
    };
    println!(
        "  marked minus not marked, in pairs: median {:+.1} µs, quartiles {:+.1} and {:+.1} µs",
        at(2),
        at(1),
        at(3)
    );
}
