//! Explains containers whose bundles engines wrote, and that runtimes keep.
//!
//! Needs root, for owners. The directories are on file systems where only root can write.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::{
    error::Error as _,
    fmt::Write as _,
    fs,
    os::unix::fs::{PermissionsExt as _, chown, symlink},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use lockc::{
    config::Config,
    explain::{Case, Explanation, FindError, Request},
};
use nix::{sys::stat::Mode, unistd::mkfifo};
use serde_json::Value;
use tempfile::TempDir;

const DOCKER: &str = "21a4eaa55872eeb491808b03fc60b010bf33505c6cbf887ed66627537fc52544";
const PODMAN: &str = "2dd1ebd94574ef42e0533b4aa534517c13afb70d1dd4b952fba6e5271c79fe6f";
const ROOTLESS: &str = "f8409fba1ed9e8da713b1e36fb3fd3301d4379c22bba84e7b76d328318848219";
const CRI: &str = "b7c52e1f9d0a4c36a1e8f27d5b93c0646f1d2e8a7b4c9053d6e1f8a2b7c4d905";
/// A user who is not root, and has no name.
const USER: u32 = 654_321;

const CONFIG: &str = r#"
    [default]
    policy = "restricted"

    [[rule]]
    name = "agents"
    policy = "privileged"
    match.engine = "cri"
    match.namespace = "kube-system"

    [[rule]]
    name = "infra"
    policy = "privileged"
    match.label."com.example.tier" = "infra"

    [[rule]]
    name = "shop"
    policy = "baseline"
    mode = "audit"
    match.namespace = "shop"

    [[rule]]
    name = "users"
    policy = "kiosk"
    match.owner = "[1-9]*"

    [policy.kiosk]
    extends = "restricted"
    paths.deny = ["/run/kiosk/**"]
    admission.run_as_non_root = "audit"
"#;

fn config() -> Config {
    Config::parse(CONFIG, "lockc.toml".as_ref()).unwrap()
}

/// A machine: what engines and runtimes keep on it.
struct Machine(TempDir);

