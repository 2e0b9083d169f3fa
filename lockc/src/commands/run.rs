//! `lockc run`: the daemon.

use std::{io::Write as _, path::PathBuf};

use anyhow::Result;
use env_logger::{Builder, Env};

use crate::{
    config::{self, Checked, Config, LogFormat},
    daemon,
};

/// Enforces until it is told to stop (SIGTERM); what is enforced stays so.
///
/// Needs root, a kernel from 6.1 on with BTF, and "bpf" in the lsm= boot parameter.
#[derive(Debug, clap::Args)]
pub(super) struct Run {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = config::PATH)]
    config: PathBuf,
}

impl Run {
    pub(super) fn execute(self) -> Result<()> {
        let checked = Checked::read(&self.config)?;
        let report = checked.report.clone();
        let config = checked.usable()?;
        start_log(&config);
        // What is left after mistakes are warnings.
        for place in report.places() {
            log::warn!("{place:#}");
        }
        daemon::run(&config, &self.config)?;
        Ok(())
    }
}

fn start_log(config: &Config) {
    // Everything passes this filter, and the level is set apart from it, as it can change later.
    let mut builder = Builder::from_env(Env::default().default_filter_or("trace"));
    match config.daemon.log_format {
        LogFormat::Text => {
            builder.format(|out, record| {
                writeln!(
                    out,
                    "{} {:5} {}",
                    out.timestamp(),
                    record.level(),
                    one_line(&record.args().to_string())
                )
            });
        }
        LogFormat::Json => {
            builder.format(|out, record| {
                let line = serde_json::json!({
                    "time": out.timestamp_micros().to_string(),
                    "level": record.level().as_str(),
                    "message": record.args().to_string(),
                });
                writeln!(out, "{line}")
            });
        }
    }
    builder.init();
    daemon::set_log_level(config.daemon.log_level);
}

/// A message may hold text that others chose; a line break in it must not look like a new message.
fn one_line(message: &str) -> String {
    message.replace(|character: char| character.is_control(), " ")
}
