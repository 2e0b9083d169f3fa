//! OCI bundles.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

/// Name of the annotation that the tests' configuration chooses policies by.
pub(crate) const LEVEL: &str = "org.lockc.test.level";

/// An OCI bundle under construction: a directory with a `config.json` that [`Bundle::write`] makes.
#[derive(Clone, Debug)]
pub(crate) struct Bundle {
    dir: PathBuf,
    pub(crate) config: Value,
}

impl Bundle {
    /// A bundle in `dir` that runs `args` in the root file system `root`, as root with Docker's
    /// default capabilities and no cgroup limits.
    pub(crate) fn new(dir: PathBuf, root: &Path, args: &[&str]) -> Self {
        let config = json!({
            "ociVersion": "1.0.2",
            "hostname": "box",
            "process": {
                "terminal": false,
                "user": { "uid": 0, "gid": 0 },
                "args": args,
                "env": ["PATH=/bin", "TERM=dumb"],
                "cwd": "/",
                "capabilities": {},
            },
            "root": { "path": root, "readonly": false },
            "mounts": [
                mount("/proc", "proc", "proc", &[]),
                mount("/dev", "tmpfs", "tmpfs", &["nosuid", "mode=755", "size=65536k"]),
                mount("/dev/pts", "devpts", "devpts", &["newinstance", "ptmxmode=0666", "mode=0620"]),
                mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777"]),
                mount("/tmp", "tmpfs", "tmpfs", &["mode=1777"]),
            ],
            "annotations": {},
            "linux": {
                "namespaces": [
                    { "type": "pid" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" },
                    { "type": "network" },
                ],
                "resources": {},
                "devices": [],
            },
        });
        let mut bundle = Self { dir, config };
        bundle.capabilities(&[
            "CAP_CHOWN",
            "CAP_DAC_OVERRIDE",
            "CAP_FSETID",
            "CAP_FOWNER",
            "CAP_MKNOD",
            "CAP_NET_RAW",
            "CAP_SETGID",
            "CAP_SETUID",
            "CAP_SETFCAP",
            "CAP_SETPCAP",
            "CAP_NET_BIND_SERVICE",
            "CAP_SYS_CHROOT",
            "CAP_KILL",
            "CAP_AUDIT_WRITE",
        ]);
        bundle
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Adds capabilities.
    pub(crate) fn capabilities(&mut self, names: &[&str]) -> &mut Self {
        let sets = &mut self.config["process"]["capabilities"];
        for set in ["bounding", "effective", "permitted"] {
            push(&mut sets[set], names.iter().map(|name| json!(name)));
        }
        self
    }

    /// Runs as this user and group.
    pub(crate) fn user(&mut self, id: u32) -> &mut Self {
        self.config["process"]["user"] = json!({ "uid": id, "gid": id });
        self
    }

    /// Adds capabilities that a process has whose user is not root, too.
    pub(crate) fn ambient(&mut self, names: &[&str]) -> &mut Self {
        self.capabilities(names);
        let sets = &mut self.config["process"]["capabilities"];
        for set in ["inheritable", "ambient"] {
            push(&mut sets[set], names.iter().map(|name| json!(name)));
        }
        self
    }

    /// Adds what a privileged container has besides.
    pub(crate) fn privileged_capabilities(&mut self) -> &mut Self {
        self.capabilities(&[
            "CAP_DAC_READ_SEARCH",
            "CAP_LINUX_IMMUTABLE",
            "CAP_NET_ADMIN",
            "CAP_NET_BROADCAST",
            "CAP_IPC_LOCK",
            "CAP_IPC_OWNER",
            "CAP_SYS_PTRACE",
            "CAP_SYS_ADMIN",
            "CAP_SYS_NICE",
            "CAP_SYS_TTY_CONFIG",
            "CAP_LEASE",
            "CAP_SYSLOG",
        ])
    }

    pub(crate) fn annotation(&mut self, key: &str, value: &str) -> &mut Self {
        self.config["annotations"][key] = json!(value);
        self
    }

    /// Adds a mount after the default ones.
    pub(crate) fn mount(
        &mut self,
        to: &str,
        kind: &str,
        from: &str,
        options: &[&str],
    ) -> &mut Self {
        push(&mut self.config["mounts"], [mount(to, kind, from, options)]);
        self
    }

    /// Bind mounts the host's `from` at `to`.
    pub(crate) fn bind(&mut self, from: &Path, to: &str) -> &mut Self {
        self.mount(to, "bind", &from.to_string_lossy(), &["rbind", "rw"])
    }

    /// What the host mounts later reaches mounts that are slaves of its own.
    pub(crate) fn follow_mounts(&mut self) -> &mut Self {
        self.config["linux"]["rootfsPropagation"] = json!("rslave");
        self
    }

    /// Shares the host's namespace of this kind (`pid`, `mount`, …).
    pub(crate) fn share(&mut self, kind: &str) -> &mut Self {
        if let Some(namespaces) = self.config["linux"]["namespaces"].as_array_mut() {
            namespaces.retain(|namespace| namespace["type"] != kind);
        }
        self
    }

    pub(crate) fn cwd(&mut self, cwd: &str) -> &mut Self {
        self.config["process"]["cwd"] = json!(cwd);
        self
    }

    pub(crate) fn terminal(&mut self) -> &mut Self {
        self.config["process"]["terminal"] = json!(true);
        self
    }

    /// Adds a hook that runs `args`.
    pub(crate) fn hook(&mut self, kind: &str, args: &[&str]) -> &mut Self {
        let path = args.first().copied().unwrap_or_default();
        push(&mut self.config["hooks"][kind], [json!({ "path": path, "args": args })]);
        self
    }

    /// Creates and allows the character device `major:minor` at `path`.
    pub(crate) fn device(&mut self, path: &str, major: u32, minor: u32) -> &mut Self {
        let linux = &mut self.config["linux"];
        push(
            &mut linux["devices"],
            [json!({ "path": path, "type": "c", "major": major, "minor": minor, "fileMode": 0o666,
                "uid": 0, "gid": 0 })],
        );
        push(
            &mut linux["resources"]["devices"],
            [
                json!({ "allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm" }),
            ],
        );
        self
    }

    /// Gives the container a namespace of this kind besides.
    pub(crate) fn unshare(&mut self, kind: &str) -> &mut Self {
        push(&mut self.config["linux"]["namespaces"], [json!({ "type": kind })]);
        self
    }

    /// A user namespace that maps `count` ids from `host` on.
    pub(crate) fn user_namespace(&mut self, host: u32, count: u32) -> &mut Self {
        self.unshare("user");
        let linux = &mut self.config["linux"];
        let mapping = json!([{ "containerID": 0, "hostID": host, "size": count }]);
        linux["uidMappings"] = mapping.clone();
        linux["gidMappings"] = mapping;
        self
    }

    /// Makes it ask for nothing that `restricted` does not admit.
    pub(crate) fn harden(&mut self) -> &mut Self {
        self.unshare("cgroup");
        let process = &mut self.config["process"];
        process["user"] = json!({ "uid": 1000, "gid": 1000 });
        process["noNewPrivileges"] = json!(true);
        process["capabilities"] = json!({ "bounding": [], "effective": [], "permitted": [] });
        let linux = &mut self.config["linux"];
        linux["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [ { "names": ["mount", "umount2"], "action": "SCMP_ACT_ERRNO" } ],
        });
        self.mask()
    }

    /// Hides paths in `/proc` and makes some read-only, as engines do.
    pub(crate) fn mask(&mut self) -> &mut Self {
        let linux = &mut self.config["linux"];
        // Those of Docker 26 and of podman 5.
        linux["maskedPaths"] = json!([
            "/proc/asound",
            "/proc/acpi",
            "/proc/kcore",
            "/proc/keys",
            "/proc/latency_stats",
            "/proc/timer_list",
            "/proc/timer_stats",
            "/proc/sched_debug",
            "/proc/scsi",
            "/sys/firmware",
            "/sys/devices/virtual/powercap",
            "/proc/interrupts",
        ]);
        linux["readonlyPaths"] =
            json!(["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]);
        self
    }

    /// Writes the directory and its `config.json`.
    pub(crate) fn write(&self) -> Result<()> {
        fs::create_dir_all(&self.dir).with_context(|| format!("create {}", self.dir.display()))?;
        let path = self.dir.join("config.json");
        fs::write(&path, serde_json::to_vec_pretty(&self.config)?)
            .with_context(|| format!("write {}", path.display()))
    }
}

fn mount(to: &str, kind: &str, from: &str, options: &[&str]) -> Value {
    json!({ "destination": to, "type": kind, "source": from, "options": options })
}

/// Appends to an array, which a null becomes.
fn push(array: &mut Value, values: impl IntoIterator<Item = Value>) {
    if array.is_null() {
        *array = json!([]);
    }
    if let Some(array) = array.as_array_mut() {
        array.extend(values);
    }
}
