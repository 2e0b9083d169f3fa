//! The sources that something is built from: this workspace, or a copy of it.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use crate::paths;

/// A directory with all sources, and what is different there for the programs that run in it.
#[derive(Debug)]
pub(crate) struct Tree {
    root: PathBuf,
    environment: Vec<(&'static str, OsString)>,
}

impl Tree {
    /// This workspace, as it is.
    pub(crate) fn here() -> Self {
        Self { root: paths::workspace().to_owned(), environment: Vec::new() }
    }

    /// A copy, in which programs have another environment.
    pub(crate) fn copy(root: PathBuf, environment: Vec<(&'static str, OsString)>) -> Self {
        Self { root, environment }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// cargo's target directory of these sources.
    pub(crate) fn target(&self) -> PathBuf {
        self.root.join("target")
    }

    /// Where packages of these sources go.
    pub(crate) fn packages(&self) -> PathBuf {
        self.target().join("packages")
    }

    /// Makes a program run in these sources.
    pub(crate) fn prepare(&self, mut command: Command) -> Command {
        let environment = self.environment.iter().map(|(name, value)| (name, value));
        command.current_dir(&self.root).envs(environment);
        command
    }
}
