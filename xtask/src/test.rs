//! `cargo xtask test`: unit tests here, guest tests on every supported kernel.

use std::{
    ffi::OsString,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use crate::{
    artifacts::{Artifacts, cargo},
    command,
    fuzz::Fuzz,
    guest::{Image, PROCESSORS, Run},
    kernel::{Architecture, Kernel},
    paths, setup,
    tally::Tally,
};

/// Runs the unit tests, and the guest tests on every supported kernel.
///
/// Prints one line per group, the failures of a group below it, and the total
/// last. Full logs are in target/test-logs. Exit code 0 only if all passed.
#[derive(Debug, clap::Args)]
pub(crate) struct Test {
    /// The groups to run; all unless given
    #[arg(value_enum, value_name = "GROUP")]
    groups: Vec<Group>,
    /// How many guests run at once: each keeps a core busy, but for the times in which its tests wait
    #[arg(long, value_name = "N", default_value_t = 3)]
    jobs: usize,
    /// A guest that takes longer has failed
    #[arg(long, value_name = "SECONDS", default_value_t = 4000)]
    timeout: u64,
    /// Passed on to lockc-tests, e.g. the names of the tests to run
    #[arg(last = true, value_name = "ARG")]
    arguments: Vec<OsString>,
}

/// One line of the result, in the order in which they begin: the long ones first, so that none of them runs alone at
/// the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Group {
    /// Unit tests, natively
    Unit,
    /// Every fuzz target for a few seconds, natively
    Fuzz,
    /// Full guest, kernel 6.12
    Full,
    /// Micro guest, kernel 6.12
    #[value(name = "6.12")]
    V6_12,
    /// Micro guest, kernel 6.12 on arm64
    Arm64,
    /// Micro guest, kernel 7.x
    #[value(name = "7.x")]
    V7,
    /// Micro guest, kernel 6.1
    #[value(name = "6.1")]
    V6_1,
    /// Five minutes of `cargo xtask soak`, kernel 6.12
    Soak,
    /// Micro guest, kernel 6.12 on arm64 without BPF LSM
    StockArm64,
    /// Micro guest, kernel 7.x without BPF LSM
    #[value(name = "stock-7.x")]
    Stock7,
    /// Micro guest, kernel 6.12 without BPF LSM
    #[value(name = "stock-6.12")]
    Stock6_12,
    /// Micro guest, kernel 6.1 without BPF LSM
    #[value(name = "stock-6.1")]
    Stock6_1,
}

/// What Debian's kernels have as security modules, without `bpf`.
const STOCK_MODULES: &str = "lsm=landlock,lockdown,yama,loadpin,safesetid,integrity,apparmor";

/// What is run on such kernels other than 6.12, where all of it is: of each kind of hook some.
const STOCK_TESTS: &[&str] = &[
    "backend/",
    "escape/",
    "exec/deny",
    "exec/drift",
    "files/read-only-names",
    "identity/programs",
    "identity/set-user",
    "kernel/",
    "leaks/",
    "token/",
];

impl Group {
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    fn title(self) -> String {
        match self.guest() {
            None if self == Self::Fuzz => "fuzz targets".to_owned(),
            None => "unit tests".to_owned(),
            Some(_) if self == Self::Soak => "soak, 6.12".to_owned(),
            Some((_, Image::Micro)) => format!("micro guest, {}", self.name()),
            Some((_, Image::Full)) => "full guest, 6.12".to_owned(),
        }
    }

    /// The guest of the group; those that run natively have none.
    fn guest(self) -> Option<(Kernel, Image)> {
        match self {
            Self::Unit | Self::Fuzz => None,
            Self::V6_1 | Self::Stock6_1 => Some((Kernel::V6_1, Image::Micro)),
            Self::V6_12 | Self::Stock6_12 | Self::Soak => Some((Kernel::V6_12, Image::Micro)),
            Self::V7 | Self::Stock7 => Some((Kernel::V7, Image::Micro)),
            Self::Arm64 | Self::StockArm64 => Some((Kernel::Arm64, Image::Micro)),
            Self::Full => Some((Kernel::V6_12, Image::Full)),
        }
    }

    /// Whether its kernel is booted as most distributions do it: it runs no LSM programs.
    fn is_stock(self) -> bool {
        matches!(self, Self::Stock6_1 | Self::Stock6_12 | Self::Stock7 | Self::StockArm64)
    }

