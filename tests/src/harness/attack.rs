//! Attacks: each is shown to work without lockc, then to fail with it.

use std::{collections::HashMap, path::PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

use crate::sys::runs_lsm_programs;

use super::{
    bundle::Bundle,
    container::Container,
    context::{Context, Level, Phase},
    daemon::Wanted,
    process::Output,
};

/// What must come of an attack.
#[derive(Clone, Debug)]
pub(crate) enum Expect {
    /// It works without lockc and with the policy privileged; with baseline and restricted it gets
    /// `EPERM` or `EACCES`, and the log says one of the operations.
    Denied(&'static [&'static str]),
    /// As [`Expect::Denied`]; without LSM programs the process that tries it is killed instead.
    DeniedOrKilled(&'static [&'static str]),
    /// As [`Expect::Denied`], but a kernel worker is named in the log.
    DeniedToWorker(&'static [&'static str]),
    /// Exactly this, with and without lockc: a kernel or runtime stops it, or it is no attack.
    Same(String),
}

/// One thing that the probe tries.
#[derive(Clone, Debug)]
pub(crate) struct Attack {
    /// Name of the process that tries it, of at most 15 bytes.
    pub(crate) name: &'static str,
    /// The probe's verb with its words.
    pub(crate) line: String,
    /// What a successful attack says.
    pub(crate) gain: String,
    pub(crate) expect: Expect,
}

impl Attack {
    /// Gains `done`, and is denied as one of the operations.
    pub(crate) fn denied(
        name: &'static str,
        line: &str,
        operations: &'static [&'static str],
    ) -> Self {
        let expect = Expect::Denied(operations);
        Self { name, line: line.to_owned(), gain: "done".to_owned(), expect }
    }

    /// What must work with lockc as it does without.
    pub(crate) fn ordinary(name: &'static str, line: &str) -> Self {
        Self { expect: Expect::Same("OK done".to_owned()), ..Self::denied(name, line, &[]) }
    }
}

/// How the probe gets into its container.
#[derive(Clone, Debug, Default)]
pub(crate) enum Entry {
    /// It is the container's first process.
    #[default]
    Run,
    /// It is executed in a container that sleeps.
    Exec,
    /// It is the first process, and the runtime leaks a directory as descriptor 3.
    Leak(PathBuf),
}

/// Tries `attacks`, all in one container, as the phase demands.
///
/// `before` puts in order what the attacks destroy; `setup` completes the bundle.
pub(crate) fn attack(
    context: &Context,
    what: &str,
    entry: &Entry,
    before: impl Fn() -> Result<()>,
    setup: impl Fn(&mut Bundle),
    attacks: &[Attack],
) -> Result<()> {
    attack_at(context, context.levels(), what, entry, before, setup, attacks)
}

/// As [`attack`], under one policy that is to stop what it is about.
pub(crate) fn attack_under(
    context: &Context,
    policy: Level,
    what: &str,
    setup: impl Fn(&mut Bundle),
    attacks: &[Attack],
) -> Result<()> {
    attack_prepared(context, policy, what, no_preparation, setup, attacks)
}

/// As [`attack_under`], and `before` puts in order what the attacks destroy.
pub(crate) fn attack_prepared(
    context: &Context,
    policy: Level,
    what: &str,
    before: impl Fn() -> Result<()>,
    setup: impl Fn(&mut Bundle),
    attacks: &[Attack],
) -> Result<()> {
    let levels = match context.phase() {
        Phase::Off => &[Level::Privileged][..],
        _ => &[policy, Level::Privileged],
    };
    attack_at(context, levels, what, &Entry::Run, before, setup, attacks)
}

