//! Does a mount belong to the container?

use lockc_common::Label;

use crate::{
    kernel::{MountNamespace, MountOwner, Task},
    maps::owner_of,
};

/// True when a mount of this owner belongs to a mount namespace that is not this container's: a
/// leaked descriptor, `/proc/PID/root`, a handle on a host mount. Also true for a mount that was
/// detached lazily, as a runtime detaches the host's root, and when the answer cannot be read.
#[inline(always)]
pub(crate) fn is_foreign(owner: MountOwner, task: Task, label: &Label) -> bool {
    let namespace = match owner {
        MountOwner::Internal => return false,
        MountOwner::Detached | MountOwner::Unreadable => return true,
        MountOwner::Namespace(namespace) => namespace,
    };
    let current = task.mount_namespace();
    if namespace == current.address && current.seq == label.ns {
        return false;
    }
    // Not the namespace the task was contained in: one that the container made itself?
    owner_of(MountNamespace::at(namespace).seq) != Some(label.container)
}
