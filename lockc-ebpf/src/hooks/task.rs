//! `task_alloc`, `task_free`, and the birth of mount namespaces.

use lockc_common::{Counter, State};

use crate::{
    Answer, container,
    kernel::{MountNamespace, Task},
    maps::{LABELS, count, own},
};

/// A child is what its parent is. Without memory for the label there is no child.
#[inline(always)]
pub(crate) fn alloc(child: Task) -> Answer {
    let Some(parent) = LABELS.get(Task::current()) else {
        return Answer::Allow;
    };
    if parent.state == State::Pending as u32 {
        return Answer::Allow;
    }
    let Some(label) = LABELS.get_or_create(child) else {
        return Answer::NoMemory;
    };
    if label.container != 0 {
        return Answer::Allow; // the programs of the daemon that is being replaced, or the new ones, were here
    }
    *label = *parent;
    // The record may have been dropped and its label outlived it: then the safe default counts.
    label.container = container::join_or_default(parent.container);
    Answer::Allow
}

/// Called when the last reference to a task goes (kernel/fork.c, `__put_task_struct`), and for a
/// child whose creation failed later on.
#[inline(always)]
pub(crate) fn free(task: Task) {
    if let Some(label) = LABELS.get(task) {
        // The programs of two daemons may see this, while one replaces the other: it is counted once.
        let handle = label.container;
        label.container = 0;
        container::leave(handle);
    } else if task.has_storage() {
        // Before 6.2: it has a label that cannot be read now. From 6.2 on: the storage is another tool's, and
        // the daemon does not ask.
        count(Counter::Uncounted);
    }
}

/// A mount namespace that a contained task makes belongs to its container.
#[inline(always)]
pub(crate) fn mount_namespace_created(flags: u64, old: u64, new: u64) {
    const CLONE_NEWNS: u64 = 0x2_0000;
    if flags & CLONE_NEWNS == 0 || new == old {
        return;
    }
    let Some(label) = LABELS.get(Task::current()) else {
        return;
    };
    if label.state != State::Contained as u32 {
        return;
    }
    let namespace = MountNamespace::at(new);
    if !namespace.is_error() && namespace.seq != 0 {
        own(namespace.seq, label.container);
    }
}
