//! What containers may do: policies, and which container gets which.
//!
//! Pure: no file is read here and nothing is enforced.

pub mod admission;
mod decide;
mod family;
mod host;
mod looser;
mod matching;
mod network;
mod path;
mod paths;
mod resolved;
mod show;

pub use self::{
    decide::{Decision, LABEL, Passed, Reason, Subject, decide, passed_over},
    family::Family,
    host::{HostError, HostRule, HostRules, Mounts},
    matching::{MAX_VALUE, Match, Miss, Owner, Pattern},
    network::{Endpoint, EndpointError, Network, NetworkMode, NetworkRule},
    path::{PathError, PathRule},
    paths::{PathRules, Verdict},
    resolved::{Access, Exec, KernelRules, Policy},
};

use std::fmt;

/// The built-in policies, strictest first.
///
/// All but `offline` carry the names of the Kubernetes Pod Security Standards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// As `restricted`, and without any network.
    Offline,
    /// For containers that need nothing from the node.
    Restricted,
    /// For ordinary containers.
    Baseline,
    /// For containers that are trusted with the node: nothing is denied.
    Privileged,
}

impl Level {
    /// All levels, strictest first.
    pub const ALL: [Self; 4] = [Self::Offline, Self::Restricted, Self::Baseline, Self::Privileged];

    /// The level's name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Offline => "offline",
            Self::Restricted => "restricted",
            Self::Baseline => "baseline",
            Self::Privileged => "privileged",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What happens to an operation that a policy forbids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// It fails.
    Enforce,
    /// It is reported and succeeds.
    Audit,
}

impl Mode {
    /// The mode's name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Audit => "audit",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
