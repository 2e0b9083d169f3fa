//! Reads the argument lists of tasks that fanotify freezes in a real `execve`.
//!
//! Needs root, as fanotify does. A child runs this very test binary again, with
//! `CHILD` telling it how to execute the marked file.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::{
    env,
    ffi::CString,
    fs::{self, File},
    os::{
        fd::AsFd as _,
        unix::{ffi::OsStrExt as _, fs::PermissionsExt as _, process::CommandExt as _},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

use lockc::runtime::{
    argv::{self, Argv},
    caller::Caller,
};
use nix::{
    fcntl::{AT_FDCWD, AtFlags},
    sys::fanotify::{
        EventFFlags, Fanotify, FanotifyResponse, InitFlags, MarkFlags, MaskFlags, Response,
    },
    unistd::Pid,
};
use tempfile::TempDir;

const CHILD: &str = "LOCKC_TEST_EXEC";
const TARGET: &str = "LOCKC_TEST_TARGET";

/// A fanotify group that watches a copy of `true`.
struct Gate {
    group: Fanotify,
    target: PathBuf,
    _dir: TempDir,
}

impl Gate {
    fn new() -> Self {
        let dir = open_dir();
        let target = dir.path().join("runtime");
        fs::copy("/bin/true", &target).unwrap();
        fs::set_permissions(&target, fs::Permissions::from_mode(0o755)).unwrap();
        let flags =
            InitFlags::FAN_CLASS_CONTENT | InitFlags::FAN_CLOEXEC | InitFlags::FAN_REPORT_TID;
        let group = Fanotify::init(flags, EventFFlags::O_RDONLY | EventFFlags::O_LARGEFILE)
            .expect("fanotify needs root");
        group
            .mark(MarkFlags::FAN_MARK_ADD, MaskFlags::FAN_OPEN_EXEC_PERM, AT_FDCWD, Some(&target))
            .unwrap();
        Self { group, target, _dir: dir }
    }

    /// Calls `read` on the next thread that executes the target, then lets it go.
    fn next<T>(&self, read: impl FnOnce(Pid) -> T) -> T {
        let events = self.group.read_events().unwrap();
        let [event] = &events[..] else { panic!("{} events at once", events.len()) };
        let value = read(Pid::from_raw(event.pid()));
        let fd = event.fd().expect("the queue overflowed");
        self.group.write_response(FanotifyResponse::new(fd, Response::FAN_ALLOW)).unwrap();
        value
    }

    /// This binary again, executing the target in the way called `how`.
    fn child(&self, how: &str) -> Child {
        Command::new(env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture"])
            .env(CHILD, how)
            .env(TARGET, &self.target)
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    }
}

/// A directory that any user may enter.
fn open_dir() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

fn strings(argv: &Argv) -> Vec<String> {
    assert!(!argv.cut);
    argv.words.iter().map(|word| String::from_utf8(word.clone()).unwrap()).collect()
}

const WORDS: [&str; 6] = ["runc", "--root", "/run/x", "create", "", "id1"];

/// Not a test: the other half of the tests below, when they start this binary.
#[test]
fn child() {
    let (Ok(how), Some(target)) = (env::var(CHILD), env::var_os(TARGET)) else { return };
    let words = WORDS.map(|word| CString::new(word).unwrap());
    let environment: [CString; 0] = [];
    match how.as_str() {
        "execve" => {
            let target = CString::new(target.as_bytes()).unwrap();
            let _ = nix::unistd::execve(&target, &words, &environment);
        }
        "thread" => thread::spawn(move || {
            let error = Command::new(target).arg0(WORDS[0]).args(&WORDS[1..]).exec();
            panic!("{error}");
        })
        .join()
        .unwrap(),
        "execveat" => {
            let dir = File::open(Path::new(&target).parent().unwrap()).unwrap();
            let flags = AtFlags::empty();
            let _ = nix::unistd::execveat(dir.as_fd(), c"runtime", &words, &environment, flags);
        }
        _ => {
            let file = File::open(&target).unwrap();
            let flags = AtFlags::AT_EMPTY_PATH;
            let _ = nix::unistd::execveat(file.as_fd(), c"", &words, &environment, flags);
        }
    }
    panic!("the target was not executed");
}

#[test]
fn spawned() {
    let gate = Gate::new();
    let long = "x".repeat(100_000);
    let mut expected = WORDS.map(ToOwned::to_owned).to_vec();
    expected.push(long.clone());
    let target = gate.target.clone();
    let spawner = thread::spawn(move || {
        // The standard library clones with CLONE_VM|CLONE_VFORK where it can, as Go does.
        let mut command = Command::new(target);
        command.arg0(WORDS[0]).args(&WORDS[1..]).arg(long);
        assert!(command.status().unwrap().success());
    });
    let argv = gate.next(argv::read).unwrap();
    spawner.join().unwrap();
    assert_eq!(strings(&argv), expected);
}

#[test]
fn every_way_to_execute() {
    for how in ["execve", "execveat", "descriptor", "thread"] {
        let gate = Gate::new();
        let mut child = gate.child(how);
        let (argv, caller, tid) =
            gate.next(|tid| (argv::read(tid), Caller::read(tid).unwrap(), tid));
        assert!(child.wait().unwrap().success());
        assert_eq!(strings(&argv.unwrap()), WORDS, "{how}");
        assert!(caller.ids.euid.is_root());
        if how == "thread" {
            assert_ne!(tid.as_raw().cast_unsigned(), child.id(), "the leader executed it");
        }
    }
}

#[test]
fn the_callers_directory_and_ids() {
    let gate = Gate::new();
    let dir = open_dir();
    let (target, cwd) = (gate.target.clone(), dir.path().to_owned());
    let spawner = thread::spawn(move || {
        let mut command = Command::new(target);
        assert!(command.current_dir(cwd).uid(65534).gid(65533).status().unwrap().success());
    });
    let caller = gate.next(Caller::read).unwrap();
    spawner.join().unwrap();
    assert_eq!((caller.ids.fsuid.as_raw(), caller.ids.fsgid.as_raw()), (65534, 65533));
    let seen = nix::sys::stat::fstat(caller.cwd()).unwrap();
    let expected = nix::sys::stat::stat(dir.path()).unwrap();
    assert_eq!((seen.st_dev, seen.st_ino), (expected.st_dev, expected.st_ino));
}
