//! The node's runtimes stay as they are, and running one inside a container sheds no policy.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;

use crate::harness::{
    Attack, Bundle, Container, Context, Entry, Expect, Level, Phase, Runtime, attack,
    fixture::{SERVICE_ACCOUNT, TOKEN},
    process::{Output, wait_for},
    runner::{Daemon, Test, With},
};

pub(crate) const TESTS: &[Test] = &[
    test("files", With::One, files),
    test("executable-of-process", With::One, executable),
    test("nested", With::Each, nested),
];

const fn test(name: &'static str, with: With, run: fn(&Context) -> Result<()>) -> Test {
    Test { group: "runtime", name, daemon: Daemon::OffThenOn, with, run }
}

/// Content of the throw-away runtimes.
const CONTENT: &str = "#!/bin/sh\nexit 0\n";
const FILE: &[&str] = &["runtime-file"];
const FILE_OR_FOREIGN: &[&str] = &["runtime-file", "foreign-open", "trace"];

/// The attacks on throw-away runtimes: name of the file that each is about, without `runc-`, which
/// is the name of the attack too, and what is tried, in which `@` stands for the file's path.
const WRITES: [(&str, &str); 11] = [
    ("write", "write @ overwritten"),
    ("append", "append @ appended"),
    ("rewrite", "rewrite @ overwritten"),
    ("truncate", "truncate @"),
    // `O_TRUNC`, for reading.
    ("empty", "empty @"),
    ("over", "move /host-bin/evil-over @"),
    ("away", "move @ /host-bin/away"),
    ("exchange", "exchange /host-bin/evil-exchange @"),
    ("unlink", "unlink @"),
    ("fd-write", "fd-write @ overwritten"),
    ("link", "link-write @ /host-bin/other-name overwritten"),
];

