//! What may be executed: rules about paths, files without a name, and files that did not come with the image.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf, time::Instant};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::time::TimeSpec,
    time::{ClockId, clock_gettime, clock_settime},
};

use super::token::Overlay;
use crate::harness::{
    Attack, Bundle, Container, Context, Level, Phase,
    attack::{attack_under, is_refused, results},
    fixture,
    runner::{Daemon, Test, With},
};

pub(crate) const TESTS: &[Test] = &[
    test("deny", With::EachKind, deny),
    test("allow", With::One, allow),
    test("fileless", With::One, fileless),
    test("drift", With::EachKind, drift),
    test("drift-restart", With::One, drift_restart),
    test("audit", With::One, audit),
    test("clock", With::One, clock),
];

const fn test(name: &'static str, with: With, run: fn(&Context) -> Result<()>) -> Test {
    Test { group: "exec", name, daemon: Daemon::OffThenOn, with, run }
}

const EXEC: &[&str] = &["exec"];
const RENAME: &[&str] = &["rename"];
const FILELESS: &[&str] = &["fileless"];
const DRIFT: &[&str] = &["drift"];

/// Where containers have the directory of [`programs`].
const BOX: &str = "/srv";

/// A directory with `true`, `tools/true` and two scripts, one of which needs a program of `tools`.
fn programs(context: &Context) -> Result<PathBuf> {
    let directory = context.scratch().join("programs");
    let tools = directory.join("tools");
    fs::create_dir_all(&tools)?;
    let busybox = fixture::busybox()?;
    for program in
        [directory.join("true"), tools.join("true"), tools.join("grows"), tools.join("maps")]
    {
        if !program.exists() {
            fs::copy(&busybox, &program).with_context(|| format!("copy {}", program.display()))?;
        }
    }
    for (script, interpreter) in
        [(tools.join("script"), "/bin/true"), (directory.join("foreign-script"), "/srv/tools/true")]
    {
        if !script.exists() {
            fs::write(&script, format!("#!{interpreter}\n"))?;
            fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
        }
    }
    Ok(directory)
}

fn with_programs(context: &Context) -> Result<impl Fn(&mut Bundle)> {
    let directory = programs(context)?;
    Ok(move |bundle: &mut Bundle| {
        bundle.bind(&directory, BOX);
    })
}

/// `exec.deny`.
fn deny(context: &Context) -> Result<()> {
    let attacks = [
        Attack::denied("run", "run /srv/tools/true", EXEC),
        Attack::denied("open", "run-open /srv/tools/true", EXEC),
        Attack::denied("script", "run /srv/tools/script", EXEC),
        Attack::denied("interpreter", "run /srv/foreign-script", EXEC),
        Attack::denied("map", "map /srv/tools/true", EXEC),
        Attack::denied("map-implied", "map-implied /srv/tools/true", EXEC),
        Attack::denied("protect", "protect /srv/tools/true", EXEC),
        Attack::denied("rename", "run-renamed /srv/tools/true /srv/moved", RENAME),
        Attack::denied("rename-above", "run-renamed /srv/tools /srv/toys", RENAME),
        Attack::denied("exchange", "run-exchanged /srv/tools/true /srv/true", RENAME),
        Attack::denied("link", "run-linked /srv/tools/true /srv/linked", RENAME),
        Attack::ordinary("other", "run /srv/true"),
        Attack::ordinary("other-map", "map /srv/true"),
        Attack::ordinary("memory", "generate"),
        Attack::ordinary("memfd", "run-memfd"),
        Attack::ordinary("other-rename", "rename-there-and-back /srv/true /srv/moved"),
        Attack::ordinary("rename-within", "rename-there-and-back /srv/tools/maps /srv/tools/moved"),
    ];
    attack_under(
        context,
        Level::Own("deny-programs"),
        "exec-deny",
        with_programs(context)?,
        &attacks,
    )
}

