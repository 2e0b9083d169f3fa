//! Verbs that run another verb, or a program, from within other namespaces.

use std::{fs, path::Path, process::Command};

use nix::{
    fcntl::{OFlag, open},
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
    sys::stat::Mode,
    unistd::{chdir, chroot, getgid, getuid},
};
use serde_json::Value;

use super::{Failure, Outcome, Step as _};

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
        ("run", ["--bundle", bundle, _]) => runtime(Path::new(bundle)),
        _ => return None,
    };
    Some(outcome)
}

/// A user and a mount namespace of one's own, where one holds every capability.
fn new_user_namespace() -> Result<(), Failure> {
    let (uid, gid) = (getuid(), getgid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).step("unshare")?;
    fs::write("/proc/self/setgroups", "deny").prepare("setgroups")?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1")).prepare("uid_map")?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1")).prepare("gid_map")
}

/// Joins the mount namespace of a process, which makes its root ours.
fn join(pid: &str) -> Result<(), Failure> {
    let path = format!("/proc/{pid}/ns/mnt");
    let namespace = open(path.as_str(), OFlag::O_RDONLY, Mode::empty()).step("open ns/mnt")?;
    setns(&namespace, CloneFlags::CLONE_NEWNS).step("setns")?;
    chdir("/").step("chdir")
}

/// Moves this process to a new cgroup.
fn move_to_cgroup(directory: &str) -> Result<(), Failure> {
    fs::create_dir(directory).step("mkdir")?;
    fs::write(format!("{directory}/cgroup.procs"), "0").step("write cgroup.procs")
}

/// What is left of a runtime that takes as little time as can be: the bundle's root in a mount namespace of its own,
/// its bind mounts, and its program.
fn runtime(bundle: &Path) -> Outcome {
    let config = fs::read(bundle.join("config.json")).prepare("read config.json")?;
    let config: Value =
        serde_json::from_slice(&config).map_err(|error| Failure::Unfit(error.to_string()))?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let root = bundle.join(text(&config["root"]["path"]));
    unshare(CloneFlags::CLONE_NEWNS).prepare("unshare")?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none).prepare("make private")?;
    for it in list(&config["mounts"]).iter().filter(|it| it["type"] == "bind") {
        let to = root.join(text(&it["destination"]).trim_start_matches('/'));
        let from = text(&it["source"]);
        mount(Some(from.as_str()), &to, none, MsFlags::MS_BIND, none).prepare("bind mount")?;
    }
    chroot(&root).prepare("chroot")?;
    chdir("/").prepare("chdir")?;
    let words: Vec<String> = list(&config["process"]["args"]).iter().map(text).collect();
    let (program, args) =
        words.split_first().ok_or_else(|| Failure::Unfit("no program".to_owned()))?;
    let status = Command::new(program).args(args).status().step("exec")?;
    Ok(format!("{status}"))
}
