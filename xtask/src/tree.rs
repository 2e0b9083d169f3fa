//! The sources that something is built from: this workspace, or a copy of it.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{command, paths};

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

/// Copies the sources of one tree to where another shall be, and gives the copies.
pub(crate) fn copy_sources(from: &Path, to: &Path) -> Result<Vec<PathBuf>> {
    let mut copies = Vec::new();
    for file in sources()? {
        let copy = to.join(&file);
        copy_file(&from.join(&file), &copy)?;
        copies.push(copy);
    }
    Ok(copies)
}

/// Copies a file, with its mode and not its time, to a directory that need not be there.
pub(crate) fn copy_file(from: &Path, to: &Path) -> Result<()> {
    paths::create_dir(to.parent().unwrap_or(to))?;
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(())
}

/// All files that belong to the sources, also those that git does not know yet.
fn sources() -> Result<Vec<PathBuf>> {
    let mut git = Command::new("git");
    git.current_dir(paths::workspace());
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate"]);
    let text = command::output(&mut git, "asking git for the sources")?;
    Ok(text.split_terminator('\0').map(PathBuf::from).collect())
}
