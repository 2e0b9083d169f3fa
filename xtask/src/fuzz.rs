//! `cargo xtask fuzz`: feeds what is hostile to what reads it.
//!
//! Flags are those of cargo-fuzz 0.13, which is not needed.

use std::{
    collections::BTreeSet,
    fs,
    num::NonZero,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::{artifacts::cargo, command, paths, setup, tally::Tally};

/// Builds the fuzz targets and runs each for a while.
///
/// The toolchain that builds lockc builds them, too: no nightly is needed, and no cargo-fuzz. All are built at once, and as
/// many run at a time as there are processors: with all nine, two processors and ten seconds, that is fifty seconds.
///
/// Prints one line per target, for one that fails the input and how to run it again, and what it took. What is found
/// stays in target/fuzz-corpus and is where the next run begins. Exit code 0 only if all passed.
#[derive(Debug, clap::Args)]
pub(crate) struct Fuzz {
    /// The targets to run, by their names in fuzz/Cargo.toml; all unless given
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// How long each is run
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// How many run at a time; as many as there are processors unless given
    #[arg(long, value_name = "N")]
    jobs: Option<NonZero<usize>>,
}

/// Seconds that one input may take, most of which it waits for a processor.
const TIMEOUT: u32 = 10;
/// Memory that a target may take, in MiB: a whole configuration and the sanitizer's own included.
const MEMORY: u32 = 512;
/// Longest input: that of the longest seed; libFuzzer would take the longest of a target's own.
const LENGTH: u32 = 1 << 16;

/// Coverage of edges and comparisons for libFuzzer; `debug_assert!` and overflows, which a release leaves
/// out; and the address sanitizer, which also lets libFuzzer see a single large allocation.
const FLAGS: [&str; 10] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    // Branches that are folded are not told from each other.
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
    "--cfg",
    "fuzzing",
    "-Cdebug-assertions",
    "-Zsanitizer=address",
];

