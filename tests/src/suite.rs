//! The tests, grouped by promise.

mod token;

use crate::harness::runner::Test;

/// Groups of the small guest, in the order in which they run.
const MICRO: [&[Test]; 1] = [token::TESTS];

/// Tests for the small guest.
pub(crate) fn micro() -> Vec<&'static Test> {
    MICRO.into_iter().flatten().collect()
}
