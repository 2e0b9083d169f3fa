//! Containers that run already when the daemon starts: decided about as usual, and labelled.
//!
//! Those that root's runtimes keep are looked at before the gate opens, and so is whatever else looks like a container,
//! which gets the default policy. What users keep may lie on a file system that never answers: a thread of its own
//! looks at it, and the policies of their containers follow.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    os::fd::{AsFd as _, BorrowedFd},
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{self, Receiver},
    },
    thread,
    time::Duration,
};

use lockc_common::{Adoption, BY_USER, Counter, Label, SELF_TEST, State, UNATTRIBUTED};
use nix::{
    sys::eventfd::{EfdFlags, EventFd},
    unistd::Pid,
};

use super::{
    force::{Force, InForce},
    registry::{Origin, Registry},
};
use crate::{
    adopt::{
        Assignment, Formers, Place, Role, Running, Snapshot, attribute, places, running, words,
    },
    bpf::{
        Kernel, LoadError, calls,
        labels::Labels,
        maps::Maps,
        pin,
        predecessor::{Former, Predecessor},
    },
    config::Config,
    policy::Decision,
    runtime::{
        bundle::Bundle,
        caller::{Caller, Ids},
        cmdline::{self, Dialect, Target},
        engine,
        plan::{self, Action, ContainerKey, New, Plan},
        state::{self, Listing},
    },
    watch::runtimes::Runtimes,
};

/// How often all processes are looked at, at most. More than there are generations of runtimes on their way.
const ROUNDS: usize = 16;
/// Looks in a row that must find nothing more to do, once there was something: what forks and ends all the while can be
/// missed by one, as it was not there when names were listed, or not any more when they were read.
const QUIET_ROUNDS: usize = 3;
/// The same for passes of the iterator. A child that is being made has no label if its parent had none, and is not seen
/// before it is complete.
const QUIET_PASSES: usize = 3;
/// Passes at most.
const PASSES: usize = 32;
/// Pause between two passes: longer than a fork takes.
const PASS_PAUSE: Duration = Duration::from_millis(20);

/// Whose containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Root,
    Users,
}

/// A container that runs, with what is decided about it.
#[derive(Clone, Debug)]
pub(super) struct Judged {
    running: Running,
    decision: Decision,
    /// `None` if its bundle cannot be read.
    origin: Option<Arc<Origin>>,
    /// [`lockc_common::LabelFlags`] of its runtime.
    flags: u32,
    /// What admission would have said, for people.
    refused: Option<String>,
}

/// Finds and labels what ran before.
#[derive(Debug)]
pub(super) struct Adopter {
    pub(super) in_force: Arc<InForce>,
    pub(super) maps: Arc<Maps>,
    pub(super) labels: Arc<Labels>,
    pub(super) registry: Arc<Registry>,
    pub(super) runtimes: Arc<Runtimes>,
    /// Other layout versions, until what they know is known here.
    pub(super) predecessors: Vec<Predecessor>,
}

impl Adopter {
    /// Adopts root's containers, and those that nobody keeps.
    /// After that, no other layout version is needed.
    pub(super) fn take_over(&mut self, kernel: &mut Kernel) -> Result<(), LoadError> {
        self.predecessors = Predecessor::find();
        self.adopt(kernel)?;
        self.predecessors.clear();
        for path in pin::retire_layouts()? {
            log::info!("removed {}, of another version of lockc", path.display());
        }
        Ok(())
    }

    /// Adopts root's containers, and those that nobody keeps.
    pub(super) fn adopt(&self, kernel: &mut Kernel) -> Result<(), LoadError> {
        let mut seen: HashMap<(PathBuf, u32), Judged> = HashMap::new();
        self.label(kernel, |snapshot, config| {
            let found = find(Whose::Root, snapshot, config);
            let judged = found.into_iter().map(|running| {
                let key = (running.kept.dir.clone(), running.first.pid);
                seen.entry(key).or_insert_with(|| judge(running, config)).clone()
            });
            judged.collect()
        })
    }

    /// Adopts what [`Users`] has found.
    pub(super) fn adopt_users(
        &self,
        kernel: &mut Kernel,
        judged: &[Judged],
    ) -> Result<(), LoadError> {
        self.label(kernel, |_, _| judged.to_vec())
    }

