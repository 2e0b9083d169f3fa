//! For each program something that it is asked about: what it denies to a contained task whose policy wants that, and
//! what harms nobody where it is allowed. Most of it fails for other reasons then.
//!
//! Attempts are made in a child that does nothing else, so each is system calls only.

use std::{ffi::CStr, ptr};

use nix::{errno::Errno, libc};

use super::place::{PAGE, Place};

/// A function of the C library that gives -1 when it fails.
macro_rules! call {
    ($name:ident $(, $argument:expr)*) => {
        // SAFETY: every pointer is to something that outlives the call, or null where the function allows it, and each
        // length is that of what is pointed to.
        outcome(unsafe { libc::$name($($argument),*) } == -1)
    };
}

/// A system call that the C library has no function for.
macro_rules! system {
    ($name:ident $(, $argument:expr)*) => {
        // SAFETY: as for `call`.
        outcome(unsafe { libc::syscall(libc::$name $(, $argument)*) } == -1)
    };
}

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    Failed(Errno),
    /// What it takes is not there.
    NotTried,
    /// The child ended at it.
    Ended,
}

/// Something that a program is asked about.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) program: &'static str,
    /// Whether the program denies it. Others only take notice, or another program is asked first.
    pub(super) is_denied: bool,
    pub(super) act: fn(&Place) -> Outcome,
}

const fn denied(program: &'static str, act: fn(&Place) -> Outcome) -> Attempt {
    Attempt { program, is_denied: true, act }
}

const fn noticed(program: &'static str, act: fn(&Place) -> Outcome) -> Attempt {
    Attempt { program, is_denied: false, act }
}

