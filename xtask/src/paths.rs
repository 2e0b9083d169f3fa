//! Where things lie: the workspace and the caches under `target/`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

/// The workspace's top directory.
pub(crate) fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// cargo's target directory of this workspace.
pub(crate) fn target() -> PathBuf {
    workspace().join("target")
}

/// Tools built for this workspace only (bpf-linker, cargo-deny).
pub(crate) fn tools() -> PathBuf {
    target().join("tools")
}

/// A directory under `target/vm`, made if it is not there.
pub(crate) fn vm(name: &str) -> Result<PathBuf> {
    let dir = target().join("vm").join(name);
    create_dir(&dir)?;
    Ok(dir)
}

pub(crate) fn create_dir(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))
}

/// Makes others who want the same part of the cache wait until the file is dropped.
pub(crate) fn lock(name: &str) -> Result<fs::File> {
    let path = vm("locks")?.join(name);
    let file =
        fs::File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
    file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

/// 64-bit FNV-1a, written as hex: names cache entries by their content. Not a
/// defence against anybody: whoever can write the cache can write the sources.
#[derive(Debug)]
pub(crate) struct Digest(u64);

impl Digest {
    pub(crate) fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// Adds one field; the length keeps `("ab", "c")` and `("a", "bc")` apart.
    pub(crate) fn add(&mut self, field: &[u8]) {
        for byte in field.iter().copied().chain(field.len().to_le_bytes()) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub(crate) fn hex(&self) -> String {
        format!("{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_separates_fields() {
        let digest = |fields: &[&str]| {
            let mut digest = Digest::new();
            for field in fields {
                digest.add(field.as_bytes());
            }
            digest.hex()
        };
        assert_ne!(digest(&["ab", "c"]), digest(&["a", "bc"]));
        assert_eq!(digest(&["ab", "c"]), digest(&["ab", "c"]));
    }
}
