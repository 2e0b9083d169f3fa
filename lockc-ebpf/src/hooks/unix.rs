//! Sockets of the host, above all those of container engines: who may talk to one has the machine.

use lockc_common::{Operation, PolicyFlags, engine};

use crate::{
    Answer,
    container::Subject,
    hooks::{host_path, interface::name},
    kernel::{MountNamespace, MountOwner, Step, UnixAddress, mount_owner},
    maps::owner_of,
    report::Object,
};

/// `connect(2)` to the `struct sock` at `other`. What counts is where its owner has bound it, not the name by which
/// the container has found it: a bind mount, a link or a descriptor change nothing, and an engine that starts
/// anew, with a new socket, is known at once. Besides, a socket may be bound at a path of the host that is out of reach.
#[inline(always)]
pub(crate) fn connect(other: u64) -> Answer {
    let Some(subject) = Subject::current() else {
        return Answer::Allow;
    };
    if !subject.wants(PolicyFlags::RUNTIME_SOCKETS | PolicyFlags::HOST_PATHS) {
        return Answer::Allow;
    }
    let address = UnixAddress::of(other);
    if address.is_abstract {
        if subject.wants(PolicyFlags::RUNTIME_SOCKETS) && engine::is_shim(address.name) {
            return subject.deny(Operation::RuntimeSocket, Object::Number(0));
        }
        return Answer::Allow;
    }
    let at = address.at;
    if at.dentry == 0 {
        // Whoever can be connected to has an address: it could not be read.
        return subject.deny(Operation::RuntimeSocket, Object::Number(0));
    }
    let answer = host_path::reach(&subject, at, false).answer;
    if answer != Answer::Allow {
        return answer;
    }
    if !subject.wants(PolicyFlags::RUNTIME_SOCKETS) || is_containers(at.mount) {
        return Answer::Allow;
    }
    let parent = Step::parent(at.dentry).unwrap_or(0);
    let grandparent = Step::parent(parent).unwrap_or(0);
    if engine::is_engine_socket(name(at.dentry), name(parent), name(grandparent)) {
        return subject.deny(Operation::RuntimeSocket, Object::At(at));
    }
    Answer::Allow
}

/// Whether a container has bound what lies on this mount: an engine in a container is the container's own.
#[inline(always)]
fn is_containers(mount: u64) -> bool {
    let MountOwner::Namespace(namespace) = mount_owner(mount) else {
        return false;
    };
    owner_of(MountNamespace::at(namespace).seq).is_some()
}
