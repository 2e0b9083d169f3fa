//! System calls that neither std nor nix wrap safely. Every `unsafe` block of the tests is in this
//! module and its child.

pub(crate) mod attributes;
pub(crate) mod bpf;
pub(crate) mod code;
pub(crate) mod landlock;
pub(crate) mod machine;
pub(crate) mod net;
pub(crate) mod programs;
pub(crate) mod uring;

use std::{
    ffi::CStr,
    fs,
    io::{IoSlice, IoSliceMut},
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
        unix::process::CommandExt as _,
    },
    process::Command,
    ptr,
};

use nix::{
    errno::Errno,
    libc,
    mount::{MsFlags, mount},
    sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg},
    unistd::{ForkResult, Pid},
};

/// Largest file handle the kernel makes (`MAX_HANDLE_SZ`, include/linux/exportfs.h), in bytes.
const MAX_HANDLE: u32 = 128;

/// A file handle as `name_to_handle_at(2)` gives it.
#[derive(Clone, Debug)]
pub(crate) struct FileHandle {
    kind: i32,
    bytes: Vec<u8>,
}

/// `struct file_handle` with room for the largest handle.
#[repr(C)]
struct RawHandle {
    len: u32,
    kind: i32,
    bytes: [u8; MAX_HANDLE as usize],
}

impl RawHandle {
    /// An empty handle that has room.
    fn new() -> Self {
        Self { len: MAX_HANDLE, kind: 0, bytes: [0; MAX_HANDLE as usize] }
    }
}

impl FileHandle {
    /// Text form: the type and the bytes in hexadecimal, separated by a dot.
    pub(crate) fn to_text(&self) -> String {
        let Self { kind, bytes } = self;
        let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{kind}.{}", hex.concat())
    }

    /// The reverse of [`FileHandle::to_text`]; `None` when `text` is not one.
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        let (kind, hex) = text.split_once('.')?;
        let bytes = hex
            .as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok())
            .collect::<Option<Vec<u8>>>()?;
        (bytes.len() <= MAX_HANDLE as usize).then_some(Self { kind: kind.parse().ok()?, bytes })
    }
}

/// Turns the result of a raw system call that gives a descriptor into an owned one.
fn owned(result: libc::c_long) -> nix::Result<OwnedFd> {
    let fd = RawFd::try_from(Errno::result(result)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor for us, and nothing else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `fork(2)`. Call it only from a process with one thread.
pub(crate) fn fork() -> nix::Result<ForkResult> {
    // SAFETY: the probe has one thread whenever it forks, so that the child may do anything.
    unsafe { nix::unistd::fork() }
}

/// The handle of the file that `path` names, following links.
pub(crate) fn name_to_handle(path: &CStr) -> nix::Result<FileHandle> {
    let mut raw = RawHandle::new();
    let mut mount_id = 0;
    // SAFETY: `raw` has the layout of `struct file_handle` and the room that `len` states; `path`
    // is NUL-terminated; both live across the call.
    let result = unsafe {
        libc::name_to_handle_at(
            libc::AT_FDCWD,
            path.as_ptr(),
            ptr::from_mut(&mut raw).cast(),
            &raw mut mount_id,
            libc::AT_SYMLINK_FOLLOW,
        )
    };
    Errno::result(result)?;
    Ok(FileHandle { kind: raw.kind, bytes: raw.bytes[..raw.len as usize].to_vec() })
}

/// `open_by_handle_at(2)`: opens `handle` for reading on the file system that `mount` lies on.
/// `mount` may be `AT_FDCWD`.
pub(crate) fn open_by_handle(mount: RawFd, handle: &FileHandle) -> nix::Result<OwnedFd> {
    let FileHandle { kind, bytes } = handle;
    let len = u32::try_from(bytes.len()).map_err(|_| Errno::EINVAL)?;
    let mut raw = RawHandle { len, kind: *kind, ..RawHandle::new() };
    raw.bytes.get_mut(..bytes.len()).ok_or(Errno::EINVAL)?.copy_from_slice(bytes);
    // SAFETY: `raw` has the layout of `struct file_handle`, `len` does not exceed its room, and it
    // lives across the call.
    let fd = unsafe {
        libc::open_by_handle_at(
            mount,
            ptr::from_mut(&mut raw).cast(),
            libc::O_RDONLY | libc::O_CLOEXEC,
        )
    };
    owned(fd.into())
}

/// `fsopen(2)`.
pub(crate) fn fsopen(fs: &CStr) -> nix::Result<OwnedFd> {
    // SAFETY: `fs` is NUL-terminated and lives across the call.
    owned(unsafe { libc::syscall(libc::SYS_fsopen, fs.as_ptr(), 1) })
}

/// `fsconfig(2)` with `FSCONFIG_SET_STRING`.
pub(crate) fn fsconfig_set(fs: &OwnedFd, key: &CStr, value: &CStr) -> nix::Result<()> {
    // SAFETY: both strings are NUL-terminated and live across the call.
    let result = unsafe {
        libc::syscall(libc::SYS_fsconfig, fs.as_raw_fd(), 1, key.as_ptr(), value.as_ptr(), 0)
    };
    Errno::result(result).map(drop)
}

/// `fsconfig(2)` with `FSCONFIG_CMD_CREATE`.
pub(crate) fn fsconfig_create(fs: &OwnedFd) -> nix::Result<()> {
    // SAFETY: the command takes no pointers.
    let result = unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            fs.as_raw_fd(),
            6,
            ptr::null::<libc::c_char>(),
            ptr::null::<libc::c_void>(),
            0,
        )
    };
    Errno::result(result).map(drop)
}

