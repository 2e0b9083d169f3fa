//! Policies with everything that they inherit.

use lockc_common::{PathVerdict, PolicyFlags};

use super::{
    Level, Mode, Network, NetworkMode, NetworkRule, PathRule, PathRules, Verdict,
    admission::{Admission, Control, Handling, Standard},
};

/// Service-account tokens of Kubernetes. `/var/run` is a link to `/run` in most
/// images and a directory in others, and rules match resolved paths.
const TOKENS: &[PathRule] = &[
    PathRule::literal("/run/secrets/kubernetes.io"),
    PathRule::literal("/var/run/secrets/kubernetes.io"),
];

/// What is denied to all but privileged containers.
const DENIALS: u32 = PolicyFlags::EVERYTHING;

/// A policy: what it says itself, and what it has from the policies that it extends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// The built-in policy that it goes back to.
    pub base: Level,
    /// Whether it is enforced; `None` leaves that to the default.
    pub mode: Option<Mode>,
    /// Operations that are denied: [`PolicyFlags`] without `PATHS` and `AUDIT`, which
    /// follow from the rest.
    pub denials: PolicyFlags,
    /// Paths in the container.
    pub paths: PathRules,
    /// Paths of the host that are out of reach, through whatever mount.
    pub host_paths: Vec<PathRule>,
    /// The network.
    pub network: Network,
    /// Executing files.
    pub exec: Exec,
    /// What a bundle may ask for. `run_as_non_root` is one of its controls.
    pub admission: Admission,
}

/// Whether something is possible where nothing more specific is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Access {
    /// It is.
    #[default]
    Allow,
    /// It is not.
    Deny,
}

impl Access {
    /// Its name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// What a container may execute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exec {
    /// Files, or directories with all below them; `None` is everything.
    pub allow: Option<Vec<PathRule>>,
    /// What may not be executed.
    pub deny: Vec<PathRule>,
    /// Files that have no name (memfd, deleted).
    pub fileless: Access,
    /// Files that did not come with the image.
    pub drift: Access,
}

impl Exec {
    /// Its rules about paths; the most specific one wins.
    pub fn rules(&self) -> PathRules {
        let denied = self.deny.iter().map(|path| (*path, Verdict::Deny));
        let allowed = self.allow.iter().flatten().map(|path| (*path, Verdict::Allow));
        // Of two about the same path the last one counts.
        let mut rules: PathRules = allowed.chain(denied).collect();
        if self.allow.is_some() {
            rules.default = Access::Deny;
        }
        rules
    }

    fn kernel_rules(&self) -> Vec<(PathRule, PathVerdict)> {
        let rules = self.rules();
        if !rules.denies_something() {
            return Vec::new();
        }
        let default = (rules.default == Access::Deny && !rules.contains(&PathRule::ROOT))
            .then_some((PathRule::ROOT, PathVerdict::Default));
        let verdict = |verdict| match verdict {
            Verdict::Allow => PathVerdict::Allow,
            Verdict::ReadOnly | Verdict::Deny => PathVerdict::Deny,
        };
        default.into_iter().chain(rules.iter().map(|(rule, it)| (*rule, verdict(it)))).collect()
    }
}

/// What the kernel side is told of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelRules {
    /// [`PolicyFlags`].
    pub flags: PolicyFlags,
    /// Path rules; the most specific one wins.
    pub paths: Vec<(PathRule, PathVerdict)>,
    /// Rules about executing.
    pub exec: Vec<(PathRule, PathVerdict)>,
    /// Rules about addresses and families of sockets.
    pub network: Vec<NetworkRule>,
}

impl Policy {
    /// The built-in policy of that name, as it is without any configuration.
    pub fn built_in(level: Level) -> Self {
        let confined = level != Level::Privileged;
        let tokens = if confined { TOKENS } else { &[] };
        Self {
            name: level.name().to_owned(),
            base: level,
            mode: None,
            denials: PolicyFlags(if confined { DENIALS } else { 0 }),
            paths: tokens.iter().map(|token| (*token, Verdict::Deny)).collect(),
            host_paths: Vec::new(),
            network: Network {
                mode: match level {
                    Level::Offline => NetworkMode::None,
                    _ => NetworkMode::HostDefault,
                },
                ..Network::default()
            },
            exec: Exec::default(),
            admission: match level {
                Level::Offline | Level::Restricted => {
                    Admission::new(Standard::Restricted, Handling::Enforce)
                }
                Level::Baseline => Admission::new(Standard::Baseline, Handling::Audit),
                Level::Privileged => Admission::new(Standard::Baseline, Handling::Off),
            },
        }
    }

    /// Whether making user namespaces is possible.
    pub fn user_namespaces(&self) -> Access {
        self.access(PolicyFlags::USER_NAMESPACES)
    }

    /// Whether rings (`io_uring_setup(2)`) can be made.
    pub fn io_uring(&self) -> Access {
        self.access(PolicyFlags::IO_URING)
    }

    fn access(&self, flag: u32) -> Access {
        if self.denials.0 & flag == 0 { Access::Allow } else { Access::Deny }
    }

    /// Allows or denies the operations of `flag`.
    pub fn set_access(&mut self, flag: u32, access: Access) {
        match access {
            Access::Allow => self.denials.0 &= !flag,
            Access::Deny => self.denials.0 |= flag,
        }
    }

    /// Whether containers that would start as user id 0 do not start, and nobody becomes it later.
    pub fn run_as_non_root(&self) -> bool {
        self.admission.handling(Control::RunAsNonRoot) == Handling::Enforce
    }

