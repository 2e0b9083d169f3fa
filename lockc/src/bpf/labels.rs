//! Labels of running tasks, read from user space.
//!
//! aya has no task-storage map, so this is `bpf(2)` by hand: the key of such a map
//! is a pidfd (`kernel/bpf/bpf_task_storage.c`, 6.1).

use std::{
    fs, io,
    mem::MaybeUninit,
    os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd},
    slice,
};

use aya::maps::{Map, MapData};
use lockc_common::Label;
use nix::{libc, unistd::Pid};

use super::load::{Kernel, LoadError};

/// `BPF_MAP_LOOKUP_ELEM` (include/uapi/linux/bpf.h).
const LOOKUP: libc::c_int = 1;
/// `BPF_MAP_GET_NEXT_KEY`, as above.
const NEXT_KEY: libc::c_int = 4;

/// `union bpf_attr` for operations on one element.
#[repr(C)]
struct ElementAttr {
    map_fd: u32,
    reserved: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// The task storage of labels.
#[derive(Debug)]
pub struct Labels {
    map: MapData,
}

impl Labels {
    /// Takes the map out of the loaded object.
    pub fn take(kernel: &mut Kernel) -> Result<Self, LoadError> {
        match kernel.ebpf.take_map("LABELS") {
            Some(Map::Unsupported(map)) => Ok(Self { map }),
            _ => Err(LoadError::Map { name: "LABELS", reason: "not a task storage".into() }),
        }
    }

    /// The label of the process of thread `tid`; `None` if it has none, or is gone.
    pub fn get(&self, tid: Pid) -> Option<Label> {
        // Only pidfds of whole processes exist before 6.9; threads share their leader's label. Most
        // often the thread is the leader, which nobody else's number opens.
        let pidfd =
            open_process(tid.as_raw()).ok().or_else(|| open_process(process_of(tid)?).ok())?;
        self.lookup(&pidfd).ok().flatten()
    }

    /// The label of a process; `None` if it has none, or is gone.
    pub fn of_process(&self, pid: Pid) -> io::Result<Option<Label>> {
        match open_process(pid.as_raw()) {
            Ok(pidfd) => self.lookup(&pidfd),
            Err(error) => absent(error),
        }
    }

    fn lookup(&self, pidfd: &OwnedFd) -> io::Result<Option<Label>> {
        let mut label = MaybeUninit::<Label>::uninit();
        // SAFETY: a label has as many bytes as the map's values, and they need not be initialised to be written.
        let value = unsafe {
            slice::from_raw_parts_mut(
                label.as_mut_ptr().cast::<MaybeUninit<u8>>(),
                size_of::<Label>(),
            )
        };
        match lookup(&self.map, &pidfd.as_raw_fd().to_ne_bytes(), value) {
            // SAFETY: on success the kernel has written the whole value, and any bytes are a label.
            Ok(()) => Ok(Some(unsafe { label.assume_init() })),
            Err(error) => absent(error),
        }
    }
}

/// Reads the value of `key`, which has as many bytes as keys of the map have, into `value`, which has as many as its
/// values have.
pub(super) fn lookup(map: &MapData, key: &[u8], value: &mut [MaybeUninit<u8>]) -> io::Result<()> {
    let attr = element(map, key.as_ptr() as u64, value.as_mut_ptr() as u64);
    // SAFETY: the attribute, the key and a value of the map's size outlive the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, LOOKUP, &raw const attr, size_of_val(&attr)) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn element(map: &MapData, key: u64, value: u64) -> ElementAttr {
    let map_fd = map.fd().as_fd().as_raw_fd().cast_unsigned();
    ElementAttr { map_fd, reserved: 0, key, value, flags: 0 }
}

/// The keys of a hash map whose values have a size that is not known; none unless its keys are numbers of 64 bits.
pub(super) fn keys(map: &MapData) -> Vec<u64> {
    let Some(most) = map.info().ok().filter(|it| it.key_size() == 8).map(|it| it.max_entries())
    else {
        return Vec::new();
    };
    let mut found: Vec<u64> = Vec::new();
    let mut next = 0_u64;
    // After a key that has been removed meanwhile it begins anew.
    for _ in 0..most {
        let last = found.last().map_or(0, |key| &raw const *key as u64);
        let attr = element(map, last, &raw mut next as u64);
        // SAFETY: the attribute, the last key, if there is one, and room for a key of the map's size outlive the call.
        let result =
            unsafe { libc::syscall(libc::SYS_bpf, NEXT_KEY, &raw const attr, size_of_val(&attr)) };
        if result != 0 {
            break;
        }
        found.push(next);
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// `ENOENT`: no label. `ESRCH`: no such process; `EINVAL`: a thread of another process by now.
fn absent(error: io::Error) -> io::Result<Option<Label>> {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ESRCH | libc::EINVAL) => Ok(None),
        _ => Err(error),
    }
}

fn process_of(tid: Pid) -> Option<libc::pid_t> {
    let status = fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}

pub(super) fn open_process(pid: libc::pid_t) -> io::Result<OwnedFd> {
    // SAFETY: two integers; the kernel checks them.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just opened it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
