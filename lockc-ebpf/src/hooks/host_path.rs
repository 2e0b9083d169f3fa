//! Paths of the host that are out of reach, through whatever mount.

use lockc_common::{HOST_RULES, Operation, PathVerdict, PathsBelow, PolicyFlags};

use crate::{
    Answer,
    container::Subject,
    kernel::{Location, MountOwner, Step, mount_owner, superblock_of},
    path::View,
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
    let seen = View::on_file_system(at.dentry, subject.rules | HOST_RULES, moves);
    // Engines mount the root file systems of containers in their own directories.
    let is_allowed = seen.has_path()
        && (seen.verdict() == PathVerdict::Allow as u32
            || (seen.verdict() == PathVerdict::NotRoot as u32
                && is_own_root(subject.label.root_dentry, at.dentry)));
    if is_allowed && seen.below() & PathsBelow::DENIED == 0 {
        return Answer::Allow;
    }
    // The container's name for it; the host's is in the policy.
    subject.deny(Operation::HostPath, Object::At(at))
}

/// Whether the whole file system of the dentry is the container's, whose root directory is at `root`.
#[inline(always)]
fn is_own_root(root: u64, dentry: u64) -> bool {
    let shown = superblock_of(root).unwrap_or(0);
    shown != 0
        && shown == superblock_of(dentry).unwrap_or(0)
        && Step::parent(root).unwrap_or(0) == root
}
