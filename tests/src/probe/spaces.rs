//! Verbs that run another verb from within other namespaces.

use nix::{
    fcntl::{OFlag, open},
    sched::{CloneFlags, setns, unshare},
    sys::stat::Mode,
    unistd::{chdir, getgid, getuid},
};

use super::{Outcome, Step as _};

pub(super) fn verb(verb: &str, args: &[&str]) -> Option<Outcome> {
    let outcome = match (verb, args) {
        ("mnt-ns", [inner, args @ ..]) => {
            unshare(CloneFlags::CLONE_NEWNS).step("unshare").and_then(|()| super::run(inner, args))
        }
        ("user-ns", [inner, args @ ..]) => {
            new_user_namespace().and_then(|()| super::run(inner, args))
        }
        ("cgroup", [directory, inner, args @ ..]) => {
            move_to_cgroup(directory).and_then(|()| super::run(inner, args))
        }
        ("join", [pid, inner, args @ ..]) => join(pid).and_then(|()| super::run(inner, args)),
        _ => return None,
    };
    Some(outcome)
}

/// A user and a mount namespace of one's own, where one holds every capability.
fn new_user_namespace() -> Result<(), super::Failure> {
    let (uid, gid) = (getuid(), getgid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).step("unshare")?;
    std::fs::write("/proc/self/setgroups", "deny").prepare("setgroups")?;
    std::fs::write("/proc/self/uid_map", format!("0 {uid} 1")).prepare("uid_map")?;
    std::fs::write("/proc/self/gid_map", format!("0 {gid} 1")).prepare("gid_map")
}

/// Joins the mount namespace of a process, which makes its root ours.
fn join(pid: &str) -> Result<(), super::Failure> {
    let path = format!("/proc/{pid}/ns/mnt");
    let namespace = open(path.as_str(), OFlag::O_RDONLY, Mode::empty()).step("open ns/mnt")?;
    setns(&namespace, CloneFlags::CLONE_NEWNS).step("setns")?;
    chdir("/").step("chdir")
}

/// Moves this process to a new cgroup.
fn move_to_cgroup(directory: &str) -> Result<(), super::Failure> {
    std::fs::create_dir(directory).step("mkdir")?;
    std::fs::write(format!("{directory}/cgroup.procs"), "0").step("write cgroup.procs")
}
