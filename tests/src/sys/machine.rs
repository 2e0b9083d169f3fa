//! Calls that act on the whole machine, in the most harmless way there is.

use std::{
    ffi::{CStr, CString},
    fs::File,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
    ptr,
};

use nix::{errno::Errno, libc, unistd::Pid};

/// `perf_event_open(2)` of the caller's own CPU clock, in user space only.
pub(crate) fn perf_event() -> nix::Result<OwnedFd> {
    // `struct perf_event_attr`, its first version of 64 bytes: type and size, config, …; in the
    // sixth word the bits exclude_kernel and exclude_hv.
    let attributes: [u64; 8] = [1 | 64 << 32, 0, 0, 0, 0, 1 << 5 | 1 << 6, 0, 0];
    // SAFETY: the attributes have the size they state, and live across the call.
    let fd = Errno::result(unsafe {
        libc::syscall(libc::SYS_perf_event_open, attributes.as_ptr(), 0, -1, -1, 0)
    })?;
    let fd = i32::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just opened it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `init_module(2)` of something that is no module.
pub(crate) fn init_module() -> nix::Result<()> {
    let image = [0_u8; 256];
    // SAFETY: the image has the length stated, the parameters are an empty string.
    let result =
        unsafe { libc::syscall(libc::SYS_init_module, image.as_ptr(), image.len(), c"".as_ptr()) };
    Errno::result(result).map(drop)
}

/// `kexec_load(2)` of nothing: unloads what nobody has loaded.
pub(crate) fn kexec_unload() -> nix::Result<()> {
    // SAFETY: no segments, so that no pointer is followed.
    let result =
        unsafe { libc::syscall(libc::SYS_kexec_load, 0, 0, ptr::null::<libc::c_void>(), 0) };
    Errno::result(result).map(drop)
}

/// `clock_settime(2)` of the time that it is.
pub(crate) fn set_clock() -> nix::Result<()> {
    let clock = nix::time::ClockId::CLOCK_REALTIME;
    nix::time::clock_settime(clock, nix::time::clock_gettime(clock)?)
}

/// `acct(2)`: off, as it is.
pub(crate) fn accounting_off() -> nix::Result<()> {
    // SAFETY: without a path the call follows no pointer.
    Errno::result(unsafe { libc::acct(ptr::null()) }).map(drop)
}

/// `ptrace(2)`, `PTRACE_SEIZE`: ends with the tracer.
pub(crate) fn seize(pid: Pid) -> nix::Result<()> {
    nix::sys::ptrace::seize(pid, nix::sys::ptrace::Options::empty())
}

/// `process_vm_readv(2)` of no memory: the checks come first.
pub(crate) fn read_memory(pid: Pid) -> nix::Result<()> {
    let mut byte = [0_u8];
    let local = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    let remote = libc::iovec { iov_base: ptr::null_mut(), iov_len: 1 };
    // SAFETY: the local vector is a byte of ours, the remote one is an address of the other process.
    let result = unsafe {
        libc::process_vm_readv(pid.as_raw(), &raw const local, 1, &raw const remote, 1, 0)
    };
    match Errno::result(result) {
        // Nothing is mapped at address 0.
        Err(Errno::EFAULT) => Ok(()),
        result => result.map(drop),
    }
}

/// `setpriority(2)` to what a process has unless it was changed.
pub(crate) fn renice(pid: Pid) -> nix::Result<()> {
    let who = libc::id_t::try_from(pid.as_raw()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the call takes integers.
    Errno::result(unsafe { libc::setpriority(libc::PRIO_PROCESS, who, 0) }).map(drop)
}

/// `ioctl(2)`, `TIOCSTI`: as if somebody had typed a letter.
pub(crate) fn type_into(terminal: &File) -> nix::Result<()> {
    let letter = b'x';
    // SAFETY: the request reads one byte of ours.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSTI, &raw const letter) };
    Errno::result(result).map(drop)
}

/// `ioctl(2)`, `TIOCLINUX`: paste the selection. Only consoles know it.
pub(crate) fn paste(terminal: &File) -> nix::Result<()> {
    const TIOCLINUX: libc::Ioctl = 0x541c; // include/uapi/asm-generic/ioctls.h
    let paste = [3_u8, 0, 0, 0];
    // SAFETY: the request reads a byte of ours, and of those that follow at most as many as there are.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), TIOCLINUX, paste.as_ptr()) };
    match Errno::result(result) {
        Err(Errno::ENOTTY) => Ok(()),
        result => result.map(drop),
    }
}

/// `ioctl(2)`, `TIOCSWINSZ`.
pub(crate) fn resize(terminal: &File) -> nix::Result<()> {
    let size = libc::winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the request reads a structure of ours.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    Errno::result(result).map(drop)
}

/// `swapoff(2)`.
pub(crate) fn swap_off(path: &CStr) -> nix::Result<()> {
    // SAFETY: the path ends with a zero byte.
    Errno::result(unsafe { libc::swapoff(path.as_ptr()) }).map(drop)
}

/// Makes whoever executes the file have `capability`, as `setcap cap_…+ep` does.
pub(crate) fn give_capability(path: &Path, capability: u32) -> nix::Result<()> {
    // `struct vfs_cap_data` (include/uapi/linux/capability.h, 6.12): revision 2 and the effective bit; then the
    // permitted and the inheritable ones, lower halves first.
    let data: [u32; 5] = [0x0200_0001, 1 << capability, 0, 0, 0];
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    let name = c"security.capability";
    // SAFETY: both texts end with a zero byte, and the value has the length stated.
    let result = unsafe {
        libc::setxattr(path.as_ptr(), name.as_ptr(), data.as_ptr().cast(), size_of_val(&data), 0)
    };
    Errno::result(result).map(drop)
}
