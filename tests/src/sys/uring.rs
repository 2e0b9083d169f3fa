//! Just enough io_uring to open a file with it.

use std::{
    ffi::CStr,
    num::NonZeroUsize,
    os::fd::{AsFd, AsRawFd as _, OwnedFd},
    ptr::NonNull,
    sync::atomic::{AtomicU32, Ordering},
};

use nix::{
    errno::Errno,
    libc,
    sys::mman::{MapFlags, ProtFlags, mmap},
};

/// Size of `struct io_uring_params` (`include/uapi/linux/io_uring.h`), in 32-bit words.
const PARAMS_WORDS: usize = 30;
/// Size of `struct io_uring_sqe`, in 64-bit words.
const SQE_WORDS: usize = 8;
/// `IORING_OFF_SQES`.
const OFF_SQES: i64 = 0x1000_0000;
/// Offset of the submission and of the completion ring's field table in the parameters, in words.
const SQ_OFF: usize = 10;
const CQ_OFF: usize = 20;
/// Bytes mapped of each ring: enough for a ring of one entry.
const RING_BYTES: usize = 4096;

/// What opening a file through io_uring came to.
#[derive(Debug)]
pub(crate) enum Opened {
    /// The kernel has no io_uring for this process: the error of `io_uring_setup(2)`.
    Unavailable(Errno),
    /// The completion's result.
    Done(nix::Result<OwnedFd>),
}

/// Opens `path` for reading by `IORING_OP_OPENAT`; `forced` makes a kernel worker thread do it
/// (`IOSQE_ASYNC`).
pub(crate) fn open(path: &CStr, forced: bool) -> Opened {
    open_with(path, libc::O_RDONLY, forced)
}

/// Opens `path` for writing.
pub(crate) fn open_for_writing(path: &CStr) -> Opened {
    open_with(path, libc::O_WRONLY, false)
}

fn open_with(path: &CStr, access: libc::c_int, forced: bool) -> Opened {
    match setup() {
        Ok((ring, params)) => Opened::Done(submit(&ring, &params, path, access, forced)),
        Err(errno) => Opened::Unavailable(errno),
    }
}

/// A ring of one entry, and what the kernel says about it.
pub(crate) fn setup() -> nix::Result<(OwnedFd, [u32; PARAMS_WORDS])> {
    let mut params = [0_u32; PARAMS_WORDS];
    // SAFETY: `params` has the size of `struct io_uring_params` and lives across the call.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, params.as_mut_ptr()) };
    Ok((super::owned(fd)?, params))
}

/// Maps `RING_BYTES` bytes of the ring at `offset`. The mapping lasts as long as the process.
fn map(ring: &OwnedFd, offset: i64) -> nix::Result<NonNull<libc::c_void>> {
    let length = NonZeroUsize::new(RING_BYTES).ok_or(Errno::EINVAL)?;
    // SAFETY: a new shared mapping at an address that the kernel chooses.
    unsafe {
        mmap(
            None,
            length,
            ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
            MapFlags::MAP_SHARED | MapFlags::MAP_POPULATE,
            ring.as_fd(),
            offset,
        )
    }
}

/// The 32-bit word at `offset` bytes of a ring.
fn word<'ring>(ring: NonNull<libc::c_void>, offset: u32) -> &'ring AtomicU32 {
    // SAFETY: the kernel gives offsets within the mapped ring, aligned to four bytes.
    let at = unsafe { ring.byte_add(offset as usize) };
    // SAFETY: the word is mapped for good, and shared with the kernel through atomics only.
    unsafe { at.cast::<AtomicU32>().as_ref() }
}

fn submit(
    ring: &OwnedFd,
    params: &[u32; PARAMS_WORDS],
    path: &CStr,
    access: libc::c_int,
    forced: bool,
) -> nix::Result<OwnedFd> {
    let submissions = map(ring, 0)?;
    let completions = map(ring, 0x0800_0000)?;
    let entries = map(ring, OFF_SQES)?;

    // opcode, flags, ioprio, fd; off; addr; len and open_flags; user_data; the rest.
    let opcode = 18_u64;
    let flags: u64 = if forced { 1 << 4 } else { 0 };
    let cwd = u64::from(libc::AT_FDCWD.cast_unsigned());
    let open_flags = (access | libc::O_CLOEXEC).cast_unsigned();
    let entry: [u64; SQE_WORDS] = [
        opcode | flags << 8 | cwd << 32,
        0,
        path.as_ptr().addr() as u64,
        u64::from(open_flags) << 32,
        1,
        0,
        0,
        0,
    ];
    // SAFETY: the mapping holds one entry of exactly this size, and the kernel does not look at
    // it before `io_uring_enter`.
    unsafe { entries.cast::<[u64; SQE_WORDS]>().write(entry) };

    // The array slot 0 already says entry 0: the kernel zeroes the ring.
    let tail = word(submissions, params[SQ_OFF + 1]);
    tail.store(tail.load(Ordering::Acquire) + 1, Ordering::Release);
    let get_events = 1;
    // SAFETY: the entry's path lives across the call, which waits for its completion.
    let entered = unsafe {
        libc::syscall(
            libc::SYS_io_uring_enter,
            ring.as_raw_fd(),
            1,
            1,
            get_events,
            std::ptr::null::<libc::c_void>(),
            0,
        )
    };
    Errno::result(entered)?;

    let head = word(completions, params[CQ_OFF]);
    if head.load(Ordering::Acquire) == word(completions, params[CQ_OFF + 1]).load(Ordering::Acquire)
    {
        return Err(Errno::EAGAIN);
    }
    // `struct io_uring_cqe`: user_data (8 bytes), res.
    let result = word(completions, params[CQ_OFF + 5] + 8).load(Ordering::Acquire).cast_signed();
    if result < 0 {
        return Err(Errno::from_raw(-result));
    }
    super::owned(result.into())
}
