use std::{collections::BTreeSet, env, fmt::Write as _, fs, path::Path};

use super::{
    BundlePlace, ContainerId, DockerRecord, Engine, Fact, Facts, Identity,
    Keeper::{self, Root, User},
    Records, StorageRecord, identity, records,
};
use crate::runtime::bundle::{self, Mount, parse};

const DOCKER: &str = "21a4eaa55872eeb491808b03fc60b010bf33505c6cbf887ed66627537fc52544";
const PODMAN: &str = "2dd1ebd94574ef42e0533b4aa534517c13afb70d1dd4b952fba6e5271c79fe6f";
const PODMAN_RM: &str = "6b5f141d770033abf727021488b0ad89890f92e8aa464f20514afe0f853c06b8";
const ROOTLESS: &str = "f8409fba1ed9e8da713b1e36fb3fd3301d4379c22bba84e7b76d328318848219";
const CRI_SANDBOX: &str = "93451d548843df4d83ea85f63e12cefa0bf2004fe28c99be418bb54e92d3dd39";
const CRI: &str = "b7c52e1f9d0a4c36a1e8f27d5b93c0646f1d2e8a7b4c9053d6e1f8a2b7c4d905";
const CRI_O: &str = "9d3e5f7a1b2c4d6e8f90a1b2c3d4e5f60718293a4b5c6d7e8f9a0b1c2d3e4f50";
const CRI_O_SANDBOX: &str = "4f0cc7b1a9d84e52b3c6f7a8d9e0f1a2b3c4d5e6f708192a3b4c5d6e7f809102";
const NERDCTL: &str = "e1d2c3b4a5968778695a4b3c2d1e0f00112233445566778899aabbccddeeff00";

const TASKS: &str = "/run/containerd/io.containerd.runtime.v2.task";
const STORAGE: &str = "/var/lib/containers/storage/overlay-containers";
const ROOTLESS_STORAGE: &str = "/home/edge/.local/share/containers/storage/overlay-containers";

