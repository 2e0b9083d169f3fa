//! Paths of the host that are out of reach, through whatever mount.

use lockc_common::{HOST_RULES, Operation, PathVerdict, PathsBelow, PolicyFlags};

use crate::{
    Answer,
    container::Subject,
    kernel::{Location, MountOwner, Step, mount_owner, superblock_of},
    path,
    report::Object,
};

/// Denies what lies at or below such a path on its file system; with `moves`, a directory above one as well. So is
/// what cannot be told: a handle of a file whose directories are not known.
#[inline(always)]
pub(crate) fn reach(subject: &Subject, at: Location, moves: bool) -> Answer {
    if !subject.wants(PolicyFlags::HOST_PATHS)
        || matches!(mount_owner(at.mount), MountOwner::Internal)
    {
        return Answer::Allow;
    }
    let root = subject.label.root_dentry;
    if is_out_of_reach(subject.rules | HOST_RULES, at.dentry, root, u64::from(moves)) != 0 {
        // The container's name for it; the host's is in the policy.
        return subject.deny(Operation::HostPath, Object::At(at));
    }
    Answer::Allow
}

/// A function of its own, of numbers alone: within every hook, programs would be several times as long.
#[inline(never)]
extern "C" fn is_out_of_reach(rules: u32, dentry: u64, root: u64, moves: u64) -> u64 {
    u64::from(denies(rules, dentry, root, moves != 0))
}

#[inline(always)]
fn denies(rules: u32, dentry: u64, root: u64, moves: bool) -> bool {
    let Ok(path) = path::build_on_file_system(dentry) else {
        return true;
    };
    let verdict = path.verdict(rules);
    // Engines mount the root file systems of containers in their own directories.
    if verdict == PathVerdict::Allow as u32
        || (verdict == PathVerdict::NotRoot as u32 && is_own_root(root, dentry))
    {
        return moves && path.below(rules) & PathsBelow::DENIED != 0;
    }
    true
}

/// Whether the whole file system of the dentry is the container's, whose root directory is at `root`.
#[inline(always)]
fn is_own_root(root: u64, dentry: u64) -> bool {
    let shown = superblock_of(root).unwrap_or(0);
    shown != 0
        && shown == superblock_of(dentry).unwrap_or(0)
        && Step::parent(root).unwrap_or(0) == root
}
