//! What is remembered of directories: nothing that happens to a file, a directory, a mount or a policy makes an old answer
//! count for something else. Each attack opens something once that is allowed, and again when it is not any more.

use std::{
    cell::Cell,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::harness::{
    Container, Context, Lockc,
    process::{self, wait_for},
    runner::{Daemon, Test, With},
    say,
};

pub(crate) const TESTS: &[Test] = &[test("attacks", attacks)];

/// What is the same on every kernel.
pub(crate) const DAEMON_TESTS: &[Test] =
    &[test("policies", policies), test("audit", audit), test("hidden", hidden)];

/// For a machine with a disk.
pub(crate) const DISK_TESTS: &[Test] = &[test("inode-numbers-reused", inode_numbers_reused)];

const fn test(name: &'static str, run: fn(&Context) -> Result<()>) -> Test {
    Test { group: "memo", name, daemon: Daemon::Own, with: With::One, run }
}

/// On a disk, in the full guest.
const ON_DISK: &str = "/var/tmp/lockc-memo";
const CONTENT: &str = "kept";
const PATIENCE: Duration = Duration::from_mins(1);
/// How often a mount is replaced by another, and a directory by another: the kernel reuses what the first had.
const REPLACED: usize = 12;

/// A container whose first process does what it is told, always on the same processor, without a rename or a mount of its
/// own: what the programs remember stays.
struct Servant {
    container: Container,
    /// The host's name of `/data`, which mounts reach, and of what is bound at `/data/denied/bound`.
    data: PathBuf,
    shared: PathBuf,
    asked: Cell<usize>,
}

impl Servant {
    fn start(context: &Context, data: &Path) -> Result<Self> {
        let id = context.id("memo");
        let shared = context.scratch().join("shared").join(&id);
        fs::create_dir_all(&shared)?;
        let mut bundle = context.bundle(&id, &["/bin/probe", "obey", "/shared"]);
        bundle
            .follow_mounts()
            .bind(&shared, "/shared")
            .mount("/data", "bind", &data.display().to_string(), &["rbind", "rw", "rslave"])
            .bind(&data.join("free/mounted"), "/data/denied/bound");
        let container = Container::new(context.quickest(), &id, &bundle)?;
        container.start_at_once()?;
        Ok(Self { container, data: data.to_owned(), shared, asked: Cell::new(0) })
    }

    /// What it says to `line`.
    fn ask(&self, line: &str) -> Result<String> {
        let number = self.asked.replace(self.asked.get() + 1);
        fs::write(self.shared.join(format!("ask.{number}")), line)?;
        fs::write(self.shared.join(format!("go.{number}")), "")?;
        let done = self.shared.join(format!("done.{number}"));
        wait_for("an answer", PATIENCE, || Ok(done.exists().then_some(())))
            .with_context(|| line.to_owned())?;
        let answer = self.shared.join(format!("answer.{number}"));
        Ok(fs::read_to_string(&answer)?)
    }

    fn expect(&self, line: &str, wanted: &str) -> Result<()> {
        let said = self.ask(line)?;
        ensure!(said == wanted, "{line}: {said}, not {wanted}");
        Ok(())
    }

    /// Reads `path` until the answer is remembered, if it is at all: the first open finds it, the second uses it.
    fn warm(&self, path: &str) -> Result<()> {
        for _ in 0..3 {
            self.expect(&format!("read {path}"), &format!("OK {CONTENT}"))?;
        }
        Ok(())
    }

    /// Mounts something where the container is, as an engine could.
    fn mount(&self, verb: &str, from: &str, to: &str) -> Result<()> {
        let pid = self.container.state()?["pid"].to_string();
        let mut command = Command::new("/proc/self/exe");
        command.args(["probe", "join", &pid, verb, from, to]);
        process::run(&mut command, PATIENCE)?.success(verb).map(drop)
    }

    fn host(&self, path: &str) -> PathBuf {
        self.data.join(path)
    }

    /// A new file in a directory that may be new.
    fn make(&self, path: &str) -> Result<()> {
        make(&self.host(path))
    }
}

impl Drop for Servant {
    fn drop(&mut self) {
        // It ends by itself, and is deleted with the container.
        let _ = fs::write(self.shared.join("stop"), "");
        let _ = self.container.delete();
    }
}

fn make(path: &Path) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, format!("{CONTENT}\n")).with_context(|| format!("write {}", path.display()))
}