fn stored(name: &str) -> Vec<u8> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/engines");
    fs::read(dir.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn facts(name: &str) -> Facts {
    parse(&stored(name), Path::new(name)).unwrap()
}

fn id(id: &str) -> ContainerId {
    ContainerId::new(id).unwrap()
}

fn place(path: &str, keeper: Keeper) -> BundlePlace {
    BundlePlace { path: path.into(), keeper }
}

/// What is known of a container that root's engine starts, from a bundle without records.
fn from_bundle(facts: &Facts, path: &str, container: &str) -> Identity {
    identity(facts, &place(path, Root), &id(container), &Records::default())
}

fn docker_record() -> Records {
    let path = Path::new("/var/lib/docker/containers").join(DOCKER).join("config.v2.json");
    let record = DockerRecord::parse(&stored("docker/config.v2.json"), &id(DOCKER), &path).unwrap();
    Records { docker: Some((record, path)), ..Records::default() }
}

fn storage_record(dir: &str, name: &str, file: &str, container: &str) -> Records {
    let path = Path::new(dir).join(file);
    let record = StorageRecord::parse(&stored(&format!("{name}/{file}")), &id(container), &path);
    Records { storage: Some((record.unwrap(), path)), ..Records::default() }
}

/// Every fact with its key, without the engine.
fn all(identity: &Identity) -> Vec<(String, &Fact<String>)> {
    let Identity { engine: _, namespace, pod, container, image, labels, annotations, notes: _ } =
        identity;
    let single =
        [("namespace", namespace), ("pod", pod), ("container", container), ("image", image)];
    let single = single.into_iter().filter_map(|(key, fact)| Some((key.into(), fact.as_ref()?)));
    let labels = labels.iter().map(|(key, fact)| (format!("label {key}"), fact));
    let annotations = annotations.iter().map(|(key, fact)| (format!("annotation {key}"), fact));
    single.chain(labels).chain(annotations).collect()
}

fn trusted(identity: &Identity) -> BTreeSet<String> {
    all(identity).into_iter().filter(|(_, fact)| fact.trusted).map(|(key, _)| key).collect()
}

#[track_caller]
fn nothing_is_trusted(identity: &Identity) {
    assert!(!identity.engine.trusted, "{:?}", identity.engine);
    assert_eq!(trusted(identity), BTreeSet::new());
}

fn show(identity: &Identity) -> String {
    let word = |trusted| if trusted { "trusted" } else { "claimed" };
    let Identity { engine, notes, .. } = identity;
    let mut text =
        format!("{} engine: {} ({})\n", word(engine.trusted), engine.value.name(), engine.source);
    for (key, fact) in all(identity) {
        // The source of an annotation is itself.
        let itself = key.starts_with("annotation ");
        let source = if itself { String::new() } else { format!(" ({})", fact.source) };
        writeln!(text, "{} {key}: {}{source}", word(fact.trusted), fact.value).unwrap();
    }
    for note in notes {
        writeln!(text, "note: {note}").unwrap();
    }
    text
}

/// Who the containers in `tests/engines` are. `BLESS=1` writes the expected text anew.
#[test]
fn engines() {
    let tasks = |namespace: &str, id: &str| format!("{TASKS}/{namespace}/{id}");
    let k3s = format!("/run/k3s/containerd/io.containerd.runtime.v2.task/k8s.io/{CRI}");
    let userdata = |storage: &str, id: &str| format!("{storage}/{id}/userdata");
    let run = "/run/containers/storage/overlay-containers";
    let none = Records::default;
    let rm = storage_record(STORAGE, "podman-rm", "volatile-containers.json", PODMAN_RM);
    let rootless = storage_record(ROOTLESS_STORAGE, "podman-rootless", "containers.json", ROOTLESS);
    let podman = storage_record(STORAGE, "podman", "containers.json", PODMAN);
    let mut text = String::new();
    for (title, file, path, keeper, container, records) in [
        ("docker", "docker/config.json", tasks("moby", DOCKER), Root, DOCKER, docker_record()),
        (
            "docker without record",
            "docker/config.json",
            tasks("moby", DOCKER),
            Root,
            DOCKER,
            none(),
        ),
        ("cri", "cri/modelled-container.json", tasks("k8s.io", CRI), Root, CRI, none()),
        (
            "cri sandbox",
            "cri/sandbox.json",
            tasks("k8s.io", CRI_SANDBOX),
            Root,
            CRI_SANDBOX,
            none(),
        ),
        ("k3s", "cri/modelled-container.json", k3s, Root, CRI, none()),
        ("cri-o", "cri-o/modelled-container.json", userdata(run, CRI_O), Root, CRI_O, none()),
        (
            "cri-o sandbox",
            "cri-o/modelled-sandbox.json",
            userdata(run, CRI_O_SANDBOX),
            Root,
            CRI_O_SANDBOX,
            none(),
        ),
        ("podman", "podman/config.json", userdata(STORAGE, PODMAN), Root, PODMAN, podman),
        ("podman --rm", "podman-rm/config.json", userdata(STORAGE, PODMAN_RM), Root, PODMAN_RM, rm),
        (
            "podman without root",
            "podman-rootless/config.json",
            userdata(ROOTLESS_STORAGE, ROOTLESS),
            User,
            ROOTLESS,
            rootless,
        ),
        (
            "nerdctl",
            "nerdctl/modelled-config.json",
            tasks("default", NERDCTL),
            Root,
            NERDCTL,
            none(),
        ),
        ("ctr", "ctr/config.json", tasks("default", "web"), Root, "web", none()),
        ("runc", "ctr/config.json", "/srv/bundle".to_owned(), Root, "web", none()),
    ] {
        let identity = identity(&facts(file), &place(&path, keeper), &id(container), &records);
        write!(text, "# {title}\n{}\n", show(&identity)).unwrap();
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/engines/expected.txt");
    if env::var_os("BLESS").is_some() {
        fs::write(&golden, &text).unwrap();
    }
    assert_eq!(text, fs::read_to_string(&golden).unwrap());
}

#[test]
fn a_place_is_an_engines_only_for_the_container_it_names() {
    let facts = facts("cri/modelled-container.json");
    for (path, engine) in [
        (format!("{TASKS}/k8s.io/{CRI}"), Engine::Cri),
        (format!("/a/io.containerd.runtime.v1.linux/k8s.io/{CRI}"), Engine::Cri),
        (format!("{TASKS}/moby/{CRI}"), Engine::Docker),
        (format!("{TASKS}/plugins.moby/{CRI}"), Engine::Docker),
        (format!("{TASKS}/default/{CRI}"), Engine::Containerd),
        (format!("/a/vfs-containers/{CRI}/userdata"), Engine::Podman),
        (format!("{TASKS}/k8s.io/{DOCKER}"), Engine::None),
        (format!("{TASKS}/k8s.io/{CRI}/rootfs"), Engine::None),
        (format!("{TASKS}/{CRI}"), Engine::None),
        (format!("/io.containerd.runtime.v3.task/k8s.io/{CRI}"), Engine::None),
        (format!("/a/overlay-containers/{DOCKER}/userdata"), Engine::None),
        (format!("/a/overlay-container/{CRI}/userdata"), Engine::None),
        (format!("/{CRI}"), Engine::None),
        ("/".to_owned(), Engine::None),
        (String::new(), Engine::None),
    ] {
        let identity = from_bundle(&facts, &path, CRI);
        assert_eq!(identity.engine.value, engine, "{path}");
    }
}

/// Whatever a bundle says: elsewhere than in an engine's place, or in one that others can write,
/// nothing of it is trusted.
#[test]
fn a_bundle_of_ones_own_gets_nothing() {
    let run = "/run/containers/storage/overlay-containers";
    for (file, engines_path, container) in [
        ("cri/modelled-container.json", format!("{TASKS}/k8s.io/{CRI}"), CRI),
        ("cri-o/modelled-container.json", format!("{run}/{CRI_O}/userdata"), CRI_O),
        ("docker/config.json", format!("{TASKS}/moby/{DOCKER}"), DOCKER),
        ("podman/config.json", format!("{STORAGE}/{PODMAN}/userdata"), PODMAN),
        ("ctr/config.json", format!("{TASKS}/default/web"), "web"),
    ] {
        let facts = facts(file);
        assert!(from_bundle(&facts, &engines_path, container).engine.trusted, "{file}");
        for keeper in [User, Keeper::Anyone] {
            let place = place(&engines_path, keeper);
            nothing_is_trusted(&identity(&facts, &place, &id(container), &docker_record()));
        }
        for path in ["/srv/bundle", "/home/edge/b", &format!("/tmp/{container}"), ""] {
            let identity = from_bundle(&facts, path, container);
            nothing_is_trusted(&identity);
            assert_eq!(identity.engine.value, Engine::None);
            assert_eq!((identity.namespace, identity.pod, identity.image), (None, None, None));
        }
    }
}

/// A user of one engine writes what another engine would.
#[test]
fn annotations_do_not_make_another_engine() {
    let cri = facts("cri/modelled-container.json");
    let mut of_nerdctl = cri.clone();
    of_nerdctl.annotations.insert("nerdctl/namespace".into(), "k8s.io".into());
    let cri_o = facts("cri-o/modelled-container.json");
    let mut of_podman = cri.clone();
    of_podman.annotations.insert("io.container.manager".into(), "libpod".into());
    let mut claims_podman = cri_o.clone();
    claims_podman.annotations.insert("io.container.manager".into(), "libpod".into());
    let run = "/run/containers/storage/overlay-containers";
    for (facts, path, container, engine, proven) in [
        (&cri, format!("{TASKS}/moby/{CRI}"), CRI, Engine::Docker, true),
        (&cri, format!("{TASKS}/default/{CRI}"), CRI, Engine::Containerd, true),
        (&of_nerdctl, format!("{TASKS}/k8s.io/{CRI}"), CRI, Engine::Nerdctl, false),
        (&cri_o, format!("{STORAGE}/{CRI_O}/userdata"), CRI_O, Engine::CriO, false),
        (&of_podman, format!("{STORAGE}/{CRI}/userdata"), CRI, Engine::Podman, true),
        (&of_podman, format!("{run}/{CRI}/userdata"), CRI, Engine::Podman, false),
        (&claims_podman, format!("{run}/{CRI_O}/userdata"), CRI_O, Engine::Podman, false),
        (&claims_podman, format!("{STORAGE}/{CRI_O}/userdata"), CRI_O, Engine::Podman, false),
    ] {
        let identity = from_bundle(facts, &path, container);
        assert_eq!((identity.engine.value, identity.engine.trusted), (engine, proven), "{path}");
        assert_eq!(trusted(&identity), BTreeSet::new(), "{path}");
    }
}

/// What a pod's author may write into a bundle of containerd's.
#[test]
fn cri_keys_count_only_where_cri_writes_them() {
    let path = format!("{TASKS}/k8s.io/{CRI}");
    let mut facts = facts("cri/modelled-container.json");
    facts.annotations.insert("io.kubernetes.cri.podsandbox.image-name".into(), "x".into());
    let identity = from_bundle(&facts, &path, CRI);
    assert!(!identity.annotations["io.kubernetes.cri.podsandbox.image-name"].trusted);
    assert!(!identity.annotations["org.example.level"].trusted);
    assert!(identity.image.unwrap().trusted);

    facts.annotations.insert("io.kubernetes.cri.container-type".into(), "sandbox".into());
    let identity = from_bundle(&facts, &path, CRI);
    assert_eq!((&identity.container, &identity.image), (&None, &None));
    assert!(!identity.annotations["io.kubernetes.cri.image-name"].trusted);

    facts.annotations.insert("io.kubernetes.cri.container-type".into(), "other".into());
    assert_eq!(trusted(&from_bundle(&facts, &path, CRI)), BTreeSet::new());
}

/// Older CRI-O writes annotations and labels of the pod over its own.
#[test]
fn cri_o_keys_count_only_if_kubelet_agrees() {
    let run = "/run/containers/storage/overlay-containers";
    let uid = "7f8a2b54-8d4f-4f0e-9a43-8ff0b4d0c001";
    let forged_name = format!("k8s_nginx_web-6d4b75cb6d-x2x7k_kube-system_{uid}_0");
    let of_sandbox = format!("k8s_forged_web-6d4b75cb6d-x2x7k_shop_{uid}_0");
    let container = ("cri-o/modelled-container.json", CRI_O);
    let sandbox = ("cri-o/modelled-sandbox.json", CRI_O_SANDBOX);
    for ((file, container), changes, expected) in [
        (container, vec![], 8),
        (container, vec![("io.kubernetes.cri-o.Namespace", "kube-system")], 8),
        (container, vec![("io.kubernetes.cri-o.Name", forged_name.as_str())], 0),
        (container, vec![("io.kubernetes.cri-o.Name", "")], 0),
        (container, vec![("io.kubernetes.cri-o.Name", "k8s_nginx")], 0),
        (container, vec![("io.kubernetes.pod.namespace", "kube-system")], 0),
        (container, vec![("io.kubernetes.container.name", "other")], 0),
        (sandbox, vec![], 4),
        (
            sandbox,
            vec![
                ("io.kubernetes.cri-o.ContainerType", "container"),
                ("io.kubernetes.cri-o.SandboxID", "other"),
                ("io.kubernetes.cri-o.Name", of_sandbox.as_str()),
            ],
            0,
        ),
    ] {
        let mut facts = facts(file);
        for (key, value) in &changes {
            facts.annotations.insert((*key).into(), (*value).into());
        }
        let identity = from_bundle(&facts, &format!("{run}/{container}/userdata"), container);
        // Each fact and its annotation.
        assert_eq!(trusted(&identity).len(), expected, "{changes:?}: {}", show(&identity));
    }
}

#[test]
fn dockers_record_is_looked_for_where_docker_mounts_from() {
    let own = format!("/var/lib/docker/containers/{DOCKER}");
    let dirs = |facts: &Facts| {
        let dirs = records::docker_dirs(facts, &id(DOCKER));
        dirs.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>()
    };
    let mut facts = facts("docker/config.json");
    assert_eq!(dirs(&facts), [own.as_str()]);
    facts.root = Some(bundle::Root { path: "rootfs".into(), readonly: false });
    assert_eq!(dirs(&facts), [own.as_str()]);

    // A user's own mounts.
    let mount = |source: String| Mount {
        destination: "/etc/hostname".into(),
        source: Some(source),
        ..Mount::default()
    };
    let other = format!("/var/lib/docker/containers/{PODMAN}/hostname");
    facts.mounts = vec![mount(format!("{own}/hostname")), mount(other)];
    assert_eq!(dirs(&facts), [""; 0]);
    facts.mounts = vec![mount(format!("/srv/x{own}/../containers/{DOCKER}/hostname"))];
    assert_eq!(dirs(&facts), [format!("/srv/x{own}/../containers/{DOCKER}")], "refused later");
    let long = format!("{}{own}/hostname", "/x".repeat(2048));
    for source in ["", "/", "hostname", "/hostname", &long] {
        facts.mounts = vec![mount(source.into())];
        assert_eq!(dirs(&facts), [""; 0], "{source}");
    }
}

#[test]
fn records_of_others_and_of_nobody() {
    let path = Path::new("/r");
    let docker = |json: &str| DockerRecord::parse(json.as_bytes(), &id("x"), path);
    for (json, why) in [
        ("", "cannot understand /r: EOF while parsing a value at line 1 column 0"),
        ("\0\u{1}", "cannot understand /r: expected value at line 1 column 1"),
        ("{}", "/r is the record of another container"),
        (r#"{"ID":"y"}"#, "/r is the record of another container"),
        (r#"{"ID":null}"#, "/r is the record of another container"),
        (
            r#"{"ID":"y","ID":"x"}"#,
            "cannot understand /r: duplicate field `ID` at line 1 column 14",
        ),
        (
            r#"{"ID":"x","Name":7}"#,
            "cannot understand /r: invalid type: integer `7`, expected a string at line 1 column 18",
        ),
    ] {
        assert_eq!(docker(json).unwrap_err(), why, "{json}");
    }
    let record = docker(r#"{"ID":"x","Name":"/n","Config":null,"Else":[{}]}"#).unwrap();
    assert_eq!((record.name.as_str(), record.config.image.as_str()), ("/n", ""));

    let storage = |json: &str| StorageRecord::parse(json.as_bytes(), &id("x"), path);
    for (json, why) in [
        ("{}", "cannot understand /r: invalid type: map, expected a sequence at line 1 column 0"),
        ("[]", "/r does not have the container"),
        (r#"[{"id":"y"}]"#, "/r does not have the container"),
        (r#"[{"id":"x","metadata":"{}"},{"id":"x"}]"#, "/r has the container twice"),
        (r#"[{"id":"x"}]"#, "cannot understand /r: EOF while parsing a value at line 1 column 0"),
    ] {
        assert_eq!(storage(json).unwrap_err(), why, "{json}");
    }
    let record = storage(r#"[{"id":"y"},{"id":"x","metadata":"{\"name\":\"n\"}"}]"#).unwrap();
    assert_eq!((record.name.as_str(), record.image.as_str()), ("n", ""));
}
