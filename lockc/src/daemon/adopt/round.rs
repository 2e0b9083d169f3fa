//! One look at all processes, and what the programs are told after it.

use std::{collections::BTreeMap, sync::Arc};

use lockc_common::{Adoption, State, UNATTRIBUTED};
use log::Level;
use nix::unistd::Pid;

use super::{super::registry::Origin, Adopter, Force, Judged, Placed};
use crate::{
    adopt::{Assignment, Place, Role, Snapshot, words},
    bpf::{LoadError, calls, predecessor::Former},
    policy::Decision,
    runtime::{
        bundle::Bundle,
        caller::Caller,
        cmdline::{self, Dialect},
        engine,
        plan::{self, Action, ContainerKey, Plan},
    },
};

/// One look at all processes.
pub(super) struct Round<'a> {
    pub(super) adopter: &'a Adopter,
    pub(super) force: &'a Force,
    pub(super) judged: &'a [Judged],
    pub(super) snapshot: &'a Snapshot,
    pub(super) handles: BTreeMap<Place, (u64, u32)>,
    /// Records that were made, and have no task yet.
    pub(super) held: Vec<u64>,
}

impl Round<'_> {
    /// Tells the programs how processes are to be labelled.
    pub(super) fn say(&mut self, assignments: &[Assignment]) -> Result<(), LoadError> {
        for assignment in assignments {
            let (container, label_flags) = self.handle(assignment.place)?;
            let adoption = Adoption {
                container,
                start_ticks: assignment.start_ticks,
                state: assignment.state as u32,
                flags: assignment.flags,
                label_flags,
                reserved: 0,
            };
            self.adopter.maps.adopt(assignment.pid, adoption)?;
        }
        Ok(())
    }

    /// Handle of the record for a place, and flags of a runtime's label there.
    fn handle(&mut self, place: Place) -> Result<(u64, u32), LoadError> {
        if let Some(found) = self.handles.get(&place) {
            return Ok(*found);
        }
        let first = match place {
            Place::Container(index) => self.judged[index].running.first.pid,
            Place::Runtime(pid) | Place::Unknown(pid) | Place::Former { first: pid, .. } => pid,
        };
        let found = if let Some(label) = self.adopter.label_of(first) {
            if label.state == State::Contained as u32 {
                self.adopter.maps.keep_common(&label)?;
            }
            (label.container, label.flags)
        } else {
            match place {
                Place::Container(index) => self.container(&self.judged[index]),
                Place::Runtime(pid) => self.runtime(pid),
                Place::Unknown(pid) => self.unknown(pid),
                Place::Former { handle, first } => self.former(handle, first),
            }
        };
        self.handles.insert(place, found);
        Ok(found)
    }

    fn container(&mut self, judged: &Judged) -> (u64, u32) {
        let handle = self.make(&judged.decision);
        self.adopter.name(handle, judged);
        let message = format!("adopted {}", judged.described());
        self.adopter.tell(Level::Info, &message, &judged.placed(handle));
        if let Some(refused) = &judged.refused {
            log::warn!("it runs already, and would not be admitted: {refused}");
        }
        (handle, judged.flags)
    }

    fn make(&mut self, decision: &Decision) -> u64 {
        let policy = self.force.id(&decision.policy, decision.mode);
        let handle = self.adopter.registry.new_handle();
        calls::adopt_container(handle, u64::from(policy.unwrap_or(self.force.default_id())));
        if self.adopter.maps.container(handle).is_none() {
            // The map is full: all such share the record of those whom nobody knows.
            return UNATTRIBUTED;
        }
        self.held.push(handle);
        handle
    }

    /// A record with the default policy for `what`, which nobody can say more about.
    fn make_default(&mut self, what: &str, pid: u32, why: &str) -> u64 {
        let decision = Decision::fallback(&self.force.config, why);
        let handle = self.make(&decision);
        let message = format!("default policy {} for {what}", decision.policy);
        let placed = Placed { handle, pid, decision: &decision, origin: None };
        self.adopter.tell(Level::Warn, &message, &placed);
        handle
    }

    /// A runtime that was executed before its file was marked.
    fn runtime(&mut self, pid: u32) -> (u64, u32) {
        let action = self.examine(pid);
        match action {
            Some(Action::Create { key, identity, decision, flags, .. }) => {
                let handle = self.make(&decision);
                let owner = key.owner;
                if let Err(error) =
                    self.adopter.maps.name_container(handle, owner.as_raw(), key.id.as_bytes())
                {
                    log::error!("{error}");
                }
                let Decision { policy, mode, why, .. } = decision.as_ref();
                let message = format!(
                    "adopted container={} policy={policy} mode={mode} pid={pid}: {why}",
                    key.id
                );
                let runtime = self.runtime_name(pid);
                let origin = Arc::new(Origin { owner, runtime, identity: *identity });
                self.adopter.registry.insert(key, handle, Some(Arc::clone(&origin)));
                let origin = Some(origin.as_ref());
                let placed = Placed { handle, pid, decision: &decision, origin };
                self.adopter.tell(Level::Info, &message, &placed);
                (handle, flags)
            }
            Some(Action::Join { key, flags }) => {
                (self.adopter.registry.find(&key).unwrap_or(UNATTRIBUTED), flags)
            }
            Some(Action::Keep | Action::Unattributed { why: None }) => (UNATTRIBUTED, 0),
            // It is on its way already, and nobody can refuse it any more.
            Some(Action::Unattributed { why: Some(why) } | Action::Deny { why }) => {
                let what = format!("the runtime of process {pid}, which runs already: {why}");
                (self.make_default(&what, pid, &why), 0)
            }
            None => {
                let what = format!("the runtime of process {pid}, which runs already");
                (self.make_default(&what, pid, "its runtime's words cannot be read"), 0)
            }
        }
    }

    fn runtime_name(&self, pid: u32) -> String {
        match self.snapshot.processes.get(&pid).map(|it| &it.role) {
            Some(Role::Runtime(name)) => name.clone(),
            _ => String::new(),
        }
    }

    /// What a runtime was asked to do. Nothing that a user keeps is read here.
    fn examine(&self, pid: u32) -> Option<Action> {
        let process = self.snapshot.processes.get(&pid).filter(|it| it.user == 0)?;
        let config = &self.force.config;
        let runtime = self.runtime_name(pid);
        let invocation = cmdline::parse(Dialect::of(&runtime), &words(process), false);
        let caller = Caller::read(Pid::from_raw(pid.cast_signed())).ok()?;
        Some(match invocation {
            Err(error) => plan::failed(&error, config),
            Ok(invocation) => match plan::plan(invocation, caller.ids.euid) {
                Plan::Act(action) => action,
                Plan::New(new) => match Bundle::read(&caller, &new.target) {
                    Ok(bundle) => {
                        let identity = engine::identify(&bundle, &new.target, &caller);
                        new.admit(&bundle.facts, identity, &runtime, config)
                    }
                    Err(error) => new.failed(&error, config),
                },
            },
        })
    }

    /// A container of which another lockc knows: it keeps its policy.
    fn former(&mut self, handle: u64, pid: u32) -> (u64, u32) {
        let config = &self.force.config;
        let mut formers = self.adopter.predecessors.iter().map(|it| it.container(handle));
        let Some(Former { name: Some((owner, id)), policy }) = formers.find(|it| it.name.is_some())
        else {
            let why = "another version of lockc has made it";
            return (self.make_default("a container without a name", pid, why), 0);
        };
        let mut decision = Decision::fallback(config, "its policy is gone");
        if let Some(policy) = policy.filter(|name| config.policy(name).is_some()) {
            decision.mode = config.mode(&policy, None);
            decision.policy = policy;
            decision.why = String::from("as another version of lockc has decided");
        }
        let made = self.make(&decision);
        if let Err(error) = self.adopter.maps.name_container(made, owner.as_raw(), id.as_bytes()) {
            log::error!("{error}");
        }
        let Decision { policy, mode, why, .. } = &decision;
        let message = format!("adopted container={id} policy={policy} mode={mode}: {why}");
        self.adopter.registry.insert(ContainerKey { owner, root: None, id }, made, None);
        let placed = Placed { handle: made, pid, decision: &decision, origin: None };
        self.adopter.tell(Level::Info, &message, &placed);
        (made, 0)
    }

    fn unknown(&mut self, pid: u32) -> (u64, u32) {
        let group =
            self.snapshot.processes.get(&pid).map(|it| it.cgroup.escape_ascii().to_string());
        let what = format!(
            "a container that no runtime keeps: process {pid}, control group {}",
            group.unwrap_or_default()
        );
        (self.make_default(&what, pid, "no runtime keeps it"), 0)
    }
}
