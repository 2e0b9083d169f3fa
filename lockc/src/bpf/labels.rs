//! Labels of running tasks, read from user space.
//!
//! aya has no task-storage map, so this is `bpf(2)` by hand: the key of such a map
//! is a pidfd (`kernel/bpf/bpf_task_storage.c`, 6.1).

use std::{
    fs, io,
    os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd},
};

use aya::maps::{Map, MapData};
use lockc_common::Label;
use nix::{libc, unistd::Pid};

use super::load::{Kernel, LoadError};

/// `BPF_MAP_LOOKUP_ELEM` (include/uapi/linux/bpf.h).
const LOOKUP: libc::c_int = 1;

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
        let key = pidfd.as_raw_fd();
        let mut label = std::mem::MaybeUninit::<Label>::uninit();
        let attr = ElementAttr {
            map_fd: self.map.fd().as_fd().as_raw_fd().cast_unsigned(),
            reserved: 0,
            key: (&raw const key) as u64,
            value: label.as_mut_ptr() as u64,
            flags: 0,
        };
        // SAFETY: the attribute, the key and a value of the map's size outlive the call.
        let result =
            unsafe { libc::syscall(libc::SYS_bpf, LOOKUP, &raw const attr, size_of_val(&attr)) };
        if result != 0 {
            return absent(io::Error::last_os_error());
        }
        // SAFETY: on success the kernel has written the whole value, and any bytes are a label.
        Ok(Some(unsafe { label.assume_init() }))
    }
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

fn open_process(pid: libc::pid_t) -> io::Result<OwnedFd> {
    // SAFETY: two integers; the kernel checks them.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just opened it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
