//! `lockc learn`: from what happened to a policy.

use anyhow::{Context as _, Result, bail};

use super::events::Chosen;
use crate::{advise::Learner, config::Config};

/// Prints a policy that allows what was audited or denied, and nothing else that its containers' policy denies.
///
/// Run the container under a policy with `mode = "audit"` for as long as it takes to see all that it does; then put what
/// this prints into the configuration, read it, and let a rule give it to the container. Each line says which program
/// needed it and how often. Many files of one directory become the directory.
#[derive(Debug, clap::Args)]
pub(super) struct Learn {
    #[command(flatten)]
    chosen: Chosen,
    /// Name of the policy
    #[arg(long, value_name = "NAME", default_value = "learned")]
    name: String,
}

impl Learn {
    pub(super) fn execute(self) -> Result<()> {
        let Self { chosen, name } = self;
        let config = Config::load(&chosen.config)?;
        let mut learner = Learner::new(&config);
        chosen.open()?.read(|_, record| {
            learner.add(&record);
            true
        })?;
        let Some(learnt) = learner.finish(&name) else {
            bail!(
                "nothing was audited or denied that a configured policy is about: give the container a policy with \
                 mode = \"audit\", and let it work for a while"
            );
        };
        super::print(&learnt).context("cannot print the policy")
    }
}
