//! What the gate asks: looks at a frozen runtime, decides, registers.

use std::{
    collections::{HashMap, HashSet},
    fs,
    os::fd::{AsRawFd as _, BorrowedFd, OwnedFd},
    path::PathBuf,
    sync::Arc,
};

use log::Level as LogLevel;
use nix::unistd::Pid;

use super::registry::Registry;
use crate::{
    bpf::{
        LoadError, calls,
        labels::Labels,
        maps::{CompiledPolicy, Maps},
    },
    config::{Config, OnError, supported},
    policy::{Decision as PolicyDecision, KernelRules, Mode, Policy},
    runtime::{
        self,
        plan::{Action, ContainerKey},
    },
    watch::{
        gate::{Decide, Decision},
        runtimes::{Runtimes, fd_argument},
    },
};

use lockc_common::{State, UNATTRIBUTED};

/// Decides about runtimes and registers what they start.
#[derive(Debug)]
pub(super) struct Keeper {
    config: Config,
    maps: Arc<Maps>,
    labels: Labels,
    runtimes: Arc<Runtimes>,
    registry: Arc<Registry>,
    /// Ids of the installed policies, by name and mode.
    policies: HashMap<(String, Mode), u32>,
}

/// A task at the gate.
struct Visitor<'a> {
    tid: u64,
    start_ticks: u64,
    exe: BorrowedFd<'a>,
    path: PathBuf,
    /// Root file system of the container that it makes.
    rootfs: Option<OwnedFd>,
}

impl Keeper {
    /// Installs the policies, and the default for whoever is not registered.
    pub(super) fn new(
        config: Config,
        maps: Arc<Maps>,
        labels: Labels,
        runtimes: Arc<Runtimes>,
        registry: Arc<Registry>,
    ) -> Result<Self, LoadError> {
        let mut policies = HashMap::new();
        for (policy, mode) in in_use(&config) {
            let id = maps.install(&compile(policy, mode))?;
            policies.insert((policy.name.clone(), mode), id);
        }
        let default = (config.default.policy.clone(), config.default_mode());
        let default = *policies.get(&default).ok_or_else(|| LoadError::Map {
            name: "POLICIES",
            reason: format!("the default policy `{}` cannot be enforced", config.default.policy),
        })?;
        maps.set_default(default)?;
        Ok(Self { config, maps, labels, runtimes, registry, policies })
    }

    pub(super) fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    fn carry_out(&self, visitor: &Visitor<'_>, action: &Action) -> Decision {
        match action {
            Action::Create { key, decision, flags } => {
                self.create(visitor, Some(key), decision, *flags)
            }
            Action::Join { key, flags } => {
                let handle = self.registry.find(key).filter(|h| self.maps.container(*h).is_some());
                self.join(visitor, handle.unwrap_or(UNATTRIBUTED), *flags)
            }
            Action::Unattributed { why: None } => self.join(visitor, UNATTRIBUTED, 0),
            Action::Unattributed { why: Some(why) } => {
                // Under a record of its own, not to be taken for another such container.
                let decision = PolicyDecision::fallback(&self.config, why.clone());
                let mut answer = self.create(visitor, None, &decision, 0);
                if answer.allow {
                    answer.message = Some((
                        LogLevel::Warn,
                        format!(
                            "default policy {} for {} (pid {}): {why}",
                            decision.policy,
                            visitor.path.display(),
                            visitor.tid
                        ),
                    ));
                }
                answer
            }
            Action::Keep => Decision { allow: true, message: None },
            Action::Deny { why } => Decision {
                allow: false,
                message: Some((
                    LogLevel::Warn,
                    format!(
                        "denied start runtime={} pid={}: {why}",
                        visitor.path.display(),
                        visitor.tid
                    ),
                )),
            },
        }
    }

