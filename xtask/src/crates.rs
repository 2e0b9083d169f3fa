//! The crates that lockc's binary is made of: what cargo and its lock file say.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::{artifacts::cargo, command, kernel::Architecture, tree::Tree};

/// A crate at a version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(crate) struct Name {
    pub(crate) name: String,
    pub(crate) version: String,
}

/// A crate of the binary.
#[derive(Debug)]
pub(crate) struct Crate {
    pub(crate) name: Name,
    /// An SPDX expression.
    pub(crate) license: String,
    /// Its package URL.
    pub(crate) purl: String,
    pub(crate) repository: String,
    /// Of the file that the registry has; crates of this workspace come from none.
    pub(crate) checksum: Option<String>,
    pub(crate) place: Place,
    /// Where its sources are.
    pub(crate) directory: PathBuf,
    /// Package URLs of what it uses, of what is in the binary.
    pub(crate) dependencies: Vec<String>,
}

/// What a crate is to the binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// Linked into the daemon or its BPF programs.
    Linked,
    /// Ran in the compiler, and wrote code that is linked: macros, and what they use.
    Macro,
}

/// Those of the daemon and of its BPF programs, in order of their names.
pub(crate) fn of_binary(tree: &Tree, architecture: Architecture) -> Result<Vec<Crate>> {
    let places = places(tree, architecture)?;
    let metadata = metadata(tree, architecture)?;
    let checksums = checksums(&tree.root().join("Cargo.lock"))?;
    let describe = |(name, place): (&Name, &Place)| {
        let package = metadata.packages.iter().find(|package| package.name == *name);
        let lacks = |what| format!("{} {} has no {what}", name.name, name.version);
        let package = package.with_context(|| lacks("metadata"))?;
        let license = package.license.as_ref().with_context(|| lacks("license"))?;
        Ok(Crate {
            name: name.clone(),
            license: expression(license),
            purl: package.purl(),
            repository: package.repository.clone().unwrap_or_default(),
            checksum: checksums.get(name).cloned(),
            place: *place,
            directory: package.directory().with_context(|| lacks("directory"))?.to_owned(),
            dependencies: metadata.dependencies(package, &places),
        })
    };
    places.iter().map(describe).collect()
}

/// What is in the binary, and why.
fn places(tree: &Tree, architecture: Architecture) -> Result<BTreeMap<Name, Place>> {
    let mut places = BTreeMap::new();
    for (package, target) in sides(architecture) {
        for (edges, place) in [("normal", Place::Macro), ("normal,no-proc-macro", Place::Linked)] {
            let mut list = tree.prepare(cargo());
            list.args(["tree", "--locked", "--package", package, "--target", target]);
            list.args(["--edges", edges, "--prefix", "none", "--format", "{p}"]);
            for name in names(&command::output(&mut list, "asking cargo for crates")?)? {
                let known = places.entry(name).or_insert(place);
                *known = place.min(*known);
            }
        }
    }
    Ok(places)
}

/// The package of each side, and what it is built for.
fn sides(architecture: Architecture) -> [(&'static str, &'static str); 2] {
    [("lockc", architecture.target()), ("lockc-ebpf", "bpfel-unknown-none")]
}

/// The directories that hold the sources of crates of registries.
pub(crate) fn directories(tree: &Tree, architecture: Architecture) -> Result<BTreeSet<PathBuf>> {
    let metadata = metadata(tree, architecture)?;
    let registered = metadata.packages.iter().filter(|package| package.source.is_some());
    Ok(registered.filter_map(|package| Some(package.directory()?.parent()?.to_owned())).collect())
}

/// Names in what `cargo tree` prints: `name vVERSION`, and what we do not need.
pub(crate) fn names(text: &str) -> Result<Vec<Name>> {
    let name = |line: &str| {
        let mut words = line.split_whitespace();
        let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
        Some(Name { name: name.to_owned(), version: version.to_owned() })
    };
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines.map(|line| name(line).with_context(|| format!("no crate in {line:?}"))).collect()
}

/// The part we read of what `cargo metadata` prints.
#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Debug, Deserialize)]
struct Package {
    id: String,
    #[serde(flatten)]
    name: Name,
    license: Option<String>,
    repository: Option<String>,
    source: Option<String>,
    manifest_path: PathBuf,
}

#[derive(Debug, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    id: String,
    deps: Vec<Edge>,
}

#[derive(Debug, Deserialize)]
struct Edge {
    name: String,
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Debug, Deserialize)]
struct Kind {
    /// `dev` or `build`; nothing for what the code itself uses.
    kind: Option<String>,
}

impl Package {
    /// Crates of a registry have one there; ours are in none, where others have their names.
    fn purl(&self) -> String {
        let kind = if self.source.is_some() { "cargo" } else { "generic" };
        purl(kind, &self.name)
    }

    fn directory(&self) -> Option<&Path> {
        self.manifest_path.parent()
    }
}

