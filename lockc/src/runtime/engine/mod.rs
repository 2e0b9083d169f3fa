//! Who a container is: engine, image, names, labels, and how far each fact can be trusted.
//!
//! The engine is never asked: its answer may wait for the very start that lockc holds. The facts
//! come from the bundle and from records that engines keep on disk.

use std::collections::BTreeMap;

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
}