    fn create(
        &self,
        visitor: &Visitor<'_>,
        key: Option<&ContainerKey>,
        decision: &PolicyDecision,
        flags: u32,
    ) -> Decision {
        let Some(policy) = self.policies.get(&(decision.policy.clone(), decision.mode)) else {
            return refuse(visitor, "its policy is not installed");
        };
        let handle = self.registry.new_handle();
        calls::add_container(
            visitor.tid,
            visitor.start_ticks,
            handle,
            u64::from(*policy) | u64::from(flags) << 32,
            visitor.rootfs.as_ref().map_or(calls::NO_FD, fd_argument),
            fd_argument(&visitor.exe),
        );
        if !self.is_registered(visitor, handle) {
            return refuse(visitor, "the kernel did not take up its registration");
        }
        let Some(key) = key else {
            return Decision { allow: true, message: None };
        };
        if let Err(error) = self.maps.name_container(handle, key.owner.as_raw(), key.id.as_bytes())
        {
            // Only messages suffer.
            log::error!("{error}");
        }
        self.registry.insert(key.clone(), handle);
        Decision {
            allow: true,
            message: Some((
                LogLevel::Info,
                format!(
                    "registered container={} policy={} mode={} runtime={} pid={}: {}",
                    key.id,
                    decision.policy,
                    decision.mode,
                    visitor.path.display(),
                    visitor.tid,
                    decision.why
                ),
            )),
        }
    }

    fn join(&self, visitor: &Visitor<'_>, handle: u64, flags: u32) -> Decision {
        let register = |handle| {
            calls::add_process(
                visitor.tid,
                visitor.start_ticks,
                handle,
                u64::from(flags),
                fd_argument(&visitor.exe),
            );
            self.is_registered(visitor, handle)
        };
        // The container may have ended between the look-up and the call.
        if register(handle) || register(UNATTRIBUTED) {
            return Decision { allow: true, message: None };
        }
        refuse(visitor, "the kernel did not take up its registration")
    }

    fn is_registered(&self, visitor: &Visitor<'_>, handle: u64) -> bool {
        u32::try_from(visitor.tid)
            .ok()
            .and_then(|tid| self.maps.pending(tid))
            .is_some_and(|pending| pending.container == handle)
    }
}

/// Without a registration the default policy would apply, which may be looser than what was
/// decided: the container does not start.
fn refuse(visitor: &Visitor<'_>, why: &str) -> Decision {
    Decision {
        allow: false,
        message: Some((
            LogLevel::Error,
            format!("denied start runtime={} pid={}: {why}", visitor.path.display(), visitor.tid),
        )),
    }
}

/// The policies that a decision can name, with each mode that it can have: containers may ask for
/// every policy, in the mode that it has by itself.
fn in_use(config: &Config) -> impl Iterator<Item = (&Policy, Mode)> {
    config.policies.values().filter(|policy| supported::missing(policy).is_empty()).flat_map(
        |policy| {
            let rules = config.rules.iter().filter(|rule| rule.policy == policy.name);
            let modes: HashSet<Mode> = rules
                .map(|rule| rule.mode)
                .chain([None])
                .map(|mode| config.mode(&policy.name, mode))
                .collect();
            modes.into_iter().map(move |mode| (policy, mode))
        },
    )
}

fn compile(policy: &Policy, mode: Mode) -> CompiledPolicy {
    let KernelRules { flags, paths } = policy.kernel_rules(mode);
    CompiledPolicy {
        name: policy.name.clone(),
        flags: flags.0,
        paths: paths.iter().map(|(rule, verdict)| (rule.as_bytes().to_vec(), *verdict)).collect(),
    }
}

/// A file that has been replaced since it was marked: its name must do.
fn unknown_runtime(exe: BorrowedFd<'_>) -> (String, PathBuf) {
    let link = format!("/proc/self/fd/{}", exe.as_raw_fd());
    let path = fs::read_link(&link).unwrap_or(link.into());
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    (name.trim_end_matches(" (deleted)").to_owned(), path)
}

