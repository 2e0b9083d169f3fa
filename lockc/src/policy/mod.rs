//! What containers may do: the built-in levels, and which container gets which.
//!
//! Pure: no file is read here and nothing is enforced.

pub mod admission;
mod decide;
mod path;

pub use self::{
    decide::{Decision, Subject, decide},
    path::{PathError, PathRule},
};

use std::fmt;

use lockc_common::PolicyFlags;

/// The built-in levels, strictest first.
///
/// They carry the names of the Kubernetes Pod Security Standards. `restricted`
/// and `baseline` enforce the same so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// For containers that need nothing from the node.
    Restricted,
    /// For ordinary containers.
    Baseline,
    /// For containers that are trusted with the node: nothing is denied.
    Privileged,
}

impl Level {
    /// All levels, strictest first.
    pub const ALL: [Self; 3] = [Self::Restricted, Self::Baseline, Self::Privileged];

    /// The level's name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Restricted => "restricted",
            Self::Baseline => "baseline",
            Self::Privileged => "privileged",
        }
    }

    /// Whether `self` denies less than `other`.
    pub fn is_looser_than(self, other: Self) -> bool {
        self > other
    }

    /// Whether a container may be restored from a checkpoint: its processes then
    /// appear without an `execve` at which a policy could come into force.
    pub const fn allows_restore(self) -> bool {
        matches!(self, Self::Privileged)
    }

    /// What the level denies, in the given mode.
    pub fn rules(self, mode: Mode) -> Rules {
        let mut rules = match self {
            Self::Restricted | Self::Baseline => Rules {
                flags: PolicyFlags(
                    PolicyFlags::FOREIGN_MOUNT
                        | PolicyFlags::KERNEL_LOG
                        | PolicyFlags::MOUNT
                        | PolicyFlags::RUNTIME_FILES
                        | PolicyFlags::PATHS,
                ),
                denied: TOKENS,
                allowed: &[],
            },
            Self::Privileged => Rules { flags: PolicyFlags(0), denied: &[], allowed: &[] },
        };
        if mode == Mode::Audit {
            rules.flags.0 |= PolicyFlags::AUDIT;
        }
        rules
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Service-account tokens of Kubernetes. `/var/run` is a link to `/run` in most
/// images and a directory in others, and rules match resolved paths.
const TOKENS: &[PathRule] = &[
    PathRule::literal("/run/secrets/kubernetes.io"),
    PathRule::literal("/var/run/secrets/kubernetes.io"),
];

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

/// What a policy denies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Operations; [`PolicyFlags::PATHS`] is set if there are path rules.
    pub flags: PolicyFlags,
    /// Paths that may not be opened, with everything below them.
    pub denied: &'static [PathRule],
    /// Exceptions: the most specific rule wins.
    pub allowed: &'static [PathRule],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_ordered() {
        assert!(Level::Privileged.is_looser_than(Level::Baseline));
        assert!(Level::Baseline.is_looser_than(Level::Restricted));
        assert!(!Level::Baseline.is_looser_than(Level::Baseline));
    }

    #[test]
    fn path_rules_are_flagged() {
        for level in Level::ALL {
            for mode in [Mode::Enforce, Mode::Audit] {
                let Rules { flags, denied, allowed } = level.rules(mode);
                let paths = flags.0 & PolicyFlags::PATHS != 0;
                assert_eq!(paths, !denied.is_empty() || !allowed.is_empty());
                assert_eq!(flags.0 & PolicyFlags::AUDIT != 0, mode == Mode::Audit);
            }
        }
        assert_eq!(Level::Privileged.rules(Mode::Enforce).flags, PolicyFlags(0));
    }
}