/// In this order: the last ones change who the child is.
pub(super) const ATTEMPTS: &[Attempt] = &[
    denied("file_open", |at| call!(open, at.file.as_ptr(), libc::O_RDONLY)),
    denied("path_truncate", |at| call!(truncate, at.file.as_ptr(), 0)),
    denied("path_chmod", |at| call!(chmod, at.file.as_ptr(), 0o600)),
    denied("path_chown", |at| call!(chown, at.file.as_ptr(), 0, KEEP)),
    denied("inode_setattr", |at| {
        call!(utimensat, libc::AT_FDCWD, at.file.as_ptr(), ptr::null(), 0)
    }),
    denied("inode_setxattr", |at| {
        call!(setxattr, at.file.as_ptr(), ATTRIBUTE.as_ptr(), ptr::null(), 0, 0)
    }),
    denied("inode_removexattr", |at| call!(removexattr, at.file.as_ptr(), ATTRIBUTE.as_ptr())),
    denied("inode_set_acl", |at| {
        let list = ACCESS_LIST;
        call!(setxattr, at.file.as_ptr(), LIST.as_ptr(), (&raw const list).cast(), list.len(), 0)
    }),
    denied("inode_remove_acl", |at| call!(removexattr, at.file.as_ptr(), LIST.as_ptr())),
    denied("path_symlink", |at| call!(symlink, c"file".as_ptr(), at.symlink.as_ptr())),
    denied("path_link", |at| call!(link, at.file.as_ptr(), at.linked.as_ptr())),
    denied("path_rename", |at| call!(rename, at.moved.as_ptr(), at.renamed.as_ptr())),
    denied("path_mknod", |at| call!(mkfifo, at.fifo.as_ptr(), 0o600)),
    denied("path_mkdir", |at| call!(mkdir, at.made_directory.as_ptr(), 0o700)),
    denied("path_rmdir", |at| call!(rmdir, at.removed_directory.as_ptr())),
    denied("path_unlink", |at| call!(unlink, at.removed.as_ptr())),
    denied("inode_mknod", |at| {
        call!(mknod, at.device.as_ptr(), libc::S_IFBLK | 0o600, libc::makedev(7, 0))
    }),
    denied("file_truncate", |at| call!(ftruncate, at.own(), 0)),
    noticed("mnt_want_write_file", |at| call!(fchown, at.own(), 0, KEEP)),
    denied("file_ioctl", |at| call!(ioctl, at.own(), libc::TIOCSTI, c"".as_ptr())),
    denied("mmap_file", |at| map(at, libc::PROT_READ | libc::PROT_EXEC).0),
    denied("file_mprotect", |at| protect(at, libc::PROT_READ | libc::PROT_EXEC)),
    // Some forbid themselves to make data code.
    noticed("file_mprotect", |at| protect(at, libc::PROT_READ)),
    denied("bprm_check_security", execute),
    denied("sb_mount", |at| {
        // No such file system: asked about, and refused for that.
        let kind = c"lockc-self-test".as_ptr();
        call!(mount, kind, at.itself.as_ptr(), kind, 0, ptr::null())
    }),
    // `do_umount`, fs/namespace.c, 6.12: the root of a process does not expire.
    denied("sb_umount", |_| call!(umount2, c"/".as_ptr(), libc::MNT_EXPIRE)),
    denied("sb_pivotroot", |at| system!(SYS_pivot_root, at.itself.as_ptr(), at.itself.as_ptr())),
    noticed("move_mount", |at| {
        // Nothing is mounted there.
        let (here, path) = (libc::AT_FDCWD, at.itself.as_ptr());
        system!(SYS_move_mount, here, path, here, path, 0)
    }),
    noticed("sb_kern_mount", |_| new_mount().0),
    noticed("sb_remount", |_| remount()),
    denied("capable", |at| system!(SYS_swapoff, at.itself.as_ptr())),
    denied("bpf", |_| {
        const GET_NEXT_PROGRAM: libc::c_int = 11; // BPF_PROG_GET_NEXT_ID, include/uapi/linux/bpf.h, 6.12
        let attributes = [0_u32; 3];
        system!(SYS_bpf, GET_NEXT_PROGRAM, attributes.as_ptr(), size_of_val(&attributes))
    }),
    denied("perf_event_open", |_| {
        // PERF_TYPE_SOFTWARE with PERF_ATTR_SIZE_VER0, and PERF_COUNT_SW_DUMMY (include/uapi/linux/perf_event.h, 6.12).
        let attributes = [64 << 32 | 1, 9, 0, 0, 0, 0, 0, 0_u64];
        system!(SYS_perf_event_open, attributes.as_ptr(), 0, -1, -1, 0)
    }),
    denied("ptrace_access_check", |at| {
        let mut byte = 0_u8;
        let local = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
        // Where nothing is.
        let remote = libc::iovec { iov_base: ptr::null_mut(), iov_len: 1 };
        call!(process_vm_readv, at.daemon.id, &raw const local, 1, &raw const remote, 1, 0)
    }),
    denied("task_kill", |at| call!(kill, at.daemon.id, 0)),
    denied("task_setnice", |at| {
        call!(setpriority, libc::PRIO_PROCESS, at.daemon.id.cast_unsigned(), at.daemon.priority)
    }),
    denied("task_setscheduler", |at| {
        let Some(processors) = &at.daemon.processors else {
            return Outcome::NotTried;
        };
        let size = size_of_val(processors);
        system!(SYS_sched_setaffinity, at.daemon.id, size, ptr::from_ref(processors))
    }),
    denied("task_setrlimit", |at| {
        let Some((rlim_cur, rlim_max)) = at.daemon.core else {
            return Outcome::NotTried;
        };
        let limit = libc::rlimit { rlim_cur, rlim_max };
        let old = ptr::null_mut::<libc::rlimit>();
        system!(SYS_prlimit64, at.daemon.id, libc::RLIMIT_CORE, &raw const limit, old)
    }),
    denied("syslog", |_| {
        const SIZE_OF_LOG: libc::c_int = 10; // SYSLOG_ACTION_SIZE_BUFFER, include/linux/syslog.h, 6.12
        call!(klogctl, SIZE_OF_LOG, ptr::null_mut(), 0)
    }),
    denied("socket_create", |_| call!(socket, libc::AF_INET, libc::SOCK_DGRAM, 0)),
    denied("socket_connect", |at| addressed(at, |fd, to, len| call!(connect, fd, to, len))),
    denied("socket_sendmsg", |at| {
        // To port 0, where nothing is sent (`udp_sendmsg`, net/ipv4/udp.c, 6.12).
        addressed(at, |fd, to, len| call!(sendto, fd, ptr::null(), 0, 0, to, len))
    }),
    denied("socket_bind", |at| addressed(at, |fd, to, len| call!(bind, fd, to, len))),
    denied("socket_listen", |at| match at.udp() {
        // Nobody can listen so.
        Some(fd) => call!(listen, fd, 1),
        None => Outcome::NotTried,
    }),
    // Those who may have no other sockets than these.
    noticed("socket_create", |at| to_listener(at).0),
    noticed("socket_connect", |at| to_listener(at).0),
    noticed("socket_sendmsg", |at| match to_listener(at) {
        (Outcome::Done, fd) => call!(send, fd, c"x".as_ptr().cast(), 1, 0),
        (outcome, _) => outcome,
    }),
    denied("unix_stream_connect", |at| to_listener(at).0),
    denied("inode_init_security_anon", |_| {
        let parameters = [0_u64; 15]; // struct io_uring_params, include/uapi/linux/io_uring.h, 6.12
        system!(SYS_io_uring_setup, 1, parameters.as_ptr())
    }),
    noticed("path_chroot", |_| call!(chroot, c"/".as_ptr())),
    denied("task_fix_setuid", |_| become_root_again()),
    denied("userns_create", |_| call!(unshare, libc::CLONE_NEWUSER)),
    noticed("copy_mnt_ns", |_| call!(unshare, libc::CLONE_NEWNS)),
];

