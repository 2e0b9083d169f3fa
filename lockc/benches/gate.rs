//! What the gate costs a container start: `cargo bench -p lockc --bench gate [-- STARTS]`, as root,
//! with runc and a static busybox installed. Prints percentiles; compares nothing.
//!
//! The group and the gate are the real ones, on a copy of the machine's runc, and decide as the
//! daemon does, up to what needs BPF LSM: reading the caller's label and registering.

#![expect(clippy::print_stdout, reason = "a bench prints what it measured")]

mod gate {
    pub(crate) mod recorder;
    pub(crate) mod report;
}

use std::{
    fs::{self, File},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lockc::watch::{gate::Gate, group::Group};

use self::gate::{
    recorder::{ANSWERED, Mode, Recorder},
    report::{difference, percentiles},
};

/// A container start as Docker 26 makes it, but for what exists on one machine only: mounts of
/// `/etc/hosts` and the like, the hook that sets up the network, the control group's path.
const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/gate/config.json");
/// Most of these are quick; the gate's own time is a small part of each.
const STARTS: usize = 300;
/// Executions of a program that does nothing, to see what waiting for any answer costs.
const ROUND_TRIPS: usize = 1000;

fn main() -> Result<()> {
    let starts = std::env::args().find_map(|word| word.parse().ok()).unwrap_or(STARTS);
    let directory = tempfile::tempdir()?;
    let bundle = make_bundle(directory.path())?;
    let group = Arc::new(Group::new().context("a fanotify group needs root")?);
    let runc = Pair::new(directory.path(), Path::new("/usr/bin/runc"), &group)?;
    let nothing = Pair::new(directory.path(), Path::new("/bin/busybox"), &group)?;
    let recorder = Recorder::install();
    let gate = Gate::start(group, recorder, Duration::from_secs(2), None)?;

    println!(
        "{starts} x `runc run` each way, config.json of {} bytes",
        fs::metadata(CONFIG)?.len()
    );
    starts_with_and_without(&runc, &bundle, starts, recorder)?;
    parts(&runc, &bundle, starts, recorder)?;
    round_trips(&nothing, recorder)?;
    gate.stop();
    Ok(())
}

/// The daemon's decisions, and the starts they are part of.
fn starts_with_and_without(
    runc: &Pair,
    bundle: &Path,
    starts: usize,
    recorder: &Recorder,
) -> Result<()> {
    recorder.set(Mode::Decide);
    let (mut walls, mut shares, mut events) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..starts {
        let (without, with) = runc.time(number, |program| start(program, bundle, number))?;
        walls.push((without, with));
        let new = recorder.take();
        let decisions: Duration =
            new.iter().filter(|event| event.0 != ANSWERED).map(|event| event.1).sum();
        shares.push(decisions.as_secs_f64() / with.as_secs_f64() * 100.0);
        events.extend(new);
    }
    let of = |name| events.iter().filter(move |event| event.0 == name).map(|event| event.1);
    println!("\ndecisions, {} per start", of(ANSWERED).count() / starts.max(1));
    percentiles("run", of("run"));
    percentiles("init", of("init"));
    percentiles("all", events.iter().filter(|event| event.0 != ANSWERED).map(|event| event.1));
    // An upper bound: the task that is let go may take this thread's processor first.
    percentiles("all, answered", of(ANSWERED));
    println!("\nwall time of `runc run`");
    percentiles("not marked", walls.iter().map(|wall| wall.0));
    percentiles("marked", walls.iter().map(|wall| wall.1));
    difference(&walls);
    let mean = shares.iter().sum::<f64>() / f64::from(u32::try_from(shares.len())?);
    shares.sort_unstable_by(f64::total_cmp);
    let median = shares.get(shares.len() / 2).unwrap_or(&0.0);
    println!("  share of a marked one spent deciding: median {median:.2} %, mean {mean:.2} %");
    Ok(())
}

/// The same steps one by one, in starts of their own.
fn parts(runc: &Pair, bundle: &Path, starts: usize, recorder: &Recorder) -> Result<()> {
    recorder.set(Mode::Parts);
    for number in 0..starts {
        start(&runc.marked, bundle, number)?;
    }
    let events = recorder.take();
    println!("\nparts of a decision about `run`");
    for part in ["command line", "caller", "bundle", "policy"] {
        percentiles(part, events.iter().filter(|event| event.0 == part).map(|event| event.1));
    }
    Ok(())
}

/// What an `execve` waits beyond the decision: the event's way to a thread, and the answer's back.
fn round_trips(nothing: &Pair, recorder: &Recorder) -> Result<()> {
    recorder.set(Mode::Allow);
    let mut walls = Vec::new();
    for number in 0..ROUND_TRIPS {
        walls.push(nothing.time(number, |program| {
            let time = Instant::now();
            let status = Command::new(program).arg("true").status()?;
            ensure!(status.success(), "{} failed: {status}", program.display());
            Ok(time.elapsed())
        })?);
    }
    println!("\nwall time of a program that does nothing, answered without looking");
    percentiles("not marked", walls.iter().map(|wall| wall.0));
    percentiles("marked", walls.iter().map(|wall| wall.1));
    difference(&walls);
    Ok(())
}

/// Two copies of a program, one of which waits for the gate.
struct Pair {
    plain: PathBuf,
    marked: PathBuf,
}

impl Pair {
    fn new(directory: &Path, program: &Path, group: &Group) -> Result<Self> {
        let name = program.file_name().context("a program has a name")?;
        let copy = |kind| {
            let path = directory.join(kind).join(name);
            fs::create_dir_all(directory.join(kind))?;
            fs::copy(program, &path).with_context(|| format!("copy {}", program.display()))?;
            Ok::<_, anyhow::Error>(path)
        };
        let pair = Self { plain: copy("plain")?, marked: copy("marked")? };
        group.mark(File::open(&pair.marked)?.as_fd())?;
        Ok(pair)
    }

    /// Both in turn, and each first half of the time, so that both meet the same machine.
    fn time(
        &self,
        number: usize,
        run: impl Fn(&Path) -> Result<Duration>,
    ) -> Result<(Duration, Duration)> {
        if number.is_multiple_of(2) {
            Ok((run(&self.plain)?, run(&self.marked)?))
        } else {
            let with = run(&self.marked)?;
            Ok((run(&self.plain)?, with))
        }
    }
}

fn start(runtime: &Path, bundle: &Path, number: usize) -> Result<Duration> {
    let id = format!("lockc-bench-{}-{number}", std::process::id());
    let time = Instant::now();
    let status = Command::new(runtime)
        .args(["run", "--bundle"])
        .arg(bundle)
        .arg(id)
        .stdout(Stdio::null())
        .status()?;
    let time = time.elapsed();
    ensure!(status.success(), "{} failed: {status}", runtime.display());
    Ok(time)
}

fn make_bundle(directory: &Path) -> Result<PathBuf> {
    let bundle = directory.join("bundle");
    fs::create_dir_all(bundle.join("rootfs/bin"))?;
    fs::copy("/bin/busybox", bundle.join("rootfs/bin/true")).context("copy /bin/busybox")?;
    fs::copy(CONFIG, bundle.join("config.json")).with_context(|| format!("copy {CONFIG}"))?;
    Ok(bundle)
}
