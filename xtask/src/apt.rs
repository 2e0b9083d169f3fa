//! Debian packages of any suite and architecture, through apt with a private
//! state under `target/vm/apt`: the machine's own sources and lists stay as
//! they are, and its apt settings (proxies) apply.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use crate::{command, mirror, paths};

/// Lists older than this are fetched again, so that "newest in suite" stays true.
const LISTS_KEEP: Duration = Duration::from_hours(7 * 24);

/// The keys that sign Debian's archive, from package debian-archive-keyring.
pub(crate) const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// One suite for one architecture, with package lists of its own.
#[derive(Debug)]
pub(crate) struct Suite {
    name: &'static str,
    architecture: &'static str,
    root: PathBuf,
}

/// A package as its suite has it now.
#[derive(Debug, Clone)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    architecture: String,
    /// Names of the packages it depends on; of alternatives the first.
    pub(crate) depends: Vec<String>,
}

impl Package {
    /// Names this very content: `runc_1.1.15+ds1-2_amd64`.
    pub(crate) fn id(&self) -> String {
        format!("{}_{}_{}", self.name, self.version.replace(':', "%3a"), self.architecture)
    }
}

impl Suite {
    /// Opens the suite; `architecture` is Debian's name (`amd64`, `arm64`).
    pub(crate) fn open(name: &'static str, architecture: &'static str) -> Result<Self> {
        let root = paths::vm("apt")?.join(format!("{name}-{architecture}"));
        let suite = Self { name, architecture, root };
        let fetched = suite.root.join("fetched");
        let age = fs::metadata(&fetched).and_then(|it| it.modified()).ok().map(|it| it.elapsed());
        match age {
            Some(Ok(age)) if age < LISTS_KEEP => {}
            // Also a stamp from the future, which says nothing.
            Some(_) => {
                if let Err(error) = suite.update() {
                    eprintln!("xtask: the lists of {name} stay as they are: {error:#}");
                }
            }
            None => suite.update()?,
        }
        Ok(suite)
    }

    fn update(&self) -> Result<()> {
        if !Path::new(KEYRING).exists() {
            bail!("{KEYRING} is missing: install debian-archive-keyring");
        }
        for dir in ["lists/partial", "cache/archives/partial", "known"] {
            paths::create_dir(&self.root.join(dir))?;
        }
        let write = |name: &str, text: &str| {
            let path = self.root.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        let mirror = mirror::debian()?;
        let name = self.name;
        write(
            "sources.list",
            &format!("deb [signed-by={KEYRING} target=Packages] {mirror} {name} main\n"),
        )?;
        write("status", "")?;
        command::run(
            self.apt("apt-get").arg("update"),
            &format!("fetching the package lists of {name} ({})", self.architecture),
        )?;
        let known = self.root.join("known");
        fs::remove_dir_all(&known).with_context(|| format!("cannot remove {}", known.display()))?;
        paths::create_dir(&known)?;
        write("fetched", "")
    }

    /// The suite's signed release file: changes whenever any of its packages does.
    pub(crate) fn release(&self) -> Result<Vec<u8>> {
        let lists = self.root.join("lists");
        let file = fs::read_dir(&lists)
            .with_context(|| format!("cannot read {}", lists.display()))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.to_string_lossy().ends_with("Release"))
            .with_context(|| format!("no release file in {}", lists.display()))?;
        fs::read(&file).with_context(|| format!("cannot read {}", file.display()))
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C");
        let root = self.root.display();
        let architecture = self.architecture;
        for option in [
            format!("Dir::State={root}"),
            format!("Dir::State::lists={root}/lists"),
            format!("Dir::State::status={root}/status"),
            format!("Dir::Cache={root}/cache"),
            format!("Dir::Etc::sourcelist={root}/sources.list"),
            "Dir::Etc::sourceparts=/dev/null".into(),
            "Dir::Etc::preferences=/dev/null".into(),
            "Dir::Etc::preferencesparts=/dev/null".into(),
            format!("APT::Architecture={architecture}"),
            format!("APT::Architectures={architecture}"),
            "APT::Sandbox::User=root".into(),
            // The machine's own hooks (package kit, image clean-up) are not for these lists.
            "APT::Update::Post-Invoke-Success=".into(),
            "Acquire::Retries=3".into(),
        ] {
            command.arg("-o").arg(option);
        }
        command
    }

    /// The newest version of `name` in this suite.
    pub(crate) fn find(&self, name: &str) -> Result<Package> {
        let known = self.root.join("known").join(name);
        let text = if let Ok(text) = fs::read_to_string(&known) {
            text
        } else {
            let shown = command::output(
                self.apt("apt-cache").args(["show", "--no-all-versions", name]),
                "reading the package lists",
            )
            .with_context(|| format!("no package {name} in {}", self.name))?;
            fs::write(&known, &shown)
                .with_context(|| format!("cannot write {}", known.display()))?;
            shown
        };
        let stanza = text.split("\n\n").next().unwrap_or_default();
        let field = |key: &str| {
            stanza
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix(": "))
                .map(str::to_owned)
        };
        let need = |key: &str| field(key).with_context(|| format!("package {name} has no {key}"));
        Ok(Package {
            name: need("Package")?,
            version: need("Version")?,
            architecture: need("Architecture")?,
            depends: depends(&field("Pre-Depends").unwrap_or_default())
                .chain(depends(&field("Depends").unwrap_or_default()))
                .collect(),
        })
    }

    /// Downloads and unpacks a package; gives back the directory with its files.
    pub(crate) fn unpack(&self, package: &Package) -> Result<PathBuf> {
        let dir = paths::vm("packages")?.join(package.id());
        if dir.exists() {
            return Ok(dir);
        }
        let debs = paths::vm("debs")?;
        let deb = debs.join(format!("{}.deb", package.id()));
        if !deb.exists() {
            command::run(
                self.apt("apt-get")
                    .arg("download")
                    .arg(format!("{}={}", package.name, package.version))
                    .current_dir(&debs),
                &format!("downloading {}", package.name),
            )?;
        }
        let fresh = dir.with_file_name(format!("{}.unpacking", package.id()));
        if fresh.exists() {
            fs::remove_dir_all(&fresh)
                .with_context(|| format!("cannot remove {}", fresh.display()))?;
        }
        command::run(
            Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&fresh),
            &format!("unpacking {}", package.name),
        )?;
        fs::rename(&fresh, &dir).with_context(|| format!("cannot rename to {}", dir.display()))?;
        fs::remove_file(&deb).with_context(|| format!("cannot remove {}", deb.display()))?;
        Ok(dir)
    }
}

/// `a (>= 1) | b, c:any` gives `a`, `c`.
fn depends(field: &str) -> impl Iterator<Item = String> {
    field
        .split(',')
        .filter_map(|clause| {
            let first = clause.split('|').next()?.trim();
            let name = first.split([' ', '(', ':', '[']).next()?;
            (!name.is_empty()).then(|| name.to_owned())
        })
        .collect::<Vec<_>>()
        .into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_alternatives_are_taken() {
        let names: Vec<_> = depends("libc6 (>= 2.38), crun:any | runc, libcap2(>=1)").collect();
        assert_eq!(names, ["libc6", "crun", "libcap2"]);
        assert_eq!(depends("").count(), 0);
    }
}