const KEEP: libc::uid_t = libc::uid_t::MAX;
const ATTRIBUTE: &CStr = c"user.lockc";
const LIST: &CStr = c"system.posix_acl_access";
/// Version 2, and what a mode of 0600 says (`include/uapi/linux/posix_acl_xattr.h`, 6.12).
const ACCESS_LIST: [u8; 28] = [
    2, 0, 0, 0, //
    1, 0, 6, 0, 0xff, 0xff, 0xff, 0xff, //
    4, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, //
    0x20, 0, 0, 0, 0xff, 0xff, 0xff, 0xff,
];

fn outcome(has_failed: bool) -> Outcome {
    if has_failed { Outcome::Failed(Errno::last()) } else { Outcome::Done }
}

/// Maps the page that has no name.
fn map(at: &Place, protection: libc::c_int) -> (Outcome, *mut libc::c_void) {
    let Some(fd) = at.memory() else {
        return (Outcome::NotTried, ptr::null_mut());
    };
    // SAFETY: a new mapping, wherever there is room.
    let start = unsafe { libc::mmap(ptr::null_mut(), PAGE, protection, libc::MAP_PRIVATE, fd, 0) };
    (outcome(start == libc::MAP_FAILED), start)
}

fn protect(at: &Place, protection: libc::c_int) -> Outcome {
    match map(at, libc::PROT_READ) {
        (Outcome::Done, start) => call!(mprotect, start, PAGE, protection),
        (outcome, _) => outcome,
    }
}

/// Executes the page, which has no form that can be executed.
fn execute(at: &Place) -> Outcome {
    let Some(fd) = at.memory() else {
        return Outcome::NotTried;
    };
    let nothing = [ptr::null::<libc::c_char>()];
    let (arguments, environment) = (nothing.as_ptr(), nothing.as_ptr());
    system!(SYS_execveat, fd, c"".as_ptr(), arguments, environment, libc::AT_EMPTY_PATH)
}

/// A file system that is attached nowhere: what came of it, and its descriptor.
fn new_mount() -> (Outcome, libc::c_long) {
    const CREATE: libc::c_int = 6; // FSCONFIG_CMD_CREATE, include/uapi/linux/mount.h, 6.12
    let nothing = ptr::null::<libc::c_char>();
    // SAFETY: the name ends with a zero.
    let context = unsafe { libc::syscall(libc::SYS_fsopen, c"tmpfs".as_ptr(), 0) };
    if context == -1 {
        return (outcome(true), -1);
    }
    // SAFETY: this command takes neither key nor value.
    if unsafe { libc::syscall(libc::SYS_fsconfig, context, CREATE, nothing, nothing, 0) } == -1 {
        return (outcome(true), -1);
    }
    // SAFETY: no pointers.
    let mount = unsafe { libc::syscall(libc::SYS_fsmount, context, 0, 0) };
    (outcome(mount == -1), mount)
}