    fn label(
        &self,
        kernel: &mut Kernel,
        mut gather: impl FnMut(&Snapshot, &Config) -> Vec<Judged>,
    ) -> Result<(), LoadError> {
        let before = self.maps.counter(Counter::Adopted);
        let files = self.runtimes.real_paths();
        let force = self.in_force.get();
        let mut outcome = Err("it forks without end".to_owned());
        // Where nothing is to be done at the first look, nothing was missed: whoever is in a container without a label
        // has a first process without one, which stays.
        let mut quiet = QUIET_ROUNDS - 1;
        for _ in 0..ROUNDS {
            let snapshot = Snapshot::take(&files).map_err(unreadable)?;
            let judged = gather(&snapshot, &force.config);
            self.recognise(&judged, &force);
            let running: Vec<Running> = judged.iter().map(|it| it.running.clone()).collect();
            let formers = self.formers(&snapshot);
            let assignments =
                attribute(&snapshot, &running, &formers, |pid| self.label_of(pid).is_some());
            quiet = if assignments.is_empty() { quiet + 1 } else { 0 };
            if quiet >= QUIET_ROUNDS {
                outcome = Ok(());
                break;
            }
            let mut round = Round {
                adopter: self,
                force: &force,
                judged: &judged,
                snapshot: &snapshot,
                handles: BTreeMap::new(),
                held: Vec::new(),
            };
            let said = round.say(&assignments);
            let labelled = self.label_all(kernel);
            round.held.drain(..).for_each(calls::release_container);
            labelled?;
            if let Err(error) = said {
                outcome = Err(error.to_string());
            }
        }
        self.maps.end_adoptions();
        if let Err(why) = outcome {
            log::error!("not everything that ran before lockc is contained: {why}");
        }
        let adopted = self.maps.counter(Counter::Adopted).wrapping_sub(before);
        if adopted > 0 {
            log::info!("adopted {adopted} tasks that ran before");
        }
        Ok(())
    }

    /// Labels tasks until nobody new is found. More than once in any case: one that comes before the first process of its
    /// container is labelled the second time.
    fn label_all(&self, kernel: &mut Kernel) -> Result<(), LoadError> {
        let mut quiet = 0;
        for _ in 0..PASSES {
            let before = self.maps.counter(Counter::Adopted);
            kernel.label_tasks()?;
            quiet = if self.maps.counter(Counter::Adopted) == before { quiet + 1 } else { 0 };
            if quiet == QUIET_PASSES {
                break;
            }
            thread::sleep(PASS_PAUSE);
        }
        Ok(())
    }

    fn formers(&self, snapshot: &Snapshot) -> Formers {
        let known = |pid: &u32| {
            let mut labels = self.predecessors.iter().filter_map(|it| it.label(*pid));
            labels.next().map(|label| (*pid, label))
        };
        snapshot.processes.keys().filter_map(known).collect()
    }

    fn label_of(&self, pid: u32) -> Option<Label> {
        self.labels.of_process(Pid::from_raw(pid.cast_signed())).ok().flatten()
    }

    /// Containers that have a label, of an earlier daemon or from the kernel side while there was none: what is
    /// known of them is known again, and their policy is what the configuration says now.
    fn recognise(&self, judged: &[Judged], force: &Force) {
        for it in judged {
            let Some(label) = self.label_of(it.running.first.pid) else { continue };
            let handle = label.container;
            if handle == UNATTRIBUTED || handle & SELF_TEST != 0 {
                continue;
            }
            let key = it.running.key();
            if !is_same(&key, handle, self.registry.key(handle).as_ref())
                || self.registry.origin(handle).is_some()
            {
                continue;
            }
            let is_new = self.registry.key(handle).is_none();
            self.name(handle, it);
            if it.origin.is_none() && !is_new {
                continue;
            }
            let record = self.maps.container(handle);
            if let Some(policy) = force.id(&it.decision.policy, it.decision.mode)
                && record.is_some_and(|record| record.policy != policy)
            {
                calls::move_container(handle, u64::from(policy));
                log::info!("recognised {}", described(it));
            }
        }
    }

    fn name(&self, handle: u64, judged: &Judged) {
        let key = judged.running.key();
        if let Err(error) = self.maps.name_container(handle, key.owner.as_raw(), key.id.as_bytes())
        {
            // Only messages suffer.
            log::error!("{error}");
        }
        self.registry.insert(key, handle, judged.origin.clone());
    }
}

