//! The host's files stay out of reach: leaked descriptors, foreign processes, detached roots.

use std::{ffi::CString, fs, os::unix::fs::PermissionsExt as _, process::Command};

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;

use crate::{
    harness::{
        Attack, Bundle, Container, Context, Entry, Expect, Level, Phase, attack,
        attack::no_preparation,
        fixture::SECRET,
        runner::{Daemon, Test, With},
    },
    sys,
};

pub(crate) const TESTS: &[Test] = &[
    test("leaked-directory", With::EachKind, leaked_directory),
    test("leaked-cwd", With::EachKind, leaked_cwd),
    test("leaked-program", With::EachKind, leaked_program),
    test("host-processes", With::EachKind, host_processes),
    test("old-root", With::One, old_root),
    test("handle", With::One, handle),
];

const fn test(name: &'static str, with: With, run: fn(&Context) -> Result<()>) -> Test {
    Test { group: "escape", name, daemon: Daemon::OffThenOn, with, run }
}

// What procfs shows of a process of others is out of reach before its place is looked at.
const FOREIGN: &[&str] = &["foreign-open", "trace"];
const FOREIGN_CWD: &[&str] = &["foreign-cwd", "foreign-exec"];
const FOREIGN_EXEC: &[&str] = &["foreign-exec", "foreign-open", "trace"];