/// Puts the throw-away runtimes and what the attacks need back in place. A file that is as it
/// should be is not touched: it stays the very inode that the daemon knows.
fn restore(directory: &Path) -> Result<()> {
    for stray in ["away", "other-name"] {
        let _ = fs::remove_file(directory.join(stray));
    }
    let runtimes = WRITES.iter().map(|(name, _)| format!("runc-{name}"));
    let sources = ["evil-over", "evil-exchange"].map(str::to_owned);
    for name in runtimes.chain(sources) {
        let path = directory.join(&name);
        let content = if name.starts_with("runc-") { CONTENT } else { "evil" };
        if fs::read_to_string(&path).ok().as_deref() != Some(content) {
            fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
    }
    Ok(())
}

/// Writing, truncating, replacing, removing a runtime through a bind mounted directory.
fn files(context: &Context) -> Result<()> {
    let directory = context.node_bin();
    let attacks: Vec<Attack> = WRITES
        .iter()
        .map(|(name, line)| Attack {
            name,
            line: line.replace('@', &format!("/host-bin/runc-{name}")),
            gain: "done".to_owned(),
            expect: Expect::Denied(FILE),
        })
        .collect();
    let setup = |bundle: &mut Bundle| {
        bundle.bind(&directory, "/host-bin");
    };
    let result = attack(context, "files", &Entry::Run, || restore(&directory), setup, &attacks);
    // The daemon of the next phase must find them in place.
    restore(&directory)?;
    result
}

/// The shape of CVE-2019-5736: the binary of a running runtime, reached through `/proc/PID/exe`.
fn executable(context: &Context) -> Result<()> {
    let copy = context.node_bin().join("runc-copy");
    let original = context.runtime().binary.clone();
    let restore = || -> Result<()> {
        if fs::read(&copy).ok() != Some(fs::read(&original)?) {
            fs::copy(&original, &copy).with_context(|| format!("copy to {}", copy.display()))?;
        }
        Ok(())
    };
    restore()?;
    if context.phase() == Phase::Off {
        let (_, said) = overwrite(context, &copy, Level::Baseline)?;
        restore()?;
        context.record("exe", said);
        return Ok(());
    }
    let off = context.recorded("exe")?;
    for level in [Level::Baseline, Level::Restricted, Level::Privileged] {
        let (id, said) = overwrite(context, &copy, level)?;
        let name = level.name();
        if level == Level::Privileged {
            ensure!(said == off, "{name}: `{said}`, without lockc `{off}`");
            continue;
        }
        // Runtimes that run from a sealed copy of themselves leave nothing to overwrite.
        ensure!(!said.contains(" OK "), "{name}: `{said}`");
        ensure!(fs::read(&copy)? == fs::read(&original)?, "{name}: the binary has changed");
        if off.contains(" OK ") {
            // procfs says EACCES where ptrace would say EPERM.
            ensure!(said.contains(" EPERM ") || said.contains(" EACCES "), "{name}: `{said}`");
            context.with_lockc(|lockc| {
                lockc.wait_for_line(&format!("denial of {id}"), |line| {
                    line.contains(&format!("container={id} "))
                        && FILE_OR_FOREIGN.iter().any(|it| line.contains(&format!("denied {it} ")))
                })
            })?;
        }
    }
    restore()
}

/// Runs a container with the runtime `copy`, and another that reaches for that runtime's binary.
/// The id of the latter and what it said.
fn overwrite(context: &Context, copy: &Path, level: Level) -> Result<(String, String)> {
    let runtime = Runtime { binary: copy.to_owned(), ..context.runtime().clone() };
    let id = context.id("victim");
    let victim = Container::new(&runtime, &id, &context.bundle(&id, &["/bin/sleep", "1000"]))?;
    let mut running = victim.start_running()?;
    wait_for("the victim", crate::harness::container::DEADLINE, || {
        ensure!(running.ended()?.is_none(), "the victim ended: {}", running.stderr());
        Ok(victim.is_running().then_some(()))
    })?;

    let id = context.id("exe");
    let item = format!("exe:exe-write {} overwritten", running.pid());
    let mut bundle = context.bundle(&id, &["/bin/probe", "one", &item]);
    bundle.share("pid").capabilities(&["CAP_SYS_PTRACE"]);
    level.annotate(&mut bundle);
    let attacker = Container::new(context.runtime(), &id, &bundle)?;
    let mut attacking = attacker.start_running()?;
    wait_for("the attacker", crate::harness::container::DEADLINE, || {
        let holds = attacking.stdout().contains("holding");
        Ok((holds || attacking.ended()?.is_some()).then_some(()))
    })?;
    victim.verb("kill", &["KILL"])?.success("kill the victim")?;
    running.finish(crate::harness::container::DEADLINE)?;
    let output = attacking.finish(crate::harness::container::DEADLINE)?;
    let said = output.stdout.lines().find(|line| line.starts_with("exe ")).map(str::to_owned);
    Ok((id, said.with_context(|| format!("the attacker: {output}"))?))
}

/// A container that runs the node's runtime inside, as Docker-in-Docker does, with a bundle of its
/// own making: whatever that says, the outer policy holds.
fn nested(context: &Context) -> Result<()> {
    if context.phase() == Phase::Off {
        let (_, output) = run_nested(context, Level::Baseline, Level::Baseline)?;
        ensure!(output.stdout.contains(&format!("OK {TOKEN}")), "lockc off: {output}");
        return Ok(());
    }
    // An unrestricted container may run what it likes, and is not restricted from within.
    let (_, enforcing) = context.levels().split_last().context("no level")?;
    for inner in [Level::Privileged, Level::Restricted] {
        let (_, output) = run_nested(context, Level::Privileged, inner)?;
        let inner = inner.name();
        ensure!(output.stdout.contains(&format!("OK {TOKEN}")), "{inner} in privileged: {output}");
    }
    for outer in enforcing.iter().copied() {
        let (id, output) = run_nested(context, outer, Level::Privileged)?;
        let outer = outer.name();
        ensure!(!output.stdout.contains(TOKEN), "privileged in {outer}: {output}");
        ensure!(!output.status.success(), "privileged in {outer}: {output}");
        context.with_lockc(|lockc| {
            lockc.wait_for_line(&format!("denial of {id}"), |line| {
                line.contains("denied ") && line.contains(&format!("container={id} "))
            })
        })?;
    }
    Ok(())
}

fn run_nested(context: &Context, outer: Level, inner: Level) -> Result<(String, Output)> {
    let id = context.id("outer");
    let directory: PathBuf = context.scratch().join("inner").join(&id);
    let mut nested =
        Bundle::new(directory.clone(), "/inner-root".as_ref(), &["/bin/probe", "read", "@"]);
    nested.config["process"]["args"][2] = json!(format!("{SERVICE_ACCOUNT}/token"));
    nested.bind(SERVICE_ACCOUNT.as_ref(), SERVICE_ACCOUNT);
    inner.annotate(&mut nested);
    nested.write()?;

    // The directory, because runc 1.2 seals itself by an overlay of the directory it lies in, and
    // does not see a mount on the file.
    let binary = &context.runtime().binary;
    let (Some(bin), Some(name)) = (binary.parent(), binary.file_name()) else {
        bail!("no directory in {}", binary.display())
    };
    let program = format!("/oci/{}", name.display());
    let args = [&*program, "--root", "/tmp/oci", "run", "--bundle", "/inner", "nested"];
    let mut bundle = context.token_bundle(&id, &args);
    outer.annotate(&mut bundle);
    bundle.bind(bin, "/oci").bind(&directory, "/inner").bind(&context.image(), "/inner-root");
    // Debian's runtimes are linked dynamically.
    for libraries in ["/lib", "/lib64", "/usr/lib"].map(Path::new) {
        if libraries.exists() {
            bundle.bind(libraries, &libraries.to_string_lossy());
        }
    }
    bundle.mount("/sys", "sysfs", "sysfs", &[]);
    bundle.mount("/sys/fs/cgroup", "cgroup", "cgroup", &["rw"]);
    bundle.privileged_capabilities();
    let container = Container::new(context.runtime(), &id, &bundle)?;
    Ok((id, container.run()?))
}
