//! Files that steer the kernel of the machine: settings in procfs and sysfs, debugfs, `release_agent` and
//! their kin.
//!
//! They are told by the type of their file system and by their place in it, so that it does not matter where
//! that is mounted, how often, or with which part of it as the root.

use lockc_common::interface::{self, FileSystem, Name};

use crate::kernel::{FMODE_WRITE, Step, read};

/// Most directories above a file that are passed. The deepest place that decides is three below the root;
/// procfs is at most nine deep (`/proc/PID/task/TID/net/dev_snmp6/NAME`, and modules add some).
const MAX_DEPTH: u32 = 24;

/// Whether the file at `dentry`, on a file system with this magic number, may be opened with `mode` by the
/// machine only. One whose place cannot be read may not be written.
#[inline(always)]
pub(crate) fn steers_machine(magic: u64, dentry: u64, mode: u32) -> bool {
    let writes = mode & FMODE_WRITE != 0;
    match FileSystem::of_magic(magic) {
        FileSystem::Other => false,
        FileSystem::Internals => true,
        FileSystem::Settings => writes,
        FileSystem::Cgroup1 => writes && is_guarded(name(dentry)),
        FileSystem::Proc => match below_root(dentry) {
            Some([top, second, third]) => {
                interface::procfs(name(top), name(second), name(third), writes)
            }
            None => writes,
        },
    }
}

#[inline(always)]
fn is_guarded(name: Name) -> bool {
    name == Name::default() || interface::cgroup1(name)
}

/// The dentry below the root of its file system, on the way to `dentry`, and the two below that; 0 where
/// there is none.
#[inline(always)]
fn below_root(dentry: u64) -> Option<[u64; 3]> {
    let (mut at, mut chain) = (dentry, [0; 3]);
    for _ in 0..MAX_DEPTH {
        let parent = Step::parent(at)?;
        if parent == at {
            return Some(chain);
        }
        chain = [at, chain[0], chain[1]];
        at = parent;
    }
    None
}

/// The name of the dentry at `dentry`; empty for none, and for one that cannot be read.
#[inline(always)]
pub(crate) fn name(dentry: u64) -> Name {
    let mut name = Name::default();
    cut_name(dentry, &raw mut name);
    name
}

/// For the verifier on its own, as `path::view_path` is. 0, because it has to have an answer.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn cut_name(dentry: u64, name: *mut Name) -> u64 {
    // SAFETY: the verifier sees that every caller has one, and wants it to be checked here all the same.
    if let Some(name) = unsafe { name.as_mut() } {
        *name = name_of(dentry).unwrap_or_default();
    }
    0
}

#[inline(always)]
fn name_of(dentry: u64) -> Option<Name> {
    if dentry == 0 {
        return None;
    }
    let (address, len) = Step::name(dentry)?;
    // Names have at least as much room (`DNAME_INLINE_LEN`, include/linux/dcache.h; `__d_alloc`, fs/dcache.c).
    Some(Name::cut(read::<[u64; 2]>(address)?, len))
}
