//! The engines of the full guest.

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Result, ensure};

use super::{
    context::Context,
    fixture::{SERVICE_ACCOUNT, TOKEN},
    process::{self, Output},
};

/// Longest time that one command of an engine may take on an emulated machine.
pub(crate) const DEADLINE: Duration = Duration::from_mins(5);
/// The image, as an archive that every engine reads.
const ARCHIVE: &str = "/opt/images/busybox.tar";
pub(crate) const IMAGE: &str = "docker.io/library/busybox:latest";
/// Who runs podman without root.
const USER: &str = "edge";

/// What starts containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    Docker,
    Podman,
    Rootless,
    Containerd,
}

impl Engine {
    fn command(self) -> Command {
        match self {
            Self::Docker => Command::new("docker"),
            Self::Podman => Command::new("podman"),
            Self::Containerd => Command::new("ctr"),
            Self::Rootless => {
                let mut command = Command::new("runuser");
                command.args([
                    "-u",
                    USER,
                    "--",
                    "env",
                    "-C",
                    "/",
                    "XDG_RUNTIME_DIR=/run/user/1000",
                ]);
                command.args(["HOME=/home/edge", "podman"]);
                command
            }
        }
    }

    pub(crate) fn does(self, args: &[&str]) -> Result<Output> {
        process::run(self.command().args(args), DEADLINE)
    }

    /// Loads the image, once.
    pub(crate) fn load(self, context: &Context) -> Result<()> {
        let key = format!("{self:?} has the image");
        if context.recorded(&key).is_err() {
            let args: &[&str] = match self {
                Self::Containerd => &["images", "import", ARCHIVE],
                _ => &["load", "-i", ARCHIVE],
            };
            self.does(args)?.success(format_args!("{self:?}: load"))?;
            context.record(&key, String::new());
        }
        Ok(())
    }

    /// The words that mount a path of the host.
    pub(crate) fn volume(self, from: &Path, to: &str, read_only: bool) -> String {
        let (mode, from) = (if read_only { "ro" } else { "rw" }, from.display());
        match self {
            Self::Containerd => {
                format!("--mount=type=bind,src={from},dst={to},options=rbind:{mode}")
            }
            _ => format!("--volume={from}:{to}:{mode}"),
        }
    }

    /// The words that start a container with the token and the probe.
    fn start_words(
        self,
        context: &Context,
        name: &str,
        detached: bool,
        options: &[&str],
    ) -> Vec<String> {
        let token = context.token().dir();
        let probe = context.image().join("bin/probe");
        let volumes = [(token, SERVICE_ACCOUNT), (probe.as_path(), "/bin/probe")];
        let mut words = vec!["run".to_owned()];
        words.push(if detached { "-d" } else { "--rm" }.to_owned());
        words.extend(volumes.map(|(from, to)| self.volume(from, to, true)));
        words.extend(options.iter().map(ToString::to_string));
        let last: &[&str] = match self {
            Self::Containerd => &[IMAGE, name],
            _ => &["--network", "none", "--name", name, IMAGE],
        };
        words.extend(last.iter().map(ToString::to_string));
        words
    }

    pub(crate) fn start(
        self,
        context: &Context,
        name: &str,
        detached: bool,
        options: &[&str],
        args: &[&str],
    ) -> Result<Output> {
        let words = self.start_words(context, name, detached, options);
        let words: Vec<&str> =
            words.iter().map(String::as_str).chain(args.iter().copied()).collect();
        self.does(&words)
    }

    /// The id of a container, as its runtime knows it.
    pub(crate) fn id(self, name: &str) -> Result<String> {
        if self == Self::Containerd {
            return Ok(name.to_owned());
        }
        let output = self.does(&["inspect", "--format={{.Id}}", name])?.success("inspect")?;
        Ok(output.stdout.trim().to_owned())
    }

    pub(crate) fn exec(self, name: &str, args: &[&str]) -> Result<Output> {
        let words: &[&str] = match self {
            Self::Containerd => &["tasks", "exec", "--exec-id", "probe", name],
            _ => &["exec", name],
        };
        self.does(&[words, args].concat())
    }

    /// Removes a container that runs.
    pub(crate) fn remove(self, name: &str) -> Result<()> {
        if self != Self::Containerd {
            return self.does(&["rm", "-f", name])?.success("rm").map(drop);
        }
        self.does(&["tasks", "rm", "-f", name])?.success("tasks rm")?;
        self.does(&["containers", "rm", name])?.success("containers rm").map(drop)
    }
}

/// A container of Docker's that does nothing by itself.
#[derive(Debug)]
pub(crate) struct Sleeper(String);

impl Sleeper {
    pub(crate) fn start(context: &Context, options: &[&str]) -> Result<Self> {
        let engine = Engine::Docker;
        engine.load(context)?;
        let sleeper = Self(context.id("sleep"));
        let words = ["/bin/sleep", "1000"];
        engine.start(context, &sleeper.0, true, options, &words)?.success("docker run")?;
        Ok(sleeper)
    }

    /// Checks whether it can read the token.
    pub(crate) fn ensure(&self, can_read: bool, when: &str) -> Result<()> {
        let token = format!("{SERVICE_ACCOUNT}/token");
        let output = Engine::Docker.exec(&self.0, &["/bin/probe", "read", &token])?;
        let wanted =
            if can_read { format!("read OK {TOKEN}") } else { "read EPERM open".to_owned() };
        ensure!(output.stdout.starts_with(&wanted), "{} {when}: {output}", self.0);
        Ok(())
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        // What is left of it is in nobody's way.
        let _ = Engine::Docker.remove(&self.0);
    }
}
