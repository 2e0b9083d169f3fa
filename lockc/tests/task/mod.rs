//! A running task that stands for the caller which fanotify would freeze.

use std::process::{Child, Command, Stdio};

use lockc::runtime::caller::Caller;
use nix::unistd::Pid;

/// A child that runs until the test is over.
pub(crate) struct Task(pub(crate) Child);

impl Task {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    pub(crate) fn caller(&self) -> Caller {
        Caller::read(Pid::from_raw(self.0.id().cast_signed())).unwrap()
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}
