//! Ways to become somebody else, or to get around what a process is told.

use std::fs::File;

use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    pty::openpty,
    sched::{CloneFlags, setns},
    sys::stat::Mode,
    unistd::{Uid, geteuid, setfsuid, setresuid},
};

use super::{Failure, Outcome, Step as _};
use crate::sys::{machine, uring};

/// `(uid_t)-1`: stays as it is.
const SAME: Uid = Uid::from_raw(u32::MAX);

pub(super) fn verb(verb: &str, args: &[&str]) -> Option<Outcome> {
    let outcome = match (verb, args) {
        ("set-user", [id]) => user(id)
            .and_then(|id| setresuid(id, id, id).step("setresuid"))
            .map(|()| "done".to_owned()),
        ("set-effective", [id]) => user(id)
            .and_then(|id| setresuid(SAME, id, SAME).step("setresuid"))
            .map(|()| "done".to_owned()),
        ("set-saved", [id]) => user(id)
            .and_then(|id| setresuid(SAME, SAME, id).step("setresuid"))
            .map(|()| "done".to_owned()),
        ("set-files", [id]) => user(id).and_then(set_files),
        ("who", []) => Ok(format!("user {}", geteuid())),
        ("capabilities", []) => capabilities(),
        ("ring", []) => uring::setup().step("io_uring_setup").map(|_| "done".to_owned()),
        ("type", []) => on_terminal(machine::type_into),
        ("paste", []) => on_terminal(machine::paste),
        ("resize", []) => on_terminal(machine::resize),
        ("set-ns", [path]) => open(*path, OFlag::O_RDONLY, Mode::empty())
            .prepare("open the namespace")
            .and_then(|namespace| setns(&namespace, CloneFlags::empty()).step("setns"))
            .map(|()| "done".to_owned()),
        ("swap-off", []) => match machine::swap_off(c"/no-such-file") {
            // The capability is asked for first.
            Err(Errno::ENOENT) => Ok("done".to_owned()),
            result => result.step("swapoff").map(|()| "done".to_owned()),
        },
        _ => return None,
    };
    Some(outcome)
}

fn user(id: &str) -> Result<Uid, Failure> {
    id.parse().map(Uid::from_raw).map_err(|_| Failure::Unfit(format!("no user: {id}")))
}

/// The call says who it was, never that it failed.
fn set_files(id: Uid) -> Outcome {
    setfsuid(id);
    if setfsuid(SAME) == id {
        return Ok("done".to_owned());
    }
    Err(Failure::Refused("setfsuid", Errno::EPERM))
}

/// The effective ones, as a hexadecimal number.
fn capabilities() -> Outcome {
    let status = std::fs::read_to_string("/proc/self/status").prepare("read the status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.map(|set| set.trim().to_owned())
        .ok_or_else(|| Failure::Unfit("no capabilities in the status".to_owned()))
}

/// Acts on a terminal of its own.
fn on_terminal(act: fn(&File) -> nix::Result<()>) -> Outcome {
    let pair = openpty(None, None).prepare("openpty")?;
    act(&pair.slave.into()).step("ioctl").map(|()| "done".to_owned())
}
