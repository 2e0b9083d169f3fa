//! Paths of the host that are out of reach, by whatever name or mount.

use std::{
    cell::{Cell, RefCell},
    fs,
    os::unix::{fs::symlink, net::UnixListener},
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::token::Overlay;
use crate::harness::{
    Attack, Bundle, Container, Context, Expect, Level, Phase,
    attack::{attack_prepared, attack_under},
    container::DEADLINE,
    process::wait_for,
    runner::{Daemon, Test, With},
};

pub(crate) const TESTS: &[Test] = &[
    test("reach", With::EachKind, reach),
    test("change", With::One, change),
    test("mounted", With::One, mounted),
    test("mount-points", With::One, mount_points),
    test("mounted-later", With::One, mounted_later),
    test("own-root", With::One, own_root),
    test("first-program", With::One, first_program),
];

const fn test(name: &'static str, with: With, run: fn(&Context) -> Result<()>) -> Test {
    Test { group: "host-paths", name, daemon: Daemon::OffThenOn, with, run }
}

const POLICY: Level = Level::Own("no-host-files");
const DENIED: &[&str] = &["host-path"];

/// What is on the host: `secret`, `deep/kept` and `linked`, to which `link` leads, are out of reach, and `beside`
/// is not.
const HOST: &str = "/srv/lockc-host";
/// Besides, `volume/inside`, on a file system of its own, `file`, on which another is mounted, and `kept`, below which
/// others are mounted.
const MOUNTS: &str = "/srv/lockc-mounts";
/// Besides, `file` and `replaced`, on which others are mounted, and `volume/inside`, on a file system of its own.
const POINTS: &str = "/srv/lockc-points";
/// What every file has.
const CONTENT: &str = "of the host";

/// An attack on a file of its own in `dir`, `@` in the line.
fn on(dir: &str, name: &'static str, line: &str) -> Attack {
    Attack::denied(name, &line.replace('@', &format!("{dir}/{name}")), DENIED)
}

fn reads(name: &'static str, path: &str) -> Attack {
    Attack { gain: CONTENT.to_owned(), ..Attack::denied(name, &format!("read {path}"), DENIED) }
}

/// As [`on`], and nothing is denied.
fn free(name: &'static str, line: &str) -> Attack {
    Attack::ordinary(name, &line.replace('@', &format!("/mnt/beside/{name}")))
}

/// What can be read with lockc as without.
fn shown(name: &'static str, path: &str) -> Attack {
    let expect = Expect::Same(format!("OK {CONTENT}"));
    Attack { expect, ..reads(name, path) }
}

/// Makes [`HOST`] anew: every attack finds a file and a directory of its name.
fn plant(attacks: &[Attack]) -> Result<()> {
    let host = Path::new(HOST);
    let _ = fs::remove_dir_all(host);
    for dir in ["secret", "deep/kept", "linked", "beside"] {
        let dir = host.join(dir);
        fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        for name in attacks.iter().map(|attack| attack.name).chain(["file"]) {
            fs::write(dir.join(name), format!("{CONTENT}\n"))?;
            fs::create_dir(dir.join(format!("{name}d")))?;
        }
    }
    symlink("linked", host.join("link"))?;
    Ok(())
}

/// The host's root, a directory above what is out of reach, that itself, and a file of it, each by a name of its own.
fn mounts(bundle: &mut Bundle) {
    let host = Path::new(HOST);
    bundle
        .mount("/data", "bind", "/", &["bind", "rw"])
        .bind(host, "/mnt")
        .mount("/srv", "tmpfs", "tmpfs", &["mode=755"])
        .bind(&host.join("secret"), "/srv/box")
        .bind(&host.join("secret/file"), "/srv/harmless");
}

/// Opening, and connecting.
fn reach(context: &Context) -> Result<()> {
    let attacks = [
        reads("read", "/mnt/secret/read"),
        reads("alone", "/srv/harmless"),
        reads("itself", "/srv/box/itself"),
        reads("root", "/data/srv/lockc-host/secret/root"),
        reads("deep", "/mnt/deep/kept/deep"),
        reads("by-link", "/mnt/link/file"),
        reads("behind-link", "/mnt/linked/file"),
        Attack { line: "o-path /srv/harmless".to_owned(), ..reads("o-path", "") },
        Attack {
            line: "chroot /data /srv/lockc-host/secret/file".to_owned(),
            ..reads("chroot", "")
        },
        Attack { line: "at /mnt/secret file O_PATH".to_owned(), ..reads("at", "") },
        Attack { gain: String::new(), ..on("/mnt/secret", "list", "read-dir @d") },
        on("/mnt/secret", "write", "reach-write @"),
        on("/mnt/secret", "empty", "empty @"),
        on("/mnt/secret", "uring", "uring-write @"),
        on("/mnt", "connect", "unix-to /mnt/secret/socket"),
        on("/srv", "connect-bound", "unix-to /srv/box/socket"),
        shown("beside", "/mnt/beside/file"),
        shown("root-beside", "/data/srv/lockc-host/beside/file"),
        free("beside-write", "reach-write @"),
        free("beside-list", "reach /mnt"),
        free("beside-socket", "unix-to /mnt/beside/socket"),
        Attack::ordinary("own-socket", "own-unix /tmp/s"),
    ];
    let sockets = RefCell::new(Vec::new());
    let before = || {
        plant(&attacks)?;
        let listen = |name: &str| UnixListener::bind(Path::new(HOST).join(name));
        *sockets.borrow_mut() = vec![listen("secret/socket")?, listen("beside/socket")?];
        Ok(())
    };
    attack_prepared(context, POLICY, "host-reach", before, mounts, &attacks)
}

/// Changing, and names: of the path, of what is below, and of directories above.
fn change(context: &Context) -> Result<()> {
    let dir = "/mnt/secret";
    let attacks = [
        on(dir, "truncate", "truncate @"),
        on(dir, "unlink", "unlink @"),
        on(dir, "rmdir", "rmdir @d"),
        on(dir, "mkdir", "mkdir @x"),
        on(dir, "fifo", "fifo @x"),
        on(dir, "bind", "bind-unix @x"),
        on(dir, "symlink", "make-link @x"),
        on(dir, "create", "create @x"),
        on(dir, "chmod", "chmod @"),
        on("/srv/box", "chown", "chown @"),
        on("/srv", "chmod-alone", "chmod /srv/harmless"),
        on(dir, "utimes", "utimes @"),
        on("/srv", "utimes-alone", "utimes /srv/harmless"),
        on(dir, "setxattr", "setxattr @"),
        on(dir, "acl", "acl @"),
        on(dir, "from", "move @ /mnt/beside/fromx"),
        on(dir, "to", "move /mnt/beside/to @x"),
        on(dir, "exchange", "exchange /mnt/beside/exchange @"),
        on(dir, "link-from", "hard-link @ /mnt/beside/link-fromx"),
        on("/mnt", "rename", "rename-there-and-back /mnt/secret /mnt/public"),
        on("/mnt", "above", "rename-there-and-back /mnt/deep /mnt/beside/deep"),
        on("/data", "far-above", "rename-there-and-back /data/srv/lockc-host /data/srv/moved"),
        on("/mnt", "unlink-link", "unlink /mnt/link"),
        free("own-chmod", "chmod @"),
        free("own-chown", "chown @"),
        free("own-utimes", "utimes @"),
        free("own-xattr", "setxattr @"),
        free("own-truncate", "truncate @"),
        free("own-create", "create @x"),
        free("own-unlink", "unlink @"),
        free("own-link", "hard-link @ @x"),
        free("own-rename", "rename-there-and-back /mnt/beside /mnt/public"),
        free("own-move", "rename-there-and-back /mnt/deep/file /mnt/beside/here"),
    ];
    let before = || {
        plant(&attacks)?;
        Ok(fs::write(Path::new(HOST).join("deep/file"), CONTENT)?)
    };
    attack_prepared(context, POLICY, "host-change", before, mounts, &attacks)
}

/// Mounts a tmpfs with a file.
fn tmpfs(at: &Path, file: &str) -> Result<()> {
    fs::create_dir_all(at)?;
    mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("mount tmpfs on {}", at.display()))?;
    let file = at.join(file);
    if let Some(dir) = file.parent() {
        fs::create_dir_all(dir)?;
    }
    Ok(fs::write(file, format!("{CONTENT}\n"))?)
}