    /// What `lockc-tests` is asked for. Everything runs on 6.12; on the other kernels what depends on them, and in
    /// smaller amounts: on an emulated machine all of it four times would take hours.
    fn arguments(self) -> Vec<&'static str> {
        match self.runtime() {
            Some(runtime) => {
                let amounts = ["--containers", "4", "--failures", "20"];
                let few = self.is_stock() && self != Self::Stock6_12;
                let filters = if few { STOCK_TESTS } else { &[] };
                let suite = match self {
                    Self::V6_1 => "kernel",
                    group if group.is_stock() => "stock",
                    _ => "enforcement",
                };
                ["run", "--suite", suite, "--runtime", runtime]
                    .into_iter()
                    .chain(amounts)
                    .chain(filters.iter().copied())
                    .collect()
            }
            None if self == Self::Soak => vec!["soak", "--minutes", "5"],
            None if self == Self::Full => vec!["run", "--suite", "full"],
            None => vec!["run", "--suite", "micro"],
        }
    }

    /// The only OCI runtime, where it is not all of them. What a kernel does is the same for each, and what a runtime
    /// does on each kernel.
    pub(crate) fn runtime(self) -> Option<&'static str> {
        match self {
            Self::V6_1 | Self::V7 | Self::Arm64 => Some("crun"),
            group if group.is_stock() => Some("crun"),
            _ => None,
        }
    }

    /// One is quicker than two that take turns on one of the host's, which is how QEMU emulates them. What needs
    /// two is tried where everything is.
    fn processors(self) -> u8 {
        match self {
            Self::Full
            | Self::V6_1
            | Self::V7
            | Self::Stock6_1
            | Self::Stock7
            | Self::Stock6_12 => 1,
            _ => PROCESSORS,
        }
    }

    /// Where its log is.
    pub(crate) fn log(self) -> Result<PathBuf> {
        let dir = paths::target().join("test-logs");
        paths::create_dir(&dir)?;
        Ok(dir.join(format!("{}.log", self.name())))
    }
}

impl Test {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let wanted = |group: &Group| self.groups.is_empty() || self.groups.contains(group);
        let groups: Vec<_> = Group::value_variants().iter().copied().filter(wanted).collect();
        setup::linker()?;
        if groups.iter().any(|group| group.guest().is_some()) {
            setup::packages()?;
        }
        let mut total = Tally::default();
        self.run_groups(&groups, &mut total);
        println!("{} passed, {} failed", total.passed, total.failed);
        Ok(if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// Runs groups, a few at a time, and reports each as it ends.
    fn run_groups(&self, groups: &[Group], total: &mut Tally) {
        let queue = Mutex::new(groups.iter().copied());
        let total = Mutex::new(total);
        // Builds use every core as it is: one at a time, beside that of the unit tests.
        let building = Mutex::new(());
        thread::scope(|scope| {
            for _ in 0..self.jobs.max(1) {
                scope.spawn(|| {
                    loop {
                        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                        let Some(group) = next else { break };
                        let (started, result) = self.run_group(group, &building);
                        let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
                        report(group, started, result, &mut total);
                    }
                });
            }
        });
    }

    /// When it had been built and began, and what came of it.
    fn run_group(&self, group: Group, building: &Mutex<()>) -> (Instant, Result<Tally>) {
        let Some((kernel, image)) = group.guest() else {
            // Building them leaves a core idle much of the time, which prepares the first guest.
            let started = Instant::now();
            return (started, if group == Group::Fuzz { fuzz() } else { unit() });
        };
        let artifacts = {
            let _one = building.lock();
            self.prepare(group, kernel, image)
        };
        let started = Instant::now();
        eprintln!("xtask: {} starts", group.title());
        let result = artifacts.and_then(|artifacts| self.guest(group, kernel, image, &artifacts));
        (started, result)
    }

    fn prepare(&self, group: Group, kernel: Kernel, image: Image) -> Result<Artifacts> {
        self.guest_run(group, kernel, image, &[]).prepare()?;
        match kernel.architecture() {
            // The same sources, built in a third of the time; x86_64 tests what is shipped.
            Architecture::Aarch64 => Artifacts::build_for(image, Architecture::Aarch64, "quick"),
            Architecture::X86_64 => Artifacts::build_for(image, Architecture::X86_64, "release"),
        }
    }

    fn guest_run<'a>(
        &self,
        group: Group,
        kernel: Kernel,
        image: Image,
        command: &'a [OsString],
    ) -> Run<'a> {
        Run {
            kernel,
            image,
            share: None,
            console: false,
            processors: group.processors(),
            counted: false,
            append: if group.is_stock() { STOCK_MODULES } else { "" },
            memory: 2048,
            timeout: Duration::from_secs(self.timeout),
            command,
        }
    }

    fn guest(
        &self,
        group: Group,
        kernel: Kernel,
        image: Image,
        artifacts: &Artifacts,
    ) -> Result<Tally> {
        let mut command = vec![OsString::from("/usr/bin/lockc-tests")];
        command.extend(group.arguments().into_iter().map(OsString::from));
        if group != Group::Soak {
            command.extend(self.arguments.iter().cloned());
        }
        let path = group.log()?;
        // Both streams go to its end, in the order in which they come.
        let _ = fs::remove_file(&path);
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("cannot write {}", path.display()))?;
        let mut out =
            Both { log: log.try_clone().context("cannot copy a descriptor")?, text: Vec::new() };
        let mut err = log.try_clone().context("cannot copy a descriptor")?;
        let code =
            self.guest_run(group, kernel, image, &command).run(artifacts, &mut out, &mut err);
        let text = String::from_utf8_lossy(&out.text);
        let mut tally =
            if group == Group::Soak { Tally::of_soak(&text) } else { Tally::of_guest(&text) };
        match code {
            Ok(0) if !tally.complete => {
                tally.fail("the guest's tests did not reach their last line");
            }
            Ok(code) if code != 0 && tally.failed == 0 => {
                tally.fail(&format!("lockc-tests: exit code {code}"));
            }
            Ok(_) => {}
            Err(error) => {
                let text = format!("{error:#}");
                // Losing a copy of the console in the log changes no result.
                let _ = writeln!(&log, "{text}");
                tally.fail(&text);
            }
        }
        Ok(tally)
    }
}

