//! Tasks that ran before lockc. An iterator goes through all of them, once the daemon has said which processes are
//! meant. It goes in the order of their ids (`task_seq_get_next`, `kernel/bpf/task_iter.c`, 6.12), and a child has a higher
//! one than its parent until they wrap around: who forks all the while to stay ahead is caught up with in the end.

use lockc_common::{
    Adoption, AdoptionFlags, Counter, Label, LabelFlags, NO_USER, Number, State, Stdio,
    UNATTRIBUTED,
};

use crate::{
    container,
    hooks::{exec, identity},
    kernel::Task,
    maps::{ADOPTED, ADOPTIONS, LABELS, MADE_LABEL, count, longest, own, owner_of, put},
};

/// Gives a task the label that it should have. One that has a label keeps it.
#[inline(always)]
pub(crate) fn task(task: Task) {
    if let Some(label) = LABELS.get(task) {
        attribute(label);
        return;
    }
    let Some(made) = MADE_LABEL.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: a live map value; the one daemon runs one iterator at a time, and nothing else uses it.
    let made = unsafe { &mut *made };
    if !describe(task, made) {
        return;
    }
    let handle = made.container;
    if !container::join(handle) {
        return;
    }
    // The whole label at once: the task runs meanwhile, and its hooks see either none or this.
    match LABELS.get_or_create_as(task, made) {
        Some(label) if label.flags & LabelFlags::ADOPTED != 0 => count(Counter::Adopted),
        // It has become a runtime task just now, and is counted; or there is no memory.
        _ => container::leave(handle),
    }
}

/// A process that nobody could attribute when it was brought into a container, whose owner is known by now.
#[inline(always)]
fn attribute(label: &mut Label) {
    if label.container != UNATTRIBUTED || label.state != State::Contained as u32 {
        return;
    }
    let Some(owner) = owner_of(label.ns) else {
        return;
    };
    if owner != UNATTRIBUTED && container::join(owner) {
        label.container = owner;
        container::leave(UNATTRIBUTED);
    }
}

#[inline(always)]
fn adoption(task: Task) -> Option<Adoption> {
    let adoption = *longest(&ADOPTIONS, u32::BITS, task.process())?;
    (adoption.start_ticks == task.leader().start_ticks()).then_some(adoption)
}

/// Fills in the label that the task should have. False if it should have none.
#[inline(always)]
fn describe(task: Task, label: &mut Label) -> bool {
    let namespace = task.mount_namespace().seq;
    if namespace == 0 {
        return false; // it ends
    }
    let Some(adoption) = adoption(task) else {
        let Some(owner) = owner_of(namespace) else {
            return false;
        };
        return member(task, owner, label);
    };
    if adoption.state == State::Runtime as u32 {
        runtime(task, &adoption, namespace, label);
        return true;
    }
    if adoption.flags & AdoptionFlags::OWN_NAMESPACE != 0 {
        bring(namespace, adoption.container);
    }
    if adoption.flags & AdoptionFlags::FIRST != 0 {
        first(task, &adoption, namespace, label);
        return true;
    }
    member(task, adoption.container, label)
}

/// Makes a mount namespace the container's, unless it belongs to another that there is.
#[inline(always)]
fn bring(namespace: u64, handle: u64) {
    if let Some(owner) = owner_of(namespace)
        && owner != UNATTRIBUTED
        && container::exists(owner)
    {
        return;
    }
    own(namespace, handle);
}

/// A container's first process: what the others have in common is taken from it.
#[inline(always)]
fn first(task: Task, adoption: &Adoption, namespace: u64, label: &mut Label) {
    let mut root = task.root();
    if adoption.flags & AdoptionFlags::OWN_NAMESPACE != 0 {
        // Paths begin at the top of the namespace, wherever the process' own root may be by now.
        root.mount = 0;
        root.dentry = 0;
    }
    // One by one: a whole label on the stack makes the verifier tell apart all that can be in it.
    label.container = adoption.container;
    label.state = State::Contained as u32;
    label.flags = LabelFlags::ADOPTED;
    label.home_ns = 0;
    label.ns = namespace;
    label.root_mnt = root.mount;
    label.root_dentry = root.dentry;
    label.written_mnt = 0;
    label.root_uid = identity::root_of(task);
    label.user_level = task.credentials().namespace().level();
    exec::keep_stdio(task, label);
    put(&ADOPTED, Number::BITS, Number::from(adoption.container), label);
    // Every thread of the process comes here, and a later one must not make the container younger.
    container::started_at(adoption.container, task.leader().started());
}

/// Another process of a container whose first one is known.
#[inline(always)]
fn member(task: Task, handle: u64, label: &mut Label) -> bool {
    let Some(template) = longest(&ADOPTED, Number::BITS, Number::from(handle)) else {
        return false;
    };
    *label = *template;
    exec::keep_stdio(task, label);
    label.written_mnt = 0;
    true
}

/// A runtime that was executed before lockc marked its file: what it starts is contained as ever.
#[inline(always)]
fn runtime(task: Task, adoption: &Adoption, namespace: u64, label: &mut Label) {
    let mut flags = adoption.label_flags | LabelFlags::ADOPTED;
    let mut home = namespace;
    if adoption.flags & AdoptionFlags::INSIDE != 0 {
        let parent = task.parent();
        home = parent.mount_namespace().seq;
        let (root, outside) = (task.root(), parent.root());
        if home == namespace && (root.mount != outside.mount || root.dentry != outside.dentry) {
            flags |= LabelFlags::ENTERED;
        }
    }
    *label = Label {
        container: adoption.container,
        state: State::Runtime as u32,
        flags,
        home_ns: home,
        ns: 0,
        root_mnt: 0,
        root_dentry: 0,
        stdio: [Stdio::default(); 3],
        written_mnt: 0,
        root_uid: NO_USER,
        user_level: 0,
    };
}
