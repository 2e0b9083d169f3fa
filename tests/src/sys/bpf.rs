//! What pinned BPF maps hold, and what happens when they hold too much.

use std::{
    ffi::CString,
    ops::Range,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
    ptr,
};

use nix::{errno::Errno, libc};

/// Commands of `bpf(2)` (include/uapi/linux/bpf.h).
const MAP_CREATE: u32 = 0;
const MAP_LOOKUP_ELEM: u32 = 1;
const MAP_UPDATE_ELEM: u32 = 2;
const MAP_DELETE_ELEM: u32 = 3;
const MAP_GET_NEXT_KEY: u32 = 4;
const OBJ_GET: u32 = 7;
const PROG_GET_NEXT_ID: u32 = 11;
const MAP_GET_NEXT_ID: u32 = 12;
const PROG_GET_FD_BY_ID: u32 = 13;
pub(super) const OBJ_GET_INFO_BY_FD: u32 = 15;
pub(super) const LINK_GET_NEXT_ID: u32 = 31;
/// `BPF_F_RDONLY`.
const READ_ONLY: u32 = 1 << 3;
/// Map types whose entries come and go: hash, per-CPU hash, LRU hash, trie of prefixes.
const HASHES: [u32; 4] = [1, 5, 9, 11];
/// `BPF_PROG_TYPE_CGROUP_DEVICE`: what runtimes attach to control groups.
const CGROUP_DEVICE: u32 = 15;
/// Longest key counted, in bytes.
const MAX_KEY: usize = 512;
/// Longest value read, in 64-bit words.
const MAX_VALUE: usize = 32;

/// Most processors that a kernel is built for (`CONFIG_NR_CPUS` of Debian's, 6.12).
const MAX_PROCESSORS: usize = 8192;

/// The attributes of `bpf(2)`, as 64-bit words.
pub(super) type Attributes = [u64; 6];

/// `attributes` may be longer than [`Attributes`].
pub(super) fn bpf(command: u32, attributes: &mut [u64]) -> nix::Result<libc::c_long> {
    let size = size_of_val(attributes);
    // SAFETY: `attributes` is initialized, `size` bytes long and lives across the call; whatever it
    // points to belongs to the caller, who keeps it alive.
    Errno::result(unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_mut_ptr(), size) })
}

/// Opens the map, program or link pinned at `path`.
pub(crate) fn open(path: &Path, flags: u32) -> nix::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    // pathname; bpf_fd and file_flags.
    let mut attributes: Attributes =
        [path.as_ptr().addr() as u64, u64::from(flags) << 32, 0, 0, 0, 0];
    super::owned(bpf(OBJ_GET, &mut attributes)?)
}

/// A pinned hash map.
#[derive(Debug)]
struct Map {
    fd: OwnedFd,
    key_size: usize,
    value_size: usize,
}

impl Map {
    /// `None` when it is not a hash map.
    fn open(path: &Path, flags: u32) -> nix::Result<Option<Self>> {
        let (kind, map) = Self::of_any_kind(path, flags)?;
        Ok(HASHES.contains(&kind).then_some(map))
    }

    /// The type of a map, and the map.
    fn of_any_kind(path: &Path, flags: u32) -> nix::Result<(u32, Self)> {
        let fd = open(path, flags)?;
        // `struct bpf_map_info`: type, id, key_size, value_size, …
        let mut info = [0_u32; 20];
        let length = size_of_val(&info) as u64;
        let mut attributes: Attributes =
            [number(&fd) | length << 32, info.as_mut_ptr().expose_provenance() as u64, 0, 0, 0, 0];
        bpf(OBJ_GET_INFO_BY_FD, &mut attributes)?;
        let [kind, _, key_size, value_size, ..] = info;
        if key_size as usize > MAX_KEY {
            return Err(Errno::E2BIG);
        }
        Ok((kind, Self { fd, key_size: key_size as usize, value_size: value_size as usize }))
    }