/// A file system of its own, so that what is mounted on it reaches the container.
struct Data(PathBuf);

impl Data {
    fn new(context: &Context, name: &str) -> Result<Self> {
        let data = Self(context.scratch().join(name));
        fs::create_dir_all(&data.0)?;
        mount(Some("tmpfs"), &data.0, Some("tmpfs"), MsFlags::empty(), None::<&str>)
            .context("mount a tmpfs")?;
        mount(None::<&str>, &data.0, None::<&str>, MsFlags::MS_SHARED, None::<&str>)
            .context("make a mount shared")?;
        for path in ["free/mounted/file", "denied/bound/hidden", "denied/v/hidden", "free/v/hidden"]
        {
            make(&data.0.join(path))?;
        }
        Ok(data)
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        // Fails only when it is unmounted already.
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// The configuration of these tests.
fn config(context: &Context, paths: &str) -> String {
    let tables = context.runtime_tables();
    format!("[daemon]\nrequire_full = false\n{tables}[policy.baseline.paths]\n{paths}\n")
}

const PATHS: &str = "deny = [\"/data/denied\", \"/data/free/mixed/denied\"]\n\
                     read_only = [\"/data/fixed\"]\n\
                     allow = [\"/data/denied/deep/exception\"]";

/// Runs `attempts` without lockc, when all of them succeed, and with it, when they are refused.
fn off_then_on(
    context: &Context,
    paths: &str,
    attempts: impl Fn(&Servant, &str) -> Result<()>,
) -> Result<()> {
    for is_on in [false, true] {
        let data = Data::new(context, "memo-data")?;
        let lockc = is_on.then(|| context.start_lockc(&config(context, paths))).transpose()?;
        let servant = Servant::start(context, &data.0)?;
        let refused = if is_on { "EPERM open" } else { "OK kept" };
        attempts(&servant, refused).with_context(|| format!("lockc is on: {is_on}"))?;
        drop((servant, lockc));
    }
    Ok(())
}

/// Names, links and mounts.
fn attacks(context: &Context) -> Result<()> {
    off_then_on(context, PATHS, |servant, refused| {
        let read = |path: &str| servant.expect(&format!("read {path}"), refused).context("attack");
        let rename = |from: &str, to: &str| fs::rename(servant.host(from), servant.host(to));

        servant.make("free/plain/file")?;
        servant.warm("/data/free/plain/file")?;
        servant.make("free/plain/later")?;
        servant.warm("/data/free/plain/later").context("beside what is remembered")?;

        servant.make("free/a/file")?;
        servant.warm("/data/free/a/file")?;
        rename("free/a", "denied/a")?;
        read("/data/denied/a/file").context("the directory was renamed")?;

        servant.make("free/b/c/d/file")?;
        servant.warm("/data/free/b/c/d/file")?;
        rename("free/b", "denied/b")?;
        read("/data/denied/b/c/d/file").context("a directory above was renamed")?;

        servant.make("free/e/file")?;
        servant.warm("/data/free/e/file")?;
        rename("free/e/file", "denied/file")?;
        read("/data/denied/file").context("the file was renamed")?;

        servant.make("free/l/file")?;
        fs::hard_link(servant.host("free/l/file"), servant.host("denied/link"))?;
        servant.warm("/data/free/l/file")?;
        read("/data/denied/link").context("a hard link")?;
        servant.warm("/data/free/l/file").context("beside a hard link")?;
        fs::remove_file(servant.host("free/l/file"))?;
        read("/data/denied/link").context("the hard link that is left")?;

        servant.warm("/data/free/mounted/file")?;
        read("/data/denied/bound/file").context("a bind mount of the same directory")?;

        servant.make("free/mixed/file")?;
        servant.make("free/mixed/denied")?;
        servant.warm("/data/free/mixed/file")?;
        read("/data/free/mixed/denied").context("a file with a rule of its own")?;

        servant.make("denied/deep/exception")?;
        servant.make("denied/deep/other")?;
        servant.warm("/data/denied/deep/exception")?;
        read("/data/denied/deep/other")
            .context("beside an exception, in a directory without a rule")?;
        Ok(())
    })?;
    off_then_on(context, PATHS, mounts)
}

/// A mount at a place that is allowed, and then one of the same directory at another, which may be where the first was in
/// the kernel's memory.
fn mounts(servant: &Servant, refused: &str) -> Result<()> {
    let other = servant.host("other");
    make(&other.join("file"))?;
    let bind = |at: &str| {
        mount(Some(&other), &servant.host(at), None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .with_context(|| format!("bind at {at}"))
    };
    let unmount = |at: &str| umount2(&servant.host(at), MntFlags::MNT_DETACH);
    servant.mount("bind", "/data/other", "/data/free/v")?;
    servant.warm("/data/free/v/file").context("what is mounted in the container's namespace")?;
    servant.mount("move-mount", "/data/free/v", "/data/denied/v")?;
    servant.expect("read /data/denied/v/file", refused).context("the mount was moved")?;
    for round in 0..REPLACED {
        bind("free/v")?;
        servant.warm("/data/free/v/file").context("what was mounted")?;
        unmount("free/v")?;
        bind("denied/v")?;
        servant
            .expect("read /data/denied/v/file", refused)
            .with_context(|| format!("mounted elsewhere, round {round}"))?;
        unmount("denied/v")?;
    }
    Ok(())
}

/// Another configuration, written in place: a rename would make all that is remembered count no more.
fn reload(lockc: &Lockc, config: &str) -> Result<()> {
    lockc.expect_reload(|| Ok(fs::write(lockc.config_path(), config)?))
}

/// A policy that changes, that another container has, and that says what may be changed.
fn policies(context: &Context) -> Result<()> {
    let data = Data::new(context, "memo-data")?;
    for path in ["free/p/file", "fixed/p/file"] {
        make(&data.0.join(path))?;
    }
    let before = Servant::start(context, &data.0)?;
    for path in ["/data/free/p/file", "/data/fixed/p/file"] {
        before.expect(&format!("reach-write {path}"), "OK done").context("without lockc")?;
    }
    drop(before);

    let lockc = context.start_lockc(&config(context, PATHS))?;
    let servant = Servant::start(context, &data.0)?;
    servant.warm("/data/fixed/p/file")?;
    servant.expect("reach-write /data/fixed/p/file", "EPERM open").context("read, then written")?;
    servant.warm("/data/free/p/file")?;
    for _ in 0..3 {
        servant.expect("reach-write /data/free/p/file", "OK done")?;
    }
    reload(&lockc, &config(context, "read_only = [\"/data/free\"]"))?;
    servant.expect("reach-write /data/free/p/file", "EPERM open").context("made read-only")?;
    servant.warm("/data/free/p/file").context("read-only")?;
    reload(&lockc, &config(context, "deny = [\"/data/free\"]"))?;
    servant.expect("read /data/free/p/file", "EPERM open").context("denied")?;
    reload(&lockc, &config(context, PATHS))?;
    servant.warm("/data/free/p/file").context("allowed again")?;

    // One that has another policy, on the same processor.
    let two = format!(
        "{}[policy.other]\nextends = \"baseline\"\npaths.deny = [\"/data/free\"]\n",
        config(context, PATHS)
    );
    let rule = "[[rule]]\nname = \"all\"\npolicy = \"other\"\nmatch.owner = \"root\"\n";
    reload(&lockc, &format!("{two}{rule}"))?;
    servant.expect("read /data/free/p/file", "EPERM open").context("by a rule")?;
    reload(&lockc, &two)?;
    servant.warm("/data/free/p/file").context("without the rule")?;
    two_containers(context, &lockc, &two, &servant)
}

/// The same directory through mounts of two containers' own, one of which may not use it.
fn two_containers(context: &Context, lockc: &Lockc, config: &str, servant: &Servant) -> Result<()> {
    let denied =
        "[[rule]]\nname = \"second\"\npolicy = \"other\"\nmatch.container = \"*-second\"\n";
    reload(lockc, &format!("{config}{denied}"))?;
    servant.warm("/data/free/p/file")?;
    let id = format!("{}-second", context.id("memo"));
    let mut bundle = context.bundle(&id, &["/bin/probe", "read", "/data/free/p/file"]);
    bundle.bind(&servant.data, "/data");
    let second = Container::new(context.quickest(), &id, &bundle)?.run()?;
    ensure!(second.stdout.contains("EPERM open"), "another container: {second}");
    servant.warm("/data/free/p/file").context("beside another container")
}

/// What is audited is not remembered as allowed: it is reported each time.
fn audit(context: &Context) -> Result<()> {
    const TIMES: usize = 6;
    let data = Data::new(context, "memo-data")?;
    make(&data.0.join("denied/file"))?;
    let audits = format!("[default]\nmode = \"audit\"\n{}", config(context, PATHS));
    let lockc = context.start_lockc(&audits)?;
    let servant = Servant::start(context, &data.0)?;
    for _ in 0..TIMES {
        servant.expect("read /data/denied/file", "OK kept")?;
    }
    wait_for("events", PATIENCE, || {
        let log = lockc.log()?;
        let count = log.lines().filter(|line| line.contains("path=/data/denied/file")).count();
        Ok((count >= TIMES).then_some(()))
    })
    .with_context(|| lockc.log().unwrap_or_default())
}

/// Where the kernel hides the addresses of its locks, nothing is remembered, and the same is enforced.
fn hidden(context: &Context) -> Result<()> {
    const SETTING: &str = "/proc/sys/kernel/kptr_restrict";
    let data = Data::new(context, "memo-data")?;
    make(&data.0.join("free/p/file"))?;
    make(&data.0.join("denied/file"))?;
    let before = fs::read_to_string(SETTING)?;
    fs::write(SETTING, "2")?;
    let started = context.start_lockc(&config(context, PATHS));
    fs::write(SETTING, before)?;
    let lockc = started?;
    let log = lockc.log()?;
    ensure!(log.contains("looked up at each open") && log.contains("kptr_restrict"), "{log}");
    let servant = Servant::start(context, &data.0)?;
    servant.warm("/data/free/p/file")?;
    servant.expect("read /data/denied/file", "EPERM open")
}

/// A directory is removed, and another gets its number. File systems in memory give each number once; on others it comes
/// back at once: the full guest has one.
fn inode_numbers_reused(context: &Context) -> Result<()> {
    for is_on in [false, true] {
        let data = PathBuf::from(ON_DISK);
        for path in ["free/mounted/file", "denied/bound/hidden"] {
            make(&data.join(path))?;
        }
        let lockc = is_on.then(|| context.start_lockc(&config(context, PATHS))).transpose()?;
        let servant = Servant::start(context, &data)?;
        let refused = if is_on { "EPERM open" } else { "OK kept" };
        let mut reused = 0;
        for round in 0..REPLACED {
            servant.make("free/r/file")?;
            servant.warm("/data/free/r/file")?;
            let before = fs::metadata(servant.host("free/r"))?.ino();
            fs::remove_dir_all(servant.host("free/r"))?;
            servant.make("denied/r/file")?;
            reused += usize::from(fs::metadata(servant.host("denied/r"))?.ino() == before);
            servant
                .expect("read /data/denied/r/file", refused)
                .with_context(|| format!("lockc is on: {is_on}, round {round}"))?;
            fs::remove_dir_all(servant.host("denied/r"))?;
        }
        say(format_args!("memo/inode-numbers-reused: {reused} of {REPLACED} numbers"));
        ensure!(reused > 0, "no number came back: nothing was tried");
        drop((servant, lockc));
        fs::remove_dir_all(&data)?;
    }
    Ok(())
}
