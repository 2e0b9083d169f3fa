//! `cargo xtask escapes`: which attack is stopped where, from the catalogue and the logs of the last tests.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::Path,
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use crate::{paths, test::Group};

/// Kernels of the small guest, by the names that people know them by; the last one's list of security modules lacks `bpf`.
const KERNELS: [(Group, &str); 5] = [
    (Group::V6_1, "6.1"),
    (Group::V6_12, "6.12"),
    (Group::V7, "7.x"),
    (Group::Arm64, "6.12, arm64"),
    (Group::Stock6_12, "6.12 without `bpf`"),
];
/// Names of runtimes as people know them, in the order in which they are shown; the first is that of tests that do not
/// depend on the runtime, where there are all.
const RUNTIMES: [(&str, &str); 4] =
    [("runc-new", "runc"), ("runc", "runc 1.1"), ("crun", "crun"), ("youki", "youki")];
/// Groups of tests of which every one is about some attack.
const GROUPS: [&str; 11] = [
    "token",
    "escape",
    "kernel",
    "machine",
    "network",
    "identity",
    "exec",
    "files",
    "runtime",
    "host-paths",
    "own-files",
];
/// Groups about what the daemon decides, which run on one kernel for all.
const OF_THE_DAEMON: [&str; 5] = ["admission", "explain", "reload", "examples", "input"];
/// Tests of those groups that are about something else.
const OTHERS: [&str; 4] =
    ["exec/audit", "files/audit", "host-paths/own-root", "kernel/own-namespaces"];
const DOCUMENT: &str = "docs/escape-matrix.md";
const HEAD: &str = "\
# Escape matrix

Made by `cargo xtask escapes` from the catalogue in `tests/escape/` and the logs of `cargo xtask test`: do not edit. A cell names the
runtimes under which every test of the attack passed in that guest. A test shows that the attack works without lockc and under
`privileged`, is refused with lockc, and that ordinary work beside it goes on. Tests of what the daemon decides run on 6.12 only. \"levels\" are `offline`, `restricted` and `baseline`;
other attacks are stopped by what a policy says with the key named.

";

/// Writes docs/escape-matrix.md from tests/escape/ and the logs of the last `cargo xtask test`
#[derive(Debug, clap::Args)]
pub(crate) struct Escapes {
    /// Only say whether the document is up to date
    #[arg(long)]
    check: bool,
}

/// A file of the catalogue.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Attack {
    title: String,
    #[serde(default)]
    cve: Vec<String>,
    what: String,
    /// What a policy must say; nothing for what the levels deny.
    needs: Option<String>,
    /// `GROUP/TEST`.
    tests: Vec<String>,
}

