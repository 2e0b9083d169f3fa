//! Path rules: what may not be changed, what may not be reached at all, and what alone may be.

use std::{
    cell::RefCell,
    ffi::{CStr, CString},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use super::token::Overlay;
use crate::{
    harness::{
        Attack, Bundle, Container, Context, Expect, Level, Phase,
        attack::{attack_prepared, results},
        container::DEADLINE,
        process,
        runner::{Daemon, Test, With},
    },
    sys::attributes::{self, ACL, CAPABILITY, NO_CAPABILITIES, READABLE_FOR_1000},
};

pub(crate) const TESTS: &[Test] = &[
    test("read-only", With::EachKind, read_only),
    test("read-only-names", With::One, read_only_names),
    test("blocked", With::One, blocked),
    test("default-deny", With::EachKind, default_deny),
    test("first-program", With::EachKind, first_program),
    test("overlay", With::One, overlay),
    test("audit", With::One, audit),
];

const fn test(name: &'static str, with: With, run: fn(&Context) -> Result<()>) -> Test {
    Test { group: "files", name, daemon: Daemon::OffThenOn, with, run }
}

const OPEN: &[&str] = &["open"];
const CHANGE: &[&str] = &["change"];
const RENAME: &[&str] = &["rename"];

/// What the file of every attack has.
const CONTENT: &str = "kept";

/// An attack on a file of its own, `@` in the line; `@d` is a directory, `@x` is not there.
fn on(dir: &str, name: &'static str, line: &str, operations: &'static [&'static str]) -> Attack {
    Attack::denied(name, &line.replace('@', &format!("{dir}/{name}")), operations)
}

/// As [`on`], and nothing is denied.
fn free(dir: &str, name: &'static str, line: &str) -> Attack {
    Attack::ordinary(name, &line.replace('@', &format!("{dir}/{name}")))
}

fn reads(name: &'static str, path: &str) -> Attack {
    let expect = Expect::Same(format!("OK {CONTENT}"));
    Attack { expect, ..Attack::denied(name, &format!("read {path}"), &[]) }
}

/// Everything that changes something, as it is tried in `dir`.
fn changes(dir: &str) -> Vec<Attack> {
    let on = |name, line| on(dir, name, line, CHANGE);
    vec![
        on("truncate", "truncate @"),
        on("unlink", "unlink @"),
        on("rmdir", "rmdir @d"),
        on("mkdir", "mkdir @x"),
        on("fifo", "fifo @x"),
        on("socket", "bind-unix @x"),
        on("symlink", "make-link @x"),
        on("create", "create @x"),
        on("chmod", "chmod @"),
        on("chmod-dir", "chmod @d"),
        on("chown", "chown @"),
        on("utimes", "utimes @"),
        on("utimes-root", "utimes /proc/self/root@"),
        on("setxattr", "setxattr @"),
        on("removexattr", "removexattr @"),
        on("acl", "acl @"),
        on("remove-acl", "remove-acl @"),
    ]
}

/// A directory of the host in which every attack finds what it is about.
fn tree(context: &Context) -> PathBuf {
    context.scratch().join("tree")
}

/// Makes it anew.
fn plant(context: &Context, dirs: &[&str], attacks: &[Attack]) -> Result<()> {
    let tree = tree(context);
    let _ = fs::remove_dir_all(&tree);
    for dir in dirs {
        let dir = if *dir == "." { tree.clone() } else { tree.join(dir) };
        fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        for name in attacks.iter().map(|attack| attack.name).chain(["file"]) {
            let file = dir.join(name);
            fs::write(&file, format!("{CONTENT}\n"))?;
            fs::create_dir(dir.join(format!("{name}d")))?;
            match name {
                "removexattr" => attribute(&file, CAPABILITY, &NO_CAPABILITIES)?,
                "remove-acl" => attribute(&file, ACL, &READABLE_FOR_1000)?,
                _ => {}
            }
        }
    }
    Ok(())
}

fn attribute(file: &Path, name: &CStr, value: &[u8]) -> Result<()> {
    let path = CString::new(file.as_os_str().as_encoded_bytes())?;
    attributes::set(&path, name, value)
        .with_context(|| format!("set {} of {}", name.to_string_lossy(), file.display()))
}

fn tried(
    context: &Context,
    policy: &'static str,
    what: &str,
    dirs: &[&str],
    attacks: &[Attack],
) -> Result<()> {
    let setup = |bundle: &mut Bundle| {
        bundle.bind(&tree(context), "/srv");
    };
    let before = || plant(context, dirs, attacks);
    attack_prepared(context, Level::Own(policy), what, before, setup, attacks)
}

fn read_only(context: &Context) -> Result<()> {
    let dir = "/srv/ro";
    let mut attacks = changes(dir);
    attacks.extend([
        on(dir, "write", "reach-write @", OPEN),
        on(dir, "empty", "empty @", OPEN),
        on(dir, "reopen", "reopen-write @", OPEN),
        on(dir, "o-path", "fd-write @ x", OPEN),
        on(dir, "self-root", "reach-write /proc/self/root@", OPEN),
        on(dir, "chroot", "root-write /srv /ro/chroot", OPEN),
        on(dir, "uring", "uring-write @", OPEN),
        on(dir, "unnamed", "unnamed @d", OPEN),
        on(dir, "fchmod", "fchmod @", CHANGE),
        on(dir, "fchown", "fchown @", CHANGE),
        on(dir, "futimes", "futimes @", CHANGE),
        on(dir, "fsetxattr", "fsetxattr @", CHANGE),
        on("/tmp", "deep", "deep /tmp", CHANGE),
        reads("read", "/srv/ro/read"),
        Attack {
            expect: Expect::Same("OK hello OK hello".to_owned()),
            ..free(dir, "exec", "exec /bin/probe hello")
        },
        free("/srv/ro/rw", "own-write", "reach-write @"),
        free("/srv/ro/rw", "own-chmod", "chmod @"),
        free("/srv/ro/rw", "own-utimes", "utimes @"),
        free("/srv/ro/rw", "own-xattr", "setxattr @"),
        free("/srv/ro/rw", "own-create", "create @x"),
        free("/srv/ro/rw", "own-move", "move @ @x"),
        free("/srv/open", "open-unlink", "unlink @"),
        free("/srv/open", "open-link", "hard-link @ @x"),
        free("/srv/open", "open-acl", "acl @"),
    ]);
    tried(context, "read-only-paths", "ro", &["ro", "ro/rw", "open"], &attacks)
}

/// Names: a file, and a directory above one, keep theirs, and nobody takes it.
fn read_only_names(context: &Context) -> Result<()> {
    let dir = "/srv/ro";
    let swap = |name, line| {
        let attack = on("/srv/open", name, line, RENAME);
        Attack { gain: CONTENT.to_owned(), ..attack }
    };
    let attacks = [
        on(dir, "from", "move @ /srv/open/fromx", RENAME),
        on(dir, "to", "move /srv/open/to @x", RENAME),
        on(dir, "onto", "move /srv/open/onto @", RENAME),
        on(dir, "exchange", "exchange @ /srv/open/exchange", RENAME),
        on(dir, "exchange-back", "exchange /srv/open/exchange-back @", RENAME),
        on(dir, "link-from", "hard-link @ /srv/open/link-fromx", RENAME),
        on(dir, "link-to", "hard-link /srv/open/link-to @x", RENAME),
        on(dir, "link-write", "link-write @ /srv/open/link-writex x", RENAME),
        // A file takes the place of a directory above.
        swap("swap", "exchange-read @ /srv/above /srv/open/file"),
        swap("swap-back", "exchange-read /srv/above @ /srv/open/file"),
        on("/srv", "above", "move @ /srv/open/moved", RENAME),
        // A directory that is not there yet, with what shall be read-only in it.
        on("/srv/open", "brought", "move @d /srv/new", RENAME),
        free("/srv/open", "aside", "move @ @x"),
        free("/srv/open", "aside-dir", "move @d @x"),
        free("/srv/open", "aside-link", "hard-link @ @x"),
    ];
    tried(context, "read-only-paths", "names", &["ro", "ro/rw", "open", "above/ro"], &attacks)
}

/// What may not be opened may not be changed either.
fn blocked(context: &Context) -> Result<()> {
    let dir = "/srv/secret";
    let mut attacks = changes(dir);
    attacks.extend([
        on(dir, "write", "reach-write @", OPEN),
        on(dir, "unnamed", "unnamed @d", OPEN),
        on(dir, "from", "move @ /srv/open/fromx", RENAME),
        on(dir, "to", "move /srv/open/to @x", RENAME),
        // In one directory, where a rule is about one of the names.
        on("/srv", "beside", "move @ /srv/probe", RENAME),
        free("/srv", "beside-free", "move @ @x"),
        on(dir, "link-from", "hard-link @ /srv/open/link-fromx", RENAME),
        on(dir, "link-to", "hard-link /srv/open/link-to @x", RENAME),
        Attack { gain: CONTENT.to_owned(), ..on(dir, "read", "read @", OPEN) },
        free("/srv/open", "own-utimes", "utimes @"),
        free("/srv/open", "own-chown", "chown @"),
        free("/srv/open", "own-xattr", "setxattr @"),
        free("/srv/open", "own-mkdir", "mkdir @x"),
        free("/srv/secret/public", "exception", "chmod @"),
    ]);
    let dirs = [".", "secret", "secret/public", "open"];
    tried(context, "blocked-paths", "blocked", &dirs, &attacks)
}

/// Only what is named can be opened, and the directories that lead there.
fn default_deny(context: &Context) -> Result<()> {
    let dir = "/srv/other";
    let reading = |name, line| {
        let attack = on(dir, name, line, OPEN);
        Attack { gain: CONTENT.to_owned(), ..attack }
    };
    let attacks = [
        reading("read", "read @"),
        reading("o-path", "o-path @"),
        reading("self-root", "read /proc/self/root@"),
        reading("chroot", "chroot /srv /other/chroot"),
        reading("rule-below", "read /srv/in/secret/rule-below"),
        Attack { gain: String::new(), ..on(dir, "list", "read-dir @d", OPEN) },
        on(dir, "uring", "uring-write @", OPEN),
        on(dir, "write", "reach-write @", OPEN),
        on(dir, "create", "create @x", CHANGE),
        on(dir, "utimes", "utimes @", CHANGE),
        on(dir, "unlink", "unlink @", CHANGE),
        on(dir, "above", "chown /srv", CHANGE),
        on(dir, "from", "move @ /srv/in/fromx", RENAME),
        on("/srv/in", "to", "move @ /srv/other/tox", RENAME),
        on(dir, "link-from", "hard-link @ /srv/in/link-fromx", RENAME),
        on("/etc", "read-only", "reach-write /etc/hostname", OPEN),
        reads("allowed", "/srv/in/allowed"),
        reads("dots", "/srv/other/../in/dots"),
        free("/srv/in", "own-write", "reach-write @"),
        free("/srv/in", "own-create", "create @x"),
        free("/srv/in", "own-utimes", "utimes @"),
        free("/srv/in", "own-move", "move @ @x"),
        Attack::ordinary("pipe", "reach /proc/self/fd/1"),
        Attack {
            expect: Expect::Same("OK in memory".to_owned()),
            ..Attack::ordinary("memfd", "memfd")
        },
        Attack::ordinary("list-root", "reach /"),
        Attack::ordinary("list-above", "reach /srv"),
    ];
    let dirs = ["other", "in", "in/secret"];
    tried(context, "default-deny-paths", "default", &dirs, &attacks)
}

/// The program that a container starts with is a file like any other.
fn first_program(context: &Context) -> Result<()> {
    let program = tree(context).join("probe");
    plant(context, &["."], &[])?;
    fs::copy("/proc/self/exe", &program).context("copy the probe")?;
    for (name, args, starts) in [
        ("default-deny-paths", ["/srv/probe", "hello"], false),
        ("default-deny-paths", ["/bin/probe", "hello"], true),
        ("blocked-paths", ["/srv/probe", "hello"], false),
        ("read-only-paths", ["/srv/probe", "hello"], true),
    ] {
        let id = context.id("first");
        let mut bundle = context.bundle(&id, &args);
        Level::Own(name).annotate(&mut bundle);
        bundle.bind(&tree(context), "/srv");
        let output = Container::new(context.runtime(), &id, &bundle)?.run()?;
        let expected = starts || context.phase() == Phase::Off;
        let started = output.stdout.contains("hello OK hello");
        ensure!(started == expected, "{name}: {args:?}: {output}");
    }
    Ok(())
}

/// Rules in a root file system as the engines make it: a change of it is a change of a layer, too, which no rule
/// may be taken for.
fn overlay(context: &Context) -> Result<()> {
    if Overlay::new(context)?.is_none() {
        return Ok(());
    }
    let image = context.image().join("srv");
    let dir = "/srv/ro";
    let attacks = [
        on(dir, "chmod", "chmod @", CHANGE),
        on(dir, "utimes", "utimes @", CHANGE),
        on(dir, "setxattr", "setxattr @", CHANGE),
        on(dir, "truncate", "truncate @", CHANGE),
        on(dir, "write", "reach-write @", OPEN),
        // Each makes the file system copy a file up, in its own way.
        free("/srv/open", "copy-write", "reach-write @"),
        free("/srv/open", "copy-chmod", "chmod @"),
        free("/srv/open", "copy-utimes", "utimes @"),
        free("/srv/open", "copy-xattr", "setxattr @"),
        free("/srv/open", "copy-empty", "empty @"),
        free("/srv/open", "copy-link", "hard-link @ @x"),
        free("/srv/open", "copy-move", "move @ @x"),
        // After a change on a volume that lies where the layers do, and one that fails.
        free("/srv/open", "copy-late", "late-write /mnt/file /mnt2/file @"),
    ];
    for dir in ["ro", "open"] {
        fs::create_dir_all(image.join(dir))?;
        for Attack { name, .. } in &attacks {
            fs::write(image.join(dir).join(name), CONTENT)?;
        }
    }
    let layers = context.scratch().join("overlay");
    let root = layers.join("merged");
    let mounted = RefCell::new(None);
    let before = || {
        mounted.take();
        fs::remove_dir_all(&layers).context("remove the layers")?;
        *mounted.borrow_mut() = Overlay::new(context)?;
        plant(context, &["."], &attacks)
    };
    let setup = |bundle: &mut Bundle| {
        let volume = tree(context);
        bundle.config["root"]["path"] = root.to_string_lossy().into();
        bundle.bind(&volume, "/mnt");
        bundle.mount("/mnt2", "bind", &volume.to_string_lossy(), &["rbind", "ro"]);
    };
    let policy = Level::Own("read-only-paths");
    attack_prepared(context, policy, "overlay", before, setup, &attacks)?;
    for dir in ["ro", "open"] {
        fs::remove_dir_all(image.join(dir))?;
    }
    Ok(())
}

/// In audit mode all of it succeeds, and is in the log.
fn audit(context: &Context) -> Result<()> {
    let attacks = [
        on("/srv/ro", "chmod", "chmod @", CHANGE),
        on("/srv/ro", "utimes", "utimes @", CHANGE),
        on("/srv/ro", "write", "reach-write @", OPEN),
        on("/srv/ro", "from", "move @ @x", RENAME),
        on("/srv/secret", "unlink", "unlink @", CHANGE),
        on("/srv/secret", "mkdir", "mkdir @x", CHANGE),
    ];
    plant(context, &["ro", "secret"], &attacks)?;
    let mut args = vec!["/bin/probe".to_owned(), "list".to_owned()];
    args.extend(attacks.iter().map(|Attack { name, line, .. }| format!("{name}:{line}")));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let id = context.id("audit");
    let mut bundle = context.bundle(&id, &args);
    Level::Own("audited-paths").annotate(&mut bundle);
    bundle.bind(&tree(context), "/srv");
    let container = Container::new(context.runtime(), &id, &bundle)?;
    let output = container.run()?.success("the container")?;
    let said = results(&output);
    for Attack { name, .. } in &attacks {
        ensure!(said.get(name) == Some(&"OK done"), "{name}: {output}");
    }
    if context.phase() == Phase::Off {
        return Ok(());
    }
    for Attack { name, expect, .. } in &attacks {
        let Expect::Denied([operation]) = expect else { continue };
        let start = format!("audited {operation} container={id} ");
        let end = format!(" comm={name}");
        process::wait_for("the audit in the log", DEADLINE, || {
            let log = context.with_lockc(|lockc| lockc.log())?;
            let found = log.lines().any(|line| line.contains(&start) && line.ends_with(&end));
            Ok(found.then_some(()))
        })
        .with_context(|| format!("{start}… {end}"))?;
    }
    Ok(())
}