impl Machine {
    /// Below `/var/lib`, as podman is not believed to keep its containers below `/run`.
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("lockc-test-").tempdir_in("/var/lib").unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self(dir)
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn write(&self, path: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// Puts a captured file there, with Docker's directory where this machine has it.
    fn put(&self, captured: &str, path: &str) -> PathBuf {
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(captured);
        let text = fs::read_to_string(&own).unwrap_or_else(|error| panic!("{captured}: {error}"));
        let docker = self.path("docker");
        self.write(path, text.replace("/var/lib/docker", docker.to_str().unwrap()))
    }

    /// Docker's container `web`; its bundle.
    fn docker(&self) -> PathBuf {
        let bundle = format!("state/io.containerd.runtime.v2.task/moby/{DOCKER}");
        self.put("engines/docker/config.json", &format!("{bundle}/config.json"));
        let record = format!("docker/containers/{DOCKER}/config.v2.json");
        self.put("engines/docker/config.v2.json", &record);
        self.path(&bundle)
    }

    fn podman(&self) -> PathBuf {
        let bundle = format!("storage/overlay-containers/{PODMAN}/userdata");
        self.put("engines/podman/config.json", &format!("{bundle}/config.json"));
        self.put("engines/podman/containers.json", "storage/overlay-containers/containers.json");
        self.path(&bundle)
    }

    /// A container of podman's without root.
    fn rootless(&self) -> PathBuf {
        let bundle = format!("home/overlay-containers/{ROOTLESS}/userdata");
        self.put("engines/podman-rootless/config.json", &format!("{bundle}/config.json"));
        let records = "home/overlay-containers/containers.json";
        self.put("engines/podman-rootless/containers.json", records);
        self.give("home");
        self.path(&bundle)
    }

    /// Gives everything below `path` to a user.
    fn give(&self, path: &str) {
        let mut rest = vec![self.path(path)];
        while let Some(path) = rest.pop() {
            if path.is_dir() && !path.is_symlink() {
                rest.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
            std::os::unix::fs::lchown(&path, Some(USER), Some(USER)).unwrap();
        }
    }

    fn find(&self, request: &Request) -> Result<Case, FindError> {
        Case::find(request, &config(), &self.path("run"))
    }

    /// The container that `what` means.
    fn case(&self, what: &str) -> Case {
        self.find(&request(what)).unwrap_or_else(|error| panic!("{what}: {error}"))
    }

    /// Why `what` means no container.
    fn error(&self, what: &str) -> String {
        let error = self.find(&request(what)).expect_err(what);
        let source = error.source().map(|source| format!(": {source}")).unwrap_or_default();
        self.shown(&format!("{error}{source}"))
    }

    /// Text with this machine's directory as `D`.
    fn shown(&self, text: &str) -> String {
        text.replace(self.0.path().to_str().unwrap(), "D")
    }

    fn text(&self, case: Case) -> String {
        self.shown(&Explanation::of(case, &config()).unwrap().text())
    }
}

fn request(what: &str) -> Request {
    Request { what: what.into(), ..Request::default() }
}

fn runc(bundle: &Path) -> String {
    let labels = format!(r#"["a=b","bundle=/annotation","bundle={}"]"#, bundle.display());
    format!(r#"{{"id":"x","init_process_pid":1,"config":{{"labels":{labels}}}}}"#)
}

fn crun(bundle: &Path) -> String {
    format!(r#"{{"pid":1,"bundle":"{}","owner":"root"}}"#, bundle.display())
}

/// What is said about containers of engines. `LOCKC_BLESS=1` writes it anew.
#[test]
fn containers_of_engines() {
    let machine = Machine::new();
    let docker = machine.docker();
    let podman = machine.podman();
    let rootless = machine.rootless();
    machine.write(&format!("run/docker/runtime-runc/moby/{DOCKER}/state.json"), runc(&docker));
    machine.write(&format!("run/crun/{PODMAN}/status"), crun(&podman));
    machine.write(&format!("run/user/{USER}/crun/{ROOTLESS}/status"), crun(&rootless));
    machine.give(&format!("run/user/{USER}"));
    let tasks = "state/io.containerd.runtime.v2.task";
    let of_path = |path: &Path| machine.case(path.to_str().unwrap());
    let put = |captured: &str, dir: &str| {
        machine.put(captured, &format!("{dir}/config.json"));
        machine.path(dir)
    };
    let cri = put("engines/cri/modelled-container.json", &format!("{tasks}/k8s.io/{CRI}"));
    let ctr = put("bundles/ctr/privileged.json", &format!("{tasks}/default/shell"));
    let bare = put("bundles/docker/host-namespaces.json", "srv/bundle");
    let forged = machine.write(
        "srv/forged/config.json",
        "{\"annotations\":{\"io.kubernetes.cri.sandbox-namespace\":\"kube-system\\n\\u001b[2Jok\",
         \"org.lockc.policy\":\"offline\"}}",
    );
    let broken = machine.write("srv/broken/config.json", "{\"mounts\":7}");
    let mut text = String::new();
    for (title, case) in [
        ("docker, by id", machine.case(&DOCKER[..12])),
        ("podman, by prefix", machine.case(&PODMAN[..4])),
        ("podman without root", machine.case(&ROOTLESS[..6])),
        ("cri", of_path(&cri)),
        ("ctr", of_path(&ctr)),
        ("no engine", of_path(&bare)),
        ("forged", of_path(&forged)),
        ("not understood", of_path(&broken)),
    ] {
        write!(text, "# {title}\n{}\n", machine.text(case)).unwrap();
    }
    golden("expected.txt", &text);
    let docker = Explanation::of(machine.case(DOCKER), &config()).unwrap().json();
    golden("docker.json", &format!("{}\n", machine.shown(&format!("{docker:#}"))));
}

fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/explain").join(name);
    if std::env::var_os("LOCKC_BLESS").is_some() {
        fs::write(&path, text).unwrap();
    }
    assert_eq!(text, fs::read_to_string(&path).unwrap_or_default(), "{}", path.display());
}

#[test]
fn ids_prefixes_and_names() {
    let machine = Machine::new();
    let (docker, podman) = (machine.docker(), machine.podman());
    machine.write("run/runc/abc/state.json", runc(&docker));
    machine.write("run/runc/abcd/state.json", runc(&docker));
    machine.write("run/containerd/runc/k8s.io/abx/state.json", runc(&docker));
    machine.write("run/crun/other/status", crun(&podman));
    machine.write("run/crun/twice/status", crun(&podman));
    machine.write("run/runc/twice/state.json", runc(&docker));
    machine.write("run/youki/y/state.json", format!("{{\"bundle\":\"{}\"}}", podman.display()));
    machine.write(&format!("run/docker/runtime-runc/moby/{DOCKER}/state.json"), runc(&docker));
    for (what, dir, runtime) in [
        ("abc", "run/runc/abc", "runc"),
        ("abcd", "run/runc/abcd", "runc"),
        ("abx", "run/containerd/runc/k8s.io/abx", "runc"),
        ("oth", "run/crun/other", "crun"),
        ("y", "run/youki/y", "youki"),
        ("21a4", &format!("run/docker/runtime-runc/moby/{DOCKER}"), "runc"),
        // As Docker's record says.
        ("web", &format!("run/docker/runtime-runc/moby/{DOCKER}"), "runc"),
    ] {
        let case = machine.case(what);
        assert_eq!(case.state, Some(machine.path(dir)), "{what}");
        assert_eq!(case.runtime.value, runtime, "{what}");
        let bundle = if runtime == "runc" { &docker } else { &podman };
        assert_eq!(case.target.bundle.as_ref(), Some(bundle), "{what}");
        assert!(case.owner.value.is_root() && case.target.config.is_none(), "{what}");
    }
    let narrower = "; give more of the id, or one state directory with --root";
    assert_eq!(
        machine.error("ab"),
        format!(
            "`ab` may be any of D/run/runc/abc, D/run/runc/abcd, D/run/containerd/runc/k8s.io/abx\
             {narrower}"
        )
    );
    assert_eq!(
        machine.error("twice"),
        format!("`twice` may be any of D/run/runc/twice, D/run/crun/twice{narrower}")
    );
    let root = Some(machine.path("run/crun"));
    let found = machine.find(&Request { root, ..request("twice") }).unwrap();
    assert_eq!(found.state, Some(machine.path("run/crun/twice")));
    assert!(machine.error("").starts_with("no container has the id or name ``"));
    let unknown = machine.error("none\u{1b}");
    assert!(unknown.starts_with("no container has the id or name `none\\x1b`; "), "{unknown}");
    for place in ["D/run/runc, ", "D/run/containerd/runc/*", "D/run/user/*/crun", "--root"] {
        assert!(unknown.contains(place), "{place}: {unknown}");
    }
}

/// A user's runtime writes what the user likes.
#[test]
fn state_of_users_is_hostile() {
    let machine = Machine::new();
    let docker = machine.docker();
    let user = format!("run/user/{USER}/crun");
    let of_root = machine.write("run/crun/roots/status", crun(&docker));
    machine.write(&format!("{user}/web/status"), crun(&docker));
    machine.write("run/crun/shared-1/status", crun(&docker));
    machine.write(&format!("{user}/shared-/status"), crun(Path::new("/elsewhere")));
    machine.write(&format!("{user}/{DOCKER}/status"), crun(&docker));
    let cases: &[(&str, &[u8], &str)] = &[
        ("empty", b"", "cannot understand D/STATE: EOF while parsing"),
        ("binary", b"\xff\0", "cannot understand D/STATE: expected value"),
        ("relative", b"{\"bundle\":\"b/../c\"}", "D/STATE names no bundle by an absolute path"),
        ("nul", b"{\"bundle\":\"/b\\u0000\"}", "D/STATE names no bundle by an absolute path"),
        ("none", b"{\"bundle\":null}", "D/STATE names no bundle by an absolute path"),
        ("type", b"{\"bundle\":[\"/b\"]}", "cannot understand D/STATE: invalid type"),
        (
            "doubled",
            b"{\"bundle\":\"/a\",\"bundle\":\"/b\"}",
            "cannot understand D/STATE: duplicate",
        ),
        ("long", b"", "D/STATE is longer than"),
        ("long-path", &[], "D/STATE names no bundle"),
    ];
    for (id, text, _) in cases {
        let text = match *id {
            "long" => vec![b' '; 1 << 21],
            "long-path" => format!("{{\"bundle\":\"/{}\"}}", "x".repeat(5000)).into_bytes(),
            _ => text.to_vec(),
        };
        machine.write(&format!("{user}/{id}/status"), text);
    }
    for id in ["fifo", "link", "directory", "roots-file", "open"] {
        fs::create_dir_all(machine.path(&format!("{user}/{id}"))).unwrap();
    }
    let at = |id: &str| machine.path(&format!("{user}/{id}/status"));
    mkfifo(&at("fifo"), Mode::S_IRWXU).unwrap();
    symlink(&of_root, at("link")).unwrap();
    fs::create_dir(at("directory")).unwrap();
    fs::write(at("open"), crun(&docker)).unwrap();
    // A directory of root's, and one that is a link to root's.
    symlink(machine.path("run/crun/roots"), machine.path(&format!("{user}/linked"))).unwrap();
    machine.give(&format!("run/user/{USER}"));
    fs::set_permissions(at("open"), fs::Permissions::from_mode(0o666)).unwrap();
    fs::write(at("roots-file"), crun(&docker)).unwrap();
    fs::set_permissions(at("roots-file"), fs::Permissions::from_mode(0o600)).unwrap();

    for (id, _, expected) in cases {
        let expected = expected.replace("STATE", &format!("{user}/{id}/status"));
        let error = machine.error(id);
        assert!(error.starts_with(&expected), "{id}: {error}");
    }
    for (id, expected) in [
        ("fifo", "is a FIFO"),
        ("link", "a symbolic link"),
        ("directory", "is a directory"),
        ("roots-file", "Permission denied"),
        ("open", "mode 0666"),
        ("linked", "no container has the id or name"),
    ] {
        let error = machine.error(id);
        assert!(error.contains(expected), "{id}: {error}");
    }
    // It names Docker's bundle, and says that root is its owner: it is the user's all the same.
    let case = machine.case(DOCKER);
    assert_eq!(case.owner.value.as_raw(), USER);
    let text = machine.text(case);
    assert!(text.contains("claimed engine: docker"), "{text}");
    assert!(!text.contains("trusted engine") && text.contains("policy: kiosk"), "{text}");
    // Root's container comes first, also where the user's id is the better match, or root's is a name.
    machine.write(&format!("run/runc/{DOCKER}/state.json"), runc(&docker));
    assert_eq!(machine.case("web").owner.value.as_raw(), 0);
    let case = machine.case("shared-");
    assert_eq!(case.state, Some(machine.path("run/crun/shared-1")));
    assert_eq!(case.notes.len(), 1, "{:?}", case.notes);
}

#[test]
fn paths_and_what_is_assumed() {
    let machine = Machine::new();
    let bundle = machine.docker();
    let path = bundle.to_str().unwrap();
    let case = machine.case(path);
    assert_eq!(case, machine.case(&format!("{path}/config.json")));
    assert_eq!(case.target.id.as_bytes(), DOCKER.as_bytes());
    assert_eq!((case.owner.value.as_raw(), case.runtime.value.as_str()), (0, "runc"));
    for how in [&case.id_from, &case.owner.how, &case.runtime.how] {
        assert!(how.starts_with("assumed: "), "{how}");
    }
    assert!(case.state.is_none());
    let podman = machine.podman();
    assert_eq!(machine.case(podman.to_str().unwrap()).target.id.as_bytes(), PODMAN.as_bytes());

    let given = Request {
        id: Some("other".into()),
        owner: Some(USER),
        runtime: Some("crun".into()),
        ..request(path)
    };
    let case = machine.find(&given).unwrap();
    assert_eq!(case.target.id.as_bytes(), b"other");
    assert_eq!((case.owner.value.as_raw(), case.runtime.value.as_str()), (USER, "crun"));
    for how in [&case.id_from, &case.owner.how, &case.runtime.how] {
        assert_eq!(how, "as given");
    }
    // Whoever owns the bundle, if nobody is named.
    chown(&bundle, Some(USER), Some(USER)).unwrap();
    assert_eq!(machine.case(path).owner.value.as_raw(), USER);
    let error = machine.find(&Request { id: Some("a/b".into()), ..request(path) }).unwrap_err();
    assert!(error.to_string().contains("give it with --id"), "{error}");
    assert!(machine.error("./absent").starts_with("cannot open ./absent: No such file"));
}

fn lockc(config: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lockc"));
    command.arg("explain").arg("--config").arg(config).args(args).output().unwrap()
}

#[test]
fn exit_codes() {
    let machine = Machine::new();
    let config = machine.write("lockc.toml", CONFIG);
    let put = |captured: &str, dir: &str| {
        let path = machine.put(captured, &format!("{dir}/config.json"));
        path.parent().unwrap().to_str().unwrap().to_owned()
    };
    let privileged = put("bundles/ctr/privileged.json", "a");
    let run = |args: &[&str]| {
        let output = lockc(&config, args);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, stdout, stderr) = run(&[&privileged]);
    assert_eq!((code, stderr.as_str()), (Some(1), ""));
    assert!(stdout.contains("verdict: is refused: policy restricted does not admit "), "{stdout}");
    let (code, stdout, _) = run(&[&privileged, "--format", "json"]);
    let json: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &json["starts"]), (Some(1), &Value::Bool(false)));
    assert!(json["refused"].as_str().unwrap().contains("is not admitted by policy restricted"));

    // Another configuration admits it.
    let lax = machine.write("lax.toml", "[default]\npolicy = \"privileged\"\n");
    let output = lockc(&lax, &[&privileged]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");

    // A bundle that is not understood: the default policy enforces admission, or does not.
    let broken = machine.write("b/config.json", "{");
    let broken = broken.parent().unwrap().to_str().unwrap();
    let (code, stdout, _) = run(&[broken]);
    assert_eq!(code, Some(1), "{stdout}");
    let output = lockc(&lax, &[broken]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");

    // What a user has chosen does not reach the terminal.
    machine.write("state/a\u{1b}[2J/status", "");
    let root = machine.path("state");
    let (code, _, stderr) = run(&["a", "--root", root.to_str().unwrap()]);
    assert_eq!(code, Some(2));
    assert!(!stderr.contains('\u{1b}') && stderr.contains("a\\u{1b}[2J/status: EOF"), "{stderr}");

    let empty = machine.path("c");
    fs::create_dir(&empty).unwrap();
    for args in [
        &["./absent"][..],
        &[empty.to_str().unwrap()],
        &["nobody-has-this-id"],
        &[&privileged, "--owner", "root"],
        &[],
    ] {
        let (code, stdout, stderr) = run(args);
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{args:?}");
        assert!(!stderr.is_empty(), "{args:?}");
    }
    let wrong = machine.write("wrong.toml", "x = 1\n");
    assert_eq!(lockc(&wrong, &[&privileged]).status.code(), Some(2));
}