impl Metadata {
    /// What a package uses, of `among`: in its code, or, as lockc its BPF programs, in what it embeds.
    fn dependencies(&self, package: &Package, among: &BTreeMap<Name, Place>) -> Vec<String> {
        let nodes = self.resolve.nodes.iter().filter(|node| node.id == package.id);
        let used: BTreeSet<_> = nodes
            .flat_map(|node| &node.deps)
            .filter(|edge| {
                edge.name == EMBEDDED || edge.dep_kinds.iter().any(|it| it.kind.is_none())
            })
            .filter_map(|edge| self.packages.iter().find(|package| package.id == edge.pkg))
            .filter(|package| among.contains_key(&package.name))
            .map(Package::purl)
            .collect();
        used.into_iter().collect()
    }
}

/// The library of the BPF programs, as Rust writes its name: a build dependency whose code is in the binary.
const EMBEDDED: &str = "lockc_ebpf";

/// An SPDX expression of what a manifest says; cargo once wrote `OR` as `/`.
pub(crate) fn expression(license: &str) -> String {
    license.replace('/', " OR ")
}

/// A package URL; a `+` in it means a space unless it is encoded.
pub(crate) fn purl(kind: &str, name: &Name) -> String {
    format!("pkg:{kind}/{}@{}", name.name, name.version.replace('+', "%2B"))
}

fn metadata(tree: &Tree, architecture: Architecture) -> Result<Metadata> {
    let mut metadata = tree.prepare(cargo());
    metadata.args(["metadata", "--locked", "--format-version", "1", "--filter-platform"]);
    metadata.arg(architecture.target());
    let text = command::output(&mut metadata, "asking cargo about packages")?;
    serde_json::from_str(&text).context("cannot read what cargo metadata says")
}

#[derive(Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    #[serde(flatten)]
    name: Name,
    checksum: Option<String>,
}

fn checksums(path: &Path) -> Result<BTreeMap<Name, String>> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let lock: Lock =
        toml::from_str(&text).with_context(|| format!("cannot parse {}", path.display()))?;
    Ok(lock.package.into_iter().filter_map(|it| Some((it.name, it.checksum?))).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// What cargo is about to link, from its plan of a build: not from where [`of_binary`] has it.
    fn planned(package: &str, target: &str, more: &[&str]) -> BTreeSet<Name> {
        let mut plan = Tree::here().prepare(cargo());
        plan.env("RUSTC_BOOTSTRAP", "1").args(["build", "--locked", "--release", "--bins"]);
        plan.args(["--unit-graph", "-Z", "unstable-options", "--package", package, "--target"]);
        let plan = command::output(plan.arg(target).args(more), "asking cargo for its plan");
        let plan: Value = serde_json::from_str(&plan.expect("cargo has a plan")).expect("JSON");
        let index = |value: &Value| value.as_u64().and_then(|it| usize::try_from(it).ok());
        let mut todo: Vec<_> =
            plan["roots"].as_array().into_iter().flatten().filter_map(index).collect();
        let (mut seen, mut names) = (BTreeSet::new(), BTreeSet::new());
        while let Some(number) = todo.pop() {
            let unit = &plan["units"][number];
            let is_linked = unit["platform"] == target && unit["mode"] == "build";
            if !is_linked || !seen.insert(number) {
                continue;
            }
            let used = unit["dependencies"].as_array().into_iter().flatten();
            todo.extend(used.filter_map(|it| index(&it["index"])));
            let id = unit["pkg_id"].as_str().expect("every unit has a package");
            if id.contains("/rustlib/src/rust/") {
                continue; // core, which `runtime` names
            }
            let (place, rest) = id.rsplit_once('#').expect("an identifier has a fragment");
            let of_place = || (place.rsplit('/').next().unwrap_or_default(), rest);
            let (name, version) = rest.split_once('@').unwrap_or_else(of_place);
            names.insert(Name { name: name.to_owned(), version: version.to_owned() });
        }
        names
    }

    #[test]
    fn what_is_linked_is_what_cargo_plans_to_link() {
        for architecture in [Architecture::X86_64, Architecture::Aarch64] {
            let [(daemon, target), (ebpf, bpf)] = sides(architecture);
            let mut planned_names = planned(daemon, target, &[]);
            planned_names.extend(planned(ebpf, bpf, &["-Z", "build-std=core"]));
            let crates = of_binary(&Tree::here(), architecture).expect("cargo knows them");
            let linked = crates.iter().filter(|it| it.place == Place::Linked);
            let linked: BTreeSet<_> = linked.map(|it| it.name.clone()).collect();
            assert_eq!(linked, planned_names);
        }
    }

    #[test]
    fn what_only_tests_and_builds_use_is_not_there() {
        let crates = of_binary(&Tree::here(), Architecture::X86_64).expect("cargo knows them");
        let has = |name: &str| crates.iter().any(|it| it.name.name == name);
        for name in ["aya", "aya-ebpf", "lockc-common", "lockc-ebpf", "serde_derive"] {
            assert!(has(name), "{name} is not there");
        }
        for name in ["proptest", "tempfile", "clap_mangen", "clap_complete", "aya-build", "xtask"] {
            assert!(!has(name), "{name} is there");
        }
    }

    #[test]
    fn names_are_read() {
        let one = Name { name: "toml".to_owned(), version: "1.2.1+spec-1.1.0".to_owned() };
        assert_eq!(purl("cargo", &one), "pkg:cargo/toml@1.2.1%2Bspec-1.1.0");
        assert_eq!(names("toml v1.2.1+spec-1.1.0 (*)\n\n").ok(), Some(vec![one]));
        assert!(names("toml\n").is_err());
    }
}
