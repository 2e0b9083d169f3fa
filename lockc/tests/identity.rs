//! Finds out who containers are whose bundles and records lie on a real file system.
//!
//! Needs root, for owners, devices and mounts. The directories are below `/run`, on which only
//! root can write; the test itself, or a sleeping child, stands for the caller.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod task;

use std::{
    env, fs,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _, chown, symlink},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use lockc::runtime::{
    bundle::Bundle,
    caller::Caller,
    cmdline::{ContainerId, Target},
    engine::{Engine, Identity, MAX_RECORD_LEN, identify},
};
use nix::{
    sys::stat::{Mode, SFlag, makedev, mknod},
    unistd::{gettid, mkfifo},
};
use task::Task;
use tempfile::TempDir;

const SLEEPER: &str = "LOCKC_TEST_SLEEPER";
/// A user who is not root.
const USER: u32 = 1000;
const ID: &str = "21a4eaa55872eeb491808b03fc60b010bf33505c6cbf887ed66627537fc52544";
const OTHER: &str = "2dd1ebd94574ef42e0533b4aa534517c13afb70d1dd4b952fba6e5271c79fe6f";

fn task_of_user() -> Task {
    Task::start(Command::new("/bin/sleep").arg("60").current_dir("/").uid(USER).gid(USER))
}

/// What is done to a world before it is looked at.
type Change = fn(&World);

/// An engine's directories.
struct World {
    dir: TempDir,
    /// The bundle.
    bundle: PathBuf,
    /// The record.
    record: PathBuf,
}

impl World {
    fn empty() -> TempDir {
        let dir = tempfile::Builder::new().prefix("lockc-test-").tempdir_in("/run").unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        dir
    }

    /// Docker's, with a container called `web`.
    fn docker() -> Self {
        let dir = Self::empty();
        let bundle = dir.path().join("state/io.containerd.runtime.v2.task/moby").join(ID);
        let data = dir.path().join("data");
        let record = data.join("containers").join(ID).join("config.v2.json");
        let world = Self { dir, bundle, record };
        write(&world.bundle.join("config.json"), &world.config(&data.join("overlay2/l/merged")));
        write(&world.record, &record_of(ID, "web"));
        world
    }

    /// A storage of podman's that belongs to a user.
    fn rootless() -> Self {
        let dir = Self::empty();
        let containers = dir.path().join("storage/overlay-containers");
        let bundle = containers.join(ID).join("userdata");
        let world = Self { bundle, record: containers.join("containers.json"), dir };
        write(&world.bundle.join("config.json"), &world.config(Path::new("/l/merged")));
        write(
            &world.record,
            &format!(
                r#"[{{"id":"{ID}","metadata":"{{\"name\":\"web\",\"image-name\":\"box\"}}"}}]"#
            ),
        );
        let mut path = world.bundle.join("config.json");
        while path != world.dir.path() {
            give(&path);
            path.pop();
        }
        give(&world.record);
        world
    }

    /// A bundle that claims much.
    fn config(&self, rootfs: &Path) -> String {
        let files = self.record.parent().unwrap().display();
        format!(
            r#"{{"root":{{"path":"{}"}},"mounts":[{{"destination":"/etc/hostname",
                "source":"{files}/hostname"}}],
                "annotations":{{"io.kubernetes.cri.container-type":"container",
                "io.kubernetes.cri.sandbox-namespace":"kube-system",
                "io.container.manager":"libpod"}}}}"#,
            rootfs.display()
        )
    }

    fn identify_for(&self, caller: &Caller) -> Identity {
        let target = Target { bundle: Some(self.bundle.clone()), ..target() };
        identify(&Bundle::read(caller, &target).unwrap(), &target, caller)
    }

    fn identify(&self) -> Identity {
        self.identify_for(&oneself())
    }
}

fn target() -> Target {
    Target { id: ContainerId::new(ID).unwrap(), bundle: None, config: None }
}

