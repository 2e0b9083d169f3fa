//! Which process belongs to which container, of those that ran before lockc. Pure: what was seen in, what follows out.

use std::collections::{BTreeMap, BTreeSet};

use lockc_common::{AdoptionFlags, State};

use super::{
    running::{Running, id_in_paths},
    snapshot::{Process, Role, Snapshot},
};

/// Digits of the ids that engines give, and put into the names of control groups.
const ENGINE_ID_LEN: usize = 64;

/// Where a process belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// To the container at this index of the list of [`Running`] ones.
    Container(usize),
    /// To what the runtime with this process id was asked to do.
    Runtime(u32),
    /// To a container that no runtime keeps; the number is its first process.
    Unknown(u32),
    /// To a container of which only programs of another layout version know.
    Former {
        /// Its handle there.
        handle: u64,
        /// Its first process of those that are left.
        first: u32,
    },
}

/// What programs of another layout version say of processes: handle of the container, and state.
pub type Formers = BTreeMap<u32, (u64, State)>;

/// What becomes of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Its id.
    pub pid: u32,
    /// When it started, in clock ticks since boot.
    pub start_ticks: u64,
    /// Where it belongs.
    pub place: Place,
    /// Its state.
    pub state: State,
    /// [`AdoptionFlags`].
    pub flags: u32,
}

/// Says where processes belong that have no label. Processes of the machine are not mentioned.
///
/// A process belongs to a container if it is its first, or lives in its mount namespace, or descends from one that
/// does, or is in its control group. A runtime is followed, except one that lies in a container: who says there that
/// it is a runtime is not believed. Where another lockc has labelled processes, its word counts. What an engine's shim has started in a mount namespace of its own, and what is in
/// a control group with an engine's id, is a container even if nobody knows which.
pub fn attribute(
    snapshot: &Snapshot,
    running: &[Running],
    formers: &Formers,
    is_labelled: impl Fn(u32) -> bool,
) -> Vec<Assignment> {
    let scene = Scene::new(snapshot, running, formers);
    let all = snapshot.processes.values();
    all.filter(|process| !is_labelled(process.pid)).filter_map(|it| scene.assign(it)).collect()
}

struct Scene<'s> {
    snapshot: &'s Snapshot,
    formers: &'s Formers,
    /// Where those belong whom another lockc has labelled, by its handles.
    places: BTreeMap<u64, Place>,
    /// First processes, with their containers, and whether each is a runtime that waits.
    first: BTreeMap<u32, (Place, bool)>,
    /// Mount namespaces of containers.
    owners: BTreeMap<u64, Place>,
    /// Control groups of containers, without what is below.
    groups: BTreeMap<Vec<u8>, Place>,
}

impl<'s> Scene<'s> {
    fn new(snapshot: &'s Snapshot, running: &[Running], formers: &'s Formers) -> Self {
        let mut scene = Self {
            snapshot,
            formers,
            places: BTreeMap::new(),
            first: BTreeMap::new(),
            owners: BTreeMap::new(),
            groups: BTreeMap::new(),
        };
        for (index, container) in running.iter().enumerate() {
            if let Some(process) = snapshot.processes.get(&container.first.pid) {
                let group = group_of(&process.cgroup, id_in_paths(container));
                let waits = container.first.waits && matches!(process.role, Role::Runtime(_));
                scene.add(process, Place::Container(index), waits, group);
                if let Some((handle, _)) = formers.get(&process.pid) {
                    scene.places.entry(*handle).or_insert(Place::Container(index));
                }
            }
        }
        scene.add_formers();
        let known: BTreeSet<u32> = scene.first.keys().copied().collect();
        for process in snapshot.processes.values() {
            if !known.contains(&process.pid) && scene.is_unknown(process) {
                let group = engine_group(&process.cgroup);
                scene.add(process, Place::Unknown(process.pid), false, group);
            }
        }
        scene
    }

    fn add(&mut self, process: &Process, place: Place, waits: bool, group: Option<&[u8]>) {
        self.first.entry(process.pid).or_insert((place, waits));
        if self.has_own_namespace(process) && !waits {
            self.owners.entry(process.mount_ns).or_insert(place);
        }
        if let Some(group) = group {
            self.groups.entry(group.to_vec()).or_insert(place);
        }
    }

    /// Containers of which only another lockc knows: the one that started first counts as their first process.
    fn add_formers(&mut self) {
        let contained = self.formers.iter().filter(|(_, (_, state))| *state == State::Contained);
        let mut oldest: BTreeMap<u64, &'s Process> = BTreeMap::new();
        for (pid, (handle, _)) in contained.filter(|(_, (it, _))| !self.places.contains_key(it)) {
            let Some(process) = self.snapshot.processes.get(pid) else { continue };
            let found = oldest.entry(*handle).or_insert(process);
            if process.start_ticks < found.start_ticks {
                *found = process;
            }
        }
        for (handle, process) in oldest {
            let place = Place::Former { handle, first: process.pid };
            self.add(process, place, false, None);
            self.places.insert(handle, place);
        }
        // Runtimes whose container has no process yet.
        for (pid, (handle, _)) in self.formers {
            let first = *pid;
            self.places.entry(*handle).or_insert(Place::Former { handle: *handle, first });
        }
    }