impl Fuzz {
    pub(crate) fn run(self) -> Result<ExitCode> {
        setup::packages()?;
        setup::linker()?;
        let tally = self.tally(|line| println!("{line}"))?;
        Ok(if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// All targets, for `seconds` each and one at a time: other tests run beside them.
    pub(crate) fn all(seconds: u32) -> Self {
        Self { targets: Vec::new(), seconds, jobs: NonZero::new(1) }
    }

    /// Builds and runs the targets; `say` is told each line.
    pub(crate) fn tally(self, say: impl Fn(&str) + Sync) -> Result<Tally> {
        let manifest = paths::workspace().join("fuzz/Cargo.toml");
        let text = fs::read_to_string(&manifest)
            .with_context(|| format!("cannot read {}", manifest.display()))?;
        let known = targets(&text).with_context(|| format!("{}", manifest.display()))?;
        let wanted = choose(&known, &self.targets)?;
        let host = setup::host()?;
        let directory = paths::target().join("fuzz");
        let started = Instant::now();
        build(&manifest, &directory, &host, &wanted)?;
        let built = started.elapsed();
        say(&format!("built  fuzz targets in {:.0} s", built.as_secs_f64()));
        let started = Instant::now();
        let binaries = directory.join(&host).join("release");
        let failures = Mutex::new(Vec::new());
        let passed = self.fuzz_all(&wanted, &binaries, |passed, lines| {
            say(lines);
            if !passed {
                let mut failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
                failures.extend(lines.lines().map(str::to_owned));
            }
        })?;
        let failed = wanted.len() - passed;
        say(&format!(
            "{passed} fuzz targets passed, {failed} failed; built in {:.0} s, run in {:.0} s",
            built.as_secs_f64(),
            started.elapsed().as_secs_f64()
        ));
        let failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(Tally { passed: passed as u64, failed: failed as u64, failures, complete: true })
    }

    /// Runs the targets, a few at a time, and gives how many passed.
    fn fuzz_all(
        &self,
        targets: &[&str],
        binaries: &Path,
        report: impl Fn(bool, &str) + Sync,
    ) -> Result<usize> {
        let processors = || thread::available_parallelism().map_or(1, NonZero::get);
        let jobs = self.jobs.map_or_else(processors, NonZero::get);
        let queue = Mutex::new(targets.iter());
        let work = || -> Result<usize> {
            let mut passed = 0;
            loop {
                let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some(target) = next else { return Ok(passed) };
                let (has_passed, lines) = self.fuzz(target, &binaries.join(target))?;
                // In one piece: others report meanwhile.
                report(has_passed, &lines);
                passed += usize::from(has_passed);
            }
        };
        thread::scope(|scope| {
            let workers: Vec<_> = (0..jobs.min(targets.len())).map(|_| scope.spawn(work)).collect();
            let passed = workers.into_iter().map(|worker| match worker.join() {
                Ok(passed) => passed,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            passed.sum()
        })
    }

    /// Runs one target; whether it passed, and lines about that.
    fn fuzz(&self, target: &str, binary: &Path) -> Result<(bool, String)> {
        let corpus = paths::target().join("fuzz-corpus").join(target);
        let artifacts = paths::target().join("fuzz-artifacts").join(target);
        paths::create_dir(&corpus)?;
        paths::create_dir(&artifacts)?;
        let mut command = Command::new(binary);
        command
            .current_dir(paths::workspace())
            .arg(format!("-max_total_time={}", self.seconds))
            .args([format!("-timeout={TIMEOUT}"), format!("-rss_limit_mb={MEMORY}")])
            .args([format!("-max_len={LENGTH}"), "-print_final_stats=1".to_owned()])
            // With the closing `/` it is a directory.
            .arg(format!("-artifact_prefix={}/", artifacts.display()))
            // What is new is written to the first; the others are only read.
            .arg(corpus)
            .arg(paths::workspace().join("fuzz/seeds").join(target))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let output = command::patiently(&format!("fuzzing {target}"), || command.output())
            .with_context(|| format!("cannot run {}", binary.display()))?;
        // libFuzzer says everything here.
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            let runs = runs(&said).with_context(|| format!("{target} does not say its runs"))?;
            return Ok((true, format!("ok     fuzz {target:10} {runs:9} runs")));
        }
        let mut lines = vec![format!("FAILED fuzz {target}: {}", output.status)];
        lines.extend(complaint(&said).map(|line| format!("       {line}")));
        if let Some(input) = input(&said) {
            lines.push(format!("       again: {} {}", binary.display(), input.display()));
        }
        Ok((false, lines.join("\n")))
    }
}

#[derive(Deserialize)]
struct Manifest {
    bin: Vec<Bin>,
}

#[derive(Deserialize)]
struct Bin {
    name: String,
}

/// Names of the targets in `fuzz/Cargo.toml`.
fn targets(manifest: &str) -> Result<Vec<String>> {
    let manifest: Manifest = toml::from_str(manifest)?;
    Ok(manifest.bin.into_iter().map(|bin| bin.name).collect())
}

/// Those of the `known` targets that are wanted: all, unless some are named.
fn choose<'k>(known: &'k [String], named: &[String]) -> Result<Vec<&'k str>> {
    let named: BTreeSet<&String> = named.iter().collect();
    if let Some(name) = named.iter().find(|name| !known.contains(name)) {
        bail!("no fuzz target is named `{name}`; there are {}", known.join(", "));
    }
    let wanted = known.iter().filter(|name| named.is_empty() || named.contains(name));
    Ok(wanted.map(String::as_str).collect())
}

fn build(manifest: &Path, directory: &Path, host: &str, targets: &[&str]) -> Result<()> {
    let mut cargo = cargo();
    cargo
        // `-Z` and the sanitizer's runtime come with the pinned stable toolchain.
        .env("RUSTC_BOOTSTRAP", "1")
        // No target needs the BPF object, which lockc's build script then leaves out.
        .env("AYA_BUILD_SKIP", "1")
        .env("CARGO_TARGET_DIR", directory)
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}"))
        .args(["build", "--quiet", "--release", "--locked", "--target", host])
        .arg("--manifest-path")
        .arg(manifest);
    for target in targets {
        cargo.args(["--bin", target]);
    }
    command::run(&mut cargo, "building the fuzz targets (about two minutes)")
}