fn oneself() -> Caller {
    Caller::read(gettid()).unwrap()
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn record_of(id: &str, name: &str) -> String {
    format!(r#"{{"ID":"{id}","Name":"/{name}","Config":{{"Image":"box","Labels":{{"a":"b"}}}}}}"#)
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn give(path: &Path) {
    chown(path, Some(USER), Some(USER)).unwrap();
}

fn name(identity: &Identity) -> Option<&str> {
    identity.container.as_ref().map(|fact| fact.value.as_str())
}

#[track_caller]
fn nothing_is_trusted(identity: &Identity) {
    let Identity { engine, namespace, pod, container, image, labels, annotations, notes: _ } =
        identity;
    assert!(!engine.trusted);
    let single = [namespace, pod, container, image].into_iter().flatten();
    let trusted = single.chain(labels.values()).chain(annotations.values());
    assert_eq!(trusted.filter(|fact| fact.trusted).count(), 0);
}

#[test]
fn docker_is_known_by_its_place() {
    let world = World::docker();
    let identity = world.identify();
    assert!(identity.engine.trusted, "{:?}", identity.notes);
    assert_eq!(identity.engine.value, Engine::Docker);
    assert_eq!(name(&identity), Some("web"));
    assert_eq!(identity.labels["a"].value, "b");
    assert!(!identity.container.unwrap().trusted);
    assert_eq!(identity.notes, [""; 0]);
    // The bundle may be where the caller stands.
    let mut sleep = Command::new("/bin/sleep");
    let task = Task::start(sleep.arg("60").current_dir(&world.bundle));
    let bundle = Bundle::read(&task.caller(), &target()).unwrap();
    assert!(identify(&bundle, &target(), &task.caller()).engine.trusted);
}

/// Who else can write the bundle can have made it.
#[test]
fn a_bundle_that_others_can_write_gets_nothing() {
    let cases: [(Change, &str); 9] = [
        (|world| mode(&world.bundle, 0o775), "mode 0775"),
        (|world| mode(&world.bundle, 0o757), "mode 0757"),
        (|world| give(&world.bundle), "owner 1000"),
        (|world| mode(world.bundle.parent().unwrap(), 0o1777), "mode 1777"),
        (|world| give(&world.dir.path().join("state")), "owner 1000"),
        (|world| mode(world.dir.path(), 0o777), "mode 0777"),
        (|world| mode(&world.bundle.join("config.json"), 0o666), "mode 0666"),
        (|world| give(&world.bundle.join("config.json")), "owner 1000"),
        (|world| chown(&world.bundle, Some(0), Some(USER)).unwrap(), ""),
    ];
    for (change, why) in cases {
        let world = World::docker();
        change(&world);
        let identity = world.identify();
        if why.is_empty() {
            assert!(identity.engine.trusted, "a group that cannot write does no harm");
            continue;
        }
        nothing_is_trusted(&identity);
        assert_eq!(name(&identity), None, "the record of a doubtful bundle is not read");
        assert!(identity.notes.concat().contains(why), "{why}: {:?}", identity.notes);
    }
}

#[test]
fn a_bundle_elsewhere_gets_nothing() {
    let world = World::docker();
    let temporary = tempfile::tempdir().unwrap();
    let bundle = temporary.path().join("io.containerd.runtime.v2.task/moby").join(ID);
    fs::create_dir_all(&bundle).unwrap();
    fs::copy(world.bundle.join("config.json"), bundle.join("config.json")).unwrap();
    let elsewhere = World { bundle, record: world.record.clone(), dir: temporary };
    let identity = elsewhere.identify();
    nothing_is_trusted(&identity);
    assert_eq!((identity.engine.value, name(&identity)), (Engine::Docker, None));

    // Docker's own bundle under another name is still Docker's.
    let link = elsewhere.dir.path().join("link");
    symlink(&world.bundle, &link).unwrap();
    let linked = World { bundle: link, record: world.record.clone(), dir: elsewhere.dir };
    assert!(linked.identify().engine.trusted);

    // It is not if its configuration is not used, or another id.
    let target = Target {
        bundle: Some(world.bundle.clone()),
        config: Some(world.bundle.join("config.json")),
        ..target()
    };
    let caller = oneself();
    nothing_is_trusted(&identify(&Bundle::read(&caller, &target).unwrap(), &target, &caller));
    let target = Target { id: ContainerId::new(OTHER).unwrap(), config: None, ..target };
    let identity = identify(&Bundle::read(&caller, &target).unwrap(), &target, &caller);
    nothing_is_trusted(&identity);
    assert_eq!((identity.engine.value, identity.namespace), (Engine::None, None));
}

#[test]
fn a_users_bundle_gets_nothing() {
    let world = World::docker();
    // Readable for all, and the user points their runtime to it.
    let task = task_of_user();
    let identity = world.identify_for(&task.caller());
    nothing_is_trusted(&identity);
    // The user may read Docker's record here; its words are claims all the same.
    assert_eq!(identity.engine.value, Engine::Docker);
}

/// Sleeps below another root, where there is no other program.
#[test]
fn sleeper() {
    if env::var_os(SLEEPER).is_some() {
        thread::sleep(Duration::from_mins(1));
    }
}

/// A container's root has files of the container under the host's names.
#[test]
fn a_bundle_below_another_root_gets_nothing() {
    let world = World::docker();
    let root = World::empty();
    let inside = root.path().join(world.bundle.strip_prefix("/").unwrap());
    fs::create_dir_all(&inside).unwrap();
    fs::copy(world.bundle.join("config.json"), inside.join("config.json")).unwrap();
    // By a process of its own: a child of another test's could hold what this one writes to, which then is not executed
    // (`ETXTBSY`).
    let mut copy = Command::new("cp");
    copy.arg(env::current_exe().unwrap()).arg(root.path().join("exe"));
    assert!(copy.status().unwrap().success());
    let mut chroot = Command::new("chroot");
    chroot.arg(root.path()).args(["/exe", "--exact", "sleeper"]).env(SLEEPER, "1");
    let task = Task::start(&mut chroot);
    let inode = fs::metadata(root.path()).unwrap().ino();
    let caller =
        wait_for(&task, |caller| nix::sys::stat::fstat(caller.root()).unwrap().st_ino == inode);
    let identity = world.identify_for(&caller);
    nothing_is_trusted(&identity);
    assert!(identity.notes.concat().contains("root directory"), "{:?}", identity.notes);
}

/// In a mount namespace of their own, root's processes may see another directory under the name.
#[test]
fn a_bundle_in_another_mount_namespace_gets_nothing() {
    let world = World::docker();
    let state = world.dir.path().join("state");
    let script = format!(
        "mount -t tmpfs -o mode=755 t {0} && mkdir -p {1} && echo {2} > {1}/config.json && exec sleep 60",
        state.display(),
        world.bundle.display(),
        r#"'{"root":{"path":"/x"}}'"#,
    );
    let task = Task::start(Command::new("unshare").args(["-m", "sh", "-c", &script]));
    let caller = wait_for(&task, |_| {
        fs::read_to_string(format!("/proc/{}/comm", task.0.id())).unwrap() == "sleep\n"
    });
    let identity = world.identify_for(&caller);
    nothing_is_trusted(&identity);
    assert!(identity.notes.concat().contains("not the same for the host"), "{:?}", identity.notes);
}

fn wait_for(task: &Task, ready: impl Fn(&Caller) -> bool) -> Caller {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let caller = task.caller();
        if ready(&caller) {
            return caller;
        }
        assert!(Instant::now() < deadline, "the child is not ready");
        thread::sleep(Duration::from_millis(10));
    }
}

/// What stands in the record's place is read only if Docker wrote it there, and never waited for.
#[test]
fn records_that_are_none() {
    fn replaced(world: &World) -> &Path {
        fs::remove_file(&world.record).unwrap();
        &world.record
    }
    let cases: [(Change, &str); 14] = [
        (|world| _ = replaced(world), "cannot open"),
        (|world| write(&world.record, "no JSON"), "cannot understand"),
        (|world| write(&world.record, ""), "cannot understand"),
        (|world| write(&world.record, &record_of(OTHER, "other")), "another container"),
        (
            |world| {
                let file = fs::File::options().write(true).open(&world.record).unwrap();
                file.set_len(MAX_RECORD_LEN + 1).unwrap();
            },
            "longer than",
        ),
        (
            |world| fs::File::create(&world.record).unwrap().set_len(100 << 20).unwrap(),
            "longer than",
        ),
        (|world| mkfifo(replaced(world), Mode::S_IRWXU).unwrap(), "a FIFO"),
        (
            |world| {
                let zero = makedev(1, 5);
                mknod(replaced(world), SFlag::S_IFCHR, Mode::S_IRWXU, zero).unwrap();
            },
            "a character device",
        ),
        (|world| fs::create_dir(replaced(world)).unwrap(), "a directory"),
        (
            |world| {
                let real = world.dir.path().join("real");
                write(&real, &record_of(ID, "linked"));
                symlink(&real, replaced(world)).unwrap();
            },
            "a symbolic link",
        ),
        (
            |world| {
                let containers = world.dir.path().join("data/containers");
                fs::rename(&containers, world.dir.path().join("moved")).unwrap();
                symlink(world.dir.path().join("moved"), containers).unwrap();
            },
            "cannot open",
        ),
        (|world| give(&world.record), "owner 1000"),
        (|world| mode(&world.record, 0o660), "mode 0660"),
        (|world| mode(&world.dir.path().join("data/containers"), 0o777), "mode 0777"),
    ];
    for (change, why) in cases {
        let world = World::docker();
        change(&world);
        let start = Instant::now();
        let identity = world.identify();
        assert!(start.elapsed() < Duration::from_secs(20), "{why}");
        assert_eq!(name(&identity), None, "{why}");
        assert!(identity.image.is_none() && identity.labels.is_empty(), "{why}");
        assert!(identity.engine.trusted, "the bundle is Docker's all the same");
        assert!(identity.notes.concat().contains(why), "{why}: {:?}", identity.notes);
    }
}

/// A user of Docker mounts files over `/etc/hostname` that lie beside another record.
#[test]
fn mounts_lead_to_no_other_record() {
    let world = World::docker();
    let other = world.dir.path().join("data/containers").join(OTHER);
    write(&other.join("config.v2.json"), &record_of(OTHER, "other"));
    let planted = tempfile::tempdir().unwrap();
    let planted = planted.path().join("containers").join(ID);
    write(&planted.join("config.v2.json"), &record_of(ID, "planted"));
    for dir in [other, planted] {
        // Without a root file system of Docker's, the mounts are all there is.
        let config = format!(
            r#"{{"root":{{"path":"rootfs"}},
                "mounts":[{{"destination":"/etc/hostname","source":"{}/hostname"}}]}}"#,
            dir.display()
        );
        write(&world.bundle.join("config.json"), &config);
        let identity = world.identify();
        assert_eq!((name(&identity), identity.labels.len()), (None, 0));
    }
    let own = world.config(Path::new("rootfs"));
    write(&world.bundle.join("config.json"), &own);
    assert_eq!(name(&world.identify()), Some("web"), "Docker's own mounts do");
}

