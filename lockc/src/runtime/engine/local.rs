//! Containers that somebody asked an engine for: Docker, podman, nerdctl, ctr, or none.
//!
//! Whoever asks chooses the container's name, labels and annotations, and can give any image any
//! name (`docker tag`), so that none of this is trusted. That the engine noted it down makes it no
//! truer.

use super::{
    Fact, Identity, Records,
    kubernetes::{NAMESPACE_LABEL, POD_LABEL},
};
use crate::runtime::cmdline::ContainerId;

/// What nerdctl's own labels begin with (pkg/labels/labels.go, nerdctl 2.0).
pub(super) const NERDCTL: &str = "nerdctl/";
const NERDCTL_NAME: &str = "nerdctl/name";

/// Docker: its record of the container has everything. Pods of cri-dockerd have kubelet's labels.
pub(super) fn docker(identity: &mut Identity, records: &Records) {
    let Some((record, path)) = &records.docker else { return };
    let fact = |value: &String| {
        (!value.is_empty()).then(|| Fact::claimed(value.clone(), path.to_string_lossy()))
    };
    // Names of containers begin with `/`, for the links of old.
    let name = record.name.strip_prefix('/').unwrap_or(&record.name).to_owned();
    identity.container = fact(&name);
    identity.image = fact(&record.config.image);
    for (key, value) in &record.config.labels {
        let fact = Fact::claimed(value.clone(), path.to_string_lossy());
        identity.labels.insert(key.clone(), fact);
    }
    identity.namespace = identity.labels.get(NAMESPACE_LABEL).cloned();
    identity.pod = identity.labels.get(POD_LABEL).cloned();
}

/// podman: its storage knows name and image; labels and pods are in a database that lockc does not
/// read.
pub(super) fn podman(identity: &mut Identity, records: &Records) {
    let Some((record, path)) = &records.storage else { return };
    let fact = |value: &String| {
        (!value.is_empty()).then(|| Fact::claimed(value.clone(), path.to_string_lossy()))
    };
    identity.container = fact(&record.name);
    identity.image = fact(&record.image);
}

/// nerdctl: its own labels are annotations, and with older versions all of the container's and the
/// image's (`propagateContainerdLabelsToOCIAnnotations`, pkg/cmd/container/create.go). The image's
/// name is not among them.
pub(super) fn nerdctl(identity: &mut Identity, id: &ContainerId) {
    match identity.annotation(NERDCTL_NAME) {
        Some(name) => identity.container = Some(name),
        None => by_id(identity, id),
    }
    labels_from_annotations(identity);
}

/// ctr: the id is the name, as the user chose it, and labels are annotations
/// (`cmd/ctr/commands/run/run_unix.go`, containerd 1.7).
pub(super) fn ctr(identity: &mut Identity, id: &ContainerId) {
    by_id(identity, id);
    labels_from_annotations(identity);
}

/// Bare runtimes: the id is the name.
pub(super) fn by_id(identity: &mut Identity, id: &ContainerId) {
    identity.container = Some(Fact::claimed(id.to_string(), "command line"));
}

fn labels_from_annotations(identity: &mut Identity) {
    let of_user = |key: &String| !key.starts_with(NERDCTL);
    let labels = identity.annotations.iter().filter(|(key, _)| of_user(key));
    identity.labels = labels.map(|(key, fact)| (key.clone(), fact.clone())).collect();
}
