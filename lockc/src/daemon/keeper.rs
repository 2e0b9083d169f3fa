//! What the gate asks: looks at a frozen runtime, decides, registers.

use std::{
    fs,
    os::fd::{AsRawFd as _, BorrowedFd, OwnedFd},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use lockc_common::{State, UNATTRIBUTED};
use log::Level as LogLevel;
use nix::unistd::{Pid, Uid};

use super::{
    force::{Force, InForce},
    meter::Meter,
    notify,
    registry::{Origin, Registry},
};
use crate::{
    bpf::{calls, labels::Labels, maps::Maps},
    event::{
        fields,
        record::{self, Record},
        store::Journal,
    },
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
    meter: Arc<Meter>,
    journal: Journal,
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

impl Visitor<'_> {
    /// Without a registration the default policy would apply, which may be looser than what was
    /// decided: the container does not start.
    fn refuse(&self, why: &str) -> Decision {
        self.deny(LogLevel::Error, why)
    }

    fn deny(&self, level: LogLevel, why: &str) -> Decision {
        let message =
            format!("denied start runtime={} pid={}: {why}", self.path.display(), self.tid);
        Decision {
            allow: false,
            message: Some((level, message)),
            event: Some(self.start("denied", why)),
        }
    }

    /// The event of its start.
    fn start(&self, verdict: &str, why: &str) -> Box<Record> {
        let thread = u32::try_from(self.tid).unwrap_or(0);
        let mut event = Record::now(verdict, "start");
        (event.pid, event.tid) = (thread, thread);
        event.runtime = Some(record::cut(&self.path.to_string_lossy()));
        event.why = Some(record::cut(why));
        Box::new(event)
    }
}

impl Keeper {
    pub(super) fn new(
        in_force: Arc<InForce>,
        maps: Arc<Maps>,
        labels: Arc<Labels>,
        runtimes: Arc<Runtimes>,
        registry: Arc<Registry>,
        meter: Arc<Meter>,
        journal: Journal,
    ) -> Self {
        Self { in_force, maps, labels, runtimes, registry, meter, journal }
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
                    let mut event = visitor.start("allowed", &why);
                    "unattributed".clone_into(&mut event.container);
                    event.policy.clone_from(&decision.policy);
                    event.mode = Some(decision.mode.name().to_owned());
                    answer.event = Some(event);
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
            Action::Keep => Decision::ALLOW,
            Action::Deny { why } => visitor.deny(LogLevel::Warn, &why),
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
            return visitor.refuse("its policy is not installed");
        };
        let Some(handle) = self.registry.admit(visitor.owner) else {
            return visitor.refuse("its user has too many containers");
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
            return visitor.refuse("the kernel did not take up its registration");
        }
        let Some((key, origin)) = named else {
            return Decision::ALLOW;
        };
        if let Err(error) = self.maps.name_container(handle, key.owner.as_raw(), key.id.as_bytes())
        {
            // Only messages suffer.
            log::error!("{error}");
        }
        let why = format!("{}{}", decision.why, audited(findings));
        let mut event = visitor.start("allowed", &why);
        event.container = key.id.to_string();
        event.policy.clone_from(&decision.policy);
        event.mode = Some(decision.mode.name().to_owned());
        origin.describe(&mut event);
        self.registry.insert(key.clone(), handle, Some(origin));
        Decision {
            allow: true,
            event: Some(event),
            message: Some((
                if findings.is_empty() { LogLevel::Info } else { LogLevel::Warn },
                format!(
                    "registered container={} policy={} mode={} runtime={} pid={}: {why}",
                    key.id,
                    decision.policy,
                    decision.mode,
                    visitor.path.display(),
                    visitor.tid,
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
            return Decision::ALLOW;
        }
        visitor.refuse("the kernel did not take up its registration")
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
            return Decision::ALLOW;
        }
        let force = self.in_force.get();
        let examined = runtime::examine(tid, &name, &force.config);
        let caller = match examined.caller {
            Ok(Some(caller)) => caller,
            // `runc init`: it keeps the label that it has.
            Ok(None) => return Decision::ALLOW,
            Err(error) => {
                // Killed meanwhile, as a rule; otherwise the kernel side knows the file.
                return Decision {
                    allow: force.config.starts_unseen(),
                    message: Some((LogLevel::Warn, format!("{}: {error}", path.display()))),
                    event: None,
                };
            }
        };
        if is(State::Runtime)
            && let Action::Create { key, .. } = &examined.action
            && self.registry.find(key) == label.map(|label| label.container)
        {
            // crun executes itself once more, with the same words.
            return Decision::ALLOW;
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
        let timeout = force.config.daemon.decision_timeout.as_millis();
        let mut event = Record::now(if allow { "allowed" } else { "denied" }, "start");
        event.tid = tid.as_raw().unsigned_abs();
        event.pid = event.tid;
        event.why = Some(format!("no decision within {timeout} ms: {outcome}"));
        Decision {
            allow,
            message: Some((
                LogLevel::Error,
                format!("no decision about thread {tid} within {timeout} ms: {outcome}"),
            )),
            event: Some(Box::new(event)),
        }
    }

    fn answered(&self, decision: Decision, time: Duration, late: bool) {
        let Decision { allow, message, mut event } = decision;
        self.meter.count(time, allow, late);
        if let Some(event) = &mut event {
            self.journal.keep(event);
        }
        match (message, event) {
            (Some((level, message)), Some(event)) => fields::say(level, &message, &event),
            (Some((level, message)), None) => log::log!(level, "{message}"),
            (None, _) => {}
        }
    }

    fn trouble(&self, message: String) {
        log::error!("{message}");
    }

    fn alive(&self) {
        notify::alive();
    }
}