    /// What a bundle may ask for under `mode`: in [`Mode::Audit`] a finding is only reported.
    pub fn admission(&self, mode: Mode) -> Admission {
        let mut admission = self.admission.clone();
        if mode == Mode::Audit {
            for control in Control::ALL {
                admission.set(control, admission.handling(control).min(Handling::Audit));
            }
        }
        admission
    }

    /// Whether a container may be restored from a checkpoint: its processes then appear
    /// without an `execve` at which the kernel side's part of a policy could come into force.
    pub fn allows_restore(&self) -> bool {
        self.denials.0 == 0
            && !self.paths.denies_something()
            && self.host_paths.is_empty()
            && self.network == Network::default()
            && self.exec == Exec::default()
    }

    /// Operations that are denied, whatever the rules say.
    pub fn denied_operations(&self) -> PolicyFlags {
        let mut denied = self.denials;
        // Whoever does not mind that a bundle asks for such a socket wants it to be of use.
        if self.admission.handling(Control::RuntimeSockets) == Handling::Off {
            denied.0 &= !PolicyFlags::RUNTIME_SOCKETS;
        }
        if self.run_as_non_root() {
            denied.0 |= PolicyFlags::ROOT;
        }
        denied
    }

    /// The policy in the form of the kernel side. Rules about paths of the host depend on what is mounted:
    /// [`super::Mounts::rules`].
    pub fn kernel_rules(&self, mode: Mode) -> KernelRules {
        let mut flags = self.denied_operations();
        let mut paths = Vec::new();
        // Building a path costs more than all else in a hook: not for rules that allow.
        if self.paths.denies_something() {
            flags.0 |= PolicyFlags::PATHS;
            paths.extend(self.paths.iter().map(|(rule, verdict)| {
                let verdict = match verdict {
                    Verdict::Allow => PathVerdict::Allow,
                    Verdict::ReadOnly => PathVerdict::ReadOnly,
                    Verdict::Deny => PathVerdict::Deny,
                };
                (*rule, verdict)
            }));
            if self.paths.default == Access::Deny && !self.paths.contains(&PathRule::ROOT) {
                paths.push((PathRule::ROOT, PathVerdict::Default));
            }
        }
        let exec = self.exec.kernel_rules();
        if !exec.is_empty() {
            flags.0 |= PolicyFlags::EXEC;
        }
        // A list of what may be executed names files.
        if self.exec.fileless == Access::Deny || self.exec.allow.is_some() {
            flags.0 |= PolicyFlags::FILELESS;
        }
        if self.exec.drift == Access::Deny {
            flags.0 |= PolicyFlags::DRIFT;
        }
        if self.network.mode == NetworkMode::None {
            flags.0 |= PolicyFlags::NETWORK_NONE;
        }
        if self.network.restricts_addresses() {
            flags.0 |= PolicyFlags::NETWORK_RULES;
        }
        if !self.host_paths.is_empty() {
            flags.0 |= PolicyFlags::HOST_PATHS;
        }
        if mode == Mode::Audit {
            flags.0 |= PolicyFlags::AUDIT;
        }
        KernelRules { flags, paths, exec, network: self.network.kernel_rules() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_rules_are_flagged() {
        for level in Level::ALL {
            for mode in [Mode::Enforce, Mode::Audit] {
                let KernelRules { flags, paths, .. } = Policy::built_in(level).kernel_rules(mode);
                assert_eq!(flags.0 & PolicyFlags::PATHS != 0, !paths.is_empty());
                assert_eq!(flags.0 & PolicyFlags::AUDIT != 0, mode == Mode::Audit);
            }
        }
        let nothing = Policy::built_in(Level::Privileged).kernel_rules(Mode::Enforce);
        let (paths, exec, network) = (Vec::new(), Vec::new(), Vec::new());
        assert_eq!(nothing, KernelRules { flags: PolicyFlags(0), paths, exec, network });
    }

    #[test]
    fn only_what_enforces_it_keeps_root_out() {
        let root =
            |policy: &Policy| policy.kernel_rules(Mode::Enforce).flags.0 & PolicyFlags::ROOT != 0;
        let of = |level| root(&Policy::built_in(level));
        assert_eq!(Level::ALL.map(of), [true, true, false, false]);
        let mut policy = Policy::built_in(Level::Baseline);
        policy.admission.set(Control::RunAsNonRoot, Handling::Audit);
        assert!(!root(&policy));
        policy.admission.set(Control::RunAsNonRoot, Handling::Enforce);
        assert!(root(&policy));
    }

    #[test]
    fn built_in_rules_are_in_normal_form() {
        for token in TOKENS {
            assert_eq!(PathRule::new(&token.to_string()).unwrap(), *token);
        }
    }

    #[test]
    fn auditing_admits_everything() {
        let policy = Policy::built_in(Level::Restricted);
        assert_eq!(policy.admission(Mode::Enforce), policy.admission);
        let audited = policy.admission(Mode::Audit);
        assert!(Control::ALL.iter().all(|control| audited.handling(*control) == Handling::Audit));
        let off = Policy::built_in(Level::Privileged).admission(Mode::Audit);
        assert!(Control::ALL.iter().all(|control| off.handling(*control) == Handling::Off));
    }

    #[test]
    fn only_what_denies_nothing_allows_a_restore() {
        let allowed = |level| Policy::built_in(level).allows_restore();
        assert_eq!(Level::ALL.map(allowed), [false, false, false, true]);
        let mut policy = Policy::built_in(Level::Privileged);
        policy.paths = [(PathRule::new("/x").unwrap(), Verdict::Deny)].into_iter().collect();
        assert!(!policy.allows_restore());
    }
}