/// Keeps what it writes.
#[derive(Debug)]
struct Both {
    log: fs::File,
    text: Vec<u8>,
}

impl io::Write for Both {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        self.log.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.log.flush()
    }
}

/// Seconds for each target: enough for the seeds and what is near them.
const FUZZ_SECONDS: u32 = 3;

fn fuzz() -> Result<Tally> {
    let path = Group::Fuzz.log()?;
    let log =
        fs::File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    // The tally has what failed.
    Fuzz::all(FUZZ_SECONDS).tally(|line| _ = writeln!(&log, "{line}"))
}

fn unit() -> Result<Tally> {
    let log = Group::Unit.log()?;
    let file = fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let copy = file.try_clone().context("cannot copy a descriptor")?;
    let mut cargo = cargo();
    cargo
        .args(["test", "--workspace", "--exclude", "lockc-ebpf", "--no-fail-fast"])
        .args(["--target", Architecture::host().target()])
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(copy);
    let status = command::patiently("building and running the unit tests", || cargo.status())
        .context("cannot run cargo")?;
    let text = read(&log)?;
    let mut tally = Tally::of_cargo(&text);
    if !status.success() && tally.failed == 0 {
        let last: Vec<_> = text.lines().rev().take(30).collect();
        let last: Vec<_> = last.into_iter().rev().collect();
        tally.fail(&format!("cargo test: {status}\n{}", last.join("\n")));
    }
    Ok(tally)
}

fn read(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Prints a group's line and its failures, and adds it to the total.
fn report(group: Group, started: Instant, result: Result<Tally>, total: &mut Tally) {
    let tally = result.unwrap_or_else(|error| {
        let mut tally = Tally::default();
        tally.fail(&format!("{error:#}"));
        tally
    });
    let verdict = if tally.failed == 0 { "ok" } else { "FAILED" };
    println!(
        "{verdict:6} {:20} {:4} passed, {:2} failed {:6.0} s",
        group.title(),
        tally.passed,
        tally.failed,
        started.elapsed().as_secs_f64()
    );
    for line in &tally.failures {
        println!("       {line}");
    }
    total.passed += tally.passed;
    total.failed += tally.failed;
}
