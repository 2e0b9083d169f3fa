//! What the kernel tells of a program by its descriptor.

use std::{
    fs,
    os::fd::{AsRawFd as _, BorrowedFd},
};

/// How often it has run while runs were counted.
pub(super) const RUNS: &str = "run_cnt:";
/// How often it was skipped, because it ran on that processor already.
const SKIPS: &str = "recursion_misses:";

/// A number of `/proc/self/fdinfo/FD` (`bpf_prog_show_fdinfo`, `kernel/bpf/syscall.c`, 6.1 to 7.0).
pub(super) fn number(program: BorrowedFd<'_>, name: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_raw_fd())).ok()?;
    parse(&text, name)
}

fn parse(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

/// How often the program was skipped; `None` if the kernel does not tell.
pub fn skips(program: BorrowedFd<'_>) -> Option<u64> {
    number(program, SKIPS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_by_their_names() {
        let text = "pos:\t0\nprog_type:\t26\nrun_cnt:\t7\nrecursion_misses:\t3\n";
        assert_eq!(parse(text, RUNS), Some(7));
        assert_eq!(parse(text, SKIPS), Some(3));
        assert_eq!(parse("run_cnt:\tx\n", RUNS), None);
    }
}