/// A path on a file system that was mounted before the daemon started: at the end of the phase without it.
fn mounted(context: &Context) -> Result<()> {
    let volume = Path::new(MOUNTS).join("volume");
    let file = Path::new(MOUNTS).join("file");
    if context.phase() == Phase::Off {
        tmpfs(&volume, "inside/file")?;
        fs::write(&file, "")?;
        fs::write(volume.join("source"), CONTENT)?;
        let (none, bind) = (None::<&str>, MsFlags::MS_BIND);
        mount(Some(&volume.join("source")), &file, none, bind, none).context("mount a file")?;
        fs::write(volume.join("beside"), format!("{CONTENT}\n"))?;
    }
    let attacks = [
        reads("above", "/mnt/volume/inside/file"),
        reads("volume", "/mnt2/inside/file"),
        reads("alone", "/srv/harmless"),
        shown("beside", "/mnt2/beside"),
        free("other", "create /mnt2/new"),
    ];
    let setup = |bundle: &mut Bundle| {
        bundle
            .bind(Path::new(MOUNTS), "/mnt")
            .bind(&volume, "/mnt2")
            .mount("/srv", "tmpfs", "tmpfs", &["mode=755"])
            .bind(&volume.join("inside/file"), "/srv/harmless");
    };
    let before = || {
        let _ = fs::remove_file(volume.join("new"));
        Ok(())
    };
    attack_prepared(context, POLICY, "host-mounted", before, setup, &attacks)?;
    // A container that has not the mount, only what lies beneath, could move it away on the host.
    let attacks = [
        on("", "rename", "rename-there-and-back /data/srv/lockc-mounts/volume /data/srv/moved"),
        on("", "rename-above", "rename-there-and-back /data/srv/lockc-mounts /data/srv/moved"),
        on("", "rename-file", "rename-there-and-back /data/srv/lockc-mounts/file /data/srv/moved"),
        Attack::ordinary("beneath", "reach /data/srv/lockc-mounts/volume"),
    ];
    let setup = |bundle: &mut Bundle| {
        bundle.mount("/data", "bind", "/", &["bind", "rw"]);
    };
    attack_under(context, POLICY, "host-beneath", setup, &attacks)?;
    if context.phase() == Phase::On {
        unmount(context, &file)?;
        unmount(context, &volume)?;
    }
    Ok(())
}

