//! `cargo xtask bench`: what lockc costs, in instructions of a guest.

mod compare;
mod figures;
mod scale;
mod table;

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use self::{figures::Figures, scale::Growth};
use crate::{apt::Suite, artifacts::Artifacts, guest::Run, kernel::Kernel, paths, setup, userland};

/// What is kept of the last `--update`: the numbers, and the document with the tables.
const RECORD: &str = "docs/performance.toml";
const DOCUMENT: &str = "docs/performance.md";
/// How costs grow, drawn.
const DRAWING: &str = "docs/scale.svg";
/// What lockc is held to; the others are there to compare with.
const CHECKED: &[&str] = &["none", "lockc"];

/// Boots at most, when something seems worse: what happens to lie where in the kernel's memory differs from one to the
/// next, and the least counts.
const BOOTS: usize = 3;

/// Counts the instructions that operations take in a guest, with and without lockc.
///
/// Prints a table of what each configuration adds, and fails when lockc adds more than when
/// docs/performance.toml was written. The release build is measured; nothing depends on this machine's speed.
#[derive(Debug, clap::Args)]
pub(crate) struct Bench {
    /// Measure only what is compared with docs/performance.toml
    #[arg(long, conflicts_with_all = ["update", "scale"])]
    check: bool,
    /// Write docs/performance.toml and the tables of docs/performance.md anew, and compare nothing
    #[arg(long)]
    update: bool,
    /// Measure how costs grow with rules and containers instead, and write that to docs/performance.md and docs/scale.svg
    #[arg(long, conflicts_with = "update")]
    scale: bool,
    /// Give up after that long
    #[arg(long, value_name = "SECONDS", default_value_t = 3000)]
    timeout: u64,
}

impl Bench {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let guest = self.prepare()?;
        if self.scale {
            write_growth(&Growth::parse(&guest.run()?)?)?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut figures = guest.measure()?;
        println!("{}", table::all(&figures));
        if self.update {
            update(&figures)?;
            return Ok(ExitCode::SUCCESS);
        }
        let recorded = recorded()?;
        let mut regressions = compare::regressions(&recorded, &figures)?;
        for _ in 1..BOOTS {
            if regressions.is_empty() {
                break;
            }
            println!("measuring again: {}", regressions.join("; "));
            figures = figures.least(guest.measure()?);
            regressions = compare::regressions(&recorded, &figures)?;
        }
        for regression in &regressions {
            println!("worse: {regression}");
        }
        if regressions.is_empty() {
            println!("no worse than {RECORD}");
            return Ok(ExitCode::SUCCESS);
        }
        Ok(ExitCode::FAILURE)
    }

    fn prepare(&self) -> Result<Guest> {
        let wanted = match self {
            Self { scale: true, .. } => &["scale"],
            Self { check: true, .. } => CHECKED,
            Self { .. } => figures::CONFIGURATIONS,
        };
        let mut command = ["/usr/bin/lockc-tests", "bench"].map(OsString::from).to_vec();
        command.extend(wanted.iter().map(OsString::from));
        setup::packages()?;
        Ok(Guest {
            artifacts: Artifacts::build(Kernel::V6_12.architecture())?,
            share: others()?,
            command,
            timeout: Duration::from_secs(self.timeout),
        })
    }
}

/// What is booted.
struct Guest {
    artifacts: Artifacts,
    share: PathBuf,
    command: Vec<OsString>,
    timeout: Duration,
}

impl Guest {
    fn measure(&self) -> Result<Figures> {
        Figures::parse(&self.run()?)
    }

    /// What it said.
    fn run(&self) -> Result<String> {
        let mut run = Run::micro(Kernel::V6_12, self.timeout, &self.command);
        run.counted = true;
        // Where things lie decides how many page tables there are.
        run.append = "nokaslr norandmaps";
        run.share = Some(&self.share);
        let mut said = Vec::new();
        let code = run.run(&self.artifacts, &mut said, &mut io::stderr())?;
        let said = String::from_utf8_lossy(&said).into_owned();
        ensure!(code == 0, "the guest failed with {code} after it said:\n{said}");
        Ok(said)
    }
}

