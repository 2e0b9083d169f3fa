//! The kernels lockc is tested on: Debian's packages, newest of their suite.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use crate::apt::{Package, Suite};

/// A kernel of the test matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kernel {
    /// Debian 12, amd64
    #[value(name = "6.1")]
    V6_1,
    /// Debian 13, amd64
    #[value(name = "6.12")]
    V6_12,
    /// Debian 13 backports, amd64
    #[value(name = "7.x")]
    V7,
    /// Debian 13, arm64
    #[value(name = "arm64")]
    Arm64,
}

/// A processor architecture under its many names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Architecture {
    #[value(name = "x86_64")]
    X86_64,
    Aarch64,
}

impl Architecture {
    /// This machine's.
    pub(crate) fn host() -> Self {
        if cfg!(target_arch = "aarch64") { Self::Aarch64 } else { Self::X86_64 }
    }

    /// Debian's name.
    pub(crate) fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// Rust's and the kernel's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// Rust's target for our static binaries.
    pub(crate) fn target(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-musl",
            Self::Aarch64 => "aarch64-unknown-linux-musl",
        }
    }

    /// Debian's multiarch library directory.
    pub(crate) fn triplet(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-linux-gnu",
            Self::Aarch64 => "aarch64-linux-gnu",
        }
    }
}

/// An unpacked kernel.
#[derive(Debug)]
pub(crate) struct Files {
    /// Package, version and architecture.
    pub(crate) id: String,
    pub(crate) image: PathBuf,
    /// `…/lib/modules/RELEASE`
    pub(crate) modules: PathBuf,
    /// The list of modules that are part of the image.
    pub(crate) builtin: PathBuf,
}

impl Kernel {
    pub(crate) fn architecture(self) -> Architecture {
        match self {
            Self::Arm64 => Architecture::Aarch64,
            Self::V6_1 | Self::V6_12 | Self::V7 => Architecture::X86_64,
        }
    }

    fn suite(self) -> &'static str {
        match self {
            Self::V6_1 => "bookworm",
            Self::V6_12 | Self::Arm64 => "trixie",
            Self::V7 => "trixie-backports",
        }
    }

    /// Downloads and unpacks the newest cloud kernel of the suite. Debian's cloud
    /// flavour has everything we need: BPF LSM in the default LSM list, BTF,
    /// overlayfs and virtio.
    pub(crate) fn fetch(self) -> Result<Files> {
        let architecture = self.architecture().debian();
        let suite = Suite::open(self.suite(), architecture)?;
        let latest = suite.find(&format!("linux-image-cloud-{architecture}"))?;
        // The metapackage names the real one, `linux-image-RELEASE`. Up to 6.12 that has
        // everything; later it is itself empty and names the parts.
        let name = latest
            .depends
            .iter()
            .find(|name| name.starts_with("linux-image-"))
            .with_context(|| format!("{} names no kernel", latest.id()))?;
        let package = suite.find(name)?;
        let release = name.trim_start_matches("linux-image-");
        let parts = package
            .depends
            .iter()
            .filter(|name| name.ends_with(release))
            .map(|name| suite.find(name))
            .collect::<Result<Vec<Package>>>()?;
        let id = package.id();
        let mut places = Vec::new();
        for package in std::iter::once(&package).chain(&parts) {
            let dir = suite.unpack(package)?;
            places.push(dir.join("boot"));
            places.push(dir.join("lib/modules").join(release));
            places.push(dir.join("usr/lib/modules").join(release));
        }
        let find = |name: &str| {
            let found = places.iter().find(|place| place.join(name).exists());
            found.with_context(|| format!("no {name} in {id} and its parts"))
        };
        let image = [format!("vmlinuz-{release}"), "vmlinuz".to_owned()];
        let image = image
            .iter()
            .find_map(|name| Some(find(name).ok()?.join(name)))
            .with_context(|| format!("no kernel image in {id} and its parts"))?;
        let modules = find("kernel")?.clone();
        let builtin = find("modules.builtin")?.join("modules.builtin");
        Ok(Files { id, image, modules, builtin })
    }
}

impl Files {
    /// The modules `wanted` and what they depend on, uncompressed, each after its
    /// dependencies. A module that the kernel has built in is left out.
    pub(crate) fn load_order(&self, wanted: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
        let mut paths = BTreeMap::new();
        find_modules(&self.modules.join("kernel"), &mut paths)?;
        let builtin = fs::read_to_string(&self.builtin)
            .with_context(|| format!("cannot read {}", self.builtin.display()))?;
        let mut order = Vec::new();
        for name in wanted {
            let here = builtin.lines().any(|line| module_name(line) == *name);
            if !here {
                add_module(name, &paths, &mut order)?;
            }
        }
        Ok(order)
    }
}

/// `kernel/fs/overlayfs/overlay.ko.xz` is module `overlay`; file names may have
/// `-` where module names have `_`.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

fn find_modules(dir: &Path, found: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry.with_context(|| format!("cannot read {}", dir.display()))?.path();
        if path.is_dir() {
            find_modules(&path, found)?;
        } else {
            found.insert(module_name(&path.to_string_lossy()), path);
        }
    }
    Ok(())
}

fn add_module(
    name: &str,
    paths: &BTreeMap<String, PathBuf>,
    order: &mut Vec<(String, Vec<u8>)>,
) -> Result<()> {
    if order.iter().any(|(known, _)| known == name) {
        return Ok(());
    }
    let path = paths.get(name).with_context(|| format!("the kernel has no module {name}"))?;
    let content = read_module(path)?;
    for dependency in module_depends(&content) {
        add_module(&dependency, paths, order)?;
    }
    order.push((name.to_owned(), content));
    Ok(())
}

fn read_module(path: &Path) -> Result<Vec<u8>> {
    let program = match path.extension().and_then(|it| it.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("ko") => {
            return fs::read(path).with_context(|| format!("cannot read {}", path.display()));
        }
        _ => bail!("{} has an unknown compression", path.display()),
    };
    let output = Command::new(program)
        .args(["-q", "-d", "-c"])
        .arg(path)
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        bail!("{program} cannot unpack {}", path.display());
    }
    Ok(output.stdout)
}

/// The `depends=` entry of a module's `.modinfo` section, which is a list of
/// NUL-terminated `key=value` strings.
fn module_depends(content: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(start) = content.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let value = &content[start + KEY.len()..];
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end])
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn module_names_and_dependencies() {
        assert_eq!(module_name("kernel/drivers/virtio/virtio-ring.ko.xz"), "virtio_ring");
        assert_eq!(
            module_depends(b"\0license=GPL\0depends=virtio,virtio-ring\0x=y"),
            ["virtio", "virtio_ring"]
        );
        assert!(module_depends(b"\0depends=\0").is_empty());
    }
}
