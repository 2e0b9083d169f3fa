//! What a micro guest has besides its kernel: busybox, four OCI runtimes and
//! the libraries they need, from Debian packages (youki is built).

use std::{
    collections::{BTreeSet, VecDeque},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    apt::{Package, Suite},
    command,
    kernel::Architecture,
    setup,
};

/// Files of the guest and where they come from.
#[derive(Debug)]
pub(crate) struct Userland {
    /// The packages used, newest of their suite.
    pub(crate) ids: Vec<String>,
    /// Path in the guest, file on this machine.
    pub(crate) files: Vec<(String, PathBuf)>,
}

impl Userland {
    pub(crate) fn fetch(architecture: Architecture) -> Result<Self> {
        let stable = Suite::open("trixie", architecture.debian())?;
        let newer = Suite::open("forky", architecture.debian())?;
        let mut userland = Self { ids: Vec::new(), files: Vec::new() };
        userland.busybox(&stable)?;
        let mut wanted = Vec::new();
        for (suite, name, path) in [
            (&stable, "runc", "usr/bin/runc"),
            (&stable, "crun", "usr/bin/crun"),
            // 1.2 and newer: re-executes a sealed copy of itself.
            (&newer, "runc", "opt/runc-new/runc"),
        ] {
            let dir = userland.package(suite, name)?;
            let file = userland
                .take(path, &[&dir.join("usr/sbin").join(name), &dir.join("usr/bin").join(name)])?;
            wanted.push(file);
        }
        if let Some((id, file)) = setup::youki(architecture)? {
            userland.ids.push(id);
            userland.files.push(("usr/bin/youki".to_owned(), file.clone()));
            wanted.push(file);
        }
        // One C library serves them all, and it has to be the newest one's.
        let mut libraries = Libraries::new(
            architecture,
            [
                (&newer, "runc"),
                (&newer, "crun"),
                (&stable, "runc"),
                (&stable, "crun"),
                // youki is no package.
                (&newer, "libgcc-s1"),
            ],
        );
        userland.files.extend(libraries.of(wanted, &mut userland.ids)?);
        Ok(userland)
    }

    fn busybox(&mut self, suite: &Suite) -> Result<PathBuf> {
        let dir = self.package(suite, "busybox-static")?;
        self.take("usr/bin/busybox", &[&dir.join("usr/bin/busybox"), &dir.join("bin/busybox")])
    }

    fn package(&mut self, suite: &Suite, name: &str) -> Result<PathBuf> {
        let package = suite.find(name)?;
        self.ids.push(package.id());
        suite.unpack(&package)
    }

    fn take(&mut self, guest: &str, candidates: &[&Path]) -> Result<PathBuf> {
        let Some(file) = candidates.iter().find(|path| path.is_file()) else {
            bail!("none of {candidates:?} is a file");
        };
        self.files.push((guest.to_owned(), file.to_path_buf()));
        Ok(file.to_path_buf())
    }
}

/// What a package has, and files of the loader and the libraries that one of its programs needs, which are packages that it
/// depends on.
pub(crate) fn program(
    suite: &Suite,
    architecture: Architecture,
    package: &str,
    path: &str,
) -> Result<(PathBuf, Vec<PathBuf>)> {
    let dir = suite.unpack(&suite.find(package)?)?;
    let mut libraries = Libraries::new(architecture, [(suite, package)]);
    let files = libraries.of(vec![dir.join(path)], &mut Vec::new())?;
    Ok((dir, files.into_iter().map(|(_, file)| file).collect()))
}

/// A static busybox: its package and its file.
pub(crate) fn busybox(architecture: Architecture) -> Result<(String, PathBuf)> {
    let mut userland = Userland { ids: Vec::new(), files: Vec::new() };
    let file = userland.busybox(&Suite::open("trixie", architecture.debian())?)?;
    Ok((userland.ids.concat(), file))
}

/// Looks for libraries in the packages that the runtimes depend on, near ones first.
#[derive(Debug)]
struct Libraries<'a> {
    architecture: Architecture,
    queue: VecDeque<(&'a Suite, String)>,
    seen: BTreeSet<String>,
    unpacked: Vec<(Package, PathBuf)>,
}

impl<'a> Libraries<'a> {
    fn new<const N: usize>(architecture: Architecture, roots: [(&'a Suite, &str); N]) -> Self {
        Self {
            architecture,
            queue: roots.into_iter().map(|(suite, name)| (suite, name.to_owned())).collect(),
            seen: BTreeSet::new(),
            unpacked: Vec::new(),
        }
    }

    /// The libraries that `wanted` need, and that those need: path in the guest, file.
    fn of(
        &mut self,
        mut wanted: Vec<PathBuf>,
        ids: &mut Vec<String>,
    ) -> Result<Vec<(String, PathBuf)>> {
        let (mut have, mut files) = (BTreeSet::new(), Vec::new());
        while let Some(file) = wanted.pop() {
            for (guest, name) in needed(&file, self.architecture)? {
                if have.insert(name.clone()) {
                    let library = self.find(&name, ids)?;
                    files.push((guest, library.clone()));
                    wanted.push(library);
                }
            }
        }
        Ok(files)
    }

    fn find(&mut self, name: &str, ids: &mut Vec<String>) -> Result<PathBuf> {
        loop {
            for (package, dir) in &self.unpacked {
                for place in ["usr/lib", "lib"] {
                    let path = dir.join(place).join(self.architecture.triplet()).join(name);
                    if path.is_file() {
                        let id = package.id();
                        if !ids.contains(&id) {
                            ids.push(id);
                        }
                        return Ok(path);
                    }
                }
            }
            let Some((suite, next)) = self.queue.pop_front() else {
                bail!("no package that the runtimes depend on has the library {name}");
            };
            // A virtual package's provider is not looked for: no library needed one so far.
            let Ok(package) = suite.find(&next) else { continue };
            if !self.seen.insert(package.id()) {
                continue;
            }
            self.queue.extend(package.depends.iter().map(|name| (suite, name.clone())));
            if next.contains("lib") {
                let dir = suite.unpack(&package)?;
                self.unpacked.push((package, dir));
            }
        }
    }
}

/// The libraries (and the loader) that a file needs: path in the guest, file name.
fn needed(file: &Path, architecture: Architecture) -> Result<Vec<(String, String)>> {
    let text = command::output(
        Command::new("readelf").env("LC_ALL", "C").args(["-W", "-d", "-l"]).arg(file),
        "reading binaries",
    )?;
    let mut found = Vec::new();
    for line in text.lines() {
        if let Some((_, rest)) = line.split_once("(NEEDED)") {
            let name = rest
                .split_once('[')
                .and_then(|(_, rest)| rest.split_once(']'))
                .with_context(|| format!("cannot read what {} needs", file.display()))?
                .0;
            // The loader's place is fixed by the ABI, and the executable names it.
            if !name.starts_with("ld-linux") {
                found.push((format!("usr/lib/{}/{name}", architecture.triplet()), name.to_owned()));
            }
        } else if let Some((_, rest)) = line.split_once("program interpreter: ") {
            let path = rest.trim_end_matches(']').trim_start_matches('/');
            let name = path.rsplit('/').next().unwrap_or(path);
            found.push((format!("usr/{path}"), name.to_owned()));
        }
    }
    Ok(found)
}