/// `fsmount(2)`.
pub(crate) fn fsmount(fs: &OwnedFd) -> nix::Result<OwnedFd> {
    // SAFETY: the call takes no pointers.
    owned(unsafe { libc::syscall(libc::SYS_fsmount, fs.as_raw_fd(), 1, 0) })
}

/// `open_tree(2)` with `OPEN_TREE_CLONE`: a detached copy of the mount at `path`.
pub(crate) fn open_tree_clone(path: &CStr) -> nix::Result<OwnedFd> {
    let flags = 1 | libc::O_CLOEXEC;
    // SAFETY: `path` is NUL-terminated and lives across the call.
    owned(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })
}

/// `move_mount(2)` of the detached mount `tree` onto `path`.
pub(crate) fn move_mount(tree: &OwnedFd, path: &CStr) -> nix::Result<()> {
    // MOVE_MOUNT_F_EMPTY_PATH
    let flags = 4;
    // SAFETY: both strings are NUL-terminated and live across the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            path.as_ptr(),
            flags,
        )
    };
    Errno::result(result).map(drop)
}

/// `mount_setattr(2)`: clears `MOUNT_ATTR_RDONLY` of the mount at `path`.
pub(crate) fn mount_make_writable(path: &CStr) -> nix::Result<()> {
    // `struct mount_attr`: attr_set, attr_clr, propagation, userns_fd.
    let attr: [u64; 4] = [0, 1, 0, 0];
    // SAFETY: `path` is NUL-terminated, `attr` has the layout and size stated; both live across
    // the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            0,
            attr.as_ptr(),
            size_of_val(&attr),
        )
    };
    Errno::result(result).map(drop)
}

/// `syslog(2)` with `SYSLOG_ACTION_READ_ALL`: the last bytes of the kernel log.
pub(crate) fn read_kernel_log() -> nix::Result<usize> {
    let action = 3;
    let size: u16 = 4096;
    let mut log = vec![0_u8; size.into()];
    // SAFETY: `log` has the room stated and lives across the call.
    let read = unsafe { libc::klogctl(action, log.as_mut_ptr().cast(), size.into()) };
    Errno::result(read).map(|read| usize::try_from(read).unwrap_or(0))
}

/// `truncate(2)`; nix has it for descriptors only.
pub(crate) fn truncate(path: &CStr) -> nix::Result<()> {
    // SAFETY: `path` is NUL-terminated and lives across the call.
    Errno::result(unsafe { libc::truncate(path.as_ptr(), 0) }).map(drop)
}

/// `renameat2(2)` with `RENAME_EXCHANGE`.
pub(crate) fn exchange(one: &CStr, other: &CStr) -> nix::Result<()> {
    // SAFETY: both paths are NUL-terminated and live across the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_renameat2,
            libc::AT_FDCWD,
            one.as_ptr(),
            libc::AT_FDCWD,
            other.as_ptr(),
            libc::RENAME_EXCHANGE,
        )
    };
    Errno::result(result).map(drop)
}

/// `pidfd_open(2)`.
pub(crate) fn pidfd(pid: Pid) -> nix::Result<OwnedFd> {
    // SAFETY: the call takes no pointers.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })
}

