//! A changed configuration comes into force while containers run; a bad one does not.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};

use crate::harness::{
    Container, Context,
    container::DEADLINE,
    daemon::{LOCKC, pinned_map},
    fixture::{SERVICE_ACCOUNT, TOKEN},
    process::{self, Running, wait_for},
    runner::{Daemon, Test, With},
};

pub(crate) const TESTS: &[Test] = &[
    test("running-containers", running_containers),
    test("every-way", every_way),
    test("bad-configuration", bad_configuration),
    test("new-runtime", new_runtime),
    test("attached-by-need", attached_by_need),
    test("storm", storm),
];

const fn test(name: &'static str, run: fn(&Context) -> Result<()>) -> Test {
    Test { group: "reload", name, daemon: Daemon::Own, with: With::One, run }
}

/// Makes the token readable under the default policy.
const OPEN: &str =
    "[policy.baseline.paths]\nallow = [\"/run/secrets/kubernetes.io/serviceaccount\"]\n";

/// Where user names of `match.owner` are looked up.
const PASSWD: &str = "/etc/passwd";

fn sleeping(context: &Context) -> Result<Container> {
    let id = context.id("reload");
    let bundle = context.token_bundle(&id, &["/bin/sleep", "1000"]);
    let container = Container::new(context.runtime(), &id, &bundle)?;
    container.start()?;
    Ok(container)
}

fn reads(container: &Container) -> Result<bool> {
    let output = container.exec(&["/bin/probe", "read", &format!("{SERVICE_ACCOUNT}/token")])?;
    let (read, refused) =
        (output.stdout.contains(TOKEN), output.stdout.starts_with("read EPERM open"));
    ensure!(read != refused, "neither read nor refused: {output}");
    Ok(read)
}

/// What `lockc status` says, and its exit code.
fn status() -> Result<(Option<i32>, String)> {
    let output = process::run(Command::new(LOCKC).arg("status"), DEADLINE)?;
    Ok((output.status.code(), output.stdout))
}

/// Policies change under a container that runs, and a rule that comes later counts for it, too.
fn running_containers(context: &Context) -> Result<()> {
    let closed = context.config();
    let lockc = context.start_lockc(&closed)?;
    let container = sleeping(context)?;
    ensure!(!reads(&container)?, "before");
    lockc.reload(&format!("{closed}{OPEN}"))?;
    ensure!(reads(&container)?, "with an exception");
    lockc.reload(&closed)?;
    ensure!(!reads(&container)?, "without it again");
    let rule = "[[rule]]\nname = \"all\"\npolicy = \"privileged\"\nmatch.owner = \"root\"\n";
    lockc.reload(&format!("{closed}{rule}"))?;
    ensure!(reads(&container)?, "with a rule");
    lockc.reload(&closed)?;
    ensure!(!reads(&container)?, "without the rule");
    Ok(())
}