    fn parent(&self, process: &Process) -> Option<&'s Process> {
        self.snapshot.processes.get(&process.parent)
    }

    /// Neither the machine's nor that of whoever started it.
    fn has_own_namespace(&self, process: &Process) -> bool {
        process.mount_ns != self.snapshot.host_ns
            && self.parent(process).is_none_or(|it| it.mount_ns != process.mount_ns)
    }

    /// Whether it is the first process of a container that no runtime keeps.
    fn is_unknown(&self, process: &Process) -> bool {
        if process.role != Role::Other || !self.has_own_namespace(process) {
            return false;
        }
        // What descends from a container is that container's.
        if self.snapshot.line(process.pid).any(|it| self.owner(it).is_some()) {
            return false;
        }
        let has_shim = self.parent(process).is_some_and(|it| it.role == Role::Shim);
        has_shim || engine_group(&process.cgroup).is_some()
    }

    /// The container that a process belongs to by itself.
    fn owner(&self, process: &Process) -> Option<Place> {
        let of_first = self.first.get(&process.pid).filter(|(_, waits)| !waits);
        self.owners.get(&process.mount_ns).copied().or_else(|| of_first.map(|(place, _)| *place))
    }

    fn assign(&self, process: &Process) -> Option<Assignment> {
        let own = if process.mount_ns == self.snapshot.host_ns {
            0
        } else {
            AdoptionFlags::OWN_NAMESPACE
        };
        let assigned = |place, state, flags| {
            let Process { pid, start_ticks, .. } = *process;
            Some(Assignment { pid, start_ticks, place, state, flags })
        };
        if let Some((place, waits)) = self.first.get(&process.pid) {
            return if *waits {
                assigned(*place, State::Runtime, AdoptionFlags::INSIDE)
            } else {
                let own = if self.has_own_namespace(process) { own } else { 0 };
                assigned(*place, State::Contained, AdoptionFlags::FIRST | own)
            };
        }
        if let Some((handle, state)) = self.formers.get(&process.pid)
            && let Some(place) = self.places.get(handle)
        {
            let known = self.owners.contains_key(&process.mount_ns);
            return match state {
                State::Contained => assigned(*place, State::Contained, if known { 0 } else { own }),
                _ => assigned(*place, State::Runtime, AdoptionFlags::INSIDE),
            };
        }
        let line = || self.snapshot.line(process.pid);
        if let Some(place) = line().find_map(|it| self.owner(it)) {
            // A namespace that a container's process made is the container's.
            let known = self.owners.contains_key(&process.mount_ns);
            return assigned(place, State::Contained, if known { 0 } else { own });
        }
        // The topmost of the runtimes above it: that one was told what to do.
        let is_runtime = |it: &&Process| matches!(it.role, Role::Runtime(_));
        if let Some(top) = line().take_while(is_runtime).last() {
            let inside = if top.pid == process.pid { 0 } else { AdoptionFlags::INSIDE };
            return assigned(Place::Runtime(top.pid), State::Runtime, inside);
        }
        if process.role == Role::Other
            && let Some(place) = self.by_group(&process.cgroup)
        {
            let own = if self.has_own_namespace(process) { own } else { 0 };
            return assigned(place, State::Contained, own);
        }
        None
    }

    fn by_group(&self, cgroup: &[u8]) -> Option<Place> {
        let mut ends = (1..=cgroup.len()).rev();
        ends.find_map(|end| {
            let is_boundary = cgroup.get(end).is_none_or(|byte| *byte == b'/');
            is_boundary.then(|| self.groups.get(&cgroup[..end]).copied()).flatten()
        })
    }
}

/// The beginning of a control group's path up to the component that has `id` in it.
fn group_of<'c>(cgroup: &'c [u8], id: &[u8]) -> Option<&'c [u8]> {
    // A short id may be a part of anything.
    up_to(cgroup, |part| part == id || id.len() >= 12 && contains(part, id))
}

/// The same, up to the component that has an engine's id in it.
fn engine_group(cgroup: &[u8]) -> Option<&[u8]> {
    up_to(cgroup, |part| {
        let digits = |run: &[u8]| run.iter().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'));
        !contains(part, b"conmon") && part.windows(ENGINE_ID_LEN).any(digits)
    })
}

fn up_to(cgroup: &[u8], is_it: impl Fn(&[u8]) -> bool) -> Option<&[u8]> {
    let mut end = 0;
    for part in cgroup.split(|byte| *byte == b'/') {
        end += part.len();
        if !part.is_empty() && is_it(part) {
            return cgroup.get(..end);
        }
        end += 1;
    }
    None
}

fn contains(part: &[u8], wanted: &[u8]) -> bool {
    part.windows(wanted.len()).any(|window| window == wanted)
}

#[cfg(test)]
mod tests;
