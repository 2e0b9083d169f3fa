//! `sd_notify(3)`: tells the service manager how the daemon is.

use std::{
    env, io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::Duration,
};

/// Longest wait for a service manager that does not read.
const PATIENCE: Duration = Duration::from_secs(5);

/// Sends `state` to `$NOTIFY_SOCKET`. Without one nobody listens, and a failure to tell is no
/// reason not to enforce.
pub(super) fn send(state: &str) {
    tell(state, |socket| socket.set_write_timeout(Some(PATIENCE)));
}

/// Sends `WATCHDOG=1`, without waiting: who calls has starts to answer for.
pub(super) fn alive() {
    tell("WATCHDOG=1", |socket| socket.set_nonblocking(true));
}

fn tell(state: &str, prepare: impl Fn(&UnixDatagram) -> io::Result<()>) {
    let Some(path) = env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    };
    let sent = address.and_then(|address| {
        let socket = UnixDatagram::unbound()?;
        prepare(&socket)?;
        socket.send_to_addr(state.as_bytes(), &address)
    });
    if let Err(error) = sent {
        log::warn!("cannot notify the service manager at {}: {error}", path.display());
    }
}

/// How often to send `WATCHDOG=1`: twice as often as the service manager wants to hear it (`sd_watchdog_enabled(3)`).
/// `None` if it does not.
pub(super) fn watchdog() -> Option<Duration> {
    let number = |name: &str| env::var(name).ok()?.parse::<u64>().ok();
    if number("WATCHDOG_PID").is_some_and(|pid| pid != u64::from(std::process::id())) {
        return None;
    }
    let time = Duration::from_micros(number("WATCHDOG_USEC")?) / 2;
    (!time.is_zero()).then_some(time)
}
