//! Who can be reached by a socket: addresses, families, and the engines' own sockets.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    os::{
        fd::OwnedFd,
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr as UnixAddr, UnixListener},
    },
    path::Path,
    thread,
};

use anyhow::{Context as _, Result};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::{
    harness::{
        Attack, Bundle, Context, Entry, Level, attack,
        attack::{attack_under, no_preparation},
        runner::{Daemon, Test, With},
    },
    sys,
};

pub(crate) const TESTS: &[Test] = &[
    test("none", With::EachKind, none),
    test("given", With::One, given),
    test("deny", With::EachKind, deny),
    test("default-deny", With::One, default_deny),
    test("families", With::One, families),
    test("runtime-sockets", With::EachKind, runtime_sockets),
];

const fn test(name: &'static str, with: With, run: fn(&Context) -> Result<()>) -> Test {
    Test { group: "network", name, daemon: Daemon::OffThenOn, with, run }
}

const SOCKET: &[&str] = &["socket"];
const CONNECT: &[&str] = &["connect"];
const BIND: &[&str] = &["bind"];

/// The host's network, in which the servers are.
fn host_network(bundle: &mut Bundle) {
    bundle.share("network").capabilities(&["CAP_NET_RAW", "CAP_NET_ADMIN"]);
}

/// Servers that are there for as long as this lives. Nobody accepts: being connected is enough.
fn serve(addresses: &[&str]) -> Result<Vec<TcpListener>> {
    let listen = |at: &&str| TcpListener::bind(at).with_context(|| format!("listen at {at}"));
    addresses.iter().map(listen).collect()
}

/// A container that is to have no network at all.
fn none(context: &Context) -> Result<()> {
    let _servers = serve(&["127.0.0.1:7000", "[::1]:7000"])?;
    let attacks = [
        Attack::denied("tcp", "tcp-to 127.0.0.1:7000", SOCKET),
        Attack::denied("tcp6", "tcp-to [::1]:7000", SOCKET),
        Attack::denied("udp", "udp-to 127.0.0.1:7000", SOCKET),
        Attack::denied("listen", "listen-at 127.0.0.1:7500", SOCKET),
        Attack::denied("raw", "socket 2 3 1", SOCKET),
        Attack::denied("packet", "socket 17 3 0", SOCKET),
        Attack::denied("xdp", "socket 44 3 0", SOCKET),
        Attack::ordinary("netlink", "socket 16 3 0"),
        Attack::ordinary("unix", "own-unix /tmp/s"),
    ];
    attack_under(context, Level::Offline, "none", host_network, &attacks)
}

/// Sockets that a process of the host hands over: what is connected or listens already is of use, and nothing
/// else can be done with it.
fn given(context: &Context) -> Result<()> {
    let _servers = serve(&["127.0.0.1:7000"])?;
    let directory = context.scratch().join("given");
    fs::create_dir_all(&directory)?;
    let fresh = || socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None);
    let give = |name: &str, what: OwnedFd| give(&directory.join(name), what);
    give("connect", fresh()?)?;
    give("bind", fresh()?)?;
    give("listen", fresh()?)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let at: SocketAddr = listener.local_addr()?;
    // For every time that the container accepts one.
    let clients: Vec<_> =
        context.levels().iter().map(|_| std::net::TcpStream::connect(at)).collect();
    give("accept", listener.into())?;
    let attacks = [
        Attack::denied("connect", "given /mnt/connect connect 127.0.0.1:7000", CONNECT),
        Attack::denied("bind", "given /mnt/bind bind 127.0.0.1:0", BIND),
        Attack::denied("listen", "given /mnt/listen listen", BIND),
        Attack::ordinary("accept", "given /mnt/accept accept"),
    ];
    let setup = |bundle: &mut Bundle| {
        bundle.bind(&directory, "/mnt");
    };
    let result = attack_under(context, Level::Offline, "given", setup, &attacks);
    drop(clients);
    result
}

/// Hands a socket to whoever connects to `path`, until this process ends.
fn give(path: &Path, what: OwnedFd) -> Result<()> {
    let _ = fs::remove_file(path);
    let listener = UnixListener::bind(path).with_context(|| format!("bind {}", path.display()))?;
    thread::spawn(move || {
        for channel in listener.incoming().flatten() {
            // Whoever does not take it says so itself.
            let _ = sys::send_descriptor(&channel, &what);
        }
    });
    Ok(())
}

/// Addresses that are denied, and an exception.
fn deny(context: &Context) -> Result<()> {
    let _servers = serve(&[
        "127.7.0.1:7000",
        "127.7.7.7:7000",
        "127.0.0.1:7000",
        "127.0.0.1:7001",
        "[::1]:7000",
    ])?;
    let attacks = [
        Attack::denied("tcp", "tcp-to 127.7.0.1:7000", CONNECT),
        Attack::denied("port", "tcp-to 127.0.0.1:7001", CONNECT),
        Attack::denied("mapped", "tcp-mapped 127.7.0.1:7000", CONNECT),
        Attack::denied("zero", "tcp-to 0.0.0.0:7001", CONNECT),
        Attack::denied("tcp6", "tcp-to [::1]:7000", CONNECT),
        Attack::denied("zero6", "tcp-to [::]:7000", CONNECT),
        Attack::denied("fast-open", "tcp-fast 127.7.0.1:7000", CONNECT),
        Attack::denied("udp", "udp-to 127.7.0.1:7000", CONNECT),
        Attack::denied("udp-connect", "udp-connect 127.7.0.1:7000", CONNECT),
        Attack::denied("udp-plain", "udp-plain 127.7.0.1:7000", CONNECT),
        Attack::denied("other-port", "udp-to 127.7.7.7:7002", CONNECT),
        Attack::denied("bind", "listen-at 127.7.0.2:7500", BIND),
        Attack::denied("raw", "socket 2 3 1", SOCKET),
        Attack::denied("packet", "socket 17 3 0", SOCKET),
        Attack::denied("mark", "mark", &["capability"]),
        Attack::ordinary("exception", "tcp-to 127.7.7.7:7000"),
        Attack::ordinary("other-address", "tcp-to 127.0.0.1:7000"),
        Attack::ordinary("other-udp", "udp-to 127.0.0.1:7002"),
        Attack::ordinary("listen", "listen-at 127.0.0.1:7503"),
        Attack::ordinary("listen-all", "listen-at 0.0.0.0:7504"),
        Attack::ordinary("anywhere", "listen-anywhere"),
        Attack::ordinary("unix", "own-unix /tmp/s"),
        Attack::ordinary("netlink", "socket 16 3 0"),
    ];
    attack_under(context, Level::Own("deny-addresses"), "deny", host_network, &attacks)
}

