//! Containers that kubelet asked for, by way of containerd's CRI plug-in or CRI-O.
//!
//! Both write what kubelet told them into annotations, and both may pass on annotations of the pod,
//! which its author chose. What counts is who writes a key last.

use std::collections::BTreeMap;

use super::{Fact, Identity};
use crate::runtime::cmdline::ContainerId;

/// containerd writes it into every bundle of kubelet's.
pub(super) const CRI_TYPE: &str = "io.kubernetes.cri.container-type";
/// CRI-O writes it into every bundle.
pub(super) const CRI_O_METADATA: &str = "io.kubernetes.cri-o.Metadata";

const CRI_NAMESPACE: &str = "io.kubernetes.cri.sandbox-namespace";
const CRI_POD: &str = "io.kubernetes.cri.sandbox-name";
const CRI_CONTAINER: &str = "io.kubernetes.cri.container-name";
const CRI_IMAGE: &str = "io.kubernetes.cri.image-name";

/// kubelet's own labels (pkg/kubelet/types/labels.go, Kubernetes 1.31).
pub(super) const NAMESPACE_LABEL: &str = "io.kubernetes.pod.namespace";
pub(super) const POD_LABEL: &str = "io.kubernetes.pod.name";
const CONTAINER_LABEL: &str = "io.kubernetes.container.name";

const CRI_O_TYPE: &str = "io.kubernetes.cri-o.ContainerType";
const CRI_O_NAME: &str = "io.kubernetes.cri-o.Name";
const CRI_O_IMAGE: &str = "io.kubernetes.cri-o.ImageName";
const CRI_O_LABELS: &str = "io.kubernetes.cri-o.Labels";
const CRI_O_SANDBOX: &str = "io.kubernetes.cri-o.SandboxID";
/// Written for sandboxes only, and after everything that a pod's author chose.
const CRI_O_SANDBOX_ONLY: &str = "io.kubernetes.cri-o.HostnamePath";

/// containerd's CRI plug-in, k3s included.
///
/// It writes these keys after the annotations that it passes on (`buildLinuxSpec`,
/// `pkg/cri/sbserver/container_create.go`, containerd 1.7; `DefaultCRIAnnotations`,
/// internal/cri/annotations/annotations.go, 2.0). The container's and the image's name it does not
/// write for a sandbox, so that these may be the pod author's there.
pub(super) fn cri(identity: &mut Identity) {
    let kind = identity.annotation(CRI_TYPE).map(|kind| kind.value);
    if identity.engine.trusted {
        match kind.as_deref() {
            Some("container") => {
                identity.trust(&[CRI_TYPE, CRI_NAMESPACE, CRI_POD, CRI_CONTAINER, CRI_IMAGE]);
            }
            Some("sandbox") => identity.trust(&[CRI_TYPE, CRI_NAMESPACE, CRI_POD]),
            _ => {}
        }
    }
    identity.namespace = identity.annotation(CRI_NAMESPACE);
    identity.pod = identity.annotation(CRI_POD);
    if kind.as_deref() != Some("sandbox") {
        identity.container = identity.annotation(CRI_CONTAINER);
        identity.image = identity.annotation(CRI_IMAGE);
    }
}

/// CRI-O.
///
/// Up to the release that refuses keys of its own from others (`IsInternal`,
/// pkg/annotations/internal.go), it wrote them first, and the pod's annotations and then its labels
/// over them (internal/factory/container/container.go and `server/sandbox_run_linux.go`). The last
/// word is that of kubelet's labels. They count if the name that CRI-O made of the same facts agrees.
pub(super) fn cri_o(identity: &mut Identity, id: &ContainerId) {
    let value = |key: &str| identity.annotation(key).map(|fact| fact.value);
    let is_id = |key| value(key).is_some_and(|value| value.as_bytes() == id.as_bytes());
    let container = value(CRI_O_TYPE).as_deref() == Some("container")
        && !is_id(CRI_O_SANDBOX)
        && !identity.annotations.contains_key(CRI_O_SANDBOX_ONLY);
    let agreed = value(CRI_O_NAME)
        .is_some_and(|name| agrees(&name, container, |key| value(key).unwrap_or_default()));
    if identity.engine.trusted && agreed {
        identity.trust(&[NAMESPACE_LABEL, POD_LABEL]);
        if container {
            identity.trust(&[CONTAINER_LABEL, CRI_O_IMAGE]);
        }
    } else if identity.engine.trusted {
        identity
            .notes
            .push(format!("annotation {CRI_O_NAME} does not agree with kubelet's labels"));
    }
    identity.namespace = identity.annotation(NAMESPACE_LABEL);
    identity.pod = identity.annotation(POD_LABEL);
    if container {
        identity.container = identity.annotation(CONTAINER_LABEL);
        identity.image = identity.annotation(CRI_O_IMAGE);
    }
    if let Some(labels) = identity.annotation(CRI_O_LABELS) {
        match serde_json::from_str::<BTreeMap<String, String>>(&labels.value) {
            Ok(map) => {
                let fact = |value| Fact::claimed(value, labels.source.clone());
                identity.labels = map.into_iter().map(|(key, value)| (key, fact(value))).collect();
            }
            Err(error) => {
                identity.notes.push(format!("cannot understand {}: {error}", labels.source));
            }
        }
    }
}

/// Whether CRI-O's name for a container or sandbox says the same as kubelet's labels:
/// `k8s_CONTAINER_POD_NAMESPACE_UID_ATTEMPT` (`SetNameAndID`,
/// internal/factory/container/container.go), `k8s_POD_NAMESPACE_UID_ATTEMPT`
/// (internal/factory/sandbox/sandbox.go). Kubernetes' names have no `_`.
fn agrees(name: &str, container: bool, label: impl Fn(&str) -> String) -> bool {
    let mut parts = name.split('_');
    parts.next() == Some("k8s")
        && (!container || parts.next() == Some(&label(CONTAINER_LABEL)))
        && parts.next() == Some(&label(POD_LABEL))
        && parts.next() == Some(&label(NAMESPACE_LABEL))
        && parts.count() == 2
}
