//! `lockc ps`: the containers and their policies.

use std::{fmt::Write as _, path::Path};

use anyhow::{Context as _, Result, bail};

use super::{Format, status::left, time};
use crate::{
    bpf::{pin, pinned},
    explain::plain,
    state::{AskError, Container, Containers, Query, SCHEMA, ask},
};

/// Characters of an id that is a digest, as engines show it.
const SHORT_ID: usize = 12;
/// Characters of a column of the narrow table, at most.
const NARROW: usize = 20;

/// Lists the containers of this machine: their policies, and what was denied them.
///
/// Needs root, or membership of the group that `daemon.group` names. While the daemon does not run, what is pinned in the
/// kernel is shown, which needs root: there are no names, images and reasons then.
#[derive(Debug, clap::Args)]
pub(super) struct Ps {
    /// How it is printed; JSON is described in docs/operations.md
    #[arg(long, value_enum, default_value_t)]
    format: Table,
    /// All that is known, and nothing cut
    #[arg(long, short)]
    wide: bool,
}

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum Table {
    /// For people
    #[default]
    Table,
    /// One JSON object
    Json,
}

impl From<Table> for Format {
    fn from(table: Table) -> Self {
        match table {
            Table::Table => Self::Text,
            Table::Json => Self::Json,
        }
    }
}

impl Ps {
    pub(super) fn execute(self) -> Result<()> {
        let (containers, note) = containers()?;
        if let Some(note) = note {
            super::note(&note);
        }
        super::print(&match self.format.into() {
            Format::Text => table(&containers.containers, self.wide),
            Format::Json => super::json(&containers)?,
        })?;
        Ok(())
    }
}

/// The containers, and what to say about where that comes from.
pub(super) fn containers() -> Result<(Containers, Option<String>)> {
    match ask::<Containers>(Query::Containers) {
        Ok(containers) => Ok((containers, None)),
        Err(AskError::NotRunning) => without_daemon(),
        Err(error) => Err(error.into()),
    }
}

/// What is pinned, and what to say about it.
fn without_daemon() -> Result<(Containers, Option<String>)> {
    if !nix::unistd::geteuid().is_root() {
        bail!("lockc is not running, and what is pinned in the kernel is for root to see");
    }
    let left = left(Path::new(pin::ROOT));
    let note = format!("lockc is not running; {left}");
    if !Path::new(pin::ROOT).exists() {
        return Ok((Containers { schema: SCHEMA, ..Containers::default() }, Some(note)));
    }
    let containers = pinned::containers().with_context(|| {
        format!(
            "{note}; what is pinned is not of this version of lockc: no maps in {}",
            pinned::directory().display()
        )
    })?;
    Ok((Containers { schema: SCHEMA, daemon: false, containers }, Some(note)))
}

type Column = (&'static str, fn(&Container) -> String);

const SOME: [Column; 6] = [
    ("CONTAINER", |it| short(&it.shown_id())),
    ("NAME", |it| shown(it.name.as_ref())),
    ("POLICY", |it| shown(it.policy.as_ref())),
    ("MODE", |it| shown(it.mode.as_ref())),
    ("TASKS", |it| it.tasks.to_string()),
    ("DENIED", |it| it.denied.to_string()),
];

const ALL: [Column; 14] = [
    ("CONTAINER", |it| plain(&it.shown_id())),
    ("OWNER", |it| it.owner.map_or_else(|| "-".to_owned(), |owner| owner.to_string())),
    ("ENGINE", |it| shown(it.engine.as_ref())),
    ("NAME", |it| shown(it.name.as_ref())),
    ("IMAGE", |it| shown(it.image.as_ref())),
    ("NAMESPACE", |it| shown(it.namespace.as_ref())),
    ("POD", |it| shown(it.pod.as_ref())),
    ("POLICY", |it| shown(it.policy.as_ref())),
    ("MODE", |it| shown(it.mode.as_ref())),
    ("TASKS", |it| it.tasks.to_string()),
    ("DENIED", |it| it.denied.to_string()),
    ("UNREPORTED", |it| it.suppressed.to_string()),
    ("SINCE", |it| it.started.map_or_else(|| "-".to_owned(), time)),
    ("WHY", |it| shown(it.why.as_ref())),
];

fn shown(text: Option<&String>) -> String {
    text.map_or_else(|| "-".to_owned(), |text| plain(text))
}

/// A digest is known by its beginning.
fn short(id: &str) -> String {
    let is_digest = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    plain(if is_digest { &id[..SHORT_ID] } else { id })
}

/// Lines of columns; cut to a terminal of 80 columns unless `wide`.
fn table(containers: &[Container], wide: bool) -> String {
    let columns: &[Column] = if wide { &ALL } else { &SOME };
    let cut = |cell: String| {
        if wide || cell.chars().count() <= NARROW {
            return cell;
        }
        let mut short: String = cell.chars().take(NARROW - 1).collect();
        short.push('…');
        short
    };
    let head = columns.iter().map(|(name, _)| (*name).to_owned()).collect();
    let row = |it: &Container| columns.iter().map(|(_, cell)| cut(cell(it))).collect();
    let rows: Vec<Vec<String>> = [head].into_iter().chain(containers.iter().map(row)).collect();
    let widths: Vec<usize> = (0..columns.len())
        .map(|at| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        // Writing to a string does not fail.
        let _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn containers() -> [Container; 2] {
        [
            Container {
                id: Some("0123456789abcdef".repeat(4)),
                record: "ab".into(),
                owner: Some(0),
                engine: Some("docker".into()),
                name: Some("a-name-that-is-longer-than-most".into()),
                image: Some("nginx:1\n".into()),
                policy: Some("baseline".into()),
                mode: Some("enforce".into()),
                why: Some("default".into()),
                started: Some(1_700_000_000),
                tasks: 3,
                denied: 17,
                suppressed: 1,
                ..Container::default()
            },
            Container {
                record: "cd".into(),
                policy: Some("offline".into()),
                ..Container::default()
            },
        ]
    }

    #[test]
    fn a_narrow_table_fits_a_narrow_terminal() {
        let text = table(&containers(), false);
        let wanted = "\
CONTAINER        NAME                  POLICY    MODE     TASKS  DENIED
0123456789ab     a-name-that-is-long…  baseline  enforce  3      17
unattributed-cd  -                     offline   -        0      0
";
        assert_eq!(text, wanted);
        let longest = Container {
            id: Some("x".repeat(100)),
            name: Some("y".repeat(100)),
            policy: Some("kiosk".into()),
            mode: Some("enforce".into()),
            tasks: 99_999,
            denied: 999_999,
            ..Container::default()
        };
        assert!(table(&[longest], false).lines().all(|line| line.chars().count() <= 80));
    }

    #[test]
    fn a_wide_table_cuts_nothing_and_keeps_lines_whole() {
        let text = table(&containers(), true);
        assert_eq!(text.lines().count(), 3, "{text}");
        for part in [
            "cdef  0      docker  a-name-that-is-longer-than-most  nginx:1\\n",
            "2023-11-14T22:13:20Z  default",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn without_containers_there_is_the_head() {
        assert_eq!(table(&[], false), "CONTAINER  NAME  POLICY  MODE  TASKS  DENIED\n");
    }
}
