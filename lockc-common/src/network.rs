//! Sockets: addresses as the programs see them, and what is decided about them without a kernel.

#![expect(
    clippy::inline_always,
    reason = "the programs call these on the verifier's terms: within one function"
)]

/// Address families (`include/linux/socket.h`, 6.12): those with a meaning here.
pub mod family {
    /// `AF_UNSPEC`.
    pub const UNSPEC: u16 = 0;
    /// `AF_UNIX`.
    pub const UNIX: u16 = 1;
    /// `AF_INET`.
    pub const INET: u16 = 2;
    /// `AF_INET6`.
    pub const INET6: u16 = 10;
    /// `AF_NETLINK`.
    pub const NETLINK: u16 = 16;
    /// `AF_PACKET`.
    pub const PACKET: u16 = 17;
}

/// Data of a `NETWORK_RULES` key, which the trie matches bit by bit. `kind` and `port` always count as a whole:
/// a rule for any port has port 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct NetworkKey {
    /// [`crate::Policy::rules`].
    pub rules: u32,
    /// [`family::INET`] or [`family::INET6`] for an address, [`NetworkKey::FAMILY`] for a family of sockets.
    pub kind: u16,
    /// Port in the machine's byte order, 0 for any; the family's number for [`NetworkKey::FAMILY`].
    pub port: u16,
    /// The address in network byte order, as it lies in memory. An IPv4 address is followed by zeros.
    pub address: [u32; 4],
}

impl NetworkKey {
    /// Kind of the rules that allow a family of sockets besides those that every container has.
    pub const FAMILY: u16 = u16::MAX;

    /// Bits of a key before its address.
    pub const ADDRESS_AT: u32 = 64;

    /// Bits of a whole key.
    pub const BITS: u32 = Self::ADDRESS_AT + 128;
}

/// Value of a `NETWORK_RULES` entry: what it says, and how specific it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct NetworkVerdict(pub u32);

impl NetworkVerdict {
    /// A rule about addresses with `length` leading bits in common.
    pub const fn new(length: u8, denies: bool) -> Self {
        Self((length as u32 + 1) << 1 | denies as u32)
    }

    const fn length(self) -> u32 {
        self.0 >> 1
    }

    /// Whether an address is denied about which the most specific rule for any port says `any_port`, and for
    /// its own port `port`; zero for no rule. The rule for fewer addresses wins, of two for as many the one
    /// about the port.
    #[inline(always)]
    pub const fn is_denied(any_port: Self, port: Self) -> bool {
        let verdict = if port.length() >= any_port.length() { port } else { any_port };
        verdict.0 & 1 != 0
    }
}

/// An IP address and a port, or neither.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// [`family::INET`] or [`family::INET6`]; 0 when it is no IP address.
    pub kind: u16,
    /// Port in the machine's byte order.
    pub port: u16,
    /// As in [`NetworkKey`].
    pub address: [u32; 4],
}

/// `127.0.0.1` as it lies in memory.
const LOOPBACK: u32 = u32::from_ne_bytes([127, 0, 0, 1]);
/// The last quarter of `::1` as it lies in memory.
const LOOPBACK_6: u32 = u32::from_ne_bytes([0, 0, 0, 1]);
/// The third quarter of an address of `::ffff:0:0/96` as it lies in memory.
const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

impl Target {
    /// The address in `struct sockaddr_in` or `struct sockaddr_in6`, of which `words` are the first 28 bytes.
    ///
    /// An IPv4 address within IPv6 is one of IPv4. Calls that take an address without a family take it for one
    /// of the socket's (`raw_sendmsg`, `udp_sendmsg`, `inet_bind`, `rawv6_sendmsg`, net/ipv4 and net/ipv6, 6.12).
    #[inline(always)]
    pub const fn of_sockaddr(words: [u32; 7], socket: u16) -> Self {
        let [head, first, second, third, fourth, fifth, _] = words;
        let stated = (head & 0xffff) as u16;
        let kind = if stated == family::UNSPEC { socket } else { stated };
        let port = u16::from_be((head >> 16) as u16);
        if kind == family::INET {
            return Self { kind, port, address: [first, 0, 0, 0] };
        }
        if kind != family::INET6 {
            return Self { kind: 0, port: 0, address: [0; 4] };
        }
        Self::of_ipv6(port, [second, third, fourth, fifth])
    }

