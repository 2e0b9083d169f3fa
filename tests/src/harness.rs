//! What the tests are written with: containers, the daemon, attacks.

pub(crate) mod attack;
pub(crate) mod bundle;
pub(crate) mod container;
pub(crate) mod context;
pub(crate) mod daemon;
pub(crate) mod engine;
pub(crate) mod fixture;
pub(crate) mod holdings;
pub(crate) mod lurk;
pub(crate) mod overlay;
pub(crate) mod policies;
pub(crate) mod process;
pub(crate) mod runner;
pub(crate) mod steady;
pub(crate) mod systemd;
pub(crate) mod terminal;
pub(crate) mod traffic;

pub(crate) use attack::{Attack, Entry, Expect, attack, same_output};
pub(crate) use bundle::Bundle;
pub(crate) use container::{Container, Runtime};
pub(crate) use context::{Context, Level, Phase};
pub(crate) use daemon::Lockc;

/// Prints one line at once.
#[expect(clippy::print_stdout, reason = "the report of the tests is what this program is for")]
pub(crate) fn say(line: std::fmt::Arguments<'_>) {
    println!("{line}");
}
