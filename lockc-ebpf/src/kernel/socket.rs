//! Sockets, and where they are bound.

use lockc_common::{
    engine,
    network::{Target, family},
};

use super::{
    Location, Message, OFF_MSGHDR_NAME, OFF_PATH_DENTRY, OFF_PATH_MNT, OFF_SOCK_FAMILY,
    OFF_SOCK_NUM, OFF_SOCK_RCV_SADDR, OFF_SOCK_V6_RCV_SADDR, OFF_SOCKET_SK, OFF_UNIX_ADDRESS_NAME,
    OFF_UNIX_SOCK_ADDR, OFF_UNIX_SOCK_PATH, Sock, Socket, load, read,
};

impl Socket {
    /// What is behind it: never null between `socket(2)` and `close(2)`.
    #[inline(always)]
    pub(crate) fn sock(self) -> Sock {
        Sock(load(self.0, &OFF_SOCKET_SK))
    }
}

impl Sock {
    /// Its address family; `AF_UNSPEC` for none.
    #[inline(always)]
    pub(crate) fn family(self) -> u16 {
        if self.0.is_null() { family::UNSPEC } else { load(self.0, &OFF_SOCK_FAMILY) }
    }

    /// The address that it is bound to, with port 0 if it is not.
    #[inline(always)]
    pub(crate) fn local(self) -> Target {
        if self.0.is_null() {
            return Target::default();
        }
        let port: u16 = load(self.0, &OFF_SOCK_NUM);
        match load::<u16>(self.0, &OFF_SOCK_FAMILY) {
            family::INET => {
                let address = [load(self.0, &OFF_SOCK_RCV_SADDR), 0, 0, 0];
                Target { kind: family::INET, port, address }
            }
            family::INET6 => {
                let at = self.0 as u64 + OFF_SOCK_V6_RCV_SADDR.load();
                Target::of_ipv6(port, read(at).unwrap_or_default())
            }
            _ => Target::default(),
        }
    }
}

impl Message {
    /// Address of the `struct sockaddr` that it is for; 0 for none.
    #[inline(always)]
    pub(crate) fn name(self) -> u64 {
        load(self.0, &OFF_MSGHDR_NAME)
    }
}

/// Where a socket of family `AF_UNIX` is bound.
pub(crate) struct UnixAddress {
    /// Whether it has a name in its network namespace instead of the file system.
    pub(crate) is_abstract: bool,
    /// The first 16 bytes of that name.
    pub(crate) name: [u64; 2],
    /// The file; zeros for none, or when it cannot be read.
    pub(crate) at: Location,
}

impl UnixAddress {
    /// Of the `struct sock` at `sock`: `struct unix_sock` begins with it (`include/net/af_unix.h`, 6.12).
    #[inline(always)]
    pub(crate) fn of(sock: u64) -> Self {
        let path = sock + OFF_UNIX_SOCK_PATH.load();
        let at = Location {
            mount: read(path + OFF_PATH_MNT.load()).unwrap_or(0),
            dentry: read(path + OFF_PATH_DENTRY.load()).unwrap_or(0),
        };
        let address = read::<u64>(sock + OFF_UNIX_SOCK_ADDR.load()).unwrap_or(0);
        if at.dentry != 0 || address == 0 {
            return Self { is_abstract: false, name: [0; 2], at };
        }
        // `struct sockaddr_un`: the family, then a zero byte, then the name.
        let name = address + OFF_UNIX_ADDRESS_NAME.load() + 3;
        Self { is_abstract: true, name: read(name).unwrap_or(engine::SHIM), at }
    }
}