    /// An IPv6 address, or the IPv4 address in it.
    #[inline(always)]
    pub const fn of_ipv6(port: u16, address: [u32; 4]) -> Self {
        let [first, second, third, fourth] = address;
        if first == 0 && second == 0 && third == MAPPED {
            return Self { kind: family::INET, port, address: [fourth, 0, 0, 0] };
        }
        Self { kind: family::INET6, port, address }
    }

    /// Whether it is `0.0.0.0` or `::`.
    #[inline(always)]
    pub const fn is_unspecified(&self) -> bool {
        let [first, second, third, fourth] = self.address;
        first | second | third | fourth == 0
    }

    /// Where packets for it go: to the machine itself where no address is given (`ip_route_connect`,
    /// include/net/route.h; `tcp_v6_connect`, `net/ipv6/tcp_ipv6.c`, 6.12).
    #[inline(always)]
    #[must_use]
    pub const fn destination(self) -> Self {
        if !self.is_unspecified() {
            return self;
        }
        if self.kind == family::INET {
            return Self { address: [LOOPBACK, 0, 0, 0], ..self };
        }
        Self { address: [0, 0, 0, LOOPBACK_6], ..self }
    }

    /// The other place that packets for `::` can go to: `127.0.0.1`, where the socket has an IPv4 address.
    #[inline(always)]
    #[must_use]
    pub const fn mapped_loopback(self) -> Self {
        Self { kind: family::INET, port: self.port, address: [LOOPBACK, 0, 0, 0] }
    }
}

/// Whether every container may make sockets of a family. Of those not among them, most are older than
/// containers, many do not know network namespaces, and some reach the machine or its hypervisor.
#[inline(always)]
pub const fn is_usual_family(number: u32) -> bool {
    number == family::UNIX as u32
        || number == family::INET as u32
        || number == family::INET6 as u32
        || number == family::NETLINK as u32
        || number == family::PACKET as u32
}

/// Whether a socket can be made where addresses are restricted: not one that can talk to others than those that
/// it names in a call. Those are raw and packet sockets, whose owner writes the headers, and SCTP, which has
/// ways of its own to name further addresses (`sctp(7)`).
#[inline(always)]
pub const fn tells_addresses(number: u32, kind: u32, protocol: u32) -> bool {
    const KIND: u32 = 0xf; // SOCK_TYPE_MASK, include/linux/net.h, 6.12
    const RAW: u32 = 3;
    const PACKET: u32 = 10;
    const SCTP: u32 = 132;
    if number == family::UNIX as u32 || number == family::NETLINK as u32 {
        return true;
    }
    let is_ip = number == family::INET as u32 || number == family::INET6 as u32;
    is_ip && kind & KIND != RAW && kind & KIND != PACKET && protocol != SCTP
}

/// Capabilities by which a process gets at the network beside the calls that name an address: `CAP_NET_ADMIN`
/// and `CAP_NET_RAW` (`capabilities(7)`, man-pages 6.9).
pub const NETWORK_CAPABILITIES: u64 = 1 << 12 | 1 << 13;

#[cfg(test)]
mod tests {
    use super::*;

