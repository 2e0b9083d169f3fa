//! What the gate costs a container start: `cargo bench -p lockc --bench gate`, as root, with runc
//! and a static busybox installed. Prints percentiles; compares nothing.
//!
//! The gate is the real one, on a copy of the machine's runc, and decides as the daemon does, up to
//! the registration in the kernel, which needs BPF LSM.

#![expect(clippy::print_stdout, reason = "a bench prints what it measured")]

use std::{
    fs::{self, File},
    os::fd::{AsFd as _, BorrowedFd},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lockc::{
    config::Config,
    runtime::{self, cmdline::Dialect},
    watch::{
        gate::{Decide, Decision, Gate},
        group::Group,
    },
};
use nix::unistd::Pid;

const STARTS: usize = 200;

/// The daemon's decision without its registration.
struct Examine {
    config: Config,
    times: Arc<Mutex<Vec<Duration>>>,
}

impl Decide for Examine {
    fn decide(&self, tid: Pid, _exe: BorrowedFd<'_>) -> Decision {
        let start = Instant::now();
        let examined = runtime::examine(tid, Dialect::Runc, &self.config);
        let time = start.elapsed();
        drop(examined);
        self.times.lock().unwrap_or_else(PoisonError::into_inner).push(time);
        Decision { allow: true, message: None }
    }

    fn decide_late(&self, _tid: Pid) -> Decision {
        Decision { allow: true, message: None }
    }

    fn trouble(&self, message: String) {
        println!("trouble: {message}");
    }
}

fn main() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let bundle = make_bundle(directory.path())?;
    let size = fs::metadata(bundle.join("config.json"))?.len();
    let plain = copy_runtime(directory.path(), "plain")?;
    let marked = copy_runtime(directory.path(), "marked")?;

    let group = Arc::new(Group::new().context("a fanotify group needs root")?);
    group.mark(File::open(&marked)?.as_fd())?;
    let times = Arc::new(Mutex::new(Vec::new()));
    let decide = Examine { config: Config::default(), times: Arc::clone(&times) };
    let gate = Gate::start(group, decide, Duration::from_secs(2))?;

    let (mut without, mut with) = (Vec::new(), Vec::new());
    for number in 0..STARTS {
        // In turn, and each first half of the time, so that both meet the same machine.
        let mut pair = [(&plain, &mut without), (&marked, &mut with)];
        if number % 2 == 1 {
            pair.reverse();
        }
        for (runtime, walls) in pair {
            walls.push(run(runtime, &bundle, number)?);
        }
    }
    gate.stop();
    let mut inside = std::mem::take(&mut *times.lock().unwrap_or_else(PoisonError::into_inner));
    let events = inside.len();
    let share =
        inside.iter().sum::<Duration>().as_secs_f64() / with.iter().sum::<Duration>().as_secs_f64();

    println!("{STARTS} x `runc run`, config.json of {size} bytes, {events} events at the gate");
    report("decision (caller, argv, command line, bundle, policy)", &mut inside);
    report("runc run, not marked", &mut without);
    report("runc run, marked", &mut with);
    println!("share of a marked runc run spent deciding: {:.2} %", share * 100.0);
    Ok(())
}

fn report(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |share: usize| times.get(times.len().saturating_sub(1) * share / 1000);
    let shown = [("p50", 500), ("p99", 990), ("max", 1000)]
        .map(|(name, share)| format!("{name} {:>10.1?}", at(share).copied().unwrap_or_default()));
    println!("{what:<56} {}", shown.join("  "));
}

fn copy_runtime(directory: &Path, name: &str) -> Result<PathBuf> {
    let path = directory.join(name).join("runc");
    fs::create_dir_all(directory.join(name))?;
    fs::copy("/usr/bin/runc", &path).context("copy /usr/bin/runc")?;
    Ok(path)
}

fn run(runtime: &Path, bundle: &Path, number: usize) -> Result<Duration> {
    let id = format!("lockc-bench-{}-{number}", std::process::id());
    let start = Instant::now();
    let status = Command::new(runtime)
        .args(["run", "--bundle"])
        .arg(bundle)
        .arg(id)
        .stdout(Stdio::null())
        .status()?;
    let time = start.elapsed();
    ensure!(status.success(), "{} failed: {status}", runtime.display());
    Ok(time)
}

/// A bundle whose `config.json` is about as long as Docker's, by its seccomp profile.
fn make_bundle(directory: &Path) -> Result<PathBuf> {
    let bundle = directory.join("bundle");
    fs::create_dir_all(bundle.join("rootfs/bin"))?;
    fs::copy("/bin/busybox", bundle.join("rootfs/bin/true")).context("copy /bin/busybox")?;
    let status = Command::new("runc").arg("spec").current_dir(&bundle).status()?;
    ensure!(status.success(), "runc spec failed: {status}");
    let path = bundle.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path)?)?;
    config["process"]["terminal"] = false.into();
    config["process"]["args"] = serde_json::json!(["/bin/true"]);
    let annotations: serde_json::Map<_, _> = (0..200)
        .map(|n| (format!("org.example.annotation.number-{n}"), "a value like others".into()))
        .collect();
    config["annotations"] = annotations.into();
    fs::write(&path, serde_json::to_vec(&config)?)?;
    Ok(bundle)
}