/// How often libFuzzer called the target.
fn runs(said: &str) -> Option<u64> {
    let runs =
        said.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"))?;
    runs.trim().parse().ok()
}

/// What a target said when it failed: from the panic, or the sanitizer's or libFuzzer's own words, on.
fn complaint(said: &str) -> impl Iterator<Item = &str> {
    const MOST: usize = 30;
    let is_first = |line: &&str| {
        (line.starts_with("thread '") && line.contains("panicked at")) || line.starts_with("==")
    };
    let found = said.lines().any(|line| is_first(&line));
    // Whatever else it was, its end is the likeliest to say.
    let skipped = if found { 0 } else { said.lines().count().saturating_sub(MOST) };
    said.lines().skip(skipped).skip_while(move |line| found && !is_first(line)).take(MOST)
}

/// The file that libFuzzer wrote the input to.
fn input(said: &str) -> Option<PathBuf> {
    let (_, path) = said.lines().find_map(|line| line.split_once("Test unit written to "))?;
    Some(path.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILED: &str = "\
INFO: Running with entropic power schedule (0xFF, 100).
#2\tINITED cov: 12 ft: 13 corp: 1/1b exec/s: 0 rss: 40Mb
thread '<unnamed>' (7) panicked at fuzz_targets/x.rs:9:5:
why
==7== ERROR: libFuzzer: deadly signal
artifact_prefix='/t/x/'; Test unit written to /t/x/crash-da39a3
";

    #[test]
    fn what_libfuzzer_says() {
        assert_eq!(
            runs("Done 7 runs in 1 second(s)\nstat::number_of_executed_units: 123456\n"),
            Some(123_456)
        );
        assert_eq!(runs("stat::number_of_executed_units: x\n"), None);
        assert_eq!(runs(FAILED), None);
        assert_eq!(input(FAILED), Some("/t/x/crash-da39a3".into()));
        assert_eq!(input("==7== ERROR"), None);
        let said: Vec<_> = complaint(FAILED).collect();
        assert_eq!(said.len(), 4);
        assert!(said[0].ends_with("fuzz_targets/x.rs:9:5:"), "{said:?}");
        let said: Vec<_> = complaint("a\nb\n").collect();
        assert_eq!(said, ["a", "b"], "without a beginning that is known");
        let long = "line\n".repeat(100) + "end\n";
        assert_eq!(complaint(&long).last(), Some("end"));
    }

    #[test]
    fn targets_are_chosen_by_name() {
        let known = ["argv", "btf"].map(str::to_owned);
        let named =
            |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(choose(&known, &[]).unwrap(), ["argv", "btf"]);
        assert_eq!(choose(&known, &named(&["btf", "btf"])).unwrap(), ["btf"]);
        let error = choose(&known, &named(&["btf", "none"])).unwrap_err().to_string();
        assert_eq!(error, "no fuzz target is named `none`; there are argv, btf");
    }

    /// A target without seeds would find nothing in the seconds of a CI run.
    #[test]
    fn every_target_has_its_file_and_seeds() {
        let fuzz = paths::workspace().join("fuzz");
        let known = targets(&fs::read_to_string(fuzz.join("Cargo.toml")).unwrap()).unwrap();
        let names = |dir: &str| -> BTreeSet<String> {
            let entries = fs::read_dir(fuzz.join(dir)).unwrap();
            let paths = entries.map(|entry| entry.unwrap().path());
            paths.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect()
        };
        let known: BTreeSet<String> = known.into_iter().collect();
        assert!(known.len() >= 9, "{known:?}");
        assert_eq!(names("fuzz_targets"), known);
        assert_eq!(names("seeds"), known);
        for target in &known {
            for seed in fs::read_dir(fuzz.join("seeds").join(target)).unwrap() {
                let path = seed.unwrap().path();
                assert!(fs::metadata(&path).is_ok_and(|it| it.is_file()), "{}", path.display());
            }
        }
    }
}
