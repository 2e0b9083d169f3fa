//! Who a container is: engine, image, names, labels, and how far each fact can be trusted.
//!
//! The engine is never asked: its answer may wait for the very start that lockc holds. The facts
//! come from the bundle and from records that engines keep on disk. [`identify`] reads,
//! [`identity`] decides. `docs/facts.md` says for every fact and engine where it comes from, whether
//! it is trusted, and why.

pub(super) mod kept;
mod kubernetes;
mod local;
mod place;
mod records;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use self::{
    kept::MAX_RECORD_LEN,
    place::{BundlePlace, Keeper},
    records::{DockerRecord, Records, StorageRecord},
};
use super::{
    bundle::{Bundle, Facts},
    caller::Caller,
    cmdline::{ContainerId, Target},
};

/// Who made a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Engine {
    /// dockerd, through containerd.
    Docker,
    /// containerd for one of its own clients (`ctr`).
    Containerd,
    /// containerd for kubelet, k3s included.
    Cri,
    /// podman.
    Podman,
    /// CRI-O.
    CriO,
    /// nerdctl, through containerd.
    Nerdctl,
    /// Somebody who calls the runtime directly, or an engine that is not known.
    None,
}

impl Engine {
    /// All engines.
    pub const ALL: [Self; 7] = [
        Self::Docker,
        Self::Containerd,
        Self::Cri,
        Self::Podman,
        Self::CriO,
        Self::Nerdctl,
        Self::None,
    ];

    /// Its name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Containerd => "containerd",
            Self::Cri => "cri",
            Self::Podman => "podman",
            Self::CriO => "cri-o",
            Self::Nerdctl => "nerdctl",
            Self::None => "none",
        }
    }
}

/// A fact about a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact<T> {
    /// What is said.
    pub value: T,
    /// Where it is said, for people: a file, an annotation.
    pub source: String,
    /// Whether only root or the engine can have written it; a fact that is not trusted can make a
    /// policy stricter, never looser.
    pub trusted: bool,
}

impl<T> Fact<T> {
    /// A fact that its subject may have made up.
    fn claimed(value: T, source: impl Into<String>) -> Self {
        Self { value, source: source.into(), trusted: false }
    }
}

/// The facts about a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Who made the bundle.
    pub engine: Fact<Engine>,
    /// Kubernetes namespace.
    pub namespace: Option<Fact<String>>,
    /// Kubernetes pod.
    pub pod: Option<Fact<String>>,
    /// Name of the container, as its user knows it.
    pub container: Option<Fact<String>>,
    /// Reference of the image, as the user gave it.
    pub image: Option<Fact<String>>,
    /// Labels by key.
    pub labels: BTreeMap<String, Fact<String>>,
    /// Annotations of the bundle by key.
    pub annotations: BTreeMap<String, Fact<String>>,
    /// Why facts are missing or not trusted that could be otherwise, for people.
    pub notes: Vec<String>,
}

impl Identity {
    /// Nothing is known beside the engine and the annotations, and nothing is trusted.
    fn new(engine: Fact<Engine>, facts: &Facts) -> Self {
        let annotation = |(key, value): (&String, &String)| {
            (key.clone(), Fact::claimed(value.clone(), annotation_source(key)))
        };
        Self {
            engine,
            namespace: None,
            pod: None,
            container: None,
            image: None,
            labels: BTreeMap::new(),
            annotations: facts.annotations.iter().map(annotation).collect(),
            notes: Vec::new(),
        }
    }

    /// Bytes that it takes, roughly.
    pub fn size(&self) -> usize {
        let Self { engine, namespace, pod, container, image, labels, annotations, notes } = self;
        let fact =
            |fact: &Fact<String>| size_of::<Fact<String>>() + fact.value.len() + fact.source.len();
        let names = [namespace, pod, container, image].into_iter().flatten().map(fact);
        let maps = labels.iter().chain(annotations).map(|(key, value)| key.len() + fact(value));
        engine.source.len()
            + names.chain(maps).sum::<usize>()
            + notes.iter().map(String::len).sum::<usize>()
    }

    /// The annotation as a fact, unless it is absent or empty.
    fn annotation(&self, key: &str) -> Option<Fact<String>> {
        self.annotations.get(key).filter(|fact| !fact.value.is_empty()).cloned()
    }

    /// Trusts the annotations with these keys.
    fn trust(&mut self, keys: &[&str]) {
        for key in keys {
            if let Some(fact) = self.annotations.get_mut(*key) {
                fact.trusted = true;
            }
        }
    }
}

/// Finds out who the container of `target` is, whose bundle `caller` points its runtime to.
///
/// Reads at most two records of at most [`MAX_RECORD_LEN`] bytes each; never waits for a FIFO. What
/// cannot be read is no error: the facts are missing, and [`Identity::notes`] says why.
pub fn identify(bundle: &Bundle, target: &Target, caller: &Caller) -> Identity {
    let (place, note) = BundlePlace::find(bundle, target, caller);
    let records = Records::read(&bundle.facts, &place, &target.id, caller);
    let mut identity = identity(&bundle.facts, &place, &target.id, &records);
    identity.notes.extend(note);
    identity
}

/// Says who the container `id` is, from what was read.
pub fn identity(
    facts: &Facts,
    place: &BundlePlace,
    id: &ContainerId,
    records: &Records,
) -> Identity {
    let engine = place.engine(facts, id);
    let mut identity = Identity::new(engine, facts);
    match identity.engine.value {
        Engine::Docker => local::docker(&mut identity, records),
        Engine::Podman => local::podman(&mut identity, records),
        Engine::Nerdctl => local::nerdctl(&mut identity, id),
        Engine::Containerd => local::ctr(&mut identity, id),
        Engine::None => local::by_id(&mut identity, id),
        Engine::Cri => kubernetes::cri(&mut identity),
        Engine::CriO => kubernetes::cri_o(&mut identity, id),
    }
    identity.notes.extend(records.notes.iter().cloned());
    identity
}

fn annotation_source(key: &str) -> String {
    format!("annotation {key}")
}
