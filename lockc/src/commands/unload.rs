//! `lockc unload`: the end of all enforcement.

use anyhow::Result;

use crate::bpf::pin;

/// Removes everything that lockc keeps in the kernel: no container is contained any more.
///
/// Stop the daemon first. Containers that run then are not taken up again by a later one.
#[derive(Debug, clap::Args)]
pub(super) struct Unload {}

impl Unload {
    #[expect(clippy::print_stdout, reason = "it says what it did")]
    #[expect(clippy::unused_self, reason = "every verb is executed alike")]
    pub(super) fn execute(self) -> Result<()> {
        let removed = pin::remove_all()?;
        println!("removed {removed} pins from {}", pin::ROOT);
        Ok(())
    }
}
