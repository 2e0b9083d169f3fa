//! `lockc explain`: what would be decided about a container, and why.

use std::{
    error::Error,
    ffi::OsString,
    fmt::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, anyhow};

use super::{
    Format,
    events::{self, Chosen},
};
use crate::{
    advise,
    config::{self, Checked, Config},
    event::record::Record,
    explain::{Case, Explanation, Request, plain},
    runtime::{plan, state},
};

/// Says which policy a container gets, why, and whether it starts.
///
/// Prints what is known of the container, where that comes from and whether it is trusted; which rule
/// decides, and why those before it do not; the policy; everything that its bundle asks for and the
/// policy does not admit, with the way to allow it; and the verdict. It decides as the daemon does, by
/// the configuration on disk. The daemon need not run, and is not asked: about a running container it
/// decided when that started. Reading what root's engines keep needs root.
///
/// Exit codes: 0 the container starts, 1 it is refused, 2 it cannot be explained.
#[derive(Debug, clap::Args)]
pub(super) struct Explain {
    /// A bundle's directory or a config.json, by a path with a `/` in it; or the id of a container that
    /// a runtime keeps, the beginning of one, or the name that its engine gives it
    #[arg(value_name = "BUNDLE|CONFIG.JSON|ID", required_unless_present = "event")]
    what: Option<OsString>,
    /// Number of an event, as `lockc events` shows it: what was decided by which policy, where that is configured, and the
    /// smallest change that would have allowed it
    #[arg(long, value_name = "NUMBER", conflicts_with_all = ["what", "format", "id", "owner", "runtime", "root"])]
    event: Option<String>,
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = config::PATH)]
    config: PathBuf,
    /// How it is printed; JSON is described in docs/explain.md
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Container id of a bundle; otherwise what the bundle's path names
    #[arg(long)]
    id: Option<String>,
    /// User id of who starts the runtime; otherwise who owns the bundle, or the state directory
    #[arg(long, value_name = "UID")]
    owner: Option<u32>,
    /// Name of the [[runtime]]; otherwise the one whose state it is, or the first
    #[arg(long, value_name = "NAME")]
    runtime: Option<String>,
    /// The runtime's state directory, as in its own --root; otherwise those of runtimes and engines
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
}

impl Explain {
    pub(super) fn execute(self) -> ExitCode {
        let outcome = match &self.event {
            Some(event) => explain_event(event, &self.config).map(|()| true),
            None => self.explain(),
        };
        match outcome {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => {
                super::complain(&error);
                ExitCode::from(2)
            }
        }
    }

    /// Whether the container starts.
    fn explain(self) -> Result<bool> {
        let Self { what, event: _, config, format, id, owner, runtime, root } = self;
        let what = what.context("nothing to explain")?;
        let config = Config::load(&config)?;
        let request = Request { what, id, owner, runtime, root };
        // Paths in errors may be what a user of this machine has chosen.
        let shown = |error: &dyn Error| anyhow!(plain(&plan::chain(error)));
        let case =
            Case::find(&request, &config, state::RUN.as_ref()).map_err(|error| shown(&error))?;
        let explanation = Explanation::of(case, &config).map_err(|error| shown(&error))?;
        super::print(&match format {
            Format::Text => explanation.text(),
            Format::Json => format!("{:#}\n", explanation.json()),
        })?;
        Ok(explanation.starts())
    }
}

/// Whether it says which policy a container has from now on.
fn is_placement(record: &Record) -> bool {
    matches!(record.operation.as_str(), "start" | "adopted" | "policy")
}

/// Finds the event, and what gave its container the policy.
fn explain_event(number: &str, path: &Path) -> Result<()> {
    let mut found = None;
    Chosen::all(path.to_owned()).open()?.read(|_, record| {
        let is_it = record.id == number;
        if is_it {
            found = Some(record);
        }
        !is_it
    })?;
    let record = found.with_context(|| {
        format!("there is no event {} any more, or there was none", plain(number))
    })?;
    // Once more, now that it is known whose: the file may be longer than memory.
    let mut start = None;
    Chosen::all(path.to_owned()).open()?.read(|_, it| {
        let is_earlier = it.id != number;
        if is_earlier && is_placement(&it) && it.container == record.container && it.why.is_some() {
            start = Some(it);
        }
        is_earlier
    })?;
    let checked = Checked::read(path)?;
    super::print(&event_text(&record, start.as_ref(), &checked))?;
    Ok(())
}

fn event_text(record: &Record, start: Option<&Record>, checked: &Checked) -> String {
    let event = anstream::adapter::strip_str(&events::text(record)).to_string();
    let mut text = format!("event: {event}\n");
    let mut line = |what: &str, value: &str| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{what}: {value}");
    };
    let sources = checked.sources();
    if !is_placement(record)
        && let Some(why) = start.and_then(|start| start.why.as_ref())
    {
        line("container has its policy because", &plain(why));
    }
    let policy = checked.config.as_ref().and_then(|it| it.policies.get(&record.policy));
    let Some(policy) = policy else {
        if let Some(why) = &record.why {
            line("decided because", &plain(why));
        } else {
            line("policy", &format!("{} is not configured any more", plain(&record.policy)));
        }
        return text;
    };
    let place = advise::place(sources, "policy", &policy.name);
    let place = place.map_or_else(|| "built in".to_owned(), |place| plain(&place));
    line("policy", &format!("{}, {place}", policy.name));
    if record.verdict == "noticed" {
        // Nothing was decided by the policy.
        if let Some(why) = &record.why {
            line("decided because", &plain(why));
        }
        return text;
    }
    let (why, change) = advise::advise(record, policy);
    line("decided because", &plain(&why));
    match (&change, change.line()) {
        (advise::Change::None { instead }, _) => line("to allow it", instead),
        (_, Some(change)) => {
            line("to allow it, add", &format!("\n[policy.{}]\n{}", policy.name, plain(&change)));
        }
        (_, None) => {}
    }
    text
}