    /// Calls `with` with every key.
    fn each_key(&self, mut with: impl FnMut(&[u8]) -> nix::Result<()>) -> nix::Result<()> {
        // The kernel reads the current key before it writes the next one, so both may share a
        // buffer; without a current key it gives the first.
        let mut key = [0_u8; MAX_KEY];
        let next = key.as_mut_ptr().expose_provenance() as u64;
        let mut current = 0;
        loop {
            let mut attributes: Attributes = [number(&self.fd), current, next, 0, 0, 0];
            match bpf(MAP_GET_NEXT_KEY, &mut attributes) {
                Ok(_) => {
                    with(&key[..self.key_size])?;
                    current = next;
                }
                Err(Errno::ENOENT) => return Ok(()),
                Err(errno) => return Err(errno),
            }
        }
    }
}

pub(super) fn number(fd: &OwnedFd) -> u64 {
    u64::from(fd.as_raw_fd().cast_unsigned())
}

/// Puts entries into the map pinned at `path`. Keys and values must be as long as the map's.
pub(crate) fn put<'e>(
    path: &Path,
    entries: impl IntoIterator<Item = (&'e [u8], &'e [u8])>,
) -> nix::Result<()> {
    let (_, map) = Map::of_any_kind(path, 0)?;
    for (key, value) in entries {
        // Array maps take values rounded up to words; those of lockc are whole words.
        if (key.len(), value.len()) != (map.key_size, map.value_size) {
            return Err(Errno::EINVAL);
        }
        let [key, value] = [key, value].map(|bytes| bytes.as_ptr().expose_provenance() as u64);
        bpf(MAP_UPDATE_ELEM, &mut [number(&map.fd), key, value, 0, 0, 0])?;
    }
    Ok(())
}

/// Keys of the hash map pinned at `path`.
pub(crate) fn keys(path: &Path) -> nix::Result<Vec<Vec<u8>>> {
    let map = Map::open(path, READ_ONLY)?.ok_or(Errno::EINVAL)?;
    let mut keys = Vec::new();
    map.each_key(|key| {
        keys.push(key.to_vec());
        Ok(())
    })?;
    Ok(keys)
}

/// Number of entries in the map pinned at `path`; `None` when it is not a hash map.
pub(crate) fn count_entries(path: &Path) -> nix::Result<Option<usize>> {
    let Some(map) = Map::open(path, READ_ONLY)? else { return Ok(None) };
    let mut count = 0;
    map.each_key(|_| {
        count += 1;
        Ok(())
    })?;
    Ok(Some(count))
}

/// Ids of all the objects that the kernel has of one kind.
fn ids(command: u32) -> nix::Result<Vec<u32>> {
    let mut ids = Vec::new();
    // start_id, and where the kernel writes the next one.
    let mut attributes: Attributes = [0; 6];
    loop {
        match bpf(command, &mut attributes) {
            Ok(_) => {
                let next = (attributes[0] >> 32) as u32;
                ids.push(next);
                attributes = [u64::from(next), 0, 0, 0, 0, 0];
            }
            Err(Errno::ENOENT) => return Ok(ids),
            Err(errno) => return Err(errno),
        }
    }
}

/// How many programs, maps and links the kernel has, whoever made them; without the programs of runtimes.
pub(crate) fn count_objects() -> nix::Result<[usize; 3]> {
    let mut programs = 0;
    for id in ids(PROG_GET_NEXT_ID)? {
        let fd = match bpf(PROG_GET_FD_BY_ID, &mut [id.into(), 0, 0, 0, 0, 0]) {
            Ok(fd) => super::owned(fd)?,
            // It is gone already.
            Err(Errno::ENOENT) => continue,
            Err(errno) => return Err(errno),
        };
        // `struct bpf_prog_info` begins with the type.
        let mut info = [0_u32; 2];
        let length = size_of_val(&info) as u64;
        let mut attributes: Attributes =
            [number(&fd) | length << 32, info.as_mut_ptr().expose_provenance() as u64, 0, 0, 0, 0];
        bpf(OBJ_GET_INFO_BY_FD, &mut attributes)?;
        programs += usize::from(info[0] != CGROUP_DEVICE);
    }
    Ok([programs, ids(MAP_GET_NEXT_ID)?.len(), ids(LINK_GET_NEXT_ID)?.len()])
}