/// Rules of fapolicyd's policy `known-libs`, by its `README-rules`.
const KNOWN_LIBS: &[&str] = &[
    "10-languages",
    "20-dracut",
    "21-updaters",
    "30-patterns",
    "40-bad-elf",
    "41-shared-obj",
    "42-trusted-elf",
    "70-trusted-lang",
    "72-shell",
    "90-deny-execute",
    "95-allow-open",
];

/// A directory with what the guest needs to measure others: AppArmor's parser, and a profile; fapolicyd with its libraries,
/// its configuration and tables of file types, and its rules in one file, as `fagenrules` makes it.
fn others() -> Result<PathBuf> {
    let kernel = Kernel::V6_12.architecture();
    let suite = Suite::open("trixie", kernel.debian())?;
    let package = suite.unpack(&suite.find("apparmor")?)?;
    let share = paths::vm("bench")?;
    for (name, from) in [
        ("apparmor_parser", package.join("usr/sbin/apparmor_parser")),
        ("profile", paths::workspace().join("xtask/src/bench/profile")),
    ] {
        copy(&from, &share.join(name))?;
    }
    let program = "usr/sbin/fapolicyd";
    let (package, libraries) = userland::program(&suite, kernel, "fapolicyd", program)?;
    let data = package.join("usr/share/fapolicyd");
    let types = suite.unpack(&suite.find("libmagic-mgc")?)?.join("usr/lib/file/magic.mgc");
    let config = package.join("etc/fapolicyd/fapolicyd.conf");
    let files = [package.join(program), config, data.join("fapolicyd-magic.mgc"), types];
    let directory = share.join("fapolicyd");
    paths::create_dir(&directory)?;
    for from in files.iter().chain(&libraries) {
        let name = from.file_name().with_context(|| format!("no name: {}", from.display()))?;
        copy(from, &directory.join(name))?;
    }
    let mut rules = String::new();
    for name in KNOWN_LIBS {
        let path = data.join("sample-rules").join(format!("{name}.rules"));
        rules += &fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    }
    let compiled = directory.join("compiled.rules");
    fs::write(&compiled, rules).with_context(|| format!("write {}", compiled.display()))?;
    Ok(share)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).map(drop).with_context(|| format!("copy {}", from.display()))
}

fn recorded() -> Result<Figures> {
    let text = fs::read_to_string(paths::workspace().join(RECORD))
        .with_context(|| format!("read {RECORD}: run cargo xtask bench --update first"))?;
    toml::from_str(&text).context(RECORD)
}

/// Puts tables into the document, behind `begin`.
fn write_tables(begin: &str, tables: &str) -> Result<()> {
    let path = paths::workspace().join(DOCUMENT);
    let document = fs::read_to_string(&path).with_context(|| format!("read {DOCUMENT}"))?;
    let document = table::replaced(&document, begin, tables)
        .with_context(|| format!("no place for the tables in {DOCUMENT}"))?;
    fs::write(path, document).with_context(|| format!("write {DOCUMENT}"))
}

fn write_growth(growth: &Growth) -> Result<()> {
    println!("{}", growth.table());
    write_tables(table::BEGIN_GROWTH, &growth.table())?;
    let path = paths::workspace().join(DRAWING);
    fs::write(path, growth.drawing()?).with_context(|| format!("write {DRAWING}"))?;
    println!("wrote {DRAWING} and {DOCUMENT}");
    Ok(())
}

fn update(figures: &Figures) -> Result<()> {
    write_tables(table::BEGIN, &table::all(figures))?;
    let text = format!(
        "# Instructions for each operation, written by `cargo xtask bench --update`.\n{}",
        toml::to_string(figures)?
    );
    fs::write(paths::workspace().join(RECORD), text).with_context(|| format!("write {RECORD}"))?;
    println!("wrote {RECORD} and {DOCUMENT}");
    Ok(())
}
