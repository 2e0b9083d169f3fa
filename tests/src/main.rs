//! Guest-side tests of lockc, and the attacker that they put into containers.
//!
//! ```text
//! lockc-tests run --suite micro|kernel|enforcement|stock|full [--runtime runc|runc-new|crun|youki] [--off] [--thorough] [FILTER]
//! lockc-tests soak --minutes N [--seed S]
//! lockc-tests bench CONFIGURATION…
//! lockc-tests list
//! lockc-tests demo
//! lockc-tests probe VERB ARG…
//! ```

mod bench;
mod demo;
mod harness;
mod probe;
mod soak;
mod suite;
mod sys;

use std::{collections::HashSet, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, bail};

use harness::{
    context::{Amounts, Context},
    runner::{self, Test},
    say,
};

const USAGE: &str = "usage: lockc-tests run --suite micro|kernel|enforcement|stock|full [--runtime NAME] [--off] \
                     [--thorough] [--containers N] [--parallel N] [--failures N] [--short N] \
                     [FILTER...]\n       \
                     lockc-tests soak --minutes N [--seed S]\n       \
                     lockc-tests bench CONFIGURATION...\n       \
                     lockc-tests list | demo | probe VERB ARG...";

fn main() -> Result<ExitCode> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.split_first() {
        Some((verb, args)) if verb == "probe" => probe::main(args),
        // The copy that lies in a container's root file system.
        Some((_, _)) if called_as_probe() => probe::main(&args),
        Some((verb, args)) if verb == "run" => run(args),
        Some((verb, args)) if verb == "soak" => soak::main(args),
        Some((verb, args)) if verb == "bench" => bench::main(args),
        Some((verb, [])) if verb == "demo" => demo::run(),
        Some((verb, [])) if verb == "list" => {
            list();
            Ok(ExitCode::SUCCESS)
        }
        _ => bail!("{USAGE}"),
    }
}

fn called_as_probe() -> bool {
    std::env::args_os()
        .next()
        .is_some_and(|name| std::path::Path::new(&name).file_name() == Some("probe".as_ref()))
}

/// The command line of `run`.
#[derive(Debug)]
struct Options {
    suite: String,
    runtime: Option<String>,
    off: bool,
    /// A test runs whose name has one of these in it; every test if there are none.
    filters: Vec<String>,
    amounts: Amounts,
}

impl Options {
    fn parse(args: &[String]) -> Result<Self> {
        let parallel = std::thread::available_parallelism().map_or(4, |count| 4 * count.get());
        let mut options = Self {
            suite: "micro".to_owned(),
            runtime: None,
            off: false,
            filters: Vec::new(),
            amounts: Amounts { parallel, ..Amounts::SMALL },
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
            match arg.as_str() {
                "--suite" => options.suite.clone_from(value()?),
                "--runtime" => options.runtime = Some(value()?.clone()),
                "--off" => options.off = true,
                "--thorough" => {
                    options.amounts = Amounts {
                        containers: 200,
                        failures: 5000,
                        short: 100_000,
                        reloads: 1000,
                        restarts: 500,
                        rest: Duration::from_millis(1),
                        crowd: 1000,
                        tasks: 10_000,
                        in_flight: 200,
                        every_runtime: true,
                        longest: Duration::from_hours(4),
                        ..options.amounts
                    };
                }
                "--containers" => options.amounts.containers = value()?.parse()?,
                "--parallel" => options.amounts.parallel = value()?.parse()?,
                "--failures" => options.amounts.failures = value()?.parse()?,
                "--short" => options.amounts.short = value()?.parse()?,
                option if option.starts_with('-') => bail!("no option {option}\n{USAGE}"),
                filter => options.filters.push(filter.to_owned()),
            }
        }
        Ok(options)
    }
}

fn tests(suite: &str) -> Result<Vec<&'static Test>> {
    match suite {
        "micro" => Ok(suite::micro()),
        "kernel" => Ok(suite::kernel()),
        "enforcement" => Ok(suite::enforcement()),
        "stock" => Ok(suite::stock()),
        "full" => Ok(suite::full()),
        _ => bail!("no suite {suite}"),
    }
}

fn is_wanted(test: &Test, filters: &[String]) -> bool {
    let name = format!("{}/{}", test.group, test.name);
    filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()))
}

fn run(args: &[String]) -> Result<ExitCode> {
    let Options { suite, runtime, off, filters, amounts } = Options::parse(args)?;
    let tests: Vec<_> =
        tests(&suite)?.into_iter().filter(|test| is_wanted(test, &filters)).collect();
    let context = Context::new(runtime.as_deref(), amounts, off)?;
    let (passed, failed) = runner::run(&context, &tests, off);
    say(format_args!("{passed} passed, {failed} failed"));
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn list() {
    // Some are in more than one suite.
    let mut seen = HashSet::new();
    for test in suite::micro().into_iter().chain(suite::stock()).chain(suite::full()) {
        if seen.insert((test.group, test.name)) {
            say(format_args!("{}/{}", test.group, test.name));
        }
    }
}