fn steal(name: &'static str, line: String, operations: &'static [&'static str]) -> Attack {
    Attack { name, line, gain: SECRET.to_owned(), expect: Expect::Denied(operations) }
}

fn run_host(name: &'static str, line: String, operations: &'static [&'static str]) -> Attack {
    Attack { gain: "hello OK hello".to_owned(), ..steal(name, line, operations) }
}

/// Puts a program of the host beside the host's secret.
fn host_program(context: &Context) -> Result<()> {
    let program = context.host_dir().join("probe");
    if !program.exists() {
        fs::copy("/proc/self/exe", &program).context("copy the probe to the host directory")?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// The shape of CVE-2024-21626: a descriptor of a host directory reaches the container.
fn leaked_directory(context: &Context) -> Result<()> {
    host_program(context)?;
    // From the directory up to the root of the host, and down again.
    let depth = context.host_dir().components().count() - 1;
    let up = "../".repeat(depth);
    let around =
        format!("{up}{}/secret", context.host_dir().display().to_string().trim_matches('/'));
    let attacks = [
        steal("fd-at", "fd-at 3 secret".to_owned(), FOREIGN),
        steal("fd-up", format!("fd-at 3 {around}"), FOREIGN),
        steal("fd-cwd", "fd-cwd 3 secret".to_owned(), FOREIGN),
        steal("fd-proc", "read /proc/self/fd/3/secret".to_owned(), FOREIGN),
        steal("fd-proc-up", format!("read /proc/self/fd/3/{around}"), FOREIGN),
        steal("fd-init", "read /proc/1/fd/3/secret".to_owned(), FOREIGN),
        steal("fd-o-path", "o-path /proc/self/fd/3/secret".to_owned(), FOREIGN),
        steal("fd-chroot", "chroot /proc/self/fd/3 /secret".to_owned(), FOREIGN),
        run_host("fd-start", "fd-start 3".to_owned(), FOREIGN_CWD),
        run_host("fd-exec", "fd-exec 3 probe".to_owned(), FOREIGN_EXEC),
    ];
    let entry = Entry::Leak(context.host_dir());
    attack(context, "leak", &entry, no_preparation, |_| {}, &attacks)
}

/// How the two ways to start a container from a leaked descriptor end.
fn started_outside(
    context: &Context,
    what: &str,
    setup: impl Fn(&mut Bundle),
    gain: &str,
    operations: &[&str],
) -> Result<()> {
    let run = |level: Level| -> Result<(String, crate::harness::process::Output)> {
        let id = context.id(what);
        let mut bundle = context.bundle(&id, &[]);
        level.annotate(&mut bundle);
        setup(&mut bundle);
        let container = Container::new(context.runtime(), &id, &bundle)?;
        Ok((id, container.run_leaking(&context.host_dir())?))
    };
    if context.phase() == Phase::Off {
        let (_, output) = run(Level::Baseline)?;
        let works = output.stdout.trim_end() == gain;
        // Repaired runtimes refuse by themselves; then there is nothing left for lockc to refuse.
        ensure!(works || !output.status.success(), "neither gain nor failure: {output}");
        ensure!(works || !output.stdout.contains(gain), "failed, yet leaked: {output}");
        context.record(what, works.to_string());
        return Ok(());
    }
    let works = context.recorded(what)? == "true";
    for level in context.levels().iter().copied() {
        let (id, output) = run(level)?;
        let gained = output.stdout.contains(gain);
        let name = level.name();
        if level == Level::Privileged {
            ensure!(gained == works, "{name}: gained {gained}, without lockc {works}: {output}");
            continue;
        }
        ensure!(!gained && !output.status.success(), "{name}: {output}");
        if works {
            context.with_lockc(|lockc| {
                lockc.wait_for_line(&format!("denial of {id}"), |line| {
                    line.contains(&format!("container={id} "))
                        && operations.iter().any(|it| line.contains(&format!("denied {it} ")))
                })
            })?;
        }
    }
    Ok(())
}

/// A hostile bundle names the leaked descriptor as the working directory.
fn leaked_cwd(context: &Context) -> Result<()> {
    let setup = |bundle: &mut Bundle| {
        bundle.cwd("/proc/self/fd/3");
        bundle.config["process"]["args"] = serde_json::json!(["/bin/cat", "secret"]);
    };
    started_outside(context, "cwd", setup, SECRET, FOREIGN_CWD)
}

/// A hostile bundle names a program of the host through the leaked descriptor.
fn leaked_program(context: &Context) -> Result<()> {
    host_program(context)?;
    let setup = |bundle: &mut Bundle| {
        bundle.config["process"]["args"] =
            serde_json::json!(["/proc/self/fd/3/probe", "probe", "hello"]);
    };
    started_outside(context, "program", setup, "hello OK hello", FOREIGN_EXEC)
}

/// A container in the host's PID namespace reaches for the roots of the host's processes.
fn host_processes(context: &Context) -> Result<()> {
    host_program(context)?;
    let victim = Victim::start(context)?;
    // Some sandboxes hide their first process even from the host's root.
    let init_root = match fs::metadata("/proc/1/root/tmp") {
        Ok(_) => Expect::Denied(FOREIGN),
        Err(error) => {
            let errno = Errno::from_raw(error.raw_os_error().unwrap_or_default());
            Expect::Same(format!("{errno:?} open"))
        }
    };
    let pid = victim.0.id();
    let host = context.host_dir();
    let host = host.display();
    let attacks = [
        Attack {
            expect: init_root,
            ..steal("init-root", format!("read /proc/1/root{host}/secret"), FOREIGN)
        },
        steal("root", format!("read /proc/{pid}/root{host}/secret"), FOREIGN),
        steal("cwd", format!("read /proc/{pid}/cwd/secret"), FOREIGN),
        steal("fd", format!("read /proc/{pid}/fd/0"), FOREIGN),
        steal("o-path", format!("o-path /proc/{pid}/root{host}/secret"), FOREIGN),
        steal("chroot", format!("chroot /proc/{pid}/root {host}/secret"), FOREIGN),
        steal("chdir", format!("chdir /proc/{pid}/root{host} secret"), FOREIGN),
        steal("at", format!("at /proc/{pid}/root{host} secret O_PATH"), FOREIGN),
        steal("setns", format!("join {pid} read {host}/secret"), FOREIGN),
        steal("mnt-ns", format!("mnt-ns read /proc/{pid}/root{host}/secret"), FOREIGN),
        run_host("exec", format!("exec /proc/{pid}/root{host}/probe probe hello"), FOREIGN_EXEC),
    ];
    let setup = |bundle: &mut Bundle| {
        bundle.share("pid").capabilities(&["CAP_SYS_PTRACE", "CAP_SYS_ADMIN", "CAP_SYS_CHROOT"]);
    };
    attack(context, "pid-host", &Entry::Run, no_preparation, setup, &attacks)
}

/// A process of the host: sleeps in the host directory, with the secret as its standard input.
struct Victim(std::process::Child);

impl Victim {
    fn start(context: &Context) -> Result<Self> {
        let secret = fs::File::open(context.host_dir().join("secret"))?;
        let child = Command::new(crate::harness::fixture::busybox()?)
            .args(["sleep", "1000"])
            .current_dir(context.host_dir())
            .stdin(secret)
            .spawn()
            .context("start a host process")?;
        Ok(Self(child))
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // It can only have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A createContainer hook leaves a process behind whose working directory lies below the root that
/// the runtime then detaches: a mount of no namespace, which is the host's all the same.
fn old_root(context: &Context) -> Result<()> {
    let busybox = crate::harness::fixture::busybox()?;
    let busybox = busybox.to_string_lossy().into_owned();
    let directory = context.host_dir();
    // The name by which the probe finds the process; busybox must know itself by it.
    let left = directory.join("busybox-left");
    fs::copy(&busybox, &left)?;
    // The hook ends when the process is in its place: the runtime changes the root next, and a
    // process that has yet to go there would not find the way.
    let script = format!(
        "exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-; cd {} && rm -f arrived || exit 1; \
         {busybox} setsid ./busybox-left sh -c ': >arrived; while :; do sleep 10; done' \
         </dev/null >/dev/null 2>&1 & while [ ! -e arrived ]; do {busybox} usleep 10000; done",
        directory.display()
    );
    let setup = |bundle: &mut Bundle| {
        bundle.hook("createContainer", &[&busybox, "sh", "-c", &script]);
        bundle.capabilities(&["CAP_SYS_PTRACE", "CAP_SYS_ADMIN", "CAP_DAC_READ_SEARCH"]);
    };
    let attacks = [steal("old-root", "cwd-of busybox-left secret".to_owned(), FOREIGN)];
    attack(context, "old-root", &Entry::Run, no_preparation, setup, &attacks)
}

/// A handle of a host file, opened through a bind mounted directory of the same file system.
fn handle(context: &Context) -> Result<()> {
    let given = context.scratch().join("given");
    fs::create_dir_all(&given)?;
    let secret = CString::new(context.host_dir().join("secret").to_string_lossy().as_bytes())?;
    let handle = sys::name_to_handle(&secret).context("take the secret's handle")?.to_text();
    let attacks = [
        steal("handle-bind", format!("handle-at /data {handle}"), FOREIGN),
        steal("handle-root", format!("handle-at / {handle}"), FOREIGN),
        steal("handle-file", format!("handle-at /etc/hosts {handle}"), FOREIGN),
    ];
    let hosts = given.join("hosts");
    fs::write(&hosts, "127.0.0.1 localhost\n")?;
    let setup = |bundle: &mut Bundle| {
        bundle.bind(&given, "/data").bind(&hosts, "/etc/hosts");
        bundle.capabilities(&["CAP_DAC_READ_SEARCH"]);
    };
    attack(context, "handle", &Entry::Run, no_preparation, setup, &attacks)
}