/// Makes an array of one element.
pub(crate) fn make_map() -> nix::Result<OwnedFd> {
    // map_type and key_size, value_size and max_entries.
    super::owned(bpf(MAP_CREATE, &mut [2 | 4 << 32, 4 | 1 << 32, 0, 0, 0, 0])?)
}

/// Element `index` of the array of counters pinned at `path`, one for each processor, summed up.
pub(crate) fn counter(path: &Path, index: u32) -> nix::Result<u64> {
    let fd = open(path, READ_ONLY)?;
    let mut values = vec![0_u64; MAX_PROCESSORS];
    let key = ptr::from_ref(&index).expose_provenance() as u64;
    let value = values.as_mut_ptr().expose_provenance() as u64;
    bpf(MAP_LOOKUP_ELEM, &mut [number(&fd), key, value, 0, 0, 0])?;
    Ok(values.iter().sum())
}

/// Keys and values, as hexadecimal bytes and words, of the hash map pinned at `path`: for messages.
pub(crate) fn dump(path: &Path) -> nix::Result<Vec<String>> {
    let mut lines = Vec::new();
    each_value(path, |key, value| lines.push(format!("{key:02x?}: {value:x?}")))?;
    Ok(lines)
}

/// The sum of the `word`th 64-bit words of all values in the hash map pinned at `path`.
pub(crate) fn sum(path: &Path, word: usize) -> nix::Result<u64> {
    let mut sum = 0;
    each_value(path, |_, value| sum += value.get(word).copied().unwrap_or(0))?;
    Ok(sum)
}

/// Calls `with` with every key and value, in words, of the hash map pinned at `path`.
fn each_value(path: &Path, mut with: impl FnMut(&[u8], &[u64])) -> nix::Result<()> {
    let Some(map) = Map::open(path, READ_ONLY)? else { return Ok(()) };
    if map.value_size > MAX_VALUE * size_of::<u64>() {
        return Err(Errno::E2BIG);
    }
    map.each_key(|key| {
        let mut value = [0_u64; MAX_VALUE];
        let words = map.value_size.div_ceil(size_of::<u64>());
        let mut attributes: Attributes = [
            number(&map.fd),
            key.as_ptr().expose_provenance() as u64,
            value.as_mut_ptr().expose_provenance() as u64,
            0,
            0,
            0,
        ];
        match bpf(MAP_LOOKUP_ELEM, &mut attributes) {
            Ok(_) => with(key, &value[..words]),
            Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno),
        }
        Ok(())
    })
}

/// A pinned hash map with keys of 8 bytes that is full, or nearly so. Dropping this removes what was added.
#[derive(Debug)]
pub(crate) struct Full {
    map: Map,
    added: Vec<u64>,
}

impl Full {
    /// Adds values of zeros under the keys from `first` on until no more fit.
    pub(crate) fn fill(path: &Path, first: u64) -> nix::Result<Self> {
        Self::add(path, first..u64::MAX)
    }

    /// Adds values of zeros under these keys, or as many as fit.
    pub(crate) fn add(path: &Path, keys: Range<u64>) -> nix::Result<Self> {
        let map = Map::open(path, 0)?.ok_or(Errno::EINVAL)?;
        if map.key_size != size_of::<u64>() || map.value_size > MAX_VALUE * size_of::<u64>() {
            return Err(Errno::EINVAL);
        }
        let mut full = Self { map, added: Vec::new() };
        let value = [0_u64; MAX_VALUE];
        for key in keys {
            let mut attributes: Attributes = [
                number(&full.map.fd),
                (&raw const key).expose_provenance() as u64,
                value.as_ptr().expose_provenance() as u64,
                0,
                0,
                0,
            ];
            match bpf(MAP_UPDATE_ELEM, &mut attributes) {
                Ok(_) => full.added.push(key),
                Err(Errno::E2BIG) => break,
                Err(errno) => return Err(errno),
            }
        }
        Ok(full)
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        for key in &self.added {
            let key = ptr::from_ref(key).expose_provenance() as u64;
            // Fails only when it is gone already.
            let _ = bpf(MAP_DELETE_ELEM, &mut [number(&self.map.fd), key, 0, 0, 0, 0]);
        }
    }
}