/// One look at all processes.
struct Round<'a> {
    adopter: &'a Adopter,
    force: &'a Force,
    judged: &'a [Judged],
    snapshot: &'a Snapshot,
    handles: BTreeMap<Place, (u64, u32)>,
    /// Records that were made, and have no task yet.
    held: Vec<u64>,
}

impl Round<'_> {
    /// Tells the programs how processes are to be labelled.
    fn say(&mut self, assignments: &[Assignment]) -> Result<(), LoadError> {
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
                Place::Former { handle, .. } => self.former(handle),
            }
        };
        self.handles.insert(place, found);
        Ok(found)
    }

    fn container(&mut self, judged: &Judged) -> (u64, u32) {
        let handle = self.make(&judged.decision);
        self.adopter.name(handle, judged);
        log::info!("adopted {}", described(judged));
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

    /// A runtime that was executed before its file was marked.
    fn runtime(&mut self, pid: u32) -> (u64, u32) {
        let fallback = |why: String| Decision::fallback(&self.force.config, why);
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
                log::info!(
                    "adopted container={} policy={} mode={} pid={pid}: {}",
                    key.id,
                    decision.policy,
                    decision.mode,
                    decision.why
                );
                let runtime = self.runtime_name(pid);
                let origin = Origin { owner, runtime, identity: *identity };
                self.adopter.registry.insert(key, handle, Some(Arc::new(origin)));
                (handle, flags)
            }
            Some(Action::Join { key, flags }) => {
                (self.adopter.registry.find(&key).unwrap_or(UNATTRIBUTED), flags)
            }
            Some(Action::Keep | Action::Unattributed { why: None }) => (UNATTRIBUTED, 0),
            // It is on its way already, and nobody can refuse it any more.
            Some(Action::Unattributed { why: Some(why) } | Action::Deny { why }) => {
                let decision = fallback(why.clone());
                log::warn!(
                    "default policy {} for the runtime of process {pid}, which runs already: {why}",
                    decision.policy
                );
                (self.make(&decision), 0)
            }
            None => {
                let decision = fallback(String::new());
                log::warn!(
                    "default policy {} for the runtime of process {pid}, which runs already",
                    decision.policy
                );
                (self.make(&decision), 0)
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
    fn former(&mut self, handle: u64) -> (u64, u32) {
        let config = &self.force.config;
        let mut formers = self.adopter.predecessors.iter().map(|it| it.container(handle));
        let Some(Former { name: Some((owner, id)), policy }) = formers.find(|it| it.name.is_some())
        else {
            let decision = Decision::fallback(config, "another version of lockc has made it");
            log::warn!("default policy {} for a container without a name", decision.policy);
            return (self.make(&decision), 0);
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
        log::info!("adopted container={id} policy={policy} mode={mode}: {why}");
        self.adopter.registry.insert(ContainerKey { owner, root: None, id }, made, None);
        (made, 0)
    }

    fn unknown(&mut self, pid: u32) -> (u64, u32) {
        let decision = Decision::fallback(&self.force.config, "no runtime keeps it");
        let group =
            self.snapshot.processes.get(&pid).map(|it| it.cgroup.escape_ascii().to_string());
        log::warn!(
            "default policy {} for a container that no runtime keeps: process {pid}, control group {}",
            decision.policy,
            group.unwrap_or_default()
        );
        (self.make(&decision), 0)
    }
}

/// Whether the record of `handle`, known by `known`, is that of the container that a state directory has as `key`.
fn is_same(key: &ContainerKey, handle: u64, known: Option<&ContainerKey>) -> bool {
    match known {
        // A container inside another is the outer one's; and what users keep names root's, too.
        Some(known) => known.id == key.id && known.owner == key.owner,
        // The kernel side has made it, and knows whether for root's runtime or for a user's.
        None => key.owner.is_root() || handle & BY_USER != 0,
    }
}

fn described(judged: &Judged) -> String {
    let Judged { running, decision, .. } = judged;
    format!(
        "container={} policy={} mode={} pid={}: {}",
        running.kept.id, decision.policy, decision.mode, running.first.pid, decision.why
    )
}

fn unreadable(source: io::Error) -> LoadError {
    LoadError::Read { path: "/proc".into(), source }
}

/// A look at the containers of users, which may never end.
#[derive(Debug)]
pub(super) struct Users {
    found: Receiver<io::Result<Vec<Judged>>>,
    ready: Arc<EventFd>,
}

impl Users {
    /// Looks in a thread of its own.
    pub(super) fn look(runtimes: &Runtimes, config: Config) -> io::Result<Self> {
        let ready = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        let (send, found) = mpsc::channel();
        let files = runtimes.real_paths();
        let wake = Arc::clone(&ready);
        thread::Builder::new().name("users".into()).spawn(move || {
            // Fails only when the daemon ends.
            let _ = send.send(judge_users(&files, &config));
            let _ = wake.write(1);
        })?;
        Ok(Self { found, ready })
    }

    /// Readable when the look has ended.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.ready.as_fd()
    }

    /// What was found, if that is known by the end of `patience`.
    pub(super) fn take(&self, patience: Duration) -> Option<io::Result<Vec<Judged>>> {
        self.found.recv_timeout(patience).ok()
    }
}

fn judge_users(files: &[(PathBuf, String)], config: &Config) -> io::Result<Vec<Judged>> {
    let snapshot = Snapshot::take(files)?;
    let found = find(Whose::Users, &snapshot, config);
    Ok(found.into_iter().map(|running| judge(running, config)).collect())
}

fn find(whose: Whose, snapshot: &Snapshot, config: &Config) -> Vec<Running> {
    let run = Path::new(state::RUN);
    let mut listing = match whose {
        Whose::Root => state::list(run, &state::SYSTEM),
        Whose::Users => state::list(run, &state::OF_USERS),
    };
    for place in places(&config.runtimes, snapshot) {
        let Listing { containers, troubles } = Listing::of_root(&place);
        listing.containers.extend(containers);
        listing.troubles.extend(troubles);
    }
    listing.containers.retain(|kept| kept.owner.is_root() == (whose == Whose::Root));
    let (found, troubles) = running(listing, snapshot);
    for trouble in troubles {
        log::warn!("a container that runs already may be missed: {trouble}");
    }
    found
}

fn judge(running: Running, config: &Config) -> Judged {
    let key = running.key();
    let target = Target {
        id: running.kept.id.clone(),
        bundle: Some(running.state.bundle.clone()),
        config: None,
    };
    let runtime = running.state.runtime(config).to_owned();
    let read = || -> Result<_, String> {
        let caller = Caller::standing_in(Ids::of_user(running.kept.owner))
            .map_err(|error| plan::chain(&error))?;
        let bundle = Bundle::read(&caller, &target).map_err(|error| plan::chain(&error))?;
        let identity = engine::identify(&bundle, &target, &caller);
        Ok((bundle, identity))
    };
    match read() {
        Ok((bundle, identity)) => {
            let ContainerKey { owner, .. } = key;
            let new = New { key, target: target.clone(), restore: false };
            let judgement = new.judge(&bundle.facts, &identity, &runtime, config);
            let mut decision = judgement.decision;
            if decision.refused.is_some() {
                decision = Decision::fallback(config, "it asks for a policy that does not exist");
            }
            let origin = Some(Arc::new(Origin { owner, runtime, identity }));
            Judged {
                running,
                decision,
                origin,
                flags: plan::hooks(&bundle.facts),
                refused: judgement.refused,
            }
        }
        Err(why) => {
            let decision = Decision::fallback(config, why);
            Judged { running, decision, origin: None, flags: 0, refused: None }
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::unistd::Uid;

    use super::*;
    use crate::runtime::cmdline::ContainerId;

    #[test]
    fn a_users_state_does_not_mean_roots_container() {
        let key = |owner: u32, id: &str| ContainerKey {
            owner: Uid::from_raw(owner),
            root: None,
            id: ContainerId::new(id).unwrap(),
        };
        let same = |key: ContainerKey, handle, known: Option<ContainerKey>| {
            is_same(&key, handle, known.as_ref())
        };
        assert!(same(key(0, "a"), 7, Some(key(0, "a"))));
        assert!(same(key(1000, "a"), 7, Some(key(1000, "a"))));
        assert!(!same(key(1000, "a"), 7, Some(key(0, "a"))));
        assert!(!same(key(1000, "a"), 7, Some(key(1001, "a"))));
        assert!(!same(key(0, "b"), 7, Some(key(0, "a"))));
        assert!(same(key(0, "a"), 7, None));
        assert!(!same(key(1000, "a"), 7, None));
        assert!(same(key(1000, "a"), BY_USER | 7, None));
    }
}
