//! `lockc ps`: the containers and their policies.

use std::path::Path;

use anstyle::Style;
use anyhow::{Context as _, Result, bail};

use super::{
    Format,
    screen::{self, Cell},
    status::left,
    time,
};
use crate::{
    bpf::{pin, pinned},
    explain::plain,
    state::{AskError, Container, Containers, Query, SCHEMA, ask},
};

/// Characters of an id that is a digest, as engines show it.
const SHORT_ID: usize = 12;

/// Lists the containers of this machine: their policies, and what was denied them.
///
/// Needs root, or membership of the group that `daemon.group` names. While the daemon does not run, what is pinned in the
/// kernel is shown, which needs root: there are no names, images and reasons then. What does not fit the terminal is cut; into
/// a file or a pipe goes all of it.
#[derive(Debug, clap::Args)]
pub(super) struct Ps {
    /// How it is printed; JSON is described in docs/operations.md
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// All that is known, and nothing cut: on a terminal that is too narrow for that, a block of lines per container
    #[arg(long, short)]
    wide: bool,
}

impl Ps {
    pub(super) fn execute(self) -> Result<()> {
        let (containers, note) = containers()?;
        if let Some(note) = note {
            super::note(&note);
        }
        match self.format {
            Format::Text => {
                super::show(&table(&containers.containers, self.wide, screen::width()))?;
            }
            Format::Json => super::print(&super::json(&containers)?)?,
        }
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

const DENIED: &str = "DENIED";
const ID: &str = "CONTAINER";

const SOME: [Column; 6] = [
    (ID, |it| plain(&it.shown_id())),
    ("NAME", |it| shown(it.name.as_ref())),
    ("POLICY", |it| shown(it.policy.as_ref())),
    ("MODE", |it| shown(it.mode.as_ref())),
    ("TASKS", |it| it.tasks.to_string()),
    (DENIED, |it| it.denied.to_string()),
];

const ALL: [Column; 14] = [
    (ID, |it| plain(&it.shown_id())),
    ("OWNER", |it| it.owner.map_or_else(|| "-".to_owned(), |owner| owner.to_string())),
    ("ENGINE", |it| shown(it.engine.as_ref())),
    ("NAME", |it| shown(it.name.as_ref())),
    ("IMAGE", |it| shown(it.image.as_ref())),
    ("NAMESPACE", |it| shown(it.namespace.as_ref())),
    ("POD", |it| shown(it.pod.as_ref())),
    ("POLICY", |it| shown(it.policy.as_ref())),
    ("MODE", |it| shown(it.mode.as_ref())),
    ("TASKS", |it| it.tasks.to_string()),
    (DENIED, |it| it.denied.to_string()),
    ("UNREPORTED", |it| it.suppressed.to_string()),
    ("SINCE", |it| it.started.map_or_else(|| "-".to_owned(), time)),
    ("WHY", |it| shown(it.why.as_ref())),
];

fn shown(text: Option<&String>) -> String {
    text.map_or_else(|| "-".to_owned(), |text| plain(text))
}

/// A digest is known by its beginning.
fn short(id: &str) -> &str {
    let is_digest = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_digest { &id[..SHORT_ID] } else { id }
}

/// Lines of columns: some, fitted to a terminal of this width, or all.
fn table(containers: &[Container], wide: bool, width: Option<usize>) -> String {
    let columns: &[Column] = if wide { &ALL } else { &SOME };
    let is_cut = !wide && width.is_some();
    let cell = |it: &Container, (head, value): &Column| {
        let mut text = value(it);
        if *head == ID && is_cut {
            text.truncate(short(&text).len());
        }
        Cell { text, style: if *head == DENIED { style(it) } else { Style::new() } }
    };
    let heads: Vec<&str> = columns.iter().map(|(head, _)| *head).collect();
    let row = |it: &Container| columns.iter().map(|column| cell(it, column)).collect();
    let rows: Vec<Vec<Cell>> = containers.iter().map(row).collect();
    screen::table(&heads, &rows, width, is_cut)
}

/// What was denied, or would have been.
fn style(container: &Container) -> Style {
    match container.mode.as_deref() {
        _ if container.denied == 0 => Style::new(),
        Some("audit") => screen::verdict("audited"),
        _ => screen::verdict("denied"),
    }
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

    /// As it is shown, without colours.
    fn shown(wide: bool, width: Option<usize>) -> String {
        anstream::adapter::strip_str(&table(&containers(), wide, width)).to_string()
    }

    #[test]
    fn a_table_fits_the_terminal() {
        let at_80 = "\
CONTAINER        NAME                           POLICY    MODE     TASKS  DENIED
0123456789ab     a-name-that-is-longer-than-m…  baseline  enforce  3      17
unattributed-cd  -                              offline   -        0      0
";
        assert_eq!(shown(false, Some(80)), at_80);
    }

    #[test]
    fn on_a_narrow_terminal_each_container_has_a_block() {
        let at_40 = "\
container: 0123456789ab
name: a-name-that-is-longer-than-most
policy: baseline
mode: enforce
tasks: 3
denied: 17

container: unattributed-cd
name: -
policy: offline
mode: -
tasks: 0
denied: 0
";
        assert_eq!(shown(false, Some(40)), at_40);
    }

    #[test]
    fn a_pipe_gets_everything() {
        let id = "0123456789abcdef".repeat(4);
        assert!(shown(false, None).contains(&format!("\n{id}  a-name-that-is-longer-than-most  ")));
    }

    #[test]
    fn a_wide_table_cuts_nothing_and_keeps_lines_whole() {
        for width in [None, Some(300)] {
            let text = shown(true, width);
            assert_eq!(text.lines().count(), 3, "{text}");
            for part in [
                "cdef  0      docker  a-name-that-is-longer-than-most  nginx:1\\n",
                "2023-11-14T22:13:20Z  default",
            ] {
                assert!(text.contains(part), "{part}: {text}");
            }
        }
        for width in [40, 80, 200] {
            let text = shown(true, Some(width));
            assert!(text.lines().all(|line| line.chars().count() <= width), "{text}");
            let whole: String = text.split_whitespace().collect();
            let id = "0123456789abcdef".repeat(4);
            assert!(
                whole.contains(&id) && whole.contains("a-name-that-is-longer-than-most"),
                "{text}"
            );
        }
    }

    #[test]
    fn denials_have_the_colour_of_their_verdict() {
        let text = |mode: &str, denied| {
            let mode = Some(mode.to_owned());
            table(&[Container { mode, denied, ..Container::default() }], false, Some(80))
        };
        assert!(text("enforce", 1).contains("\u{1b}[31m1\u{1b}[0m"));
        assert!(text("audit", 1).contains("\u{1b}[33m1\u{1b}[0m"));
        assert!(!text("enforce", 0).contains('\u{1b}'));
    }

    #[test]
    fn without_containers_there_is_the_head() {
        let head = "CONTAINER  NAME  POLICY  MODE  TASKS  DENIED\n";
        assert_eq!(table(&[], false, None), head);
        assert_eq!(table(&[], false, Some(80)), head);
    }
}
