//! `lockc run`: the daemon.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use nix::sys::prctl::set_thp_disable;

use super::log::Log;
use crate::{
    config::{self, Checked},
    daemon::{self, Signals},
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
        // A thread's stack that happens to lie right would be one huge page, 2 MiB for a few kB. It only costs memory if
        // this fails.
        let _ = set_thp_disable(true);
        let checked = Checked::read(&self.config)?;
        let report = checked.report.clone();
        let config = checked.usable()?;
        let signals = Signals::block()?;
        let _log = Log::start(&config).context("cannot start the log's thread")?;
        // What is left after mistakes are warnings.
        for place in report.places() {
            log::warn!("{place:#}");
        }
        daemon::run(&config, &self.config, &signals)?;
        Ok(())
    }
}
