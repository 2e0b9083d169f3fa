//! Containers that run already when the daemon starts: decided about as usual, and labelled.
//!
//! Those that root's runtimes keep are looked at before the gate opens, and so is whatever else looks like a container,
//! which gets the default policy. What users keep may lie on a file system that never answers: a thread of its own
//! looks at it, and the policies of their containers follow.

mod judge;
mod round;
mod users;

use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::PathBuf,
    sync::Arc,
    thread,
    time::Duration,
};

use lockc_common::{BY_USER, Counter, Label, SELF_TEST, UNATTRIBUTED};
use log::Level;
use nix::unistd::Pid;

pub(super) use self::{judge::Judged, users::Users};
use self::{
    judge::{Whose, find, judge},
    round::Round,
};
use super::{
    force::{Force, InForce},
    registry::Registry,
    tell::{ADOPTED, Placed},
};
use crate::{
    adopt::{Formers, Running, Snapshot, attribute},
    bpf::{Kernel, LoadError, calls, labels::Labels, maps::Maps, pin, predecessor::Predecessor},
    config::Config,
    event::store::Journal,
    runtime::plan::ContainerKey,
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

/// Finds and labels what ran before.
#[derive(Debug)]
pub(super) struct Adopter {
    pub(super) in_force: Arc<InForce>,
    pub(super) maps: Arc<Maps>,
    pub(super) labels: Arc<Labels>,
    pub(super) registry: Arc<Registry>,
    pub(super) runtimes: Arc<Runtimes>,
    pub(super) journal: Journal,
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
            let wanted = force.id(&it.decision.policy, it.decision.mode);
            let other = wanted.filter(|policy| record.is_some_and(|it| it.policy != *policy));
            if let Some(policy) = other {
                calls::move_container(handle, u64::from(policy));
            }
            if other.is_some() || is_new {
                let message = format!("recognised {}", it.described());
                self.tell(Level::Info, &message, &it.placed(handle));
            }
        }
    }

    fn tell(&self, level: Level, message: &str, placed: &Placed<'_>) {
        placed.tell(ADOPTED, level, message, &self.registry, &self.journal);
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

/// Whether the record of `handle`, known by `known`, is that of the container that a state directory has as `key`.
fn is_same(key: &ContainerKey, handle: u64, known: Option<&ContainerKey>) -> bool {
    match known {
        // A container inside another is the outer one's; and what users keep names root's, too.
        Some(known) => known.id == key.id && known.owner == key.owner,
        // The kernel side has made it, and knows whether for root's runtime or for a user's.
        None => key.owner.is_root() || handle & BY_USER != 0,
    }
}

fn unreadable(source: io::Error) -> LoadError {
    LoadError::Read { path: "/proc".into(), source }
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
