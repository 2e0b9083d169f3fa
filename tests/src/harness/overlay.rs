//! A root file system that looks like the guest's own.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// An overlay whose lower layer is the guest's root file system, without what is mounted there. What
/// is written goes into a tmpfs; all is gone when this is dropped.
#[derive(Debug)]
pub(crate) struct Overlay {
    dir: PathBuf,
}

impl Overlay {
    pub(crate) fn new(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        let tmpfs = Some("mode=755");
        mount(Some("tmpfs"), dir, Some("tmpfs"), MsFlags::empty(), tmpfs)
            .with_context(|| format!("mount tmpfs on {}", dir.display()))?;
        let overlay = Self { dir: dir.to_owned() };
        for name in ["upper", "work", "root"] {
            fs::create_dir(dir.join(name))?;
        }
        let layers = format!("lowerdir=/,upperdir={0}/upper,workdir={0}/work", dir.display());
        let root = overlay.root();
        mount(Some("overlay"), &root, Some("overlay"), MsFlags::empty(), Some(layers.as_str()))
            .with_context(|| format!("mount an overlay on {}", root.display()))?;
        Ok(overlay)
    }

    /// Where it is mounted.
    pub(crate) fn root(&self) -> PathBuf {
        self.dir.join("root")
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        // Both fail only when it is unmounted already.
        let _ = umount2(&self.root(), MntFlags::MNT_DETACH);
        let _ = umount2(&self.dir, MntFlags::MNT_DETACH);
    }
}
