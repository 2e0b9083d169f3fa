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
        Attack, Bundle, Context, Entry, Expect, Level, attack,
        attack::{attack_under, no_preparation},
        runner::{Daemon, Test, With},
    },
    sys,
};

pub(crate) const TESTS: &[Test] = &[
    test("none", With::Each, none),
    test("given", With::One, given),
    test("deny", With::Each, deny),
    test("default-deny", With::One, default_deny),
    test("families", With::One, families),
    test("runtime-sockets", With::Each, runtime_sockets),
];

const fn test(name: &'static str, with: With, run: fn(&Context) -> Result<()>) -> Test {
    Test { group: "network", name, daemon: Daemon::OffThenOn, with, run }
}

const SOCKET: &[&str] = &["socket"];
const CONNECT: &[&str] = &["connect"];
const BIND: &[&str] = &["bind"];

fn try_to(name: &'static str, line: &str, operations: &'static [&'static str]) -> Attack {
    let expect = Expect::Denied(operations);
    Attack { name, line: line.to_owned(), gain: "done".to_owned(), expect }
}

/// What must work with lockc as it does without.
fn ordinary(name: &'static str, line: &str) -> Attack {
    let expect = Expect::Same("OK done".to_owned());
    Attack { expect, ..try_to(name, line, &[]) }
}

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
        try_to("tcp", "tcp-to 127.0.0.1:7000", SOCKET),
        try_to("tcp6", "tcp-to [::1]:7000", SOCKET),
        try_to("udp", "udp-to 127.0.0.1:7000", SOCKET),
        try_to("listen", "listen-at 127.0.0.1:7500", SOCKET),
        try_to("raw", "socket 2 3 1", SOCKET),
        try_to("packet", "socket 17 3 0", SOCKET),
        try_to("xdp", "socket 44 3 0", SOCKET),
        ordinary("netlink", "socket 16 3 0"),
        ordinary("unix", "own-unix /tmp/s"),
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
        try_to("connect", "given /mnt/connect connect 127.0.0.1:7000", CONNECT),
        try_to("bind", "given /mnt/bind bind 127.0.0.1:0", BIND),
        try_to("listen", "given /mnt/listen listen", BIND),
        ordinary("accept", "given /mnt/accept accept"),
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
        try_to("tcp", "tcp-to 127.7.0.1:7000", CONNECT),
        try_to("port", "tcp-to 127.0.0.1:7001", CONNECT),
        try_to("mapped", "tcp-mapped 127.7.0.1:7000", CONNECT),
        try_to("zero", "tcp-to 0.0.0.0:7001", CONNECT),
        try_to("tcp6", "tcp-to [::1]:7000", CONNECT),
        try_to("zero6", "tcp-to [::]:7000", CONNECT),
        try_to("fast-open", "tcp-fast 127.7.0.1:7000", CONNECT),
        try_to("udp", "udp-to 127.7.0.1:7000", CONNECT),
        try_to("udp-connect", "udp-connect 127.7.0.1:7000", CONNECT),
        try_to("udp-plain", "udp-plain 127.7.0.1:7000", CONNECT),
        try_to("other-port", "udp-to 127.7.7.7:7002", CONNECT),
        try_to("bind", "listen-at 127.7.0.2:7500", BIND),
        try_to("raw", "socket 2 3 1", SOCKET),
        try_to("packet", "socket 17 3 0", SOCKET),
        try_to("mark", "mark", &["capability"]),
        ordinary("exception", "tcp-to 127.7.7.7:7000"),
        ordinary("other-address", "tcp-to 127.0.0.1:7000"),
        ordinary("other-udp", "udp-to 127.0.0.1:7002"),
        ordinary("listen", "listen-at 127.0.0.1:7503"),
        ordinary("listen-all", "listen-at 0.0.0.0:7504"),
        ordinary("anywhere", "listen-anywhere"),
        ordinary("unix", "own-unix /tmp/s"),
        ordinary("netlink", "socket 16 3 0"),
    ];
    attack_under(context, Level::Own("deny-addresses"), "deny", host_network, &attacks)
}

/// Only what is listed.
fn default_deny(context: &Context) -> Result<()> {
    let _servers = serve(&["127.0.0.1:7000", "127.0.0.1:7001", "127.6.1.1:7001", "[::1]:7000"])?;
    let attacks = [
        try_to("port", "tcp-to 127.0.0.1:7001", CONNECT),
        try_to("tcp6", "tcp-to [::1]:7000", CONNECT),
        try_to("udp", "udp-to 127.5.0.1:53", CONNECT),
        try_to("udp6", "udp-to [::1]:53", CONNECT),
        try_to("listen", "listen-at 127.0.0.1:7500", BIND),
        try_to("listen6", "listen-at [::]:7200", BIND),
        try_to("anywhere", "listen-anywhere", BIND),
        try_to("chosen", "listen-at 127.0.0.1:0", BIND),
        ordinary("listed", "tcp-to 127.0.0.1:7000"),
        ordinary("zero", "tcp-to 0.0.0.0:7000"),
        ordinary("mapped", "tcp-mapped 127.0.0.1:7000"),
        ordinary("net", "tcp-to 127.6.1.1:7001"),
        ordinary("udp-net", "udp-to 127.6.1.1:53"),
        ordinary("listen-all", "listen-at 0.0.0.0:7200"),
        ordinary("listen-net", "listen-at 127.6.1.1:7600"),
        ordinary("unix", "own-unix /tmp/s"),
    ];
    attack_under(context, Level::Own("allow-addresses"), "default-deny", host_network, &attacks)
}

/// A family that containers do not have, and a policy by which one does.
fn families(context: &Context) -> Result<()> {
    let attacks = [
        try_to("xdp", "socket 44 3 0", SOCKET),
        ordinary("packet", "socket 17 3 0"),
        ordinary("raw", "socket 2 3 1"),
        ordinary("tcp6", "socket 10 1 6"),
        ordinary("netlink", "socket 16 3 0"),
    ];
    let setup = |bundle: &mut Bundle| {
        bundle.capabilities(&["CAP_NET_RAW"]);
    };
    attack(context, "families", &Entry::Run, no_preparation, setup, &attacks)?;
    let [_, others @ ..] = attacks;
    let attacks: Vec<_> = others.into_iter().chain([ordinary("xdp", "socket 44 3 0")]).collect();
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
        try_to("docker", "unix-to /mnt/docker.sock", RUNTIME),
        try_to("bound-alone", "unix-to /srv/harmless", RUNTIME),
        try_to("shim", "unix-to /mnt/containerd/s/0123456789", RUNTIME),
        try_to("abstract-shim", "abstract-to /containerd-shim/moby/x/shim.sock@", RUNTIME),
        ordinary("host-service", "unix-to /mnt/app.sock"),
        ordinary("host-abstract", "abstract-to /tmp/.X11-unix/X7"),
        ordinary("own-engine", "own-unix /tmp/docker.sock"),
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
