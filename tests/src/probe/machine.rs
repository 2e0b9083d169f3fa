//! Ways to act on the machine's kernel, its devices and its processes.

use std::fs::OpenOptions;

use nix::{
    errno::Errno,
    libc,
    sys::{
        signal::{Signal, kill},
        stat::{Mode, SFlag, makedev, mknod},
    },
    unistd::Pid,
};

use super::{Failure, Outcome, Step as _, files};
use crate::sys::{self, bpf, machine};

pub(super) fn verb(verb: &str, args: &[&str]) -> Option<Outcome> {
    let outcome = match (verb, args) {
        ("reach", [path]) => reach(OpenOptions::new().read(true), path),
        ("reach-write", [path]) => reach(OpenOptions::new().write(true), path),
        ("mknod", [path, kind, major, minor]) => make(path, kind, major, minor),
        ("bpf", []) => bpf::make_map().step("bpf").map(|_| "map".to_owned()),
        ("perf", []) => machine::perf_event().step("perf_event_open").map(|_| "event".to_owned()),
        ("module", []) => reached(machine::init_module(), Errno::ENOEXEC, "init_module"),
        ("kexec", []) => machine::kexec_unload().step("kexec_load").map(done),
        ("clock", []) => machine::set_clock().step("clock_settime").map(done),
        ("accounting", []) => machine::accounting_off().step("acct").map(done),
        ("signal", [command]) => on(command, |pid| kill(pid, Signal::SIGCONT).step("kill")),
        ("trace", [command]) => on(command, |pid| machine::seize(pid).step("ptrace")),
        ("peek", [command]) => {
            on(command, |pid| machine::read_memory(pid).step("process_vm_readv"))
        }
        ("environ", [command]) => {
            on(command, |pid| std::fs::read(format!("/proc/{pid}/environ")).step("open").map(drop))
        }
        ("nice", [command]) => on(command, |pid| machine::renice(pid).step("setpriority")),
        ("affinity", [command]) => on(command, |pid| {
            let all = nix::sched::sched_getaffinity(pid).prepare("sched_getaffinity")?;
            nix::sched::sched_setaffinity(pid, &all).step("sched_setaffinity")
        }),
        ("limit", [command]) => {
            on(command, |pid| sys::limit_descriptors(pid, 1000).step("prlimit").map(drop))
        }
        _ => return None,
    };
    Some(outcome)
}

fn done((): ()) -> String {
    "done".to_owned()
}

/// Opens; where there is no such device, what counts is that it was looked for.
fn reach(options: &mut OpenOptions, path: &str) -> Outcome {
    match options.open(path) {
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Ok("done".to_owned()),
        result => result.step("open").map(|_| "done".to_owned()),
    }
}

/// An error that comes only after all checks is as good as success.
fn reached(result: nix::Result<()>, late: Errno, step: &'static str) -> Outcome {
    match result {
        Err(errno) if errno == late => Ok("done".to_owned()),
        result => result.step(step).map(done),
    }
}

fn make(path: &str, kind: &str, major: &str, minor: &str) -> Outcome {
    let kind = if kind == "b" { SFlag::S_IFBLK } else { SFlag::S_IFCHR };
    let number =
        |text: &str| text.parse().map_err(|_| Failure::Unfit(format!("no number: {text}")));
    let device = makedev(number(major)?, number(minor)?);
    mknod(path, kind, Mode::from_bits_truncate(0o600), device).step("mknod").map(done)
}

/// Acts on the process called `command`.
fn on(command: &str, act: impl Fn(Pid) -> Result<(), Failure>) -> Outcome {
    let pid = files::process_called(command)?;
    act(pid).map(done)
}
