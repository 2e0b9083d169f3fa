//! Calls about sockets that nix does not have.

use std::{
    net::SocketAddrV4,
    os::fd::{AsFd, AsRawFd as _},
};

use nix::{errno::Errno, libc};

use super::owned;

/// `socket(2)` of any family.
pub(crate) fn socket(family: i32, kind: i32, protocol: i32) -> nix::Result<std::os::fd::OwnedFd> {
    // SAFETY: takes three integers.
    owned(unsafe { libc::socket(family, kind, protocol) }.into())
}

/// `sendto(2)` to an address that does not say of which family it is.
pub(crate) fn send_without_family(socket: impl AsFd, to: SocketAddrV4) -> nix::Result<()> {
    // SAFETY: a structure of integers, for which zeros are a value.
    let mut address: libc::sockaddr_in = unsafe { std::mem::zeroed() };
    address.sin_port = to.port().to_be();
    address.sin_addr.s_addr = u32::from_ne_bytes(to.ip().octets());
    let length = libc::socklen_t::try_from(size_of_val(&address)).map_err(|_| Errno::EINVAL)?;
    // SAFETY: buffer and address live across the call, and have the lengths stated.
    let sent = unsafe {
        let (data, address) = (b"hello".as_ptr().cast(), (&raw const address).cast());
        libc::sendto(socket.as_fd().as_raw_fd(), data, 5, 0, address, length)
    };
    Errno::result(sent).map(drop)
}

/// `sendto(2)` with `MSG_FASTOPEN`: connects without `connect(2)` (`tcp(7)`).
pub(crate) fn send_fast_open(
    socket: impl AsFd,
    to: &nix::sys::socket::SockaddrIn,
) -> nix::Result<()> {
    use nix::sys::socket::{MsgFlags, sendto};
    let flags = MsgFlags::from_bits_retain(libc::MSG_FASTOPEN);
    sendto(socket.as_fd().as_raw_fd(), b"hello", to, flags).map(drop)
}