impl Escapes {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let root = paths::workspace();
        let catalogue = catalogue(&root.join("tests/escape"))?;
        let mut texts = Vec::new();
        for (group, title) in KERNELS {
            let path = group.log()?;
            let text = fs::read_to_string(&path)
                .with_context(|| format!("read {}: run cargo xtask test first", path.display()))?;
            texts.push((title, group.runtime().unwrap_or(RUNTIMES[0].0), text));
        }
        let logs: Vec<_> =
            texts.iter().map(|(title, first, text)| (*title, passed(text, first))).collect();
        complete(&catalogue, &logs)?;
        let matrix = matrix(&catalogue, &logs)?;
        let path = root.join(DOCUMENT);
        let before = fs::read_to_string(&path).unwrap_or_default();
        if before == matrix {
            println!("{DOCUMENT} is up to date: {} attacks", catalogue.len());
        } else if self.check {
            println!("{DOCUMENT} is not up to date: run cargo xtask escapes");
            return Ok(ExitCode::FAILURE);
        } else {
            fs::write(&path, matrix).with_context(|| format!("write {}", path.display()))?;
            println!("wrote {DOCUMENT}: {} attacks", catalogue.len());
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// All files of the catalogue, by name.
fn catalogue(directory: &Path) -> Result<BTreeMap<String, Attack>> {
    let mut catalogue = BTreeMap::new();
    for entry in fs::read_dir(directory).context("list tests/escape")? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let attack = toml::from_str(&text).with_context(|| format!("{}", path.display()))?;
        catalogue.insert(name, attack);
    }
    Ok(catalogue)
}

type Passed<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;

/// Test → the runtimes it passed under, from lines `ok GROUP/TEST[RUNTIME] (1.2 s)`; `first` is the one that is not named.
fn passed<'a>(log: &'a str, first: &'a str) -> Passed<'a> {
    let mut passed = Passed::new();
    for line in log.lines() {
        let Some(name) = line.strip_prefix("ok ").and_then(|rest| rest.split(' ').next()) else {
            continue;
        };
        let (test, runtime) = match name.split_once('[') {
            Some((test, runtime)) => (test, runtime.trim_end_matches(']')),
            None => (name, first),
        };
        passed.entry(test).or_default().insert(runtime);
    }
    passed
}

/// Every test that is named exists, and every test about an attack is named.
fn complete(catalogue: &BTreeMap<String, Attack>, logs: &[(&str, Passed<'_>)]) -> Result<()> {
    let named: BTreeSet<&str> =
        catalogue.values().flat_map(|attack| &attack.tests).map(String::as_str).collect();
    let known: BTreeSet<&str> = logs.iter().flat_map(|(_, log)| log.keys().copied()).collect();
    if let Some(test) = named.iter().find(|test| !known.contains(*test)) {
        bail!("tests/escape names the test {test}, which has passed on no kernel");
    }
    let forgotten = known.iter().find(|test| {
        let group = test.split('/').next().unwrap_or_default();
        GROUPS.contains(&group) && !OTHERS.contains(test) && !named.contains(*test)
    });
    ensure!(
        forgotten.is_none(),
        "no file in tests/escape names the test {}",
        forgotten.unwrap_or(&"")
    );
    Ok(())
}

fn matrix(catalogue: &BTreeMap<String, Attack>, logs: &[(&str, Passed<'_>)]) -> Result<String> {
    let mut out = HEAD.to_owned();
    let kernels: Vec<&str> = logs.iter().map(|(kernel, _)| *kernel).collect();
    writeln!(out, "| attack | stopped by | {} |", kernels.join(" | "))?;
    writeln!(out, "|---|---|{}", "---|".repeat(kernels.len()))?;
    for (name, attack) in catalogue {
        let by = attack.needs.as_ref().map_or("levels".to_owned(), |needs| format!("`{needs}`"));
        let cells: Vec<String> = logs.iter().map(|(_, log)| cell(attack, log)).collect();
        writeln!(out, "| [{}](#{name}) | {by} | {} |", attack.title, cells.join(" | "))?;
    }
    for (name, attack) in catalogue {
        let cve = if attack.cve.is_empty() {
            String::new()
        } else {
            format!(" ({})", attack.cve.join(", "))
        };
        let what = attack.what.split_whitespace().collect::<Vec<_>>().join(" ");
        let tests: Vec<String> = attack.tests.iter().map(|test| format!("`{test}`")).collect();
        write!(
            out,
            "\n## {name}\n\n{}{cve}. {what}\n\nTests: {}.\n",
            attack.title,
            tests.join(", ")
        )?;
    }
    Ok(out)
}

/// The runtimes under which all tests of the attack passed, as far as they are run with more than one, and run in
/// that guest.
fn cell(attack: &Attack, log: &Passed<'_>) -> String {
    let is_daemons = |test: &str| {
        OF_THE_DAEMON.contains(&test.split('/').next().unwrap_or_default())
            && !log.keys().any(|ran| is_of_the_same_group(ran, test))
    };
    let wanted: Vec<_> = attack.tests.iter().filter(|test| !is_daemons(test)).collect();
    if wanted.is_empty() {
        return "as on 6.12".to_owned();
    }
    let ran = wanted.into_iter().map(|test| log.get(test.as_str())).collect::<Option<Vec<_>>>();
    let Some(ran) = ran else {
        return "not tested".to_owned();
    };
    let names = RUNTIMES.iter().filter(|(runtime, _)| ran.iter().any(|it| it.contains(runtime)));
    names.map(|(_, name)| *name).collect::<Vec<_>>().join(", ")
}

fn is_of_the_same_group(one: &str, other: &str) -> bool {
    one.split('/').next() == other.split('/').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "ok token/routes[runc-new] (1.0 s)\nok token/routes[crun] (1.0 s)\n\
                       FAILED kernel/log: x\nok machine/calls (0.1 s)\n1 passed, 1 failed\n";

    fn attack(tests: &[&str]) -> Attack {
        Attack {
            title: "t".to_owned(),
            cve: Vec::new(),
            what: String::new(),
            needs: None,
            tests: tests.iter().map(|test| (*test).to_owned()).collect(),
        }
    }

    #[test]
    fn cells_say_what_passed() {
        let log = passed(LOG, "runc-new");
        assert_eq!(cell(&attack(&["token/routes", "machine/calls"]), &log), "runc, crun");
        assert_eq!(cell(&attack(&["machine/calls"]), &log), "runc");
        assert_eq!(cell(&attack(&["machine/calls", "kernel/log"]), &log), "not tested");
        // What the daemon decides is tested in another guest, or it is not: both show.
        assert_eq!(cell(&attack(&["machine/calls", "admission/x"]), &log), "runc");
        assert_eq!(cell(&attack(&["admission/x"]), &log), "as on 6.12");
        let log = passed("ok admission/y (1.0 s)\n", "runc-new");
        assert_eq!(cell(&attack(&["admission/x"]), &log), "not tested");
    }

    #[test]
    fn what_is_forgotten_is_named() {
        let logs = [("6.12", passed(LOG, "runc-new"))];
        let file = |tests: &[&str]| BTreeMap::from([("a".to_owned(), attack(tests))]);
        assert!(complete(&file(&["token/routes", "machine/calls"]), &logs).is_ok());
        let error = complete(&file(&["token/routes"]), &logs).unwrap_err().to_string();
        assert!(error.ends_with("names the test machine/calls"), "{error}");
        let error = complete(&file(&["kernel/log"]), &logs).unwrap_err().to_string();
        assert!(error.contains("kernel/log, which has passed"), "{error}");
    }

    /// The logs of a machine are not here; that the files can be read is.
    #[test]
    fn the_catalogue_can_be_read() {
        let catalogue = catalogue(&paths::workspace().join("tests/escape")).unwrap();
        assert!(catalogue.values().all(|attack| !attack.tests.is_empty()));
        assert!(catalogue.len() >= 40);
    }
}
