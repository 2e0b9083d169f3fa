//! User namespaces, in which a task has every capability over what is in them, and joining namespaces.

use lockc_common::{Operation, PolicyFlags};

use crate::{Answer, container::Subject, kernel::UserNamespace, report::Object};

/// `unshare(2)` and `clone(2)` with `CLONE_NEWUSER`.
#[inline(always)]
pub(crate) fn create_user() -> Answer {
    let Some(subject) = Subject::current() else {
        return Answer::Allow;
    };
    if !subject.wants(PolicyFlags::USER_NAMESPACES) {
        return Answer::Allow;
    }
    subject.deny(Operation::UserNamespace, Object::Number(0))
}

/// `setns(2)`, which asks for `CAP_SYS_ADMIN` in `owner`, the user namespace that has the namespace to join, and in
/// the task's own. What was made in user namespaces of the container lies deeper than the container's own; the rest
/// belongs to the machine, to other containers, or is what the runtime gave the container anyway.
#[inline(always)]
pub(crate) fn join(subject: &Subject, owner: UserNamespace, call: u32) -> Answer {
    let flag = if owner.level() > subject.label.user_level {
        PolicyFlags::USER_NAMESPACES
    } else {
        PolicyFlags::NAMESPACES
    };
    if !subject.wants(flag) {
        return Answer::Allow;
    }
    subject.deny(Operation::Namespace, Object::Number(call))
}