#[test]
fn a_rootless_record_is_read_as_the_user() {
    let task = task_of_user();
    let caller = task.caller();
    let world = World::rootless();
    let identity = world.identify_for(&caller);
    nothing_is_trusted(&identity);
    assert_eq!((identity.engine.value, name(&identity)), (Engine::Podman, Some("web")));
    assert_eq!(identity.image.unwrap().value, "box");

    let changes: [Change; 4] = [
        // What the user cannot read is not read for them.
        |world| {
            chown(&world.record, Some(0), Some(0)).unwrap();
            mode(&world.record, 0o600);
        },
        |world| chown(&world.record, Some(USER + 1), Some(USER)).unwrap(),
        |world| mode(&world.record, 0o666),
        |world| {
            let real = world.dir.path().join("real");
            fs::rename(&world.record, &real).unwrap();
            symlink(real, &world.record).unwrap();
        },
    ];
    for (n, change) in changes.into_iter().enumerate() {
        let world = World::rootless();
        change(&world);
        let identity = world.identify_for(&caller);
        assert_eq!(name(&identity), None, "change {n}");
        assert!(!identity.notes.is_empty(), "change {n}");
    }
    // The same storage is nobody's for root: a user may have written it.
    let identity = world.identify();
    nothing_is_trusted(&identity);
    assert_eq!(name(&identity), None);
}
