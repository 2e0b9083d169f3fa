//! What engines write about their containers: Docker's record, podman's storage, and the bundles'
//! annotations of them and of containerd, CRI-O, nerdctl and kubelet.
#![no_main]

use std::path::{Path, PathBuf};

use libfuzzer_sys::fuzz_target;
use lockc::runtime::{
    bundle::{Facts, parse},
    cmdline::ContainerId,
    engine::{
        BundlePlace, DockerRecord, Engine, Identity, Keeper, Records, StorageRecord, identity,
    },
};

/// The containers of the seeds.
const DOCKER: &str = "21a4eaa55872eeb491808b03fc60b010bf33505c6cbf887ed66627537fc52544";
const PODMAN: &str = "2dd1ebd94574ef42e0533b4aa534517c13afb70d1dd4b952fba6e5271c79fe6f";

fuzz_target!(|data: &[u8]| {
    let mut records = Records::default();
    let path = PathBuf::from("/docker/record");
    match DockerRecord::parse(data, &id(DOCKER), &path) {
        Ok(record) => {
            assert_eq!(record.id, DOCKER);
            records.docker = Some((record, path));
        }
        Err(error) => is_error(&error, &path),
    }
    let path = PathBuf::from("/podman/record");
    match StorageRecord::parse(data, &id(PODMAN), &path) {
        Ok(record) => records.storage = Some((record, path)),
        Err(error) => is_error(&error, &path),
    }
    let facts = parse(data, Path::new("/config.json"));
    if facts.is_err() && records == Records::default() {
        return;
    }
    let facts = facts.unwrap_or_default();
    for place in [
        format!("/run/containerd/io.containerd.runtime.v2.task/moby/{DOCKER}"),
        format!("/run/containerd/io.containerd.runtime.v2.task/k8s.io/{DOCKER}"),
        format!("/run/containerd/io.containerd.runtime.v2.task/default/{DOCKER}"),
        format!("/var/lib/containers/storage/overlay-containers/{DOCKER}/userdata"),
        format!("/run/containers/storage/overlay-containers/{DOCKER}/userdata"),
        "/srv/bundle".to_owned(),
    ] {
        for keeper in [Keeper::Root, Keeper::User, Keeper::Anyone] {
            let place = BundlePlace { path: (&place).into(), keeper };
            check(&identity(&facts, &place, &id(DOCKER), &records), &facts, keeper, data.len());
        }
    }
});

fn id(id: &str) -> ContainerId {
    ContainerId::new(id).expect("an id")
}

fn is_error(error: &str, path: &Path) {
    assert!(error.contains(path.to_str().expect("text")), "{error}");
    assert!(!error.contains(char::is_control), "{error:?}");
}

fn check(identity: &Identity, facts: &Facts, keeper: Keeper, len: usize) {
    let Identity { engine, namespace, pod, container, image, labels, annotations, notes } =
        identity;
    let named = [namespace, pod, container, image].into_iter().flatten();
    let facts_of = || named.clone().chain(labels.values()).chain(annotations.values());
    if keeper != Keeper::Root {
        assert!(!engine.trusted && !facts_of().any(|fact| fact.trusted), "{identity:?}");
    }
    // Only engines of a cluster know what their user cannot choose.
    if !matches!(engine.value, Engine::Cri | Engine::CriO) {
        assert!(!facts_of().any(|fact| fact.trusted), "{identity:?}");
    }
    assert!(annotations.keys().eq(facts.annotations.keys()));
    assert!(!notes.iter().any(|note| note.contains(char::is_control)), "{notes:?}");
    assert!(identity.size() <= 4096 + 64 * len, "{} of {len} bytes", identity.size());
}
