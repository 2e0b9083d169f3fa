//! `lockc events`: what happened.

use std::{
    io::{self, Write},
    path::PathBuf,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use jiff::{SignedDuration, Timestamp};

use super::{Format, screen};
use crate::{
    config::{self, Config},
    event::{record::Record, store::Reader},
    explain::plain,
};

/// How often it is looked whether there is more.
const PAUSE: Duration = Duration::from_millis(200);

/// Shows what was denied or audited, and starts and ends of containers.
///
/// Events are kept in a file, see `events.file` in docs/configuration.md: they outlive the daemon, which need not run.
/// Needs root, or membership of the group that `daemon.group` names.
#[derive(Debug, clap::Args)]
pub(super) struct Events {
    #[command(flatten)]
    chosen: Chosen,
    /// Waits for more
    #[arg(long, short)]
    follow: bool,
    /// Only what was denied
    #[arg(long)]
    denied: bool,
    /// How they are printed; JSON is one object a line, and described in docs/operations.md
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Which events.
#[derive(Debug, clap::Args)]
pub(super) struct Chosen {
    /// Only of the container with this name, or whose id begins so
    #[arg(long, value_name = "ID|NAME")]
    pub(super) container: Option<String>,
    /// Only what is later: a time as `2026-01-31T12:00:00Z`, or how long ago, as `90m` or `1h 30m`
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Timestamp>,
    /// The configuration, which says where events are
    #[arg(long, value_name = "FILE", default_value = config::PATH)]
    pub(super) config: PathBuf,
    /// A file of events, instead of the configured one
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

impl Events {
    pub(super) fn execute(self) -> Result<()> {
        let Self { chosen, follow, denied, format } = self;
        let mut events = chosen.open()?;
        let mut out = Out { stdout: anstream::stdout().lock(), format, width: None };
        loop {
            // It may be another one by now.
            out.width = screen::width();
            let mut outcome = Ok(());
            events.read(|line, record| {
                if !denied || record.verdict == "denied" {
                    outcome = out.put(line, &record);
                }
                outcome.is_ok()
            })?;
            match outcome.and_then(|()| out.stdout.flush()) {
                // A reader that has seen enough, as `head` has.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                outcome => outcome?,
            }
            if !follow {
                return Ok(());
            }
            thread::sleep(PAUSE);
        }
    }
}

impl Chosen {
    /// All that is kept.
    pub(super) fn all(config: PathBuf) -> Self {
        Self { container: None, since: None, config, file: None }
    }

    pub(super) fn open(self) -> Result<Opened> {
        let file = match &self.file {
            Some(file) => file.clone(),
            None => Config::load(&self.config)?.events.file,
        };
        let unreadable = || format!("cannot read events from {}", file.display());
        let reader = Reader::open(&file).with_context(unreadable)?;
        Ok(Opened { chosen: self, file, reader })
    }

    /// What a line says, if it is asked for. One that is damaged is nobody's.
    fn wanted(&self, line: &[u8]) -> Option<Record> {
        let record: Record = serde_json::from_slice(line).ok()?;
        let is_late = self
            .since
            .is_none_or(|since| record.time.parse::<Timestamp>().is_ok_and(|time| time >= since));
        let is_its = self.container.as_ref().is_none_or(|wanted| {
            record.container.starts_with(wanted.as_str()) || record.name.as_ref() == Some(wanted)
        });
        (is_late && is_its).then_some(record)
    }
}

/// Events that are read.
pub(super) struct Opened {
    chosen: Chosen,
    file: PathBuf,
    reader: Reader,
}

impl Opened {
    /// Hands what is new to `take`, until it says that it has enough.
    pub(super) fn read(&mut self, mut take: impl FnMut(&[u8], Record) -> bool) -> Result<()> {
        let Self { chosen, file, reader } = self;
        reader
            .read(|line| chosen.wanted(line).is_none_or(|record| take(line, record)))
            .with_context(|| format!("cannot read events from {}", file.display()))
    }
}

fn since(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    text.parse::<SignedDuration>()
        .ok()
        .and_then(|ago| Timestamp::now().checked_sub(ago.abs()).ok())
        .ok_or_else(|| {
            "neither a time as `2026-01-31T12:00:00Z` nor a duration as `90m`".to_owned()
        })
}

struct Out<W> {
    stdout: W,
    format: Format,
    /// Of the terminal.
    width: Option<usize>,
}

impl<W: Write> Out<W> {
    fn put(&mut self, line: &[u8], record: &Record) -> io::Result<()> {
        match self.format {
            Format::Json => {
                self.stdout.write_all(line)?;
                self.stdout.write_all(b"\n")
            }
            Format::Text => {
                let line = text(record) + "\n";
                self.stdout.write_all(screen::fold(&line, self.width).as_bytes())
            }
        }
    }
}

/// A line for people; `NO_COLOR` and outputs that are no terminal take the colour away again.
pub(super) fn text(record: &Record) -> String {
    let style = screen::verdict(&record.verdict);
    let mut line = format!(
        "{} {style}{}{style:#} {} container={}",
        plain(&record.time),
        plain(&record.verdict),
        plain(&record.operation),
        word(&record.container)
    );
    let mut add = |key: &str, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            line.extend([" ", key, "=", &word(&value)]);
        }
    };
    add("name", record.name.clone());
    add("policy", Some(record.policy.clone()));
    add("mode", record.mode.clone());
    let cut = if record.path_cut { "..." } else { "" };
    add("path", record.path.as_ref().map(|path| format!("{cut}{path}")));
    add("address", record.address.map(|address| address.to_string()));
    add("family", record.family.clone());
    add("detail", record.detail.map(|detail| detail.to_string()));
    add("runtime", record.runtime.clone());
    add("pid", (record.pid != 0).then(|| record.pid.to_string()));
    add("comm", Some(record.comm.clone()));
    add("id", Some(record.id.clone()));
    if let Some(why) = &record.why {
        line.push_str(": ");
        line.push_str(&plain(why));
    }
    line
}

/// One word, whatever it holds.
fn word(text: &str) -> String {
    plain(text).replace(' ', "\\x20")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            id: "7".into(),
            time: "2026-01-31T12:00:00.000000Z".into(),
            verdict: "denied".into(),
            operation: "open".into(),
            container: "0123abc".into(),
            name: Some("web".into()),
            policy: "baseline".into(),
            path: Some("/run/a b\n".into()),
            pid: 5,
            tid: 6,
            comm: "cat".into(),
            ..Record::default()
        }
    }

    #[test]
    fn a_line_for_people_cannot_be_forged() {
        let plain = anstream::adapter::strip_str(&text(&record())).to_string();
        assert_eq!(
            plain,
            "2026-01-31T12:00:00.000000Z denied open container=0123abc name=web policy=baseline \
             path=/run/a\\x20b\\n pid=5 comm=cat id=7"
        );
        assert!(text(&record()).contains("\u{1b}[31mdenied\u{1b}[0m"));
        let start = Record { verdict: "allowed".into(), ..record() };
        assert!(!text(&start).contains('\u{1b}'));
    }

    #[test]
    fn events_are_chosen_by_time_and_container() {
        let line = serde_json::to_vec(&record()).unwrap();
        let all = || Chosen::all(PathBuf::new());
        let is_wanted = |chosen: Chosen| chosen.wanted(&line).is_some();
        assert!(is_wanted(all()));
        let of = |container: &str| Chosen { container: Some(container.into()), ..all() };
        assert!(is_wanted(of("0123")) && is_wanted(of("web")));
        assert!(!is_wanted(of("123")) && !is_wanted(of("we")));
        let later = |time: &str| Chosen { since: Some(since(time).unwrap()), ..all() };
        assert!(is_wanted(later("2026-01-31T12:00:00Z")));
        assert!(!is_wanted(later("2026-01-31T12:00:01Z")));
        assert!(all().wanted(b"{").is_none());
    }

    #[test]
    fn times_are_points_or_spans() {
        let ago = |text: &str| Timestamp::now().duration_since(since(text).unwrap()).as_secs();
        assert!((5390..5410).contains(&ago("90m")));
        assert!((5390..5410).contains(&ago("1h 30m")));
        for wrong in ["yesterday", "", "10"] {
            assert!(since(wrong).is_err(), "{wrong}");
        }
    }
}
