//! Proof that each program runs: a function can be attached to and never called, because the compiler has made a copy
//! of it that is called instead.
//!
//! The kernel counts runs while the counters are on (`bpf_stats_enabled_key`, `kernel/bpf/trampoline.c`, 6.1 to 7.0).
//! Meanwhile the daemon, which is contained by nothing, does what they are asked about.

use std::{
    ffi::CString,
    fs::{self, File},
    io::Write as _,
    os::fd::AsFd as _,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{PermissionsExt, chown, fchown, symlink},
        net::{UnixListener, UnixStream},
        process::CommandExt as _,
    },
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant, SystemTime},
};

use aya::{
    programs::{Program, loaded_programs},
    sys,
};
use nix::{
    libc,
    sched::{sched_getaffinity, sched_setaffinity},
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        signal::kill,
        stat::Mode,
    },
    unistd::{Pid, mkfifo, truncate},
};

use super::{
    super::{fdinfo, modify_return::Programs},
    Kernel, SelfTestError,
};

/// Longest wait: a task that has ended is freed when every processor has been elsewhere (`put_task_struct_rcu_user`,
/// kernel/exit.c, 6.12).
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(5);

/// Programs that [`stir`] does not bring to run: it would take a namespace, a mount or a 32-bit program.
const UNTRIED: &[&str] = &[
    "copy_mnt_ns",
    "file_ioctl_compat",
    "inode_init_security_anon",
    "inode_remove_acl",
    "inode_set_acl",
    "move_mount",
    "path_chroot",
    "perf_event_open",
    "sb_kern_mount",
    "sb_pivotroot",
    "sb_remount",
    "sb_umount",
    "shmem_evict_inode",
    "userns_create",
];

/// Does a bit of everything in `directory`, and names the programs that did not run at it.
pub(super) fn run(kernel: &Kernel, directory: &Path) -> Result<(), SelfTestError> {
    let stats = sys::enable_stats(sys::Stats::RunTime).map_err(|error| SelfTestError::Prepare {
        path: "the counters of BPF programs".into(),
        source: error.io_error,
    })?;
    let at = directory.join("self-test");
    // Left of a daemon that was killed here.
    let _ = fs::remove_dir_all(&at);
    stir(&at);
    let silent = wait_for_runs(kernel);
    let _ = fs::remove_dir_all(&at);
    drop(stats);
    if silent.is_empty() { Ok(()) } else { Err(SelfTestError::Silent { programs: silent }) }
}

/// The programs that have not run in time.
fn wait_for_runs(kernel: &Kernel) -> Vec<String> {
    let end = Instant::now() + PATIENCE;
    loop {
        let silent = kernel.silent();
        if silent.is_empty() || Instant::now() >= end {
            return silent;
        }
        thread::sleep(PAUSE);
    }
}

/// What fails leaves a program silent, which is what is looked at.
fn stir(at: &Path) {
    let (file, other, directory) = (at.join("file"), at.join("other"), at.join("directory"));
    let _ = fs::create_dir(at);
    let _ = fs::create_dir(&directory);
    if let Ok(mut open) = File::create(&file) {
        let _ = open.write_all(b"x");
        let _ = open.set_len(0);
        let _ = fchown(&open, Some(0), None);
        let _ = open.set_modified(SystemTime::UNIX_EPOCH);
        let _ = nix::unistd::isatty(&open);
    }
    let _ = truncate(&file, 0);
    let _ = fs::set_permissions(&file, PermissionsExt::from_mode(0o600));
    let _ = chown(&file, Some(0), None);
    attributes(&file);
    let _ = symlink("file", at.join("symlink"));
    let _ = fs::hard_link(&file, &other);
    let _ = fs::rename(&other, at.join("renamed"));
    let _ = mkfifo(&at.join("fifo"), Mode::S_IRUSR);
    let _ = fs::remove_file(&file);
    let _ = fs::remove_dir(&directory);
    // No such file system: asked about, and refused for that.
    let none = nix::mount::MsFlags::empty();
    let _ = nix::mount::mount(None::<&str>, at, Some("lockc-self-test"), none, None::<&str>);
    let _ = loaded_programs().next();
    processes();
    sockets(&at.join("socket"));
}

fn attributes(file: &Path) {
    let Ok(path) = CString::new(file.as_os_str().as_bytes()) else {
        return;
    };
    let name = c"user.lockc";
    // SAFETY: both are strings that end with a zero, and the value is empty.
    unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), std::ptr::null(), 0, 0) };
    // SAFETY: as above.
    unsafe { libc::removexattr(path.as_ptr(), name.as_ptr()) };
}

fn processes() {
    const SIZE_OF_LOG: libc::c_int = 10; // SYSLOG_ACTION_SIZE_BUFFER, include/linux/syslog.h, 6.12
    let own = Pid::from_raw(0);
    let _ = kill(Pid::this(), None);
    if let Ok(processors) = sched_getaffinity(own) {
        let _ = sched_setaffinity(own, &processors);
    }
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_CORE) {
        let _ = setrlimit(Resource::RLIMIT_CORE, soft, hard);
    }
    // SAFETY: no preconditions.
    let priority = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    // SAFETY: no preconditions. It stays as it is.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, priority) };
    // SAFETY: this action takes no buffer.
    unsafe { libc::klogctl(SIZE_OF_LOG, std::ptr::null_mut(), 0) };
    // Where another process is looked into, the kernel asks as for ptrace(2).
    let _ = fs::read_link("/proc/1/root");
    // By fork and setuid, rather than by posix_spawn.
    let quiet = || Stdio::null();
    let mut command = Command::new("/proc/self/exe");
    command.arg("--version").uid(0).stdin(quiet()).stdout(quiet()).stderr(quiet());
    // Not waited for: who names lockc itself as a runtime would let it wait for a gate that is not open yet.
    thread::spawn(move || command.status());
}

fn sockets(path: &Path) {
    let Ok(_listener) = UnixListener::bind(path) else {
        return;
    };
    if let Ok(mut stream) = UnixStream::connect(path) {
        let _ = stream.write_all(b"x");
    }
}

impl Kernel {
    /// Names of the attached programs that have not run since their runs are counted.
    fn silent(&self) -> Vec<String> {
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
            // One of which the kernel does not tell has not been seen to run.
            .filter(|(_, fd)| fdinfo::number(*fd, fdinfo::RUNS).is_none_or(|runs| runs == 0))
            .map(|(name, _)| name.to_owned())
            .collect()
    }
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
