//! What the gate asks: looks at a frozen runtime, decides, registers.

use std::{
    fs,
    os::fd::{AsRawFd as _, BorrowedFd, OwnedFd},
    path::PathBuf,
    sync::Arc,
};

use lockc_common::{State, UNATTRIBUTED};
use log::Level as LogLevel;
use nix::unistd::{Pid, Uid};

use super::{
    force::{Force, InForce},
    notify,
    registry::{Origin, Registry},
};
use crate::{
    bpf::{calls, labels::Labels, maps::Maps},
    policy::{Decision as PolicyDecision, admission::Finding},
    runtime::{
        self,
        plan::{Action, ContainerKey},
    },
    watch::{
        gate::{Decide, Decision},
        runtimes::{Runtimes, fd_argument},
    },
};

/// Decides about runtimes and registers what they start.
#[derive(Debug)]
pub(super) struct Keeper {
    in_force: Arc<InForce>,
    maps: Arc<Maps>,
    labels: Arc<Labels>,
    runtimes: Arc<Runtimes>,
    registry: Arc<Registry>,
}

/// A task at the gate.
struct Visitor<'a> {
    tid: u64,
    start_ticks: u64,
    owner: Uid,
    exe: BorrowedFd<'a>,
    /// Name of the runtime.
    runtime: String,
    path: PathBuf,
    /// Root file system of the container that it makes.
    rootfs: Option<OwnedFd>,
    /// What is decided by.
    force: Arc<Force>,
}

impl Keeper {
    pub(super) fn new(
        in_force: Arc<InForce>,
        maps: Arc<Maps>,
        labels: Arc<Labels>,
        runtimes: Arc<Runtimes>,
        registry: Arc<Registry>,
    ) -> Self {
        Self { in_force, maps, labels, runtimes, registry }
    }

    fn carry_out(&self, visitor: &Visitor<'_>, action: Action) -> Decision {
        match action {
            Action::Create { key, identity, decision, findings, flags } => {
                let origin = Origin {
                    owner: key.owner,
                    runtime: visitor.runtime.clone(),
                    identity: *identity,
                };
                self.create(visitor, Some((&key, Arc::new(origin))), &decision, &findings, flags)
            }
            Action::Join { key, flags } => {
                let handle = self.registry.find(&key).filter(|h| self.maps.container(*h).is_some());
                self.join(visitor, handle.unwrap_or(UNATTRIBUTED), flags)
            }
            Action::Unattributed { why: None } => self.join(visitor, UNATTRIBUTED, 0),
            Action::Unattributed { why: Some(why) } => {
                // Under a record of its own, not to be taken for another such container.
                let decision = PolicyDecision::fallback(&visitor.force.config, why.clone());
                let mut answer = self.create(visitor, None, &decision, &[], 0);
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
        named: Option<(&ContainerKey, Arc<Origin>)>,
        decision: &PolicyDecision,
        findings: &[Finding],
        flags: u32,
    ) -> Decision {
        let Some(policy) = visitor.force.id(&decision.policy, decision.mode) else {
            return refuse(visitor, "its policy is not installed");
        };
        let Some(handle) = self.registry.admit(visitor.owner) else {
            return refuse(visitor, "its user has too many containers");
        };
        calls::add_container(
            visitor.tid,
            visitor.start_ticks,
            handle,
            u64::from(policy) | u64::from(flags) << 32,
            visitor.rootfs.as_ref().map_or(calls::NO_FD, fd_argument),
            fd_argument(&visitor.exe),
        );
        if !self.is_registered(visitor, handle) {
            self.registry.forget(handle);
            return refuse(visitor, "the kernel did not take up its registration");
        }
        let Some((key, origin)) = named else {
            return Decision { allow: true, message: None };
        };
        if let Err(error) = self.maps.name_container(handle, key.owner.as_raw(), key.id.as_bytes())
        {
            // Only messages suffer.
            log::error!("{error}");
        }
        self.registry.insert(key.clone(), handle, Some(origin));
        Decision {
            allow: true,
            message: Some((
                if findings.is_empty() { LogLevel::Info } else { LogLevel::Warn },
                format!(
                    "registered container={} policy={} mode={} runtime={} pid={}: {}{}",
                    key.id,
                    decision.policy,
                    decision.mode,
                    visitor.path.display(),
                    visitor.tid,
                    decision.why,
                    audited(findings)
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

/// What the policy would not admit if it enforced it.
fn audited(findings: &[Finding]) -> String {
    let found: Vec<String> = findings
        .iter()
        .map(|Finding { control, found, .. }| format!("{}: {found}", control.name()))
        .collect();
    if found.is_empty() {
        return String::new();
    }
    format!("; admitted in spite of {}", found.join(", "))
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
        let force = self.in_force.get();
        let examined = runtime::examine(tid, &name, &force.config);
        let caller = match examined.caller {
            Ok(Some(caller)) => caller,
            // `runc init`: it keeps the label that it has.
            Ok(None) => return Decision { allow: true, message: None },
            Err(error) => {
                // Killed meanwhile, as a rule; otherwise the kernel side knows the file.
                return Decision {
                    allow: force.config.starts_unseen(),
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
            owner: caller.ids.euid,
            exe,
            runtime: name,
            path,
            rootfs: examined.rootfs,
            force,
        };
        self.carry_out(&visitor, examined.action)
    }

    fn decide_late(&self, tid: Pid) -> Decision {
        let force = self.in_force.get();
        let allow = force.config.starts_unseen();
        let outcome = if allow { "it gets the default policy" } else { "denied" };
        Decision {
            allow,
            message: Some((
                LogLevel::Error,
                format!(
                    "no decision about thread {tid} within {} ms: {outcome}",
                    force.config.daemon.decision_timeout.as_millis()
                ),
            )),
        }
    }

    fn trouble(&self, message: String) {
        log::error!("{message}");
    }

    fn alive(&self) {
        notify::alive();
    }
}
