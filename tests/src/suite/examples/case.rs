//! Containers as different callers make them, and what becomes of each.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::harness::{
    Bundle, Container, Context, Lockc, Runtime,
    attack::results,
    fixture::{SERVICE_ACCOUNT, TOKEN},
};

/// What a container gets away with that reads the token and mounts a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Its runtime is not let start.
    Refused,
    /// Neither.
    Contained,
    /// It reads the token.
    Reads,
    /// Both.
    Free,
}
use Fate::{Contained, Free, Reads, Refused};

/// A container, what becomes of it without lockc and with it, and what the line of the log says in
/// which its policy stands.
pub(super) struct Case<'c> {
    what: &'static str,
    runtime: &'c Runtime,
    make: Box<dyn Fn(&str) -> Bundle + 'c>,
    pub(super) off: Fate,
    pub(super) on: Fate,
    says: &'static str,
}

impl<'c> Case<'c> {
    pub(super) fn new(
        what: &'static str,
        runtime: &'c Runtime,
        make: impl Fn(&str) -> Bundle + 'c,
        (off, on): (Fate, Fate),
        says: &'static str,
    ) -> Self {
        Self { what, runtime, make: Box::new(make), off, on, says }
    }

    /// Runs the container; its id, and what became of it.
    pub(super) fn fate(&self, context: &Context) -> Result<(String, Fate)> {
        let id = context.id(self.what);
        let mut bundle = (self.make)(&id);
        let token = format!("token:read {SERVICE_ACCOUNT}/token");
        bundle.config["process"]["args"] =
            json!(["/bin/probe", "list", token, "mount:mount tmpfs /mnt", "work:threads 4"]);
        let output = match Container::new(self.runtime, &id, &bundle)?.run() {
            Ok(output) if output.status.success() => output,
            Ok(output) => {
                ensure!(output.stderr.contains("not permitted"), "{}: {output}", self.what);
                return Ok((id, Refused));
            }
            Err(error) => {
                let said = format!("{error:#}");
                ensure!(said.contains("not permitted"), "{}: {said}", self.what);
                return Ok((id, Refused));
            }
        };
        fs::remove_dir_all(bundle.dir())?;
        let results = results(&output);
        let said = |name| results.get(name).copied().unwrap_or_default();
        ensure!(said("work") == "OK 4 threads, sum 10", "{}: {output}", self.what);
        let (reads, mounts) = (said("token") == format!("OK {TOKEN}"), said("mount") == "OK done");
        let refused = |name| said(name).starts_with("EPERM ");
        ensure!(reads || refused("token"), "{}: {output}", self.what);
        ensure!(mounts || refused("mount"), "{}: {output}", self.what);
        Ok(match (reads, mounts) {
            (true, true) => (id, Free),
            (true, false) => (id, Reads),
            (false, false) => (id, Contained),
            (false, true) => anyhow::bail!("{}: mounts, does not read: {output}", self.what),
        })
    }

    /// Runs it with lockc on and gives its line of the log.
    pub(super) fn with(&self, context: &Context, lockc: &Lockc) -> Result<(String, String)> {
        let (id, fate) = self.fate(context)?;
        let line = lockc.wait_for_line(&format!("a decision about {}", self.what), |line| {
            (line.contains("registered ") || line.contains("denied start "))
                && line.contains(&format!("container={id} "))
        })?;
        ensure!(fate == self.on, "{}: {fate:?}, not {:?}: {line}", self.what, self.on);
        ensure!(line.contains(self.says), "{}: no {:?} in {line}", self.what, self.says);
        Ok((id, line))
    }
}

/// Runs the cases without lockc, then with `config`, which stays in force.
pub(super) fn check(context: &Context, config: &str, cases: &[Case<'_>]) -> Result<Lockc> {
    off(context, cases)?;
    let lockc = context.start_lockc(config)?;
    for case in cases {
        case.with(context, &lockc)?;
    }
    Ok(lockc)
}

pub(super) fn off(context: &Context, cases: &[Case<'_>]) -> Result<()> {
    for case in cases {
        let (_, fate) = case.fate(context)?;
        ensure!(fate == case.off, "{}, lockc off: {fate:?}, not {:?}", case.what, case.off);
    }
    Ok(())
}

/// A runtime in one of its usual places, whichever the tests are told to run with.
pub(super) fn installed(context: &Context, name: &'static str) -> Result<Runtime> {
    let mut places = ["/usr/bin", "/usr/sbin"].into_iter().map(|place| Path::new(place).join(name));
    let binary = places.find(|path| path.is_file()).with_context(|| format!("no {name} here"))?;
    Ok(Runtime { name, binary, state: context.scratch().join("state").join(name), user: None })
}

/// A bundle of nobody's engine that may mount.
pub(super) fn plain(context: &Context, id: &str) -> Bundle {
    let mut bundle = context.token_bundle(id, &[]);
    bundle.capabilities(&["CAP_SYS_ADMIN"]);
    bundle
}

/// One that asks for nothing.
pub(super) fn hardened(context: &Context, id: &str) -> Bundle {
    // A volume of kubelet's: another host path would be found.
    let mut bundle = context.bundle(id, &[]);
    bundle.bind(Path::new(VOLUME), SERVICE_ACCOUNT).harden();
    bundle
}

/// Where kubelet keeps the token of a pod.
pub(super) const VOLUME: &str = "/var/lib/kubelet/pods/0b5b6f5e-3c1c-4a8e-9a7b-1d2f3e4a5b6c/volumes/\
                      kubernetes.io~projected/kube-api-access-x7q2d";

/// Where k3s' containerd makes its bundles.
const TASKS: &str = "/run/k3s/containerd/io.containerd.runtime.v2.task/k8s.io";

/// The annotations by which containerd's CRI plug-in says whose container it is.
pub(super) fn annotate(bundle: &mut Bundle, namespace: &str, pod: &str, container: &str) {
    for (key, value) in [
        ("container-type", "container"),
        ("sandbox-id", "5f2c"),
        ("sandbox-namespace", namespace),
        ("sandbox-name", pod),
        ("container-name", container),
        ("image-name", "registry.example/image:1"),
    ] {
        bundle.annotation(&format!("io.kubernetes.cri.{key}"), value);
    }
}

/// A container of a pod, where kubelet's containerd makes it and as it describes it.
pub(super) fn pod(context: &Context, id: &str, namespace: &str, pod: &str) -> Bundle {
    let mut bundle = Bundle::new(PathBuf::from(TASKS).join(id), &context.image(), &[]);
    bundle.bind(Path::new(VOLUME), SERVICE_ACCOUNT).capabilities(&["CAP_SYS_ADMIN"]);
    bundle.config["linux"]["cgroupsPath"] = json!(format!("/kubepods/besteffort/pod1/{id}"));
    annotate(&mut bundle, namespace, pod, "main");
    bundle
}

/// Whether a container starts that lockc cannot understand: its `config.json` is too long.
pub(super) fn starts_unread(context: &Context, runtime: &Runtime) -> Result<bool> {
    let id = context.id("unknown");
    let mut bundle = context.bundle(&id, &["/bin/echo", "started"]);
    bundle.annotation("padding", &" ".repeat(17 << 20));
    let output = Container::new(runtime, &id, &bundle)?.run();
    fs::remove_dir_all(bundle.dir())?;
    match output {
        Ok(output) => Ok(output.stdout == "started\n"),
        Err(error) => {
            ensure!(format!("{error:#}").contains("not permitted"), "{error:#}");
            Ok(false)
        }
    }
}
