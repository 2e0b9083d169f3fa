//! Reads bundles as tasks with other directories, roots and users see them.
//!
//! Needs root, for `chroot`, devices and other users. A sleeping child stands
//! for the caller that fanotify would freeze.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod task;

use std::{
    env,
    error::Error as _,
    fs,
    os::unix::{
        fs::{PermissionsExt as _, symlink},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::Command,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use lockc::runtime::{
    bundle::{Bundle, BundleError, Facts},
    cmdline::{ContainerId, Target},
};
use nix::{
    sys::stat::{Mode, SFlag, makedev, mknod},
    unistd::mkfifo,
};
use task::Task;
use tempfile::TempDir;

const CONFIG: &str = r#"{"hostname":"here","root":{"path":"rootfs"}}"#;
const SLEEPER: &str = "LOCKC_TEST_SLEEPER";

fn sleeping_in(dir: &Path) -> Task {
    Task::start(Command::new("/bin/sleep").arg("60").current_dir(dir))
}

fn target(bundle: Option<&str>) -> Target {
    Target { id: ContainerId::new("c").unwrap(), bundle: bundle.map(PathBuf::from), config: None }
}

fn open_dir() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

/// `DIR/b`, a bundle.
fn bundle_dir() -> TempDir {
    let dir = open_dir();
    fs::create_dir_all(dir.path().join("b/rootfs")).unwrap();
    fs::write(dir.path().join("b/config.json"), CONFIG).unwrap();
    dir
}

fn hostname(facts: &Facts) -> &str {
    facts.hostname.as_deref().unwrap()
}

#[test]
fn from_everywhere() {
    let dir = bundle_dir();
    fs::create_dir(dir.path().join("d")).unwrap();
    symlink("b", dir.path().join("link")).unwrap();
    symlink(dir.path().join("b"), dir.path().join("absolute")).unwrap();
    let absolute = dir.path().join("b").to_str().unwrap().to_owned();
    for (cwd, bundle) in [
        ("b", None),
        ("b", Some(".")),
        ("", Some("b")),
        ("", Some("./b/")),
        ("", Some("link")),
        ("", Some("absolute")),
        ("d", Some("../b")),
        ("d", Some("../link/../b")),
        ("d", Some(absolute.as_str())),
        ("d", Some("../../../../../../../..")),
    ] {
        let task = sleeping_in(&dir.path().join(cwd));
        let read = Bundle::read(&task.caller(), &target(bundle));
        if bundle == Some("../../../../../../../..") {
            assert!(matches!(read, Err(BundleError::Open { path, .. })
                if path.ends_with("../config.json")));
            continue;
        }
        let bundle = read.unwrap();
        assert_eq!(hostname(&bundle.facts), "here");
        let rootfs = nix::sys::stat::fstat(bundle.rootfs.unwrap()).unwrap();
        let expected = nix::sys::stat::stat(&dir.path().join("b/rootfs")).unwrap();
        assert_eq!((rootfs.st_dev, rootfs.st_ino), (expected.st_dev, expected.st_ino));
    }
}

#[test]
fn where_sources_of_mounts_lead() {
    let dir = bundle_dir();
    fs::create_dir(dir.path().join("real")).unwrap();
    symlink("/etc", dir.path().join("real/link")).unwrap();
    symlink("real", dir.path().join("alias")).unwrap();
    let at = |path: &str| dir.path().join(path).to_str().unwrap().to_owned();
    let sources = [at("real"), at("real/link"), at("alias/absent"), at("alias"), "proc".into()];
    let mounts = sources.map(|source| format!(r#"{{"destination":"/x","source":"{source}"}}"#));
    let config = format!(r#"{{"root":{{"path":"rootfs"}},"mounts":[{}]}}"#, mounts.join(","));
    fs::write(dir.path().join("b/config.json"), config).unwrap();
    let task = sleeping_in(&dir.path().join("b"));
    let bundle = Bundle::read(&task.caller(), &target(None)).unwrap();
    let led: Vec<_> = bundle.facts.mounts.iter().map(|mount| mount.resolved.as_deref()).collect();
    let real = fs::canonicalize(dir.path().join("real")).unwrap();
    assert_eq!(led, [None, Some("/etc"), None, real.to_str(), None]);
}

#[test]
fn a_config_elsewhere() {
    let dir = bundle_dir();
    fs::write(dir.path().join("other.json"), r#"{"hostname":"other"}"#).unwrap();
    let task = sleeping_in(dir.path());
    let mut target = target(Some("b"));
    target.config = Some("other.json".into());
    let bundle = Bundle::read(&task.caller(), &target).unwrap();
    assert_eq!(hostname(&bundle.facts), "other");
    assert!(matches!(bundle.rootfs, Err(BundleError::NoRoot { .. })));
}

/// Not a test: the caller that `inside_another_root` puts into its root.
#[test]
fn sleeper() {
    if env::var_os(SLEEPER).is_some() {
        env::set_current_dir("/b").unwrap();
        fs::write("/ready", "").unwrap();
        thread::sleep(Duration::from_mins(1));
    }
}

#[test]
fn inside_another_root() {
    let dir = bundle_dir();
    // Links that lead elsewhere when they are followed from the wrong root.
    symlink("/b/rootfs", dir.path().join("b/absolute")).unwrap();
    let config = r#"{"hostname":"here","root":{"path":"absolute"}}"#;
    fs::write(dir.path().join("b/config.json"), config).unwrap();
    fs::create_dir_all(dir.path().join("outside")).unwrap();
    symlink("/b", dir.path().join("link")).unwrap();
    fs::copy(env::current_exe().unwrap(), dir.path().join("exe")).unwrap();
    let task = Task::start(
        Command::new("chroot")
            .arg(dir.path())
            .args(["/exe", "--exact", "sleeper"])
            .env(SLEEPER, "1"),
    );
    let start = Instant::now();
    while !dir.path().join("ready").exists() {
        assert!(start.elapsed() < Duration::from_secs(20), "the child does not start");
        thread::sleep(Duration::from_millis(5));
    }
    for bundle in [None, Some("."), Some("/b"), Some("/link"), Some("../link"), Some("../../../b")]
    {
        let bundle = Bundle::read(&task.caller(), &target(bundle)).unwrap();
        assert_eq!(hostname(&bundle.facts), "here");
        bundle.rootfs.unwrap();
    }
}

#[test]
fn what_is_no_regular_file_is_refused_at_once() {
    let dir = bundle_dir();
    let config = dir.path().join("b/config.json");
    let task = sleeping_in(dir.path());
    let refused = |expected: &str| {
        let caller = task.caller();
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let error = Bundle::read(&caller, &target(Some("b"))).unwrap_err();
            sender.send(error.to_string()).unwrap();
        });
        let message = receiver.recv_timeout(Duration::from_secs(10)).expect("it waits");
        assert_eq!(message, format!("{} {expected}", config.display()));
        fs::remove_file(&config).or_else(|_| fs::remove_dir(&config)).unwrap();
    };
    fs::remove_file(&config).unwrap();
    mkfifo(&config, Mode::S_IRUSR).unwrap();
    refused("is a FIFO, not a regular file");
    // The console's minor number of a device that does not exist.
    mknod(&config, SFlag::S_IFCHR, Mode::S_IRUSR, makedev(4, 255)).unwrap();
    refused("is a character device, not a regular file");
    fs::create_dir(&config).unwrap();
    refused("is a directory, not a regular file");
    symlink("/etc/hostname", &config).unwrap();
    refused("is a symbolic link, or reached through a link in /proc");
    fs::File::create(&config).unwrap().set_len(100 << 20).unwrap();
    refused("is longer than 16777216 bytes");
}

#[test]
fn missing_and_broken_files() {
    let dir = bundle_dir();
    let config = dir.path().join("b/config.json");
    let task = sleeping_in(dir.path());
    let message = || {
        let error = Bundle::read(&task.caller(), &target(Some("b"))).unwrap_err();
        format!("{error}: {}", error.source().unwrap())
    };
    fs::write(&config, "").unwrap();
    let expected = format!("cannot understand {}: EOF while parsing", config.display());
    assert!(message().starts_with(&expected), "{}", message());
    fs::remove_file(&config).unwrap();
    assert_eq!(
        message(),
        format!("cannot open {}: ENOENT: No such file or directory", config.display())
    );
    let error = Bundle::read(&task.caller(), &target(Some("/proc/self/cwd"))).unwrap_err();
    assert!(matches!(error, BundleError::Link { .. }), "{error}");
    let error = Bundle::read(&task.caller(), &target(Some("nowhere"))).unwrap_err();
    assert!(error.to_string().ends_with("nowhere"), "{error}");
}

#[test]
fn only_what_the_caller_may_read() {
    let dir = bundle_dir();
    let config = dir.path().join("b/config.json");
    let nobody = Task::start(
        Command::new("/bin/sleep").arg("60").current_dir(dir.path()).uid(65534).gid(65533),
    );
    let target = target(Some("b"));
    let read = || Bundle::read(&nobody.caller(), &target);
    assert_eq!(hostname(&read().unwrap().facts), "here");

    // As root this thread could read it.
    fs::set_permissions(&config, fs::Permissions::from_mode(0o600)).unwrap();
    fs::read(&config).unwrap();
    assert!(matches!(read(), Err(BundleError::Read { .. })));
    fs::read(&config).unwrap();

    fs::set_permissions(&config, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(read().is_err());
    nix::unistd::chown(&config, None, Some(65533.into())).unwrap();
    assert!(read().is_ok());

    // A directory on the way that only root may search.
    fs::set_permissions(dir.path().join("b"), fs::Permissions::from_mode(0o700)).unwrap();
    assert!(matches!(read(), Err(BundleError::Open { .. })));
    let own = Bundle::read(&sleeping_in(dir.path()).caller(), &target).unwrap();
    assert_eq!(hostname(&own.facts), "here");
}