/// `exec.allow`: nothing else is executed, and what has no name is not on a list.
fn allow(context: &Context) -> Result<()> {
    let attacks = [
        Attack::denied("run", "run /srv/true", EXEC),
        Attack::denied("map", "map /srv/true", EXEC),
        Attack::denied("protect", "protect /srv/true", EXEC),
        Attack::denied("copy", "run-copy /tmp/true", EXEC),
        Attack::denied("excepted", "run /srv/tools/grows", EXEC),
        Attack::denied("memfd", "run-memfd", FILELESS),
        Attack::denied("map-memfd", "map-memfd", FILELESS),
        Attack::ordinary("listed", "run /srv/tools/true"),
        Attack::ordinary("listed-map", "map /srv/tools/true"),
        Attack::ordinary("script", "run /srv/tools/script"),
        Attack::ordinary("interpreter", "run /srv/tools/true"),
        Attack::ordinary("memory", "generate"),
        Attack::ordinary("rename", "rename-there-and-back /srv/true /srv/moved"),
    ];
    attack_under(
        context,
        Level::Own("allow-programs"),
        "exec-allow",
        with_programs(context)?,
        &attacks,
    )
}

/// `exec.fileless`.
fn fileless(context: &Context) -> Result<()> {
    let attacks = [
        Attack::denied("memfd", "run-memfd", FILELESS),
        Attack::denied("map-memfd", "map-memfd", FILELESS),
        Attack::denied("deleted", "run-deleted /tmp/gone", FILELESS),
        Attack::denied("unnamed", "run-unnamed /tmp", FILELESS),
        Attack::ordinary("run", "run /srv/true"),
        Attack::ordinary("copy", "run-copy /tmp/true"),
        Attack::ordinary("map", "map /srv/true"),
        Attack::ordinary("memory", "generate"),
    ];
    attack_under(context, Level::Own("no-fileless"), "fileless", with_programs(context)?, &attacks)
}

/// `exec.drift`.
fn drift(context: &Context) -> Result<()> {
    let attacks = [
        Attack::denied("copy", "run-copy /tmp/new", DRIFT),
        Attack::denied("image", "run-copy /bin/new", DRIFT),
        Attack::denied("volume", "run-copy /srv/new", DRIFT),
        Attack::denied("rename", "run-copy-renamed /srv/new /srv/newer", DRIFT),
        Attack::denied("append", "run-appended /srv/tools/grows", DRIFT),
        Attack::denied("link", "run-linked /srv/tools/grows /srv/grown", DRIFT),
        Attack::denied("dated", "run-dated /srv/dated", DRIFT),
        Attack::denied("mapped", "run-mapped /srv/tools/maps", DRIFT),
        Attack::denied("memfd", "run-memfd", DRIFT),
        Attack::denied("map-memfd", "map-memfd", DRIFT),
        Attack::denied("deleted", "run-deleted /tmp/gone", DRIFT),
        Attack::denied("map-copy", "map /srv/newer", DRIFT),
        Attack::denied("protect-copy", "protect /srv/newer", DRIFT),
        Attack::ordinary("run", "run /srv/true"),
        Attack::ordinary("script", "run /srv/tools/script"),
        Attack::ordinary("map", "map /srv/true"),
        Attack::ordinary("memory", "generate"),
    ];
    attack_under(context, Level::Own("no-drift"), "drift", with_programs(context)?, &attacks)
}

/// A root file system as engines make it: what lies in its writable layer is no part of the image, however old it is.
fn drift_restart(context: &Context) -> Result<()> {
    let Some(_overlay) = Overlay::new(context)? else { return Ok(()) };
    let root = context.scratch().join("overlay").join("merged");
    let setup = |bundle: &mut Bundle| bundle.config["root"]["path"] = root.to_string_lossy().into();
    let policy = Level::Own("no-drift");
    let first = [
        Attack::denied("new", "run-copy /root/new", DRIFT),
        Attack::ordinary("image", "run /bin/busybox"),
    ];
    attack_under(context, policy, "drift-first", setup, &first)?;
    let second = [
        Attack::denied("again", "run /root/new", DRIFT),
        Attack::denied("map", "map /root/new", DRIFT),
        Attack::denied("protect", "protect /root/new", DRIFT),
        Attack::denied("memfd", "run-memfd", DRIFT),
        Attack::ordinary("image", "run /bin/busybox"),
        Attack::ordinary("memory", "generate"),
    ];
    attack_under(context, policy, "drift-second", setup, &second)
}

