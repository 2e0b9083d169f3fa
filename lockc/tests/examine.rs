//! Examines command lines that fanotify freezes in a real `execve`: the whole way
//! from the event to the action.
//!
//! Needs root, as fanotify does. The runtimes are copies of `true`, and never run.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Command, Stdio},
    thread,
};

use lockc::{
    config::Config,
    policy::{Mode, admission::Control},
    runtime::{Examined, cmdline::Verb, examine, plan::Action},
};
use lockc_common::RegistrationFlags;
use nix::{
    fcntl::AT_FDCWD,
    sys::fanotify::{
        EventFFlags, Fanotify, FanotifyResponse, InitFlags, MarkFlags, MaskFlags, Response,
    },
    unistd::Pid,
};
use tempfile::TempDir;

/// A bundle with a `config.json` of the size and shape that engines write.
struct Bundle {
    dir: TempDir,
    runtime: PathBuf,
    gate: Fanotify,
}

impl Bundle {
    fn new(runtime: &str, extra: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("rootfs")).unwrap();
        let mounts: Vec<String> = (0..40)
            .map(|n| {
                format!(
                    r#"{{"destination":"/data/{n}","type":"bind","source":"/srv/volumes/{n}",
                    "options":["rbind","rprivate","nosuid","noexec","nodev"]}}"#
                )
            })
            .collect();
        let calls: Vec<String> = (0..400).map(|n| format!("\"system_call_{n:03}\"")).collect();
        let config = format!(
            r#"{{"ociVersion":"1.0.2","process":{{"user":{{"uid":0,"gid":0}},"args":["true"],
            "cwd":"/"}},"root":{{"path":"rootfs"}},"mounts":[{}],{extra}
            "linux":{{"namespaces":[{{"type":"mount"}}],"seccomp":{{"defaultAction":"SCMP_ACT_ERRNO",
            "syscalls":[{{"names":[{}],"action":"SCMP_ACT_ALLOW"}}]}}}}}}"#,
            mounts.join(","),
            calls.join(",")
        );
        fs::write(dir.path().join("config.json"), config).unwrap();
        let copy = dir.path().join("runtime");
        fs::copy(runtime, &copy).unwrap();
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
        let flags =
            InitFlags::FAN_CLASS_CONTENT | InitFlags::FAN_CLOEXEC | InitFlags::FAN_REPORT_TID;
        let gate = Fanotify::init(flags, EventFFlags::O_RDONLY | EventFFlags::O_LARGEFILE)
            .expect("fanotify needs root");
        let mask = MaskFlags::FAN_OPEN_EXEC_PERM;
        gate.mark(MarkFlags::FAN_MARK_ADD, mask, AT_FDCWD, Some(&copy)).unwrap();
        Self { dir, runtime: copy, gate }
    }

    /// Starts the runtime, examines it while it is frozen, and refuses it.
    fn examine(&self, runtime: &str, config: &Config, words: &[&str]) -> Examined {
        let mut command = Command::new(&self.runtime);
        command.args(words).current_dir(self.dir.path()).stderr(Stdio::null());
        let spawner = thread::spawn(move || command.status());
        let events = self.gate.read_events().unwrap();
        let [event] = &events[..] else { panic!("{} events at once", events.len()) };
        let examined = examine(Pid::from_raw(event.pid()), runtime, config);
        let fd = event.fd().expect("the queue overflowed");
        self.gate.write_response(FanotifyResponse::new(fd, Response::FAN_DENY)).unwrap();
        spawner.join().unwrap().expect_err("the execve was refused");
        examined
    }
}

fn rules() -> Config {
    let toml = r#"
        [[rule]]
        name = "kiosk"
        policy = "kiosk"
        match.annotation."tier" = "kiosk*"

        [policy.kiosk]
        extends = "restricted"
        admission = { HANDLING }
    "#
    .replace("HANDLING", &Control::ALL.map(|it| format!("{} = \"audit\"", it.name())).join(", "));
    Config::parse(&toml, "lockc.toml".as_ref()).unwrap()
}

#[test]
fn a_new_container() {
    let bundle = Bundle::new(
        "/bin/true",
        r#""annotations":{"tier":"kiosk-7"},"hooks":{"createContainer":[{"path":"/bin/x"}]},"#,
    );
    let words = ["--root", "/run/x", "create", "--pid-file", "p", "c1"];
    let examined = bundle.examine("runc", &rules(), &words);
    let Action::Create { key, decision, flags, .. } = examined.action else {
        panic!("{:?}", examined.action)
    };
    assert_eq!(key.id.as_bytes(), b"c1");
    assert!(key.owner.is_root());
    assert_eq!((decision.policy.as_str(), decision.mode), ("kiosk", Mode::Enforce));
    assert_eq!(decision.rule.as_deref(), Some("kiosk"));
    assert_eq!(flags, RegistrationFlags::HOOKS);
    let rootfs = nix::sys::stat::fstat(examined.rootfs.unwrap()).unwrap();
    let expected = nix::sys::stat::stat(&bundle.dir.path().join("rootfs")).unwrap();
    assert_eq!((rootfs.st_dev, rootfs.st_ino), (expected.st_dev, expected.st_ino));
    assert!(examined.caller.unwrap().unwrap().start_ticks > 0);
}

#[test]
fn other_commands_and_errors() {
    let bundle = Bundle::new("/bin/true", "");
    let config = Config::default();
    let examine = |words: &[&str]| bundle.examine("runc", &config, words);
    assert!(matches!(examine(&["exec", "c", "create"]).action, Action::Join { flags: 0, .. }));
    assert!(matches!(examine(&["restore", "c"]).action, Action::Deny { .. }));
    assert_eq!(examine(&["init"]).action, Action::Keep);
    assert_eq!(examine(&["kill", "c"]).action, Action::Unattributed { why: None });
    let examined = examine(&["create", "--unheard-of", "c"]);
    let why = "unknown option `--unheard-of`".to_owned();
    assert_eq!(examined.action, Action::Unattributed { why: Some(why) });
    assert_eq!(examined.verb, None);
    let examined = examine(&["run", "--bundle", "nowhere", "c"]);
    assert!(matches!(examined.verb, Some(Verb::Run(_))));
    let Action::Unattributed { why: Some(why) } = examined.action else { panic!() };
    let path = bundle.dir.path().join("nowhere");
    assert_eq!(why, format!("cannot open {}: ENOENT: No such file or directory", path.display()));
}
