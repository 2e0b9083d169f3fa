//! The tests, grouped by promise.

mod admission;
mod compatibility;
mod engines;
mod escape;
mod examples;
mod exec;
mod explain;
mod files;
mod hooks;
mod host;
mod host_paths;
mod identity;
mod input;
mod instant;
mod kernel;
mod leaks;
mod machine;
mod network;
mod ordinary;
mod preemption;
mod reload;
mod runtime;
mod stdio;
mod token;

use crate::harness::runner::Test;

/// Groups of the small guest, in the order in which they run.
const MICRO: [&[Test]; 22] = [
    ordinary::TESTS,
    stdio::TESTS,
    hooks::TESTS,
    host::TESTS,
    preemption::TESTS,
    input::TESTS,
    leaks::TESTS,
    token::TESTS,
    escape::TESTS,
    files::TESTS,
    host_paths::TESTS,
    kernel::TESTS,
    machine::TESTS,
    network::TESTS,
    exec::TESTS,
    identity::TESTS,
    runtime::TESTS,
    instant::TESTS,
    admission::TESTS,
    explain::TESTS,
    reload::TESTS,
    examples::TESTS,
];

/// Tests for the full guest.
pub(crate) fn full() -> Vec<&'static Test> {
    [engines::TESTS, examples::ENGINES, compatibility::TESTS].into_iter().flatten().collect()
}

/// Tests for the small guest.
pub(crate) fn micro() -> Vec<&'static Test> {
    MICRO.into_iter().flatten().collect()
}
