//! The engines of the full guest.

use std::{process::Command, time::Duration};

use anyhow::Result;

use super::{
    context::Context,
    fixture::SERVICE_ACCOUNT,
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

    /// The words that start a container with the token and the probe.
    fn start_words(self, context: &Context, name: &str, detached: bool) -> Vec<String> {
        let token = context.token().dir();
        let probe = context.image().join("bin/probe");
        let volumes = [(token, SERVICE_ACCOUNT), (probe.as_path(), "/bin/probe")];
        let mut words = vec!["run".to_owned()];
        if detached {
            words.push("-d".to_owned());
        } else {
            words.push("--rm".to_owned());
        }
        if self == Self::Containerd {
            words.extend(volumes.map(|(from, to)| {
                format!("--mount=type=bind,src={},dst={to},options=rbind:ro", from.display())
            }));
            words.extend([IMAGE, name].map(str::to_owned));
            return words;
        }
        words.extend(["--network", "none", "--name", name].map(str::to_owned));
        words.extend(volumes.map(|(from, to)| format!("--volume={}:{to}:ro", from.display())));
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
        let mut words = self.start_words(context, name, detached);
        if self != Self::Containerd {
            words.extend(options.iter().map(ToString::to_string));
            words.push(IMAGE.to_owned());
        }
        words.extend(args.iter().map(ToString::to_string));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.does(&words)
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