fn attack_at(
    context: &Context,
    levels: &[Level],
    what: &str,
    entry: &Entry,
    before: impl Fn() -> Result<()>,
    setup: impl Fn(&mut Bundle),
    attacks: &[Attack],
) -> Result<()> {
    let mut problems = Vec::new();
    for level in levels {
        before()?;
        let (id, output) = run(context, what, entry, *level, &setup, attacks)
            .with_context(|| format!("with {}", described(context, *level)))?;
        problems.extend(judge(context, *level, attacks, &output));
        if context.phase() != Phase::Off {
            problems.extend(judge_log(context, *level, &id, attacks)?);
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    bail!("{}", problems.join("\n"))
}

/// For attacks that destroy nothing.
#[expect(clippy::unnecessary_wraps, reason = "it stands where preparations may fail")]
pub(crate) fn no_preparation() -> Result<()> {
    Ok(())
}

fn described(context: &Context, level: Level) -> String {
    match context.phase() {
        Phase::Off => "lockc off".to_owned(),
        _ => format!("policy {}", level.name()),
    }
}

fn run(
    context: &Context,
    what: &str,
    entry: &Entry,
    level: Level,
    setup: &impl Fn(&mut Bundle),
    attacks: &[Attack],
) -> Result<(String, Output)> {
    let items: Vec<String> =
        attacks.iter().map(|Attack { name, line, .. }| format!("{name}:{line}")).collect();
    let mut args = vec!["/bin/probe", "list"];
    args.extend(items.iter().map(String::as_str));

    let id = context.id(what);
    let first = if matches!(entry, Entry::Exec) { &["/bin/sleep", "1000"][..] } else { &args };
    let mut bundle = context.bundle(&id, first);
    level.annotate(&mut bundle);
    setup(&mut bundle);
    let container = Container::new(context.runtime(), &id, &bundle)?;
    let output = match entry {
        Entry::Run => container.run()?,
        Entry::Leak(directory) => container.run_leaking(directory)?,
        Entry::Exec => {
            container.start()?;
            container.exec(&args)?
        }
    };
    Ok((id, output.success("the container")?))
}

/// Whether the probe said that it was refused: procfs says `EACCES` where `ptrace(2)` would say `EPERM`.
pub(crate) fn is_refused(said: &str) -> bool {
    said.starts_with("EPERM ") || said.starts_with("EACCES ")
}

/// What the probe said, by name.
pub(crate) fn results(output: &Output) -> HashMap<&str, &str> {
    output.stdout.lines().filter_map(|line| line.split_once(' ')).collect()
}

fn judge(context: &Context, level: Level, attacks: &[Attack], output: &Output) -> Vec<String> {
    let results = results(output);
    let enforcing = context.phase() != Phase::Off && level != Level::Privileged;
    attacks
        .iter()
        .filter_map(|Attack { name, line, gain, expect }| {
            let said = results.get(name).copied().unwrap_or("nothing");
            let good = match expect {
                Expect::Same(text) => said == text,
                Expect::DeniedOrKilled(_) if enforcing && !runs_lsm_programs() => {
                    said.contains(": signal: 9 (SIGKILL)")
                }
                _ if enforcing => is_refused(said),
                _ => said.strip_prefix("OK ") == Some(gain),
            };
            let with = described(context, level);
            (!good).then(|| format!("{name}: with {with}, `{line}` said `{said}`"))
        })
        .collect()
}

fn judge_log(context: &Context, level: Level, id: &str, attacks: &[Attack]) -> Result<Vec<String>> {
    let wanted: Vec<Wanted<'_>> = attacks
        .iter()
        .filter_map(|Attack { name, expect, .. }| match expect {
            Expect::Denied(operations) | Expect::DeniedOrKilled(operations) => {
                Some(Wanted { operations, comm: Some(name) })
            }
            Expect::DeniedToWorker(operations) => Some(Wanted { operations, comm: None }),
            Expect::Same(_) => None,
        })
        .collect();
    context.with_lockc(|lockc| {
        if level == Level::Privileged {
            let denials = lockc.denials(id)?;
            let problem = (!denials.is_empty()).then(|| format!("privileged, yet {denials:?}"));
            return Ok(problem.into_iter().collect());
        }
        let missing = lockc.missing_denials(id, &wanted)?;
        Ok(missing
            .into_iter()
            .map(|Wanted { operations, comm }| {
                let who = comm.unwrap_or("a kernel worker");
                format!("{who}: with {}, no denial {operations:?} of {id} in the log", level.name())
            })
            .collect())
    })
}

/// Observes a container at every level that enforces, or without lockc, and compares what is seen
/// with what was seen without lockc.
pub(crate) fn same_output(
    context: &Context,
    what: &str,
    setup: impl Fn(&mut Bundle),
    observe: impl Fn(&Container) -> Result<String>,
) -> Result<()> {
    let see = |level: Level| -> Result<(String, String)> {
        // The id must not change, as it may show in the output.
        let id = format!("lt-{what}");
        let mut bundle = context.bundle(&id, &[]);
        level.annotate(&mut bundle);
        setup(&mut bundle);
        let container = Container::new(context.runtime(), &id, &bundle)?;
        Ok((observe(&container)?, id))
    };
    if context.phase() == Phase::Off {
        let (said, _) = see(Level::Baseline)?;
        if context.is_checking_itself() {
            let (again, _) = see(Level::Baseline)?;
            ensure!(said == again, "not repeatable: {}", difference(&said, &again));
        }
        context.record(what, said);
        return Ok(());
    }
    let before = context.recorded(what)?;
    let (_, enforcing) = context.levels().split_last().context("no level")?;
    for level in enforcing {
        let name = level.name();
        let (said, id) = see(*level).with_context(|| format!("with {name}"))?;
        ensure!(said == before, "with {name}: {}", difference(&before, &said));
        let denials = context.with_lockc(|lockc| lockc.denials(&id))?;
        ensure!(denials.is_empty(), "with {name}: {denials:?}");
    }
    Ok(())
}

/// The first line in which two texts differ.
pub(crate) fn difference(off: &str, on: &str) -> String {
    let (mut left, mut right) = (off.lines(), on.lines());
    let mut number = 0;
    loop {
        number += 1;
        match (left.next(), right.next()) {
            (None, None) => return "the outputs differ in line ends".to_owned(),
            (left, right) if left == right => {}
            (left, right) => return format!("line {number}: off {left:?}, on {right:?}"),
        }
    }
}
