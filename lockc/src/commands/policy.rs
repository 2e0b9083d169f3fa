//! `lockc policy`: policies as they are in force.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use crate::config::{self, Checked, ConfigError};

/// Shows policies.
#[derive(Debug, clap::Args)]
pub(super) struct Policy {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    Show(Show),
}

/// Prints a policy with everything that it inherits.
///
/// The TOML can be put into a configuration, where it means the same.
#[derive(Debug, clap::Args)]
struct Show {
    /// Name of the policy: restricted, baseline, privileged, offline, or that of a [policy.NAME]
    name: String,
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = config::PATH)]
    config: PathBuf,
    /// How it is printed
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum Format {
    /// A table of the configuration
    #[default]
    Toml,
    /// One JSON object
    Json,
}

impl Policy {
    pub(super) fn execute(self) -> Result<()> {
        match self.verb {
            Verb::Show(show) => show.execute(),
        }
    }
}

impl Show {
    fn execute(self) -> Result<()> {
        let Checked { config, report, .. } = Checked::read(&self.config)?;
        let config = config.ok_or(ConfigError::Invalid(report))?;
        let Some(policy) = config.policy(&self.name) else {
            let names: Vec<&str> = config.policies.keys().map(String::as_str).collect();
            bail!("unknown policy `{}`; policies: {}", self.name.escape_debug(), names.join(", "));
        };
        let text = match self.format {
            Format::Toml => policy.to_toml(config.default.mode),
            Format::Json => {
                let json = policy.to_json(config.default.mode);
                serde_json::to_string_pretty(&json).context("write JSON")? + "\n"
            }
        };
        super::print(&text)?;
        Ok(())
    }
}
