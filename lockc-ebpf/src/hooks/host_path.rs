//! Paths of the host that are out of reach, through whatever mount.

use lockc_common::{HOST_RULES, HostDevice, Operation, PathVerdict, PathsBelow, PolicyFlags};

use crate::{
    Answer,
    container::Subject,
    kernel::{Location, MountOwner, Step, device_of, mount_owner, superblock_of},
    maps::{HOST_DEVICES, longest},
    path::View,
    report::Object,
};

/// An answer, and whether it is that to everything in the same directory.
#[derive(Clone, Copy)]
pub(crate) struct Reach {
    pub(crate) answer: Answer,
    pub(crate) is_one_of_many: bool,
}

impl From<Answer> for Reach {
    #[inline(always)]
    fn from(answer: Answer) -> Self {
        Self { answer, is_one_of_many: false }
    }
}

/// Denies what lies at or below such a path on its file system; what `moves` may not be above one either.
/// So is what cannot be told: a handle of a file whose directories are not known, on a file system that has such a path.
#[inline(always)]
pub(crate) fn reach(subject: &Subject, at: Location, moves: bool) -> Reach {
    if !subject.wants(PolicyFlags::HOST_PATHS)
        || matches!(mount_owner(at.mount), MountOwner::Internal)
    {
        return Reach { answer: Answer::Allow, is_one_of_many: true };
    }
    let is_concerned = device_of(at.dentry).is_none_or(|device| has_rule(subject.rules, device));
    if !is_concerned {
        return Reach { answer: Answer::Allow, is_one_of_many: true };
    }
    let seen = View::on_file_system(at.dentry, subject.rules | HOST_RULES);
    // Engines mount the root file systems of containers in their own directories.
    let is_allowed = seen.has_path()
        && (seen.verdict() == PathVerdict::Allow as u32
            || (seen.verdict() == PathVerdict::NotRoot as u32
                && is_own_root(subject.label.root_dentry, at.dentry)));
    if is_allowed && !(moves && seen.below() & PathsBelow::DENIED != 0) {
        let is_one_of_many = seen.is_one_of_many() && seen.verdict() == PathVerdict::Allow as u32;
        return Reach { answer: Answer::Allow, is_one_of_many };
    }
    // The container's name for it; the host's is in the policy.
    subject.deny(Operation::HostPath, Object::At(at)).into()
}

/// Whether a rule is about the file system: of most there is none, and then there is no need for a path.
#[inline(always)]
fn has_rule(rules: u32, device: u32) -> bool {
    longest(&HOST_DEVICES, HostDevice::BITS, HostDevice { rules, device }).is_some()
}

/// Whether the whole file system of the dentry is the container's, whose root directory is at `root`.
#[inline(always)]
fn is_own_root(root: u64, dentry: u64) -> bool {
    let shown = superblock_of(root).unwrap_or(0);
    shown != 0
        && shown == superblock_of(dentry).unwrap_or(0)
        && Step::parent(root).unwrap_or(0) == root
}