    fn sockaddr(family: u16, port: u16, bytes: &[u8]) -> [u32; 7] {
        let mut raw = [0xaa_u8; 28];
        raw[..2].copy_from_slice(&family.to_ne_bytes());
        raw[2..4].copy_from_slice(&port.to_be_bytes());
        raw[4..4 + bytes.len()].copy_from_slice(bytes);
        let mut words = [0; 7];
        for (word, bytes) in words.iter_mut().zip(raw.chunks(4)) {
            *word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        words
    }

    fn v6(port: u16, tail: &[u8]) -> [u32; 7] {
        let mut bytes = [0; 20]; // flow information, address
        bytes[20 - tail.len()..].copy_from_slice(tail);
        sockaddr(family::INET6, port, &bytes)
    }

    fn v4(address: [u8; 4], port: u16) -> Target {
        Target { kind: family::INET, port, address: [u32::from_ne_bytes(address), 0, 0, 0] }
    }

    #[test]
    fn addresses() {
        let ten = [10, 1, 2, 3];
        let of = Target::of_sockaddr;
        assert_eq!(of(sockaddr(family::INET, 443, &ten), family::INET), v4(ten, 443));
        // An IPv4 address for a socket of IPv6, without a family, and mapped.
        assert_eq!(of(sockaddr(family::INET, 443, &ten), family::INET6), v4(ten, 443));
        assert_eq!(of(sockaddr(family::UNSPEC, 443, &ten), family::INET), v4(ten, 443));
        assert_eq!(of(v6(80, &[0xff, 0xff, 10, 1, 2, 3]), family::INET6), v4(ten, 80));
        let loopback = of(v6(80, &[1]), family::INET6);
        assert_eq!((loopback.kind, loopback.address), (family::INET6, [0, 0, 0, LOOPBACK_6]));
        assert_eq!(of(sockaddr(family::UNIX, 80, &ten), family::UNIX), Target::default());
        assert_eq!(of(sockaddr(40, 80, &ten), 40), Target::default());
    }

    #[test]
    fn no_address_is_the_machine_itself() {
        assert_eq!(v4([0; 4], 5).destination(), v4([127, 0, 0, 1], 5));
        let all = Target::of_sockaddr(v6(5, &[]), family::INET6);
        assert!(all.is_unspecified());
        assert_eq!(all.destination(), Target::of_sockaddr(v6(5, &[1]), family::INET6));
        assert_eq!(all.mapped_loopback(), v4([127, 0, 0, 1], 5));
        assert_eq!(v4([1; 4], 5).destination(), v4([1; 4], 5));
        // ::ffff:0.0.0.0
        let mapped = Target::of_sockaddr(v6(5, &[0xff, 0xff, 0, 0, 0, 0]), family::INET6);
        assert_eq!(mapped.destination(), v4([127, 0, 0, 1], 5));
    }

    #[test]
    fn the_rule_for_fewer_addresses_wins() {
        let (none, allow, deny) = (
            NetworkVerdict::default(),
            |length| NetworkVerdict::new(length, false),
            |length| NetworkVerdict::new(length, true),
        );
        for (any_port, port, denied) in [
            (none, none, false),
            (deny(0), none, true),
            (deny(0), allow(0), false),
            (allow(8), deny(8), true),
            (deny(16), allow(8), true),
            (allow(16), deny(8), false),
            (allow(32), none, false),
            (none, deny(128), true),
        ] {
            assert_eq!(NetworkVerdict::is_denied(any_port, port), denied, "{any_port:?} {port:?}");
        }
    }

    #[test]
    fn sockets() {
        const NONBLOCK: u32 = 0o4000;
        for (number, usual) in [(1, true), (2, true), (10, true), (16, true), (17, true)] {
            assert_eq!(is_usual_family(number), usual);
        }
        for number in [0, 4, 29, 31, 38, 40, 44, 65_537] {
            assert!(!is_usual_family(number), "{number}");
        }
        assert!(tells_addresses(2, 1, 6) && tells_addresses(10, 2 | NONBLOCK, 0));
        assert!(tells_addresses(1, 5, 0) && tells_addresses(16, 3, 0));
        assert!(!tells_addresses(2, 3 | NONBLOCK, 1) && !tells_addresses(10, 3, 58));
        assert!(!tells_addresses(2, 10, 0) && !tells_addresses(2, 5, 132));
        assert!(!tells_addresses(17, 2, 3) && !tells_addresses(40, 1, 0));
    }
}