/// Gives `command` the descriptor `fd` under the number `number`, open across its `execve`.
/// The command must be spawned before `fd` is closed.
pub(crate) fn pass_fd(command: &mut Command, fd: BorrowedFd<'_>, number: RawFd) {
    let fd = fd.as_raw_fd();
    let pass = move || {
        let result = if fd == number {
            // SAFETY: F_SETFD takes an integer.
            unsafe { libc::fcntl(fd, libc::F_SETFD, 0) }
        } else {
            // SAFETY: dup2 takes integers; the child has no use for what it had as `number`.
            unsafe { libc::dup2(fd, number) }
        };
        Errno::result(result).map(drop).map_err(Into::into)
    };
    // SAFETY: the closure runs between fork and exec, and calls only dup2 and fcntl, which are
    // async-signal-safe and allocate nothing.
    unsafe {
        command.pre_exec(pass);
    }
}

/// Makes the terminal that is `command`'s standard input its controlling terminal.
pub(crate) fn control_terminal(command: &mut Command) {
    let control = || {
        nix::unistd::setsid()?;
        // SAFETY: TIOCSCTTY takes an integer.
        Errno::result(unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) })?;
        Ok(())
    };
    // SAFETY: the closure runs between fork and exec, and calls only setsid and ioctl, which are
    // async-signal-safe and allocate nothing.
    unsafe {
        command.pre_exec(control);
    }
}

/// Gives `command` a mount namespace of its own, from which nothing propagates.
pub(crate) fn own_mounts(command: &mut Command) {
    let unshare = || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        Ok(mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?)
    };
    // SAFETY: the closure runs between fork and exec, and calls only unshare and mount, whose one
    // string is short enough for nix to copy it to the stack.
    unsafe {
        command.pre_exec(unshare);
    }
}

/// Sets the soft limit of another process's descriptors, and gives the one before.
pub(crate) fn limit_descriptors(pid: Pid, soft: u64) -> nix::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the old limit is written to a structure of ours, a new one is not given.
    Errno::result(unsafe {
        libc::prlimit(pid.as_raw(), libc::RLIMIT_NOFILE, ptr::null(), &raw mut limit)
    })?;
    let before = std::mem::replace(&mut limit.rlim_cur, soft);
    // SAFETY: the new limit is read from a structure of ours, the old one is not asked for.
    Errno::result(unsafe {
        libc::prlimit(pid.as_raw(), libc::RLIMIT_NOFILE, &raw const limit, ptr::null_mut())
    })?;
    Ok(before)
}

/// Takes the descriptor `number` that whoever started this process left open for it; `None` when
/// it is not open. Call it once per number.
pub(crate) fn inherited(number: RawFd) -> Option<OwnedFd> {
    // SAFETY: F_GETFD takes no argument.
    Errno::result(unsafe { libc::fcntl(number, libc::F_GETFD) }).ok()?;
    // SAFETY: the descriptor is open, nothing in this process opened it, so that nothing else
    // owns it.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

/// The descriptor that the other side sends next (`SCM_RIGHTS`, `unix(7)`).
pub(crate) fn receive_descriptor(from: impl AsFd) -> nix::Result<OwnedFd> {
    let mut data = [0; 256];
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let mut buffers = [IoSliceMut::new(&mut data)];
    let (from, flags) = (from.as_fd().as_raw_fd(), MsgFlags::MSG_CMSG_CLOEXEC);
    let message = recvmsg::<()>(from, &mut buffers, Some(&mut space), flags)?;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = control
            && let Some(number) = numbers.first()
        {
            // SAFETY: the kernel made this descriptor for the message, which does not own it.
            return Ok(unsafe { OwnedFd::from_raw_fd(*number) });
        }
    }
    Err(Errno::ENOMSG)
}

/// Sends a descriptor, with one byte, as it takes at least that.
pub(crate) fn send_descriptor(to: impl AsFd, descriptor: impl AsFd) -> nix::Result<()> {
    let numbers = [descriptor.as_fd().as_raw_fd()];
    let control = [ControlMessage::ScmRights(&numbers)];
    let to = to.as_fd().as_raw_fd();
    sendmsg::<()>(to, &[IoSlice::new(b"x")], &control, MsgFlags::empty(), None).map(drop)
}

/// Whether this kernel is older than 6.2.
pub(crate) fn is_before_6_2() -> anyhow::Result<bool> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release.split('.').map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor) < (6, 2)),
        _ => anyhow::bail!("cannot read the version in {release:?}"),
    }
}

/// Whether this kernel runs LSM programs: otherwise lockc attaches in another way.
pub(crate) fn runs_lsm_programs() -> bool {
    let list = fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    list.trim().split(',').any(|module| module == "bpf")
}
