//! The service-account token stays out of reach, whatever the route.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
};

use crate::{
    harness::{
        Attack, Bundle, Container, Context, Entry, Expect, Level, attack,
        attack::no_preparation,
        container::DEADLINE,
        fixture::{self, SERVICE_ACCOUNT, TOKEN},
        process,
        runner::{Daemon, Test, With},
        traffic::Traffic,
    },
    sys::{self, uring},
};

pub(crate) const TESTS: &[Test] = &[
    test("routes", With::EachAndYouki, routes),
    test("capabilities", With::Each, capabilities),
    test("exec", With::EachAndYouki, exec),
    test("in-image", With::One, in_image),
    test("var-run", With::One, var_run),
    test("overlayfs", With::One, overlayfs),
    test("unprivileged", With::One, unprivileged),
    test("no-mount-namespace", With::Each, no_mount_namespace),
];

const fn test(name: &'static str, with: With, run: fn(&Context) -> Result<()>) -> Test {
    Test { group: "token", name, daemon: Daemon::OffThenOn, with, run }
}

/// Opening a blocked path.
const OPEN: &[&str] = &["open"];
/// Opening it where lockc may object to the way to it, too.
const OPEN_OR_FOREIGN: &[&str] = &["open", "foreign-open"];
/// Making it appear elsewhere.
const MOUNT: &[&str] = &["mount", "open", "foreign-open"];
const RENAME: &[&str] = &["rename"];

