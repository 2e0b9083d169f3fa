//! The tests, grouped by promise.

mod admission;
mod adoption;
mod backend;
mod compatibility;
mod engine_adoption;
mod engines;
mod escape;
mod examples;
mod exec;
mod explain;
mod faults;
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
mod memo;
mod network;
mod operations;
mod ordinary;
mod own_files;
mod package;
mod preemption;
mod reload;
mod runtime;
mod scale;
mod service;
mod stdio;
mod storm;
mod token;
mod users;

use crate::harness::runner::Test;

/// Groups of the small guest that are about what the kernel does, in the order in which they run.
const KERNEL: [&[Test]; 5] =
    [ordinary::TESTS, stdio::TESTS, hooks::TESTS, host::TESTS, leaks::END_TESTS];

/// Groups of the small guest about how the daemon gets its programs into the kernel and out of it, for which it starts
/// anew several times.
const ATTACHED: [&[Test]; 3] = [host::END_TESTS, preemption::TESTS, backend::TESTS];

/// Groups of the small guest that are about what is enforced, in whatever way.
const ENFORCED: [&[Test]; 12] = [
    token::TESTS,
    escape::TESTS,
    files::TESTS,
    host_paths::TESTS,
    memo::TESTS,
    kernel::TESTS,
    machine::TESTS,
    network::TESTS,
    exec::TESTS,
    identity::TESTS,
    runtime::TESTS,
    own_files::TESTS,
];

/// Groups of the small guest about what goes on for long, and starts and ends of the daemon: most of them wait.
const LIFE: [&[Test]; 3] = [leaks::TESTS, instant::TESTS, adoption::TESTS];

/// Groups of the small guest for kernels whose list of security modules lacks `bpf`, beside [`ENFORCED`].
const STOCK: [&[Test]; 4] = [backend::STOCK_TESTS, leaks::END_TESTS, ordinary::TESTS, hooks::TESTS];

/// Groups of the small guest that are about what the daemon decides, which is the same on every kernel.
const DAEMON: [&[Test]; 13] = [
    input::TESTS,
    instant::DAEMON_TESTS,
    adoption::DAEMON_TESTS,
    admission::TESTS,
    explain::TESTS,
    operations::TESTS,
    memo::DAEMON_TESTS,
    reload::TESTS,
    scale::TESTS,
    storm::TESTS,
    examples::TESTS,
    users::TESTS,
    faults::TESTS,
];

/// Tests for the full guest.
pub(crate) fn full() -> Vec<&'static Test> {
    let groups = [
        engines::TESTS,
        engine_adoption::TESTS,
        service::TESTS,
        examples::ENGINES,
        compatibility::TESTS,
        package::TESTS,
        memo::DISK_TESTS,
    ];
    groups.into_iter().flatten().collect()
}

/// Tests for the small guest.
pub(crate) fn micro() -> Vec<&'static Test> {
    KERNEL.into_iter().chain(ENFORCED).chain(ATTACHED).chain(LIFE).chain(DAEMON).flatten().collect()
}

/// Those of them that are about the kernel.
pub(crate) fn kernel() -> Vec<&'static Test> {
    KERNEL.into_iter().chain(ENFORCED).chain(ATTACHED).chain(LIFE).flatten().collect()
}

/// Those of them that are for every kernel: what is enforced.
pub(crate) fn enforcement() -> Vec<&'static Test> {
    KERNEL.into_iter().chain(ENFORCED).flatten().collect()
}

/// Tests for the small guest with a kernel that runs no LSM programs.
pub(crate) fn stock() -> Vec<&'static Test> {
    STOCK.into_iter().chain(ENFORCED).flatten().collect()
}