/// What would be denied is reported, and runs.
fn audit(context: &Context) -> Result<()> {
    let setup = with_programs(context)?;
    let run = |name: &str, line: &str| format!("{name}:{line}");
    let items = [
        run("a-run", "run /srv/tools/true"),
        run("a-memfd", "run-memfd"),
        run("a-map", "map /srv/tools/true"),
    ];
    let id = context.id("exec-audit");
    let args: Vec<&str> =
        ["/bin/probe", "list"].into_iter().chain(items.iter().map(String::as_str)).collect();
    let mut bundle = context.bundle(&id, &args);
    Level::Own("audit-programs").annotate(&mut bundle);
    setup(&mut bundle);
    let output = Container::new(context.runtime(), &id, &bundle)?.run()?;
    for (name, said) in results(&output) {
        ensure!(said == "OK done", "{name}: {said}");
    }
    if context.phase() == Phase::Off {
        return Ok(());
    }
    for (name, operation) in [("a-run", "exec"), ("a-memfd", "fileless"), ("a-map", "exec")] {
        context.with_lockc(|lockc| {
            lockc.wait_for_line(&format!("audit of {name}"), |line| {
                line.contains(&format!("audited {operation} "))
                    && line.contains(&format!("comm={name}"))
            })
        })?;
    }
    Ok(())
}

/// The clock of the node, set ahead or back for as long as this lives.
struct Stepped(TimeSpec);

impl Stepped {
    fn by(step: TimeSpec) -> Result<Self> {
        step_clock(step)?;
        Ok(Self(step))
    }
}

impl Drop for Stepped {
    fn drop(&mut self) {
        let _ = step_clock(-self.0);
    }
}

fn step_clock(step: TimeSpec) -> Result<()> {
    let clock = ClockId::CLOCK_REALTIME;
    clock_settime(clock, clock_gettime(clock)? + step).context("set the clock")
}

/// What a container wrote stays new when somebody sets the clock of the node, ahead or back.
fn clock(context: &Context) -> Result<()> {
    let hours = TimeSpec::new(7200, 0);
    // The image is older than the start by more than the clock goes back below.
    let _since_the_image = Stepped::by(hours)?;
    let id = context.id("clock");
    let mut bundle = context.bundle(&id, &["/bin/sleep", "1000"]);
    Level::Own("no-drift").annotate(&mut bundle);
    let container = Container::new(context.runtime(), &id, &bundle)?;
    let started = Instant::now();
    container.start()?;
    let say = |line: &str| -> Result<String> {
        let item = format!("clock:{line}");
        let output = container.exec(&["/bin/probe", "list", &item])?;
        Ok(results(&output).get("clock").copied().unwrap_or_default().to_owned())
    };
    let judge = |what: &str, line: &str| -> Result<()> {
        let said = say(line)?;
        let good =
            if context.phase() == Phase::Off { said == "OK done" } else { is_refused(&said) };
        ensure!(good, "{what}: {said}");
        Ok(())
    };
    judge("at the same time", "run-copy /tmp/before")?;
    let ahead = Stepped::by(hours)?;
    judge("written before the clock was set ahead", "run /tmp/before")?;
    judge("written after that", "run-copy /tmp/after")?;
    drop(ahead);
    judge("written before the clock was set back", "run /tmp/after")?;
    // To some time before the start.
    let elapsed = TimeSpec::from(started.elapsed()) + TimeSpec::new(10, 0);
    let _before_the_start = Stepped::by(-elapsed)?;
    judge("written after the clock was set back", "run-copy /tmp/late")?;
    let said = say("run /bin/busybox")?;
    ensure!(said == "OK done", "the image's own program: {said}");
    Ok(())
}