/// Makes [`POINTS`] anew, with what is mounted there.
fn plant_points() -> Result<()> {
    let points = Path::new(POINTS);
    let _ = fs::remove_dir_all(points);
    let volume = points.join("volume");
    tmpfs(&volume, "inside/file")?;
    let source = volume.join("source");
    fs::write(&source, CONTENT)?;
    for name in ["file", "replaced", "new"] {
        fs::write(points.join(name), "")?;
    }
    for name in ["file", "replaced"] {
        let (none, bind) = (None::<&str>, MsFlags::MS_BIND);
        mount(Some(&source), &points.join(name), none, bind, none).context("mount a file")?;
    }
    Ok(())
}

/// A container that has not the mount, only what lies beneath, would end it on the host by removing that.
fn mount_points(context: &Context) -> Result<()> {
    let is_mounted = |name: &str| -> Result<bool> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").context("read mountinfo")?;
        Ok(mounts.contains(&format!(" {POINTS}/{name} ")))
    };
    let attacks = [
        on("", "unlink", "unlink /data/file"),
        on("", "rmdir", "rmdir /data/volume"),
        on("", "replace", "move /data/new /data/replaced"),
        Attack::ordinary("own-unlink", "unlink /data/own"),
    ];
    // The volume last: what is mounted on the files comes from it.
    let names = ["file", "replaced", "volume"];
    let is_first = Cell::new(true);
    let before = || {
        if context.phase() == Phase::Off {
            plant_points()?;
        } else if !is_first.replace(false) {
            // A privileged container removes them without what is mounted on them: nothing is left to follow.
            for name in names {
                ensure!(is_mounted(name)?, "{name} is not mounted any more");
                unmount(context, &Path::new(POINTS).join(name))?;
            }
        }
        Ok(fs::write(Path::new(POINTS).join("own"), "")?)
    };
    let setup = |bundle: &mut Bundle| {
        bundle.mount("/data", "bind", POINTS, &["bind", "rw"]);
    };
    attack_prepared(context, POLICY, "host-points", before, setup, &attacks)?;
    if context.phase() == Phase::Off {
        for name in names {
            ensure!(!is_mounted(name)?, "{name} is still mounted");
        }
        plant_points()?;
    }
    Ok(())
}

