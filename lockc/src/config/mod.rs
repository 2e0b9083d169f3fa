//! The configuration: what was typed, and what it means.
//!
//! `/etc/lockc/lockc.toml` and the files of `lockc.d` beside it are checked in full before any
//! of them counts, and all problems are reported together, each with its place and, for a
//! misspelt name, a suggestion.

mod expand;
mod lint;
mod load;
mod merge;
mod names;
mod policies;
mod policy_table;
mod problem;
mod read;
mod reader;
mod rules;
#[cfg(test)]
mod tests;
mod users;
mod writers;

use std::{collections::BTreeMap, path::Path, time::Duration};

use log::LevelFilter;

pub use self::{
    expand::{Expansion, MAX_ENTRIES_READ, MAX_FILES, expand},
    load::{
        Checked, ConfigError, DROP_INS, MAX_DROP_INS, MAX_LEN, PATH, Source, drop_in_directory,
        files,
    },
    names::{NamePattern, name_patterns, separate},
    policies::{MAX_OWN_POLICIES, MAX_RULES_OF_POLICIES, MAX_RULES_PER_POLICY},
    problem::{Place, Problem, Report, Severity},
    rules::MAX_RULES,
    writers::{Exposed, exposed},
};
use crate::{
    bpf::backend::Wanted,
    event::store::Files,
    policy::{
        Level, Match, Mode, Policy,
        admission::{Control, Handling},
    },
    state::DIRECTORY,
};

/// `events.max_size_mib` unless it is configured: some ten thousand events in each of two files.
const EVENTS_MIB: u64 = 2;

/// Everything that can be configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `[daemon]`.
    pub daemon: Daemon,
    /// `[events]`: where events are kept.
    pub events: Files,
    /// `[[runtime]]`, in order. Without any, the built-in list applies.
    pub runtimes: Vec<Runtime>,
    /// `[default]`.
    pub default: Fallback,
    /// `[[rule]]`, in order.
    pub rules: Vec<Rule>,
    /// The built-in policies, as adjusted, and those of `[policy.NAME]`, by name.
    pub policies: BTreeMap<String, Policy>,
}

/// `[daemon]`: how lockc itself behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Daemon {
    /// Least severity that is logged; `RUST_LOG` wins.
    pub log_level: LevelFilter,
    /// How log lines look.
    pub log_format: LogFormat,
    /// What a container gets whose command line or bundle is not understood.
    pub on_error: OnError,
    /// How long a runtime may wait for its answer.
    pub decision_timeout: Duration,
    /// How the decisions get into the kernel. Taken up at the start.
    pub backend: Wanted,
    /// Whether lockc refuses to start where that backend cannot enforce everything.
    pub require_full: bool,
    /// Id of the group whose members may ask what lockc knows, beside root.
    pub group: Option<u32>,
}

/// `daemon.log_format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `daemon.on_error`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// The default policy.
    Default,
    /// The runtime is not executed.
    Deny,
}

/// `[[runtime]]`: an OCI runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runtime {
    /// Its name, which says how its command line is read, and by which the kernel
    /// side recognises it: at most [`lockc_common::NAME_LEN`] bytes.
    pub name: String,
    /// Its executables: absolute paths whose components may be globs.
    pub paths: Vec<String>,
    /// Directories in which it keeps its containers (`--root`), beside the usual ones: absolute paths.
    pub state: Vec<String>,
}

/// `[default]`: what a container gets if no rule matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fallback {
    /// Name of the policy.
    pub policy: String,
    /// Whether policies are enforced that do not say it themselves.
    pub mode: Mode,
}

/// `[[rule]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name, for messages; unique.
    pub name: String,
    /// Name of the policy that the containers get that match.
    pub policy: String,
    /// Whether that is enforced; `None` leaves it to the policy.
    pub mode: Option<Mode>,
    /// Whether facts count in full that the users of root's engines choose. Those of other users never
    /// do.
    pub trust_claims: bool,
    /// Which containers match.
    pub matches: Match,
}

impl Config {
    /// Reads the file at `path` and the drop-ins beside it. Problems that are no errors are in
    /// [`Checked::read`] only.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Checked::read(path)?.usable()
    }

    /// Understands the content of one file; `path` is for messages.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        Checked::new(vec![Source { path: path.to_owned(), text: text.to_owned() }]).usable()
    }

    /// Understands the content of a file that has no mistake.
    #[cfg(test)]
    pub(crate) fn understand(text: &str, path: &Path) -> Self {
        let source = Source { path: path.to_owned(), text: text.to_owned() };
        let checked = Checked::new(vec![source]);
        checked.config.unwrap_or_else(|| panic!("{}", checked.report))
    }

    /// A policy by name.
    pub fn policy(&self, name: &str) -> Option<&Policy> {
        self.policies.get(name)
    }

    /// The mode of a policy that a rule with the mode `rule` chose: the rule's wins over the
    /// policy's, and that over the default's.
    pub fn mode(&self, policy: &str, rule: Option<Mode>) -> Mode {
        rule.or_else(|| self.policy(policy)?.mode).unwrap_or(self.default.mode)
    }

    /// Whether a container starts about which something could not be found out. It gets the default
    /// policy, so not where that refuses containers for what they ask for: what this one asks for is not
    /// known, or a bundle that lockc cannot understand would be the way around admission.
    pub fn starts_unseen(&self) -> bool {
        let refuses = |policy: &Policy| {
            let admission = policy.admission(self.default_mode());
            Control::ALL.iter().any(|control| admission.handling(*control) == Handling::Enforce)
        };
        self.daemon.on_error == OnError::Default
            && !self.policy(&self.default.policy).is_none_or(refuses)
    }

    /// The mode of the default policy.
    pub fn default_mode(&self) -> Mode {
        self.mode(&self.default.policy, None)
    }
}

/// What `examples/config/lockc.toml` says.
impl Default for Config {
    fn default() -> Self {
        let runtime = |name: &str, paths: &[&str]| Runtime {
            name: name.to_owned(),
            paths: paths.iter().map(|path| (*path).to_owned()).collect(),
            state: Vec::new(),
        };
        Self {
            daemon: Daemon {
                log_level: LevelFilter::Info,
                log_format: LogFormat::Text,
                on_error: OnError::Default,
                decision_timeout: Duration::from_secs(2),
                group: None,
                backend: Wanted::Auto,
                require_full: true,
            },
            events: Files {
                file: Path::new(DIRECTORY).join("events.jsonl"),
                max_size: EVENTS_MIB << 20,
            },
            runtimes: vec![
                runtime(
                    "runc",
                    &[
                        "/usr/bin/runc",
                        "/usr/sbin/runc",
                        "/usr/local/bin/runc",
                        "/usr/local/sbin/runc",
                        "/var/lib/rancher/k3s/data/*/bin/runc",
                    ],
                ),
                runtime("crun", &["/usr/bin/crun", "/usr/local/bin/crun"]),
                runtime("youki", &["/usr/bin/youki", "/usr/local/bin/youki"]),
            ],
            default: Fallback { policy: Level::Baseline.name().to_owned(), mode: Mode::Enforce },
            rules: Vec::new(),
            policies: Level::ALL
                .map(|level| (level.name().to_owned(), Policy::built_in(level)))
                .into_iter()
                .collect(),
        }
    }
}
