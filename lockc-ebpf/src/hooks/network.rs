//! Sockets of every kind but `AF_UNIX`: making them, and the addresses that calls name.

use lockc_common::{
    NetworkKey, NetworkVerdict, Operation, PolicyFlags,
    network::{self, Target, family},
};

use crate::{
    Answer,
    container::Subject,
    kernel::{Sock, read},
    maps::{NETWORK_RULES, longest},
    report::Object,
};

/// Flags of policies that restrict addresses.
const ADDRESSES: u32 = PolicyFlags::NETWORK_NONE | PolicyFlags::NETWORK_RULES;

/// `socket(2)` and `socketpair(2)`. The kernel makes sockets for itself here, too, in whatever task it is in.
#[inline(always)]
pub(crate) fn create(number: u32, kind: u32, protocol: u32, for_kernel: bool) -> Answer {
    if number == u32::from(family::UNIX) || for_kernel {
        return Answer::Allow;
    }
    let Some(subject) = Subject::current() else {
        return Answer::Allow;
    };
    let is_denied = (subject.wants(PolicyFlags::NETWORK_NONE)
        && number != u32::from(family::NETLINK))
        || (subject.wants(PolicyFlags::NETWORK_RULES)
            && !network::tells_addresses(number, kind, protocol))
        || (subject.wants(PolicyFlags::SOCKET_FAMILIES)
            && !network::is_usual_family(number)
            && !is_family_allowed(subject.rules, number));
    if is_denied { subject.deny(Operation::Socket, Object::Number(number)) } else { Answer::Allow }
}

/// `connect(2)`. What has no address ends a connection.
#[inline(always)]
pub(crate) fn connect(socket: Sock, sockaddr: u64) -> Answer {
    let Some(subject) = restricted(socket) else {
        return Answer::Allow;
    };
    let Some(words) = read::<[u32; 7]>(sockaddr) else {
        return subject.deny(Operation::Connect, Object::Number(0));
    };
    if words[0] & 0xffff == u32::from(family::UNSPEC) {
        return Answer::Allow;
    }
    reach(&subject, Target::of_sockaddr(words, socket.family()))
}

/// `sendto(2)`, `sendmsg(2)` and their kin, with an address: `name` is where it lies, 0 for none. A connection
/// was judged when it was made.
#[inline(always)]
pub(crate) fn send(socket: Sock, name: u64) -> Answer {
    if name == 0 {
        return Answer::Allow;
    }
    let Some(subject) = restricted(socket) else {
        return Answer::Allow;
    };
    let Some(words) = read::<[u32; 7]>(name) else {
        return subject.deny(Operation::Connect, Object::Number(0));
    };
    reach(&subject, Target::of_sockaddr(words, socket.family()))
}

/// `bind(2)`. A port that the kernel chooses is nobody's yet.
#[inline(always)]
pub(crate) fn bind(socket: Sock, sockaddr: u64) -> Answer {
    let Some(subject) = restricted(socket) else {
        return Answer::Allow;
    };
    let Some(words) = read::<[u32; 7]>(sockaddr) else {
        return subject.deny(Operation::Bind, Object::Number(0));
    };
    let target = Target::of_sockaddr(words, socket.family());
    if target.kind != 0 && target.port == 0 && !subject.wants(PolicyFlags::NETWORK_NONE) {
        return Answer::Allow;
    }
    wait_at(&subject, target)
}

/// `listen(2)`, on whatever port the socket has.
#[inline(always)]
pub(crate) fn listen(socket: Sock) -> Answer {
    let Some(subject) = restricted(socket) else {
        return Answer::Allow;
    };
    wait_at(&subject, socket.local())
}

/// The current task, if its policy says anything about the addresses of this socket.
#[inline(always)]
fn restricted(socket: Sock) -> Option<Subject> {
    let subject = Subject::current()?;
    if !subject.wants(ADDRESSES) {
        return None;
    }
    let number = socket.family();
    if number == family::UNIX || number == family::NETLINK { None } else { Some(subject) }
}

#[inline(always)]
fn reach(subject: &Subject, target: Target) -> Answer {
    let to = target.destination();
    let mut is_denied = is_denied(subject, to);
    if target.kind == family::INET6 && target.is_unspecified() {
        is_denied |= self::is_denied(subject, target.mapped_loopback());
    }
    if is_denied { subject.deny(Operation::Connect, Object::Address(to)) } else { Answer::Allow }
}

#[inline(always)]
fn wait_at(subject: &Subject, target: Target) -> Answer {
    if is_denied(subject, target) {
        return subject.deny(Operation::Bind, Object::Address(target));
    }
    Answer::Allow
}

/// An address of another kind than IP is denied: no rule can be about it.
#[inline(always)]
fn is_denied(subject: &Subject, target: Target) -> bool {
    if subject.wants(PolicyFlags::NETWORK_NONE) || target.kind == 0 {
        return true;
    }
    let Target { kind, port, address } = target;
    let any = look_up(NetworkKey { rules: subject.rules, kind, port: 0, address });
    let own = look_up(NetworkKey { rules: subject.rules, kind, port, address });
    NetworkVerdict::is_denied(any, own)
}

#[inline(always)]
fn is_family_allowed(rules: u32, number: u32) -> bool {
    let port = number as u16;
    if u32::from(port) != number {
        return false;
    }
    let key = NetworkKey { rules, kind: NetworkKey::FAMILY, port, address: [0; 4] };
    look_up(key).0 != 0
}

#[inline(always)]
fn look_up(key: NetworkKey) -> NetworkVerdict {
    longest(&NETWORK_RULES, NetworkKey::BITS, key)
        .copied()
        .map_or(NetworkVerdict(0), NetworkVerdict)
}