/// Mounts or unmounts something while the daemon runs, and waits until it says that it has seen that.
fn watched<T>(context: &Context, mount: impl FnOnce() -> Result<T>) -> Result<T> {
    if context.phase() == Phase::Off {
        return mount();
    }
    let seen = || -> Result<usize> {
        let log = context.with_lockc(|lockc| lockc.log())?;
        Ok(log.lines().filter(|line| line.contains("host paths follow")).count())
    };
    let before = seen()?;
    let mounted = mount()?;
    wait_for("the daemon to follow", DEADLINE, || Ok((seen()? > before).then_some(())))?;
    Ok(mounted)
}

fn unmount(context: &Context, at: &Path) -> Result<()> {
    let detach = || umount2(at, MntFlags::MNT_DETACH);
    watched(context, || detach().with_context(|| format!("unmount {}", at.display())))
}

/// A file system that is mounted below a host path while the daemon runs.
fn mounted_later(context: &Context) -> Result<()> {
    let late = Path::new(MOUNTS).join("kept/late");
    watched(context, || tmpfs(&late, "file"))?;
    let attacks = [
        reads("above", "/mnt/kept/late/file"),
        reads("alone", "/mnt2/file"),
        on("", "rename", "rename-there-and-back /mnt2/file /mnt2/other"),
        Attack::ordinary("own", "create /tmp/file"),
    ];
    let setup = |bundle: &mut Bundle| {
        bundle.bind(Path::new(MOUNTS), "/mnt").bind(&late, "/mnt2");
    };
    let result = attack_under(context, POLICY, "host-later", setup, &attacks);
    unmount(context, &late)?;
    result
}

/// Engines mount the root file systems of containers below their own directories: to deny those denies the others'
/// root file systems, and not the container's own.
fn own_root(context: &Context) -> Result<()> {
    let kept = Path::new(MOUNTS).join("kept");
    let [own, other] = ["own", "other"].map(|name| kept.join(name));
    let Some(_own) = watched(context, || Overlay::at(context, "own", &own))? else {
        return Ok(());
    };
    let _other = watched(context, || Overlay::at(context, "other", &other))?;
    fs::write(other.join("etc/secret"), format!("{CONTENT}\n"))?;
    let attacks = [
        reads("other", "/mnt/etc/secret"),
        Attack {
            expect: Expect::Same("OK image".to_owned()),
            ..Attack::ordinary("own-read", "read /etc/hostname")
        },
        Attack::ordinary("own-create", "create /etc/new"),
        Attack::ordinary("own-move", "rename-there-and-back /etc/passwd /root/passwd"),
    ];
    let setup = |bundle: &mut Bundle| {
        bundle.config["root"]["path"] = own.to_string_lossy().into();
        bundle.bind(&other, "/mnt");
    };
    let before = || {
        let _ = fs::remove_file(own.join("etc/new"));
        Ok(())
    };
    attack_prepared(context, POLICY, "host-root", before, setup, &attacks)?;
    unmount(context, &other)?;
    unmount(context, &own)
}

/// The program that a container starts with is opened by the runtime.
fn first_program(context: &Context) -> Result<()> {
    plant(&[])?;
    let host = Path::new(HOST);
    for (dir, starts) in [("secret", false), ("beside", true)] {
        fs::copy("/proc/self/exe", host.join(dir).join("probe")).context("copy the probe")?;
        let id = context.id("host-first");
        let program = format!("/mnt/{dir}/probe");
        let mut bundle = context.bundle(&id, &[&program, "hello"]);
        POLICY.annotate(&mut bundle);
        bundle.bind(host, "/mnt");
        let output = Container::new(context.runtime(), &id, &bundle)?.run()?;
        let expected = starts || context.phase() == Phase::Off;
        let started = output.stdout.contains("hello OK hello");
        ensure!(started == expected, "{program}: {output}");
    }
    Ok(())
}
