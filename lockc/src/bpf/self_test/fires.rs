//! Proof that each program runs: a function can be attached to and never called, because the compiler has made a copy
//! of it that is called instead.
//!
//! The kernel counts runs while the counters are on (`bpf_stats_enabled_key`, `kernel/bpf/trampoline.c`, 6.1 to 7.0).

use std::{
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use aya::{programs::Program, sys};

use super::{
    super::{fdinfo, modify_return::Programs},
    Kernel, SelfTestError,
};

/// Longest wait: a task that has ended is freed when every processor has been elsewhere (`put_task_struct_rcu_user`,
/// kernel/exit.c, 6.12).
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(5);

/// What comes before the names of programs for which a hook has no function of the same arguments.
const FUNCTION: &str = "security_";

/// Programs that nothing is tried for: it would take a 32-bit program.
const UNTRIED: &[&str] = &["file_ioctl_compat"];

/// While it is there, the kernel counts runs of programs.
#[derive(Debug)]
pub(super) struct Counters {
    on: OwnedFd,
}

impl Counters {
    pub(super) fn turn_on() -> Result<Self, SelfTestError> {
        let on =
            sys::enable_stats(sys::Stats::RunTime).map_err(|error| SelfTestError::Prepare {
                path: "the counters of BPF programs".into(),
                source: error.io_error,
            })?;
        Ok(Self { on })
    }

    /// Waits until every program has run, but for those in `refused`, which nothing may have come to.
    pub(super) fn wait(self, kernel: &Kernel, refused: &[&str]) -> Result<(), SelfTestError> {
        let Self { on } = self;
        let end = Instant::now() + PATIENCE;
        let programs = loop {
            let silent = kernel.silent(refused);
            if silent.is_empty() || Instant::now() >= end {
                break silent;
            }
            thread::sleep(PAUSE);
        };
        drop(on);
        if programs.is_empty() { Ok(()) } else { Err(SelfTestError::Silent { programs }) }
    }
}

/// Executes something, as no child that only makes system calls can: by fork and setuid, rather than by `posix_spawn`.
pub(super) fn execute() {
    let quiet = || Stdio::null();
    let mut command = Command::new("/proc/self/exe");
    command.arg("--version").uid(0).stdin(quiet()).stdout(quiet()).stderr(quiet());
    // Not waited for: who names lockc itself as a runtime would let it wait for a gate that is not open yet.
    thread::spawn(move || command.status());
}

impl Kernel {
    /// Whether the program is attached, or what stands for it where a function has other arguments than the hook.
    pub(super) fn has_attached(&self, program: &str) -> bool {
        self.attached.iter().any(|name| is_for(name, program))
    }

    /// Names of the attached programs that have not run since their runs are counted.
    fn silent(&self, refused: &[&str]) -> Vec<String> {
        let own = self.ebpf.programs().filter_map(|(name, program)| {
            let fd = match program {
                Program::Lsm(lsm) => lsm.fd(),
                Program::FEntry(fentry) => fentry.fd(),
                Program::FExit(fexit) => fexit.fd(),
                _ => return None,
            };
            Some((name, fd.ok()?.as_fd()))
        });
        let others = self.modify_return.iter().flat_map(Programs::each);
        let others = others.map(|(name, program)| (name, program.fd()));
        own.chain(others)
            .filter(|(name, _)| self.attached.contains(*name) && !UNTRIED.contains(name))
            .filter(|(name, _)| !refused.iter().any(|program| is_for(name, program)))
            // One of which the kernel does not tell has not been seen to run.
            .filter(|(_, fd)| fdinfo::number(*fd, fdinfo::RUNS).is_none_or(|runs| runs == 0))
            .map(|(name, _)| name.to_owned())
            .collect()
    }
}

fn is_for(name: &str, program: &str) -> bool {
    name.strip_prefix(FUNCTION).unwrap_or(name) == program
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_tried_is_documented() {
        let document = include_str!("../../../../docs/kernel-support.md");
        for name in UNTRIED {
            assert!(document.contains(&format!("`{name}`")), "{name}");
        }
    }
}
