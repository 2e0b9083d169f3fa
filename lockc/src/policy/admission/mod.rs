//! The Pod Security Standards for OCI bundles: what a bundle asks for that its policy does not
//! admit.
//!
//! Pure: no file is read here and nothing is enforced. Which control is which part of the standards
//! (Kubernetes documentation, "Pod Security Standards", 1.33) is in docs/admission.md.

mod confinement;
mod devices;
mod host_paths;
mod kernel;
mod known;
mod kubelet;
mod mounts;
mod namespaces;
mod path;
mod privileges;
mod sockets;
#[cfg(test)]
mod tests;
mod text;

use crate::runtime::bundle::Facts;

/// One thing that is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Control {
    /// The host's PID, IPC, network or mount namespace, or its control groups for writing.
    HostNamespaces,
    /// Everything at once: all capabilities and all devices.
    Privileged,
    /// Capabilities beyond those of the standard.
    Capabilities,
    /// Mounts, and a root file system, of what belongs to the host.
    HostPaths,
    /// The socket of an engine or of kubelet.
    RuntimeSockets,
    /// Devices of the host.
    Devices,
    /// An `AppArmor` profile that is switched off.
    Apparmor,
    /// A SELinux type or user of one's own.
    Selinux,
    /// `/proc` and `/sys` without the usual masked and read-only paths.
    ProcMount,
    /// No seccomp filter.
    Seccomp,
    /// Kernel parameters that are not the container's own.
    Sysctls,
    /// `execve` may give new privileges.
    PrivilegeEscalation,
    /// User id 0.
    RunAsNonRoot,
}

impl Control {
    /// All controls.
    pub const ALL: [Self; 13] = [
        Self::HostNamespaces,
        Self::Privileged,
        Self::Capabilities,
        Self::HostPaths,
        Self::RuntimeSockets,
        Self::Devices,
        Self::Apparmor,
        Self::Selinux,
        Self::ProcMount,
        Self::Seccomp,
        Self::Sysctls,
        Self::PrivilegeEscalation,
        Self::RunAsNonRoot,
    ];

    /// Its name in the configuration and in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HostNamespaces => "host_namespaces",
            Self::Privileged => "privileged",
            Self::Capabilities => "capabilities",
            Self::HostPaths => "host_paths",
            Self::RuntimeSockets => "runtime_sockets",
            Self::Devices => "devices",
            Self::Apparmor => "apparmor",
            Self::Selinux => "selinux",
            Self::ProcMount => "proc_mount",
            Self::Seccomp => "seccomp",
            Self::Sysctls => "sysctls",
            Self::PrivilegeEscalation => "privilege_escalation",
            Self::RunAsNonRoot => "run_as_non_root",
        }
    }

    /// The least standard that has it.
    pub const fn standard(self) -> Standard {
        match self {
            Self::PrivilegeEscalation | Self::RunAsNonRoot => Standard::Restricted,
            _ => Standard::Baseline,
        }
    }
}

/// Whose limits apply where the two differ, as for capabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standard {
    /// Prevents known escalations.
    Baseline,
    /// Hardening as it should be.
    Restricted,
}

/// What comes of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Handling {
    /// The control is not evaluated.
    Off,
    /// It is logged, and the container starts.
    Audit,
    /// The container does not start.
    Enforce,
}

impl Handling {
    /// Its name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Audit => "audit",
            Self::Enforce => "enforce",
        }
    }
}

/// What a policy admits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Whose limits apply.
    pub standard: Standard,
    /// Handling of each control, in the order of [`Control::ALL`].
    handling: [Handling; Control::ALL.len()],
    /// Capabilities (`CAP_…`) that are fine besides.
    pub capabilities: Vec<String>,
    /// Host paths, with what is below them, that are fine besides: absolute, in normal form. They do
    /// not admit a socket that [`Control::RuntimeSockets`] objects to.
    pub host_paths: Vec<String>,
}

impl Admission {
    /// The controls of a standard, handled all alike, without exceptions; the others are off.
    pub fn new(standard: Standard, handling: Handling) -> Self {
        let handling = Control::ALL
            .map(|control| if control.standard() <= standard { handling } else { Handling::Off });
        Self { standard, handling, capabilities: Vec::new(), host_paths: Vec::new() }
    }

    /// How a control is handled.
    pub fn handling(&self, control: Control) -> Handling {
        self.handling[control as usize]
    }

    /// Handles a control in another way.
    pub fn set(&mut self, control: Control, handling: Handling) {
        self.handling[control as usize] = handling;
    }
}

/// Something that a bundle asks for and the policy does not admit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which control found it.
    pub control: Control,
    /// What comes of it: audit or enforce.
    pub handling: Handling,
    /// What was found, with the value, for people.
    pub found: String,
    /// How to allow it in the configuration, for people. The policy is called `NAME`.
    pub remedy: String,
}

impl Finding {
    /// Whether the container does not start for it.
    pub fn refuses(&self) -> bool {
        self.handling == Handling::Enforce
    }

    /// [`Self::remedy`] with the name of the policy.
    pub fn remedy_in(&self, policy: &str) -> String {
        self.remedy.replace("[policy.NAME", &format!("[policy.{policy}"))
    }
}

/// What `facts` ask for and `rules` do not admit: at most one finding for each control, in the order
/// of [`Control::ALL`], for those that are not [`Handling::Off`].
///
/// The sandbox of a pod is judged by Baseline: it runs the CRI runtime's own program, with privileges
/// that no pod can take from it, and says nothing of the pod but its namespaces.
///
/// Never fails: what cannot be judged (a path with `..`) is a finding.
pub fn evaluate(facts: &Facts, rules: &Admission) -> Vec<Finding> {
    let standard = match kubelet::role(facts) {
        Some(kubelet::Role::Sandbox) => Standard::Baseline,
        Some(kubelet::Role::Container) | None => rules.standard,
    };
    let findings = Control::ALL.into_iter().filter_map(|control| {
        let handling = rules.handling(control);
        let is_judged = control.standard() <= standard || standard == rules.standard;
        if handling == Handling::Off || !is_judged {
            return None;
        }
        let text::Objection { found, remedy } = object(control, facts, rules, standard)?;
        let remedy = format!("{remedy} under [policy.NAME.admission]");
        Some(Finding { control, handling, found, remedy })
    });
    findings.collect()
}

fn object(
    control: Control,
    facts: &Facts,
    rules: &Admission,
    standard: Standard,
) -> Option<text::Objection> {
    match control {
        Control::HostNamespaces => namespaces::decide(facts),
        Control::Privileged => privileges::privileged(facts),
        Control::Capabilities => privileges::capabilities(facts, rules, standard),
        Control::HostPaths => host_paths::decide(facts, rules, standard),
        Control::RuntimeSockets => sockets::decide(facts),
        Control::Devices => devices::decide(facts),
        Control::Apparmor => confinement::apparmor(facts),
        Control::Selinux => confinement::selinux(facts),
        Control::ProcMount => kernel::proc_mount(facts),
        Control::Seccomp => confinement::seccomp(facts, standard),
        Control::Sysctls => kernel::sysctls(facts),
        Control::PrivilegeEscalation => privileges::privilege_escalation(facts),
        Control::RunAsNonRoot => privileges::run_as_non_root(facts),
    }
}