impl Decide for Keeper {
    fn decide(&self, tid: Pid, exe: BorrowedFd<'_>) -> Decision {
        let (name, path) = self.runtimes.identify(exe).unwrap_or_else(|| unknown_runtime(exe));
        let label = self.labels.get(tid);
        let is = |state| label.as_ref().is_some_and(|label| label.state == state as u32);
        if is(State::Contained) {
            // A runtime inside a container: nothing that it says counts, its label stays.
            return Decision { allow: true, message: None };
        }
        let examined = runtime::examine(tid, &name, &self.config);
        let caller = match examined.caller {
            Ok(Some(caller)) => caller,
            // `runc init`: it keeps the label that it has.
            Ok(None) => return Decision { allow: true, message: None },
            Err(error) => {
                // Killed meanwhile, as a rule; otherwise the kernel side knows the file.
                return Decision {
                    allow: self.config.daemon.on_error == OnError::Default,
                    message: Some((LogLevel::Warn, format!("{}: {error}", path.display()))),
                };
            }
        };
        if is(State::Runtime)
            && let Action::Create { key, .. } = &examined.action
            && self.registry.find(key) == label.map(|label| label.container)
        {
            // crun executes itself once more, with the same words.
            return Decision { allow: true, message: None };
        }
        let visitor = Visitor {
            tid: u64::from(tid.as_raw().unsigned_abs()),
            start_ticks: caller.start_ticks,
            exe,
            path,
            rootfs: examined.rootfs,
        };
        self.carry_out(&visitor, &examined.action)
    }

    fn decide_late(&self, tid: Pid) -> Decision {
        let allow = self.config.daemon.on_error == OnError::Default;
        let outcome = if allow { "it gets the default policy" } else { "denied" };
        Decision {
            allow,
            message: Some((
                LogLevel::Error,
                format!(
                    "no decision about thread {tid} within {} ms: {outcome}",
                    self.config.daemon.decision_timeout.as_millis()
                ),
            )),
        }
    }

    fn trouble(&self, message: String) {
        log::error!("{message}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_use(toml: &str) -> Vec<(String, Mode)> {
        let config = Config::understand(toml, "lockc.toml".as_ref());
        let mut policies: Vec<_> =
            super::in_use(&config).map(|(policy, mode)| (policy.name.clone(), mode)).collect();
        policies.sort_by_key(|(name, mode)| (name.clone(), *mode == Mode::Audit));
        policies
    }

    #[test]
    fn every_policy_that_can_be_decided_is_installed() {
        let named = |list: &[(&str, Mode)]| -> Vec<_> {
            list.iter().map(|(name, mode)| ((*name).to_owned(), *mode)).collect()
        };
        let levels = [
            ("baseline", Mode::Enforce),
            ("privileged", Mode::Enforce),
            ("restricted", Mode::Enforce),
        ];
        assert_eq!(in_use(""), named(&levels), "`offline` cannot be enforced");
        let own = in_use(
            "[default]\nmode = \"audit\"\n\
             [policy.a]\nextends = \"restricted\"\nmode = \"enforce\"\n\
             [[rule]]\nname = \"r\"\npolicy = \"a\"\nmode = \"audit\"\nmatch.owner = \"0\"\n",
        );
        assert_eq!(
            own,
            named(&[
                ("a", Mode::Enforce),
                ("a", Mode::Audit),
                ("baseline", Mode::Audit),
                ("privileged", Mode::Audit),
                ("restricted", Mode::Audit),
            ])
        );
    }

    #[test]
    fn compiled_policies_hold_all_rules() {
        let config = Config::understand(
            "[policy.a]\nextends = \"baseline\"\npaths.deny = [\"/x/**\"]\n\
             paths.allow = [\"/x/y\"]\n",
            "lockc.toml".as_ref(),
        );
        let compiled = compile(&config.policies["a"], Mode::Audit);
        assert_eq!((compiled.name.as_str(), compiled.paths.len()), ("a", 4));
        assert!(compiled.paths.contains(&(b"/x/y/".to_vec(), lockc_common::PathVerdict::Allow)));
        assert_ne!(compiled.flags & lockc_common::PolicyFlags::AUDIT, 0);
    }
}