/// Whether a program is attached: a daemon that was started before may have left its directory.
fn is_attached(name: &str) -> Result<bool> {
    let maps = pinned_map("POLICIES")?;
    let links = maps.ancestors().nth(2).context("no directory of pins")?.join("links");
    for generation in fs::read_dir(&links).with_context(|| format!("list {}", links.display()))? {
        if generation?.path().join(name).exists() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Programs for rules that no policy has are not there, and come with the first such rule.
fn attached_by_need(context: &Context) -> Result<()> {
    let without = context.runtime_tables();
    let with = format!("{without}[policy.baseline]\nexec.deny = [\"/bin/busybox\"]\n");
    let lockc = context.start_lockc(&without)?;
    let container = sleeping(context)?;
    let runs = || -> Result<bool> {
        let output = container.exec(&["/bin/probe", "run", "/bin/busybox"])?;
        let (ran, refused) =
            (output.stdout.contains("OK done"), output.stdout.starts_with("run EPERM execve"));
        ensure!(ran != refused, "neither run nor refused: {output}");
        Ok(ran)
    };
    ensure!(is_attached("file_open")? && !is_attached("mmap_file")?, "before");
    ensure!(runs()?, "before");
    lockc.reload(&with)?;
    ensure!(!runs()?, "with a rule");
    ensure!(is_attached("mmap_file")? && is_attached("bprm_check_security")?, "with a rule");
    lockc.reload(&without)?;
    ensure!(runs()?, "without the rule");
    wait_for("detaching", DEADLINE, || Ok((!is_attached("mmap_file")?).then_some(())))
}

/// What is done, and whether the token can be read then.
type Change<'a> = (&'static str, bool, Box<dyn Fn() -> Result<()> + 'a>);
/// What is done to the file.
type Spoil<'a> = (&'static str, Box<dyn Fn() -> Result<()> + 'a>);

/// Written in place, renamed, linked, as a drop-in, and on SIGHUP.
fn every_way(context: &Context) -> Result<()> {
    let closed = context.config();
    let open = format!("{closed}{OPEN}");
    let lockc = context.start_lockc(&closed)?;
    let container = sleeping(context)?;
    let (file, directory) = (lockc.config_path(), lockc.directory().to_owned());
    let drop_in = directory.join("lockc.d/50-open.toml");
    let changes: [Change<'_>; 6] = [
        ("written in place", true, Box::new(|| Ok(fs::write(&file, &open)?))),
        ("renamed", false, Box::new(|| replace(&file, &closed))),
        (
            "a drop-in",
            true,
            Box::new(|| {
                fs::create_dir_all(directory.join("lockc.d"))?;
                Ok(fs::write(&drop_in, OPEN)?)
            }),
        ),
        ("the drop-in removed", false, Box::new(|| Ok(fs::remove_file(&drop_in)?))),
        (
            "a link, as Kubernetes has it",
            true,
            Box::new(|| {
                fs::create_dir_all(directory.join("..1"))?;
                fs::write(directory.join("..1/lockc.toml"), &open)?;
                symlink("..1", directory.join("..data"))?;
                symlink("..data/lockc.toml", directory.join("link"))?;
                Ok(fs::rename(directory.join("link"), &file)?)
            }),
        ),
        (
            "the directory behind it replaced",
            false,
            Box::new(|| {
                fs::create_dir_all(directory.join("..2"))?;
                fs::write(directory.join("..2/lockc.toml"), &closed)?;
                symlink("..2", directory.join("..new"))?;
                Ok(fs::rename(directory.join("..new"), directory.join("..data"))?)
            }),
        ),
    ];
    for (what, is_open, change) in changes {
        lockc.expect_reload(&change).context(what)?;
        ensure!(reads(&container)? == is_open, "{what}");
    }
    let (code, said) = status()?;
    ensure!(code == Some(0) && said.contains("is in force"), "status: {code:?}: {said}");

    // What no file of the configuration says is read again on SIGHUP alone.
    let rule = "[[rule]]\nname = \"late\"\npolicy = \"privileged\"\nmatch.owner = \"late\"\n";
    lockc.reload(&format!("{closed}{rule}"))?;
    ensure!(!reads(&container)?, "a rule for a user who is not there");
    let passwd = fs::read_to_string(PASSWD)?;
    fs::write(PASSWD, format!("{passwd}late:x:0:0::/:/bin/sh\n"))?;
    let reloaded = lockc.expect_reload(|| Ok(kill(lockc.pid()?, Signal::SIGHUP)?));
    fs::write(PASSWD, passwd)?;
    reloaded.context("SIGHUP")?;
    ensure!(reads(&container)?, "after SIGHUP");
    Ok(())
}

fn replace(file: &Path, text: &str) -> Result<()> {
    let new = file.with_extension("new");
    fs::write(&new, text)?;
    Ok(fs::rename(new, file)?)
}

/// What is broken, empty of sense, unreadable, huge, a directory or a loop leaves the old one in force,
/// and `status` says so.
fn bad_configuration(context: &Context) -> Result<()> {
    let closed = context.config();
    let lockc = context.start_lockc(&closed)?;
    let container = sleeping(context)?;
    let file = lockc.config_path();
    let clear = |file: &PathBuf| {
        let _ = fs::remove_file(file);
        let _ = fs::remove_dir(file);
    };
    let spoils: [Spoil<'_>; 7] = [
        ("half-written", Box::new(|| Ok(fs::write(&file, &closed[..closed.len() / 2 + 7])?))),
        (
            "a policy that is not there",
            Box::new(|| Ok(fs::write(&file, "[default]\npolicy = \"x\"\n")?)),
        ),
        ("absent", Box::new(|| Ok(fs::remove_file(&file)?))),
        ("a directory", Box::new(|| Ok(fs::create_dir(&file)?))),
        ("a loop", Box::new(|| Ok(symlink("lockc.toml", &file)?))),
        ("not UTF-8", Box::new(|| Ok(fs::write(&file, b"\xff\xfe")?))),
        ("100 MB", Box::new(|| Ok(fs::File::create(&file)?.set_len(100 << 20)?))),
    ];
    for (what, spoil) in spoils {
        if what != "absent" {
            clear(&file);
        }
        spoil().context(what)?;
        wait_for("status to say so", DEADLINE, || {
            let (code, said) = status()?;
            Ok((code == Some(3) && said.contains("NOT in force")).then_some(()))
        })
        .context(what)?;
        ensure!(!reads(&container)?, "{what}: the token can be read");
    }
    clear(&file);
    fs::write(&file, &closed)?;
    wait_for("status to be well", DEADLINE, || Ok((status()?.0 == Some(0)).then_some(())))
}

/// A runtime that the new configuration names is watched when the reload is reported done.
fn new_runtime(context: &Context) -> Result<()> {
    let closed = context.config();
    let lockc = context.start_lockc(&closed)?;
    let directory = context.scratch().join("new-runtime");
    fs::create_dir_all(&directory)?;
    let binary = directory.join("engine");
    fs::copy(&context.runtime().binary, &binary)?;
    let runtime = crate::harness::Runtime { binary: binary.clone(), ..context.runtime().clone() };
    let first_act = || -> Result<String> {
        let id = context.id("new-runtime");
        let token = format!("{SERVICE_ACCOUNT}/token");
        let bundle = context.token_bundle(&id, &["/bin/probe", "read", &token]);
        Ok(Container::new(&runtime, &id, &bundle)?.run()?.stdout)
    };
    let said = first_act()?;
    ensure!(said.contains(TOKEN), "a runtime that nobody named: {said}");
    let more = format!("paths = [\"{}\", ", binary.display());
    lockc.reload(&closed.replacen("paths = [", &more, 1))?;
    let said = first_act()?;
    ensure!(said.starts_with("read EPERM open"), "the new runtime: {said}");
    Ok(())
}

/// Reloads again and again under a container that opens what is allowed and what is denied.
fn storm(context: &Context) -> Result<()> {
    let closed = context.config();
    let lockc = context.start_lockc(&closed)?;
    // Once with each kind, so that what is allocated for good is allocated.
    let variant = |number: usize| {
        let paths: Vec<String> =
            (0..=number % 7).map(|n| format!("\"/opt/{number}/{n}\"")).collect();
        format!("{closed}[policy.baseline.paths]\ndeny = [{}]\n", paths.join(", "))
    };
    lockc.reload(&variant(0))?;
    lockc.reload(&closed)?;
    let before = wait_for("nothing under way", DEADLINE, || {
        let holdings = lockc.holdings()?;
        Ok(holdings.is_idle().then_some(holdings))
    })?;
    let shared = context.scratch().join("storm");
    fs::create_dir_all(&shared)?;
    let id = context.id("reload-storm");
    let script = format!(
        "n=0; while [ ! -e /mnt/stop ]; do n=$((n+1)); \
         read x <{SERVICE_ACCOUNT}/token && echo read; read x </etc/hostname || echo refused; \
         done 2>/dev/null; echo rounds $n"
    );
    let mut bundle = context.token_bundle(&id, &["/bin/sh", "-c", &script]);
    bundle.bind(&shared, "/mnt");
    let container = Container::new(context.runtime(), &id, &bundle)?;
    let running: Running = container.start_running()?;
    wait_for("the container", DEADLINE, || Ok(container.is_running().then_some(())))?;

    for number in 1..=context.amounts.reloads {
        lockc.reload(&variant(number)).with_context(|| format!("reload {number}"))?;
    }
    lockc.reload(&closed)?;
    fs::write(shared.join("stop"), "")?;
    let output = running.finish(DEADLINE)?;
    let rounds = output.stdout.strip_prefix("rounds ").and_then(|it| it.trim().parse::<u64>().ok());
    ensure!(rounds.is_some_and(|rounds| rounds > 0), "wrong verdicts: {output}");
    drop(container);
    wait_for("everything as before", DEADLINE, || {
        Ok(lockc.holdings()?.is_within(&before).then_some(()))
    })
    .with_context(|| format!("before {before:?}, after {:?}", lockc.holdings()))
}
