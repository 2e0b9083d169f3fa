//! Counting what pinned BPF maps hold.

use std::{
    ffi::CString,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
    ptr,
};

use nix::{errno::Errno, libc};

/// Commands of `bpf(2)` (include/uapi/linux/bpf.h).
const MAP_GET_NEXT_KEY: u32 = 4;
const OBJ_GET: u32 = 7;
const OBJ_GET_INFO_BY_FD: u32 = 15;
/// `BPF_F_RDONLY`.
const READ_ONLY: u32 = 1 << 3;
/// Map types whose entries come and go: hash, per-CPU hash, LRU hash.
const HASHES: [u32; 3] = [1, 5, 9];
/// Longest key counted, in bytes.
const MAX_KEY: usize = 512;

/// The attributes of `bpf(2)`, as 64-bit words.
type Attributes = [u64; 6];

fn bpf(command: u32, attributes: &mut Attributes) -> nix::Result<libc::c_long> {
    let size = size_of::<Attributes>();
    // SAFETY: `attributes` is initialized, `size` bytes long and lives across the call; whatever it
    // points to belongs to the caller, who keeps it alive.
    Errno::result(unsafe { libc::syscall(libc::SYS_bpf, command, ptr::from_mut(attributes), size) })
}

/// Opens the map pinned at `path` for reading.
fn open(path: &Path) -> nix::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    // pathname; bpf_fd and file_flags.
    let mut attributes: Attributes =
        [path.as_ptr().addr() as u64, u64::from(READ_ONLY) << 32, 0, 0, 0, 0];
    super::owned(bpf(OBJ_GET, &mut attributes)?)
}

/// Number of entries in the map pinned at `path`; `None` when it is not a hash map.
pub(crate) fn count_entries(path: &Path) -> nix::Result<Option<usize>> {
    let map = open(path)?;
    let fd = u64::from(map.as_raw_fd().cast_unsigned());

    // `struct bpf_map_info`: type, id, key_size, value_size, …
    let mut info = [0_u32; 20];
    let length = size_of_val(&info) as u64;
    let mut attributes: Attributes =
        [fd | length << 32, info.as_mut_ptr().expose_provenance() as u64, 0, 0, 0, 0];
    bpf(OBJ_GET_INFO_BY_FD, &mut attributes)?;
    let [kind, _, key_size, ..] = info;
    if !HASHES.contains(&kind) {
        return Ok(None);
    }
    if key_size as usize > MAX_KEY {
        return Err(Errno::E2BIG);
    }

    // The kernel reads the current key before it writes the next one, so both may share a buffer;
    // without a current key it gives the first.
    let mut key = [0_u8; MAX_KEY];
    let next = key.as_mut_ptr().expose_provenance() as u64;
    let mut current = 0;
    let mut count = 0;
    loop {
        let mut attributes: Attributes = [fd, current, next, 0, 0, 0];
        match bpf(MAP_GET_NEXT_KEY, &mut attributes) {
            Ok(_) => {
                count += 1;
                current = next;
            }
            Err(Errno::ENOENT) => return Ok(Some(count)),
            Err(errno) => return Err(errno),
        }
    }
}