/// Reads the token by the probe's verb and words, in which `@` stands for the token's directory.
fn steal(name: &'static str, line: &str, operations: &'static [&'static str]) -> Attack {
    Attack {
        name,
        line: line.replace('@', SERVICE_ACCOUNT),
        gain: TOKEN.to_owned(),
        expect: Expect::Denied(operations),
    }
}

/// Reads that need no capability.
fn plain_routes() -> Result<Vec<Attack>> {
    let mut attacks = vec![
        steal("plain", "read @/token", OPEN),
        steal("data-link", "read @/..data/token", OPEN),
        steal("real", "read @/..2026_01_01_00_00_00.1/token", OPEN),
        steal("var-run", "read /var/run/secrets/kubernetes.io/serviceaccount/token", OPEN),
        steal("dots", "read /run/../run/secrets/./kubernetes.io//serviceaccount/token", OPEN),
        steal("self-root", "read /proc/self/root@/token", OPEN),
        steal("thread-root", "read /proc/thread-self/root@/token", OPEN),
        steal("init-root", "read /proc/1/root@/token", OPEN),
        steal("cwd-link", "chdir @ /proc/self/cwd/token", OPEN),
        steal("openat2", "openat2 @/token", OPEN),
        steal("o-path", "o-path @/token", OPEN),
        steal("at-path", "at @ token O_PATH", OPEN),
        steal("at-dir", "at @ token O_RDONLY", OPEN),
        steal("at-run", "at /run secrets/kubernetes.io/serviceaccount/token O_RDONLY", OPEN),
        steal("at-root", "at / run/secrets/kubernetes.io/serviceaccount/token O_PATH", OPEN),
        steal("chdir", "chdir @ token", OPEN),
        steal("orphan", "orphan @/token", OPEN),
        steal("thread", "thread @/token", OPEN),
        steal("symlink", "symlink @/token /tmp/innocent", OPEN),
        steal("user-ns", "user-ns read @/token", OPEN),
        steal("user-ns-tree", "user-ns tree-read @ token", MOUNT),
        steal("user-ns-tree-fd", "user-ns tree-fd-read @ token", MOUNT),
        steal("user-ns-bind", "user-ns bind-read @ /mnt /mnt/token", MOUNT),
        steal("user-ns-chroot", "user-ns chroot @ token", OPEN),
        Attack {
            gain: "..2026_01_01_00_00_00.1 ..data harmless token".to_owned(),
            ..steal("list", "read-dir @", OPEN)
        },
    ];
    attacks.extend(uring_routes()?);
    Ok(attacks)
}

/// Reads through io_uring, done by the caller or by a kernel worker; where the kernel gives no
/// io_uring to anybody, that is what must be seen.
fn uring_routes() -> Result<[Attack; 2]> {
    let unavailable = match uring::open(c"/proc/self/status", false) {
        uring::Opened::Done(result) => {
            result.context("open a file of the host through io_uring")?;
            None
        }
        uring::Opened::Unavailable(errno) => {
            let disabled = fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
            ensure!(
                errno == Errno::ENOSYS || disabled.is_ok_and(|value| value.trim() == "2"),
                "io_uring_setup: {errno}, though io_uring is not disabled"
            );
            Some(Expect::Same(format!("{errno:?} io_uring_setup")))
        }
    };
    let worker = Expect::DeniedToWorker(OPEN);
    Ok([
        Attack {
            expect: unavailable.clone().unwrap_or(Expect::Denied(OPEN)),
            ..steal("uring", "uring @/token inline", OPEN)
        },
        Attack {
            expect: unavailable.unwrap_or(worker),
            ..steal("uring-worker", "uring @/token worker", OPEN)
        },
    ])
}

fn token_mount(context: &Context) -> impl Fn(&mut Bundle) {
    let volume = context.token().dir().to_owned();
    move |bundle| {
        bundle.bind(&volume, SERVICE_ACCOUNT);
    }
}

/// Every route for root with Docker's default capabilities.
fn routes(context: &Context) -> Result<()> {
    let mut attacks = plain_routes()?;
    attacks.extend([
        steal("chroot-run", "chroot /run /secrets/kubernetes.io/serviceaccount/token", OPEN),
        steal("chroot-k8s", "chroot /run/secrets/kubernetes.io /serviceaccount/token", OPEN),
        steal("chroot-sa", "chroot @ /token", OPEN),
        steal(
            "rename-parent",
            "rename /run/secrets /run/s2 /run/s2/kubernetes.io/serviceaccount/token",
            RENAME,
        ),
        steal(
            "rename-k8s",
            "rename /run/secrets/kubernetes.io /run/k2 /run/k2/serviceaccount/token",
            RENAME,
        ),
    ]);
    let traffic = Traffic::start(context.token().token());
    attack(context, "routes", &Entry::Run, no_preparation, token_mount(context), &attacks)?;
    traffic.end()
}

/// Routes that need more than a container usually has.
fn capabilities(context: &Context) -> Result<()> {
    let real = std::ffi::CString::new(context.token().real().to_string_lossy().as_bytes())?;
    let handle = sys::name_to_handle(&real).context("take the token's handle")?.to_text();
    let attacks = [
        steal("handle", "handle @/token", OPEN_OR_FOREIGN),
        // As above, through a harmless mount of the same file system: the shape of Shocker.
        steal("handle-at", &format!("handle-at /data {handle}"), OPEN_OR_FOREIGN),
        steal("tree", "tree-read @ token", MOUNT),
        steal("tree-fd", "tree-fd-read @ token", MOUNT),
        steal("tree-run", "tree-read /run/secrets/kubernetes.io/serviceaccount token", MOUNT),
        steal("bind", "bind-read @ /mnt /mnt/token", MOUNT),
        steal("mnt-ns", "mnt-ns read @/token", OPEN),
        steal("mnt-ns-bind", "mnt-ns bind-read @ /mnt /mnt/token", MOUNT),
        steal("cgroup", "cgroup /sys/fs/cgroup/elsewhere read @/token", OPEN),
        steal("fanotify", "fanotify @/..2026_01_01_00_00_00.1", OPEN_OR_FOREIGN),
    ];
    let traffic = Traffic::start(context.token().token());
    let harmless = context.token().dir().join("harmless");
    let setup = |bundle: &mut Bundle| {
        token_mount(context)(bundle);
        bundle.bind(&harmless, "/data");
        bundle.unshare("cgroup").mount("/sys", "sysfs", "sysfs", &[]);
        bundle.mount("/sys/fs/cgroup", "cgroup", "cgroup", &["rw"]);
        bundle.capabilities(&["CAP_SYS_ADMIN", "CAP_DAC_READ_SEARCH", "CAP_SYS_PTRACE"]);
    };
    attack(context, "caps", &Entry::Run, no_preparation, setup, &attacks)?;
    traffic.end()
}

/// From a process that was executed into a running container.
fn exec(context: &Context) -> Result<()> {
    let mut attacks = plain_routes()?;
    // The container's first process sleeps, but has the same root.
    attacks.push(steal(
        "chroot-run",
        "chroot /run /secrets/kubernetes.io/serviceaccount/token",
        OPEN,
    ));
    attack(context, "exec", &Entry::Exec, no_preparation, token_mount(context), &attacks)
}

/// A token that is not a mount but a file of the root file system, which can be moved and linked.
fn in_image(context: &Context) -> Result<()> {
    let root = context.scratch().join("token-image");
    fixture::image(&root, &fixture::busybox()?)?;
    let directory = root.join(SERVICE_ACCOUNT.trim_start_matches('/'));
    let before = || {
        for stray in ["run/link", "run/moved"] {
            let _ = fs::remove_file(root.join(stray));
        }
        fs::write(directory.join("token"), format!("{TOKEN}\n"))?;
        Ok(())
    };
    let attacks = [
        steal("plain", "read @/token", OPEN),
        steal("link", "link @/token /run/link", RENAME),
        steal("rename-file", "rename @/token /run/moved /run/moved", RENAME),
        steal("rename-dir", "rename @ /run/sa /run/sa/token", RENAME),
        steal(
            "rename-k8s",
            "rename /run/secrets/kubernetes.io /k8s /k8s/serviceaccount/token",
            RENAME,
        ),
        // Carried away as the first and as the second of two that change places.
        steal("exchange-first", "exchange-read @ /srv /srv/token", RENAME),
        steal("exchange-second", "exchange-read /srv @ /srv/token", RENAME),
        steal(
            "exchange-above",
            "exchange-read /srv /run/secrets/kubernetes.io /srv/serviceaccount/token",
            RENAME,
        ),
        steal(
            "rename-secrets",
            "rename /run/secrets /s /s/kubernetes.io/serviceaccount/token",
            RENAME,
        ),
        steal("rename-run", "rename /run /r /r/secrets/kubernetes.io/serviceaccount/token", RENAME),
    ];
    let setup = |bundle: &mut Bundle| bundle.config["root"]["path"] = root.to_string_lossy().into();
    attack(context, "in-image", &Entry::Run, before, setup, &attacks)
}

/// An image in which `/var/run` is a directory of its own, with the token below it.
fn var_run(context: &Context) -> Result<()> {
    let root = context.scratch().join("var-run-image");
    fs::create_dir_all(root.join("var/run"))?;
    fixture::image(&root, &fixture::busybox()?)?;
    let place = "/var/run/secrets/kubernetes.io/serviceaccount";
    let attacks = [
        steal("plain", &format!("read {place}/token"), OPEN),
        steal("real", &format!("read {place}/..data/token"), OPEN),
        steal("at-var", "at /var run/secrets/kubernetes.io/serviceaccount/token O_PATH", OPEN),
        steal("chroot", "chroot /var /run/secrets/kubernetes.io/serviceaccount/token", OPEN),
        steal(
            "rename",
            "rename /var/run /var/r /var/r/secrets/kubernetes.io/serviceaccount/token",
            RENAME,
        ),
    ];
    let setup = |bundle: &mut Bundle| {
        bundle.config["root"]["path"] = root.to_string_lossy().into();
        bundle.bind(context.token().dir(), place);
    };
    attack(context, "var-run", &Entry::Run, no_preparation, setup, &attacks)
}

/// An overlay mount of the image; unmounted when dropped.
pub(super) struct Overlay(PathBuf);

impl Overlay {
    /// `None` on a kernel that has no overlayfs.
    pub(super) fn new(context: &Context) -> Result<Option<Self>> {
        let merged = context.scratch().join("overlay/merged");
        Self::at(context, "overlay", &merged)
    }

    /// As [`Overlay::new`], mounted at `merged`, with a writable layer of this name.
    pub(super) fn at(context: &Context, name: &str, merged: &Path) -> Result<Option<Self>> {
        let layers = context.scratch().join(name);
        let [upper, work] = ["upper", "work"].map(|name| layers.join(name));
        for dir in [&upper, &work, merged] {
            fs::create_dir_all(dir)?;
        }
        let data = format!(
            "lowerdir={},upperdir={},workdir={}",
            context.image().display(),
            upper.display(),
            work.display()
        );
        match mount(Some("overlay"), merged, Some("overlay"), MsFlags::empty(), Some(&*data)) {
            Ok(()) => Ok(Some(Self(merged.to_owned()))),
            Err(Errno::ENODEV) => {
                let known = fs::read_to_string("/proc/filesystems")?;
                ensure!(!known.contains("overlay"), "overlayfs is known, yet cannot be mounted");
                Ok(None)
            }
            Err(errno) => Err(errno).context("mount an overlay"),
        }
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        // Fails only when it is unmounted already.
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// A root file system as the engines make it.
fn overlayfs(context: &Context) -> Result<()> {
    let Some(overlay) = Overlay::new(context)? else { return Ok(()) };
    let Overlay(root) = &overlay;
    let attacks = plain_routes()?;
    let setup = |bundle: &mut Bundle| {
        token_mount(context)(bundle);
        bundle.config["root"]["path"] = root.to_string_lossy().into();
    };
    attack(context, "overlay", &Entry::Run, no_preparation, setup, &attacks)?;

    // The same file within an overlay's layers, where every open is two.
    let inside = root.join("run/secrets/kubernetes.io/serviceaccount");
    fs::write(inside.join("token"), format!("{TOKEN}\n"))?;
    let attacks = [
        steal("plain", "read @/token", OPEN),
        steal("o-path", "o-path @/token", OPEN),
        steal("link", "link @/token /run/link", RENAME),
    ];
    let before = || {
        let _ = fs::remove_file(root.join("run/link"));
        Ok(())
    };
    let setup = |bundle: &mut Bundle| bundle.config["root"]["path"] = root.to_string_lossy().into();
    attack(context, "layers", &Entry::Run, before, setup, &attacks)
}

/// A user other than root, with no capability, and a container with a user namespace.
fn unprivileged(context: &Context) -> Result<()> {
    let attacks = [
        steal("plain", "read @/token", OPEN),
        steal("o-path", "o-path @/token", OPEN),
        steal("at-path", "at @ token O_PATH", OPEN),
        steal("orphan", "orphan @/token", OPEN),
        steal("user-ns-tree", "user-ns tree-read @ token", MOUNT),
    ];
    let user = |bundle: &mut Bundle| {
        token_mount(context)(bundle);
        bundle.config["process"]["user"] = serde_json::json!({ "uid": 1000, "gid": 1000 });
    };
    attack(context, "user", &Entry::Run, no_preparation, user, &attacks)?;

    // The root file system must be reachable for the mapped root.
    let reachable = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o755));
    reachable(context.scratch()).context("open the scratch directory")?;
    let mapped = |bundle: &mut Bundle| {
        token_mount(context)(bundle);
        bundle.user_namespace(100_000, 65_536);
    };
    attack(context, "mapped", &Entry::Run, no_preparation, mapped, &attacks)
}

/// A container without a mount namespace of its own: `chroot(2)` is all it is in.
fn no_mount_namespace(context: &Context) -> Result<()> {
    let root = context.scratch().join("shared-root");
    fixture::image(&root, &fixture::busybox()?)?;
    fs::write(root.join("run/secrets/kubernetes.io/serviceaccount/token"), TOKEN)?;
    for level in context.levels() {
        let id = context.id("no-mnt-ns");
        let read = format!("plain:read {SERVICE_ACCOUNT}/token");
        let mut bundle = context.bundle(&id, &["/bin/probe", "one", &read]);
        level.annotate(&mut bundle);
        bundle.share("mount");
        bundle.config["root"]["path"] = root.to_string_lossy().into();
        bundle.config["mounts"] = serde_json::json!([]);
        bundle.mount("/proc", "proc", "proc", &[]);
        // The devices of the host, as the root's file system may not have any.
        bundle.mount("/dev", "bind", "/dev", &["bind"]);
        // The runtime changes the mounts that it finds, and stays in a namespace of ours: it is for
        // lockc the one in which runtimes start, as the host's would be.
        let container = Container::new(context.runtime(), &id, &bundle)?;
        let mut command = container.command("run", &[]);
        sys::own_mounts(&mut command);
        let output = process::run(&mut command, DEADLINE)?;
        let name = level.name();
        if *level == Level::Privileged {
            ensure!(output.stdout == format!("plain OK {TOKEN}\n"), "{name}: {output}");
        } else {
            ensure!(output.stdout.starts_with("plain EPERM "), "{name}: {output}");
        }
    }
    Ok(())
}
