//! `lockc explain`: what would be decided about a container, and why.

use std::{error::Error, ffi::OsString, path::PathBuf, process::ExitCode};

use anyhow::{Result, anyhow};

use crate::{
    config::{self, Config},
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
    #[arg(value_name = "BUNDLE|CONFIG.JSON|ID")]
    what: OsString,
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = config::PATH)]
    config: PathBuf,
    /// How it is printed
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

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum Format {
    /// For people
    #[default]
    Text,
    /// One JSON object, see docs/explain.md
    Json,
}

impl Explain {
    pub(super) fn execute(self) -> ExitCode {
        match self.explain() {
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
        let Self { what, config, format, id, owner, runtime, root } = self;
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
