//! The tests, grouped by promise.

mod escape;
mod hooks;
mod instant;
mod kernel;
mod ordinary;
mod stdio;

mod runtime;
mod token;

use crate::harness::runner::Test;

/// Groups of the small guest, in the order in which they run.
const MICRO: [&[Test]; 8] = [
    ordinary::TESTS,
    stdio::TESTS,
    hooks::TESTS,
    token::TESTS,
    escape::TESTS,
    kernel::TESTS,
    runtime::TESTS,
    instant::TESTS,
];

/// Tests for the small guest.
pub(crate) fn micro() -> Vec<&'static Test> {
    MICRO.into_iter().flatten().collect()
}
