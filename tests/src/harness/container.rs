//! Containers, run by a real runtime.

use std::{
    os::{fd::AsFd as _, unix::process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{
    bundle::Bundle,
    process::{self, Output, Running},
};

/// Longest time one invocation of a runtime may take. An emulated machine needs about a second.
pub(crate) const DEADLINE: Duration = Duration::from_mins(4);

/// An OCI runtime and where the tests keep its state.
#[derive(Clone, Debug)]
pub(crate) struct Runtime {
    pub(crate) name: &'static str,
    pub(crate) binary: PathBuf,
    /// The runtime's `--root`.
    pub(crate) state: PathBuf,
    /// Who runs it, if not root.
    pub(crate) user: Option<u32>,
}

impl Runtime {
    /// An invocation without arguments but the state directory.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--root").arg(&self.state);
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command
    }

    /// How its command line is to be read: the name that lockc's configuration takes.
    pub(crate) fn kind(&self) -> &'static str {
        match self.name {
            "runc-new" => "runc",
            name => name,
        }
    }
}

/// A container; whatever is left of it is deleted when this is dropped.
#[derive(Debug)]
pub(crate) struct Container {
    runtime: Runtime,
    id: String,
    bundle: PathBuf,
}

impl Container {
    /// Writes the bundle; starts nothing.
    pub(crate) fn new(runtime: &Runtime, id: &str, bundle: &Bundle) -> Result<Self> {
        bundle.write()?;
        Ok(Self::of_directory(runtime, id, bundle.dir()))
    }

    /// A container of a bundle that is there already, or is not.
    pub(crate) fn of_directory(runtime: &Runtime, id: &str, bundle: &Path) -> Self {
        Self { runtime: runtime.clone(), id: id.to_owned(), bundle: bundle.to_owned() }
    }

    /// Directory of its bundle.
    pub(crate) fn bundle(&self) -> &Path {
        &self.bundle
    }

    /// The command `RUNTIME VERB OPTIONS --bundle BUNDLE ID`.
    pub(crate) fn command(&self, verb: &str, options: &[&str]) -> Command {
        let mut command = self.runtime.command();
        command.arg(verb).args(options).arg("--bundle").arg(&self.bundle).arg(&self.id);
        command
    }

    /// `run`, to the end of the container.
    pub(crate) fn run(&self) -> Result<Output> {
        process::run(&mut self.command("run", &[]), DEADLINE)
    }

    /// `run --detach` with the streams of `command`, which the container then has itself, and the end
    /// of the container. Without `--detach`, runc puts pipes in between.
    pub(crate) fn run_detached(&self, streams: impl FnOnce(&mut Command)) -> Result<()> {
        let mut command = self.command("run", &["--detach"]);
        streams(&mut command);
        let output = Running::start_as_is(&mut command)?.finish(DEADLINE)?;
        output.success("run --detach")?;
        process::wait_for("the end of the container", DEADLINE, || {
            Ok((!self.is_running()).then_some(()))
        })
    }

    /// `run`, not waited for.
    pub(crate) fn start_running(&self) -> Result<Running> {
        Running::start(self.command("run", &[]).stdin(Stdio::null()))
    }

    /// `run` with `directory` leaked as descriptor 3.
    pub(crate) fn run_leaking(&self, directory: &Path) -> Result<Output> {
        let directory = std::fs::File::open(directory)
            .with_context(|| format!("open {}", directory.display()))?;
        let mut command = self.command("run", &["--preserve-fds", "1"]);
        crate::sys::pass_fd(&mut command, directory.as_fd(), 3);
        process::run(&mut command, DEADLINE)
    }

    /// `create` then `start`, with the container's output going nowhere.
    pub(crate) fn start(&self) -> Result<()> {
        self.create()?;
        self.verb("start", &[])?.success("start").map(drop)
    }

    /// `create`, with the container's output going nowhere.
    pub(crate) fn create(&self) -> Result<()> {
        self.silently("create", &[])
    }

    /// `run --detach`, with the container's output going nowhere: the same as `start` in half the time.
    pub(crate) fn start_at_once(&self) -> Result<()> {
        self.silently("run", &["--detach"])
    }

    fn silently(&self, verb: &str, options: &[&str]) -> Result<()> {
        // The container keeps the streams, so they must not be pipes to us.
        let mut command = self.command(verb, options);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        Running::start_as_is(&mut command)?.finish(DEADLINE)?.success(verb).map(drop)
    }

    /// `exec` of `args`.
    pub(crate) fn exec(&self, args: &[&str]) -> Result<Output> {
        process::run(&mut self.exec_command(&[], args), DEADLINE)
    }

    /// The command `RUNTIME exec OPTIONS ID ARGS`.
    pub(crate) fn exec_command(&self, options: &[&str], args: &[&str]) -> Command {
        let mut command = self.runtime.command();
        command.arg("exec").args(options).arg(&self.id).args(args);
        command
    }

    /// `RUNTIME VERB ID ARGS`.
    pub(crate) fn verb(&self, verb: &str, args: &[&str]) -> Result<Output> {
        let mut command = self.runtime.command();
        command.arg(verb).arg(&self.id).args(args);
        process::run(&mut command, DEADLINE)
    }

    /// `delete --force`.
    pub(crate) fn delete(&self) -> Result<()> {
        process::wait_for("its deletion", DEADLINE, || {
            let mut command = self.runtime.command();
            command.args(["delete", "--force", &self.id]);
            let output = process::run(&mut command, DEADLINE)?;
            // youki waits for its processes for a moment only (`delete_with_retry`, libcgroups 0.7.0), whoever watches.
            if output.stderr.contains("failed to remove cgroup") {
                return Ok(None);
            }
            output.success("delete --force").map(|_| Some(()))
        })
    }

    /// Whether the runtime says that the container runs.
    pub(crate) fn is_running(&self) -> bool {
        self.state().is_ok_and(|state| state["status"] == "running")
    }

    /// `state`, parsed.
    pub(crate) fn state(&self) -> Result<Value> {
        let output = self.verb("state", &[])?.success("state")?;
        serde_json::from_str(&output.stdout).context("parse the state")
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if self.runtime.state.join(&self.id).exists() {
            // Nothing more can be done here; the next use of the id would complain.
            let _ = self.delete();
        }
    }
}