/// Configures such a file system as it is.
fn remount() -> Outcome {
    const EMPTY_PATH: libc::c_int = 8; // FSPICK_EMPTY_PATH, include/uapi/linux/mount.h, 6.12
    const RECONFIGURE: libc::c_int = 7; // FSCONFIG_CMD_RECONFIGURE
    let (made, mount) = new_mount();
    if made != Outcome::Done {
        return made;
    }
    // SAFETY: the name ends with a zero.
    let context = unsafe { libc::syscall(libc::SYS_fspick, mount, c"".as_ptr(), EMPTY_PATH) };
    if context == -1 {
        return outcome(true);
    }
    let nothing = ptr::null::<libc::c_char>();
    system!(SYS_fsconfig, context, RECONFIGURE, nothing, nothing, 0)
}

/// Names port 0 of this machine, which nobody listens at.
fn addressed(
    at: &Place,
    act: fn(libc::c_int, *const libc::sockaddr, libc::socklen_t) -> Outcome,
) -> Outcome {
    const INET: libc::sa_family_t = 2; // AF_INET, include/linux/socket.h, 6.12
    const LEN: libc::socklen_t = 16; // struct sockaddr_in, include/uapi/linux/in.h
    let Some(fd) = at.udp() else {
        return Outcome::NotTried;
    };
    let to = libc::sockaddr_in {
        sin_family: INET,
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes([127, 0, 0, 1]) },
        sin_zero: [0; 8],
    };
    act(fd, (&raw const to).cast(), LEN)
}

/// Connects to the daemon's own socket, which has the name of an engine's.
fn to_listener(at: &Place) -> (Outcome, libc::c_int) {
    let Some((address, len)) = at.sockaddr() else {
        return (Outcome::NotTried, -1);
    };
    // SAFETY: no pointers.
    let fd = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0) };
    if fd == -1 {
        return (outcome(true), -1);
    }
    (call!(connect, fd, address, len), fd)
}

/// Becomes somebody else who may change users all the same, and root again.
fn become_root_again() -> Outcome {
    const SOMEBODY: libc::c_int = 1;
    // struct __user_cap_header_struct and twice __user_cap_data_struct: effective, permitted, inheritable
    // (include/uapi/linux/capability.h, 6.12).
    let header = [0x2008_0522_u32, 0];
    let mut sets = [0_u32; 6];
    // Not by the functions of the C library, which would change all threads.
    for step in [
        system!(SYS_prctl, libc::PR_SET_KEEPCAPS, 1, 0, 0, 0),
        system!(SYS_setresuid, SOMEBODY, SOMEBODY, SOMEBODY),
        system!(SYS_capget, header.as_ptr(), sets.as_mut_ptr()),
    ] {
        if step != Outcome::Done {
            return step;
        }
    }
    (sets[0], sets[3]) = (sets[1], sets[4]);
    match system!(SYS_capset, header.as_ptr(), sets.as_ptr()) {
        Outcome::Done => system!(SYS_setuid, 0),
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Before these another program denies, or what they are asked about cannot be tried.
    const UNDENIED: &[&str] = &[
        "bprm_creds_for_exec",
        "bprm_creds_from_file",
        "file_ioctl_compat",
        "move_mount",
        "sb_kern_mount",
        "sb_remount",
    ];

    /// The names of the programs that answer.
    fn programs() -> Vec<&'static str> {
        let source = include_str!("../../../../lockc-ebpf/src/main.rs");
        let hooks = source.split("#[lsm(hook = \"").skip(1);
        let answers = hooks.filter(|hook| hook.split("\n}").next().unwrap().contains("errno()"));
        answers.map(|hook| hook.split('"').next().unwrap()).collect()
    }

    #[test]
    fn each_program_that_answers_is_asked_to_deny() {
        let document = include_str!("../../../../docs/kernel-support.md");
        let is_tried = |name: &str| ATTEMPTS.iter().any(|it| it.is_denied && it.program == name);
        assert!(programs().len() > 40, "{:?}", programs());
        for program in programs() {
            if UNDENIED.contains(&program) {
                assert!(document.contains(&format!("`{program}`")), "{program}");
            } else {
                // It can only be out of memory.
                assert!(is_tried(program) || program == "task_alloc", "{program}");
            }
        }
    }

    #[test]
    fn what_changes_the_child_comes_last() {
        let last: Vec<_> = ATTEMPTS.iter().rev().take(3).map(|attempt| attempt.program).collect();
        assert_eq!(last, ["copy_mnt_ns", "userns_create", "task_fix_setuid"]);
    }
}