/// Only what is listed.
fn default_deny(context: &Context) -> Result<()> {
    let _servers = serve(&["127.0.0.1:7000", "127.0.0.1:7001", "127.6.1.1:7001", "[::1]:7000"])?;
    let attacks = [
        Attack::denied("port", "tcp-to 127.0.0.1:7001", CONNECT),
        Attack::denied("tcp6", "tcp-to [::1]:7000", CONNECT),
        Attack::denied("udp", "udp-to 127.5.0.1:53", CONNECT),
        Attack::denied("udp6", "udp-to [::1]:53", CONNECT),
        Attack::denied("listen", "listen-at 127.0.0.1:7500", BIND),
        Attack::denied("listen6", "listen-at [::]:7200", BIND),
        Attack::denied("anywhere", "listen-anywhere", BIND),
        Attack::denied("chosen", "listen-at 127.0.0.1:0", BIND),
        Attack::ordinary("listed", "tcp-to 127.0.0.1:7000"),
        Attack::ordinary("zero", "tcp-to 0.0.0.0:7000"),
        Attack::ordinary("mapped", "tcp-mapped 127.0.0.1:7000"),
        Attack::ordinary("net", "tcp-to 127.6.1.1:7001"),
        Attack::ordinary("udp-net", "udp-to 127.6.1.1:53"),
        Attack::ordinary("listen-all", "listen-at 0.0.0.0:7200"),
        Attack::ordinary("listen-net", "listen-at 127.6.1.1:7600"),
        Attack::ordinary("unix", "own-unix /tmp/s"),
    ];
    attack_under(context, Level::Own("allow-addresses"), "default-deny", host_network, &attacks)
}

/// A family that containers do not have, and a policy by which one does.
fn families(context: &Context) -> Result<()> {
    let attacks = [
        Attack::denied("xdp", "socket 44 3 0", SOCKET),
        Attack::ordinary("packet", "socket 17 3 0"),
        Attack::ordinary("raw", "socket 2 3 1"),
        Attack::ordinary("tcp6", "socket 10 1 6"),
        Attack::ordinary("netlink", "socket 16 3 0"),
    ];
    let setup = |bundle: &mut Bundle| {
        bundle.capabilities(&["CAP_NET_RAW"]);
    };
    attack(context, "families", &Entry::Run, no_preparation, setup, &attacks)?;
    let [_, others @ ..] = attacks;
    let attacks: Vec<_> =
        others.into_iter().chain([Attack::ordinary("xdp", "socket 44 3 0")]).collect();
    attack_under(context, Level::Own("allow-family"), "family", setup, &attacks)
}

/// Engines' sockets, by whatever name the container has for them.
fn runtime_sockets(context: &Context) -> Result<()> {
    const RUNTIME: &[&str] = &["runtime-socket"];
    let directory = context.scratch().join("run");
    fs::create_dir_all(directory.join("containerd/s"))?;
    let bind = |name: &str| -> Result<UnixListener> {
        let path = directory.join(name);
        let _ = fs::remove_file(&path);
        UnixListener::bind(&path).with_context(|| format!("bind {}", path.display()))
    };
    let _sockets = [bind("docker.sock")?, bind("containerd/s/0123456789")?, bind("app.sock")?];
    let shim = UnixAddr::from_abstract_name("/containerd-shim/moby/x/shim.sock@")?;
    let other = UnixAddr::from_abstract_name("/tmp/.X11-unix/X7")?;
    let _abstract = [UnixListener::bind_addr(&shim)?, UnixListener::bind_addr(&other)?];
    let attacks = [
        Attack::denied("docker", "unix-to /mnt/docker.sock", RUNTIME),
        Attack::denied("bound-alone", "unix-to /srv/harmless", RUNTIME),
        Attack::denied("shim", "unix-to /mnt/containerd/s/0123456789", RUNTIME),
        Attack::denied("abstract-shim", "abstract-to /containerd-shim/moby/x/shim.sock@", RUNTIME),
        Attack::ordinary("host-service", "unix-to /mnt/app.sock"),
        Attack::ordinary("host-abstract", "abstract-to /tmp/.X11-unix/X7"),
        Attack::ordinary("own-engine", "own-unix /tmp/docker.sock"),
    ];
    let setup = |bundle: &mut Bundle| {
        bundle
            .share("network")
            .bind(&directory, "/mnt")
            .mount("/srv", "tmpfs", "tmpfs", &["mode=755"])
            .bind(&directory.join("docker.sock"), "/srv/harmless");
    };
    attack(context, "runtime-sockets", &Entry::Run, no_preparation, setup, &attacks)
}
