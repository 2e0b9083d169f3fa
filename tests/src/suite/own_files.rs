//! lockc's own files, as a container sees them that was given the host's directories.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use crate::harness::{
    Attack, Bundle, Container, Context, Entry, Expect, Level, Phase, attack,
    daemon::LOCKC,
    runner::{Daemon, Test, With},
};

pub(crate) const TESTS: &[Test] = &[test("change", change), test("above", above)];

const fn test(name: &'static str, run: fn(&Context) -> Result<()>) -> Test {
    Test { group: "own-files", name, daemon: Daemon::OffThenOn, with: With::One, run }
}

const DENIED: &[&str] = &["lockc-file"];
/// Where lockc keeps its socket and lock.
const RUN: &str = "/run/lockc";

/// What is tried in the directory of the configuration, each with a file of its own: `@` stands for its path.
const CHANGES: [(&str, &str); 17] = [
    ("write", "write @ overwritten"),
    ("append", "append @ appended"),
    ("truncate", "truncate @"),
    // `O_TRUNC`, for reading.
    ("empty", "empty @"),
    ("over", "move /own/evil @"),
    ("away", "move @ /own/away"),
    ("exchange", "exchange /own/swap @"),
    ("unlink", "unlink @"),
    ("link", "hard-link @ /own/other-name"),
    ("chmod", "chmod @"),
    ("fchown", "fchown @"),
    ("utimes", "utimes @"),
    ("setxattr", "setxattr @"),
    ("create", "create /own/new-file"),
    ("mkdir", "mkdir /own/new-directory"),
    ("fifo", "fifo /own/new-fifo"),
    ("make-link", "make-link /own/new-link"),
];

/// Puts in place what the attacks are about, in the directory of the configuration.
fn restore(directory: &Path) -> Result<()> {
    let new = ["new-file", "new-directory", "new-fifo", "new-link", "away", "other-name"];
    for stray in new.map(|name| directory.join(name)) {
        let _ = fs::remove_file(&stray);
        let _ = fs::remove_dir(&stray);
    }
    let own = CHANGES.iter().map(|(name, _)| directory.join(format!("own-{name}")));
    for path in own.chain([directory.join("swap"), directory.join("evil")]) {
        fs::write(&path, "content\n").with_context(|| format!("write {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    }
    Ok(())
}

fn directory(context: &Context) -> PathBuf {
    context.scratch().join("lockc")
}

/// In the directory of the configuration, in `/run/lockc`, and the binary.
fn change(context: &Context) -> Result<()> {
    let own = directory(context);
    fs::create_dir_all(&own)?;
    fs::create_dir_all(RUN)?;
    let mut attacks: Vec<Attack> = CHANGES
        .iter()
        .map(|(name, line)| attack_of(name, &line.replace('@', &format!("/own/own-{name}"))))
        .collect();
    attacks.push(attack_of("run-write", "write /own-run/probe overwritten"));
    attacks.push(attack_of("run-create", "create /own-run/new"));
    // Written it cannot be while it is executed, whoever wants to.
    attacks.push(attack_of("binary-link", "hard-link /host-bin/lockc /host-bin/lockc-other"));
    attacks.push(attack_of("binary-chmod", "chmod /host-bin/lockc"));
    let bin = Path::new(LOCKC).parent().context("no directory")?;
    let before = || {
        fs::write(Path::new(RUN).join("probe"), "content\n")?;
        let _ = fs::remove_file(Path::new(RUN).join("new"));
        let _ = fs::remove_file(bin.join("lockc-other"));
        fs::set_permissions(LOCKC, fs::Permissions::from_mode(0o755))?;
        restore(&own)
    };
    let setup = |bundle: &mut Bundle| {
        bundle.bind(&own, "/own").bind(RUN.as_ref(), "/own-run").bind(bin, "/host-bin");
        bundle.privileged_capabilities();
    };
    let result = attack(context, "own", &Entry::Run, before, setup, &attacks);
    before()?;
    result
}

fn attack_of(name: &'static str, line: &str) -> Attack {
    Attack { name, line: line.to_owned(), gain: "done".to_owned(), expect: Expect::Denied(DENIED) }
}

/// A directory above is not moved away, which would let another one take its place; its neighbours can be.
fn above(context: &Context) -> Result<()> {
    let own = directory(context);
    fs::create_dir_all(&own)?;
    let top = own.parent().context("no directory above")?;
    let neighbour = top.join("neighbour");
    let (moved, moved_neighbour) = (top.join("lockc-moved"), top.join("neighbour-moved"));
    let levels: &[Level] = match context.phase() {
        Phase::Off => &[Level::Baseline],
        _ => &[Level::Baseline, Level::Restricted],
    };
    for level in levels {
        fs::create_dir_all(&neighbour)?;
        let id = context.id("above");
        let items = [
            "own:move /top/lockc /top/lockc-moved",
            "neighbour:move /top/neighbour /top/neighbour-moved",
        ];
        let mut bundle = context.bundle(&id, &["/bin/probe", "list", items[0], items[1]]);
        level.annotate(&mut bundle);
        bundle.bind(top, "/top");
        let output = Container::new(context.runtime(), &id, &bundle)?.run()?;
        let was_moved = moved.exists();
        if was_moved {
            fs::rename(&moved, &own)?;
        }
        fs::remove_dir(&moved_neighbour).with_context(|| format!("the neighbour: {output}"))?;
        ensure!(was_moved == (context.phase() == Phase::Off), "{}: {output}", level.name());
    }
    Ok(())
}
