//! The crates that lockc's binary is made of: what cargo says.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::{artifacts::cargo, command, kernel::Architecture, tree::Tree};

/// The directories that hold the sources of crates of registries.
pub(crate) fn directories(tree: &Tree, architecture: Architecture) -> Result<BTreeSet<PathBuf>> {
    let metadata = metadata(tree, architecture)?;
    let registered = metadata.packages.iter().filter(|package| package.source.is_some());
    Ok(registered.filter_map(|package| Some(package.directory()?.parent()?.to_owned())).collect())
}

/// The part we read of what `cargo metadata` prints.
#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    source: Option<String>,
    manifest_path: PathBuf,
}

impl Package {
    fn directory(&self) -> Option<&Path> {
        self.manifest_path.parent()
    }
}

fn metadata(tree: &Tree, architecture: Architecture) -> Result<Metadata> {
    let mut metadata = tree.prepare(cargo());
    metadata.args(["metadata", "--locked", "--format-version", "1", "--filter-platform"]);
    metadata.arg(architecture.target());
    let text = command::output(&mut metadata, "asking cargo about packages")?;
    serde_json::from_str(&text).context("cannot read what cargo metadata says")
}
