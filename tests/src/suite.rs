//! The tests, grouped by promise.

mod escape;
mod instant;
mod kernel;
mod token;

use crate::harness::runner::Test;

/// Groups of the small guest, in the order in which they run.
const MICRO: [&[Test]; 4] = [token::TESTS, escape::TESTS, kernel::TESTS, instant::TESTS];

/// Tests for the small guest.
pub(crate) fn micro() -> Vec<&'static Test> {
    MICRO.into_iter().flatten().collect()
}
