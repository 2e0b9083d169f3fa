//! Ways to reach someone by a socket.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, TcpListener, TcpStream, UdpSocket},
    os::{
        fd::AsRawFd as _,
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr as UnixAddr, UnixListener, UnixStream},
    },
};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, connect, listen, setsockopt,
        socket, sockopt,
    },
};

use super::{Failure, Outcome, Step as _};
use crate::sys::{self, net};

pub(super) fn verb(verb: &str, args: &[&str]) -> Option<Outcome> {
    let outcome = match (verb, args) {
        ("tcp-to", [to]) => {
            address(to).and_then(|to: SocketAddr| TcpStream::connect(to).step("connect").map(done))
        }
        ("tcp-mapped", [to]) => tcp_mapped(to),
        ("tcp-fast", [to]) => tcp_fast(to),
        ("udp-to", [to]) => {
            udp(to, |socket, to| socket.send_to(b"hello", to).step("sendto").map(done))
        }
        ("udp-connect", [to]) => udp(to, |socket, to| socket.connect(to).step("connect").map(done)),
        ("udp-plain", [to]) => udp_plain(to),
        ("listen-at", [at]) => {
            address(at).and_then(|at: SocketAddr| TcpListener::bind(at).step("bind").map(done))
        }
        ("listen-anywhere", []) => listen_anywhere(),
        ("socket", [family, kind, protocol]) => any_socket(family, kind, protocol),
        ("mark", []) => mark(),
        ("unix-ask", [path, line]) => unix_ask(path, line),
        ("unix-to", [path]) => UnixStream::connect(path).step("connect").map(done),
        ("abstract-to", [name]) => abstract_to(name),
        ("own-unix", [path]) => own_unix(path),
        ("given", [path, line @ ..]) => given(path, line),
        _ => return None,
    };
    Some(outcome)
}

fn done<T>(_: T) -> String {
    "done".to_owned()
}

fn address<T: std::str::FromStr>(text: &str) -> Result<T, Failure> {
    text.parse().map_err(|_| Failure::Unfit(format!("no address: {text}")))
}

/// An IPv4 address within IPv6.
fn tcp_mapped(to: &str) -> Outcome {
    let to: SocketAddrV4 = address(to)?;
    let to = SocketAddrV6::new(to.ip().to_ipv6_mapped(), to.port(), 0, 0);
    TcpStream::connect(to).step("connect").map(done)
}

fn tcp_fast(to: &str) -> Outcome {
    let to: SocketAddrV4 = address(to)?;
    let socket = tcp()?;
    match net::send_fast_open(&socket, &to.into()) {
        // Sent when the connection is there.
        Err(Errno::EINPROGRESS) => Ok("done".to_owned()),
        result => result.step("sendto").map(done),
    }
}

fn tcp() -> Result<std::os::fd::OwnedFd, Failure> {
    socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None).step("socket")
}

fn udp(to: &str, act: impl FnOnce(UdpSocket, SocketAddr) -> Outcome) -> Outcome {
    let to: SocketAddr = address(to)?;
    let from: SocketAddr = match to {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    act(UdpSocket::bind(from).step("bind")?, to)
}

/// The kernel takes an address without a family for IPv4.
fn udp_plain(to: &str) -> Outcome {
    let to: SocketAddrV4 = address(to)?;
    let socket = UdpSocket::bind("0.0.0.0:0").step("bind")?;
    net::send_without_family(&socket, to).step("sendto").map(done)
}

/// The kernel chooses a port where nobody has.
fn listen_anywhere() -> Outcome {
    let socket = tcp()?;
    listen(&socket, Backlog::MAXCONN).step("listen").map(done)
}

fn any_socket(family: &str, kind: &str, protocol: &str) -> Outcome {
    let number =
        |text: &str| text.parse().map_err(|_| Failure::Unfit(format!("no number: {text}")));
    net::socket(number(family)?, number(kind)?, number(protocol)?).step("socket").map(done)
}

/// Something that takes a capability for the network.
fn mark() -> Outcome {
    let socket = UdpSocket::bind("0.0.0.0:0").step("bind")?;
    setsockopt(&socket, sockopt::Mark, &1).step("setsockopt").map(done)
}

/// How many bytes are answered to a line.
fn unix_ask(path: &str, line: &str) -> Outcome {
    let mut stream = UnixStream::connect(path).step("connect")?;
    let mut answer = Vec::new();
    // One who does not want to answer closes it at any time.
    let _ = stream.write_all(format!("{line}\n").as_bytes());
    let _ = stream.read_to_end(&mut answer);
    Ok(format!("{} bytes", answer.len()))
}

fn abstract_to(name: &str) -> Outcome {
    let to = UnixAddr::from_abstract_name(name).prepare("name")?;
    UnixStream::connect_addr(&to).step("connect").map(done)
}

fn own_unix(path: &str) -> Outcome {
    let _listener = UnixListener::bind(path).step("bind")?;
    UnixStream::connect(path).step("connect").map(done)
}

/// Uses a socket that a process of the host hands over.
fn given(path: &str, line: &[&str]) -> Outcome {
    let channel = UnixStream::connect(path).prepare("connect")?;
    let socket = sys::receive_descriptor(&channel).prepare("receive a descriptor")?;
    let fd = socket.as_raw_fd();
    match line {
        ["connect", to] => {
            let to: SockaddrIn = address::<SocketAddrV4>(to)?.into();
            connect(fd, &to).step("connect").map(done)
        }
        ["bind", at] => {
            let at: SockaddrIn = address::<SocketAddrV4>(at)?.into();
            bind(fd, &at).step("bind").map(done)
        }
        ["listen"] => listen(&socket, Backlog::MAXCONN).step("listen").map(done),
        ["accept"] => {
            let (stream, _) = TcpListener::from(socket).accept().step("accept")?;
            std::io::Write::write_all(&mut &stream, b"hello").step("write").map(done)
        }
        _ => Err(Failure::Unfit(format!("given what: {line:?}"))),
    }
}
