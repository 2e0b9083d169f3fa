//! The files that operations are measured on. Host and containers have them under the same names.

use std::{
    ffi::CStr,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// A tmpfs with files, and an overlay whose lower layer has the same directories.
pub(crate) const FILES: &str = "/b";
pub(crate) const OVERLAY: &str = "/o";
/// Does nothing.
pub(crate) const PROGRAM: &str = "/b/true";

/// 100 bytes, 15 components.
pub(crate) const DEEP: &CStr =
    c"/b/aaaaaa/bbbbbb/cccccc/dddddd/eeeeee/ffffff/gggggg/hhhhhh/iiiiii/jjjjjj/kkkkkk/llllll/mmmmmm/000000";
pub(crate) const DEEP_OVERLAY: &CStr =
    c"/o/aaaaaa/bbbbbb/cccccc/dddddd/eeeeee/ffffff/gggggg/hhhhhh/iiiiii/jjjjjj/kkkkkk/llllll/mmmmmm/000000";

/// Directories of files that are opened once only; their names have six digits. The second one's files are as deep as
/// [`DEEP`].
pub(crate) const FIRST: &str = "/b/first";
pub(crate) const FIRST_DEEP: &str =
    "/b/aaaaaa/bbbbbb/cccccc/dddddd/eeeeee/ffffff/gggggg/hhhhhh/iiiiii/jjjjjj/kkkkkk/llllll/nnnnnn";
pub(crate) const FIRST_FILES: usize = 62;

/// A program that exits, for `x86_64`: one page to read, so that little but `execve(2)` is measured.
#[rustfmt::skip]
const TRUE: [u8; 129] = [
    // The header (elf(5)): an executable, which starts behind the headers, with one segment.
    0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    2, 0, 62, 0, 1, 0, 0, 0, 0x78, 0, 0x40, 0, 0, 0, 0, 0,
    64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0,
    // The segment: the whole file, readable and executable, at 0x40_0000.
    1, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0,
    129, 0, 0, 0, 0, 0, 0, 0, 129, 0, 0, 0, 0, 0, 0, 0,
    0, 0x10, 0, 0, 0, 0, 0, 0,
    // xor edi, edi; mov eax, 60 (exit); syscall
    0x31, 0xff, 0xb8, 60, 0, 0, 0, 0x0f, 0x05,
];

/// The mounts; they are gone when this is dropped.
#[derive(Debug)]
pub(crate) struct Ground {
    layers: PathBuf,
}

impl Ground {
    pub(crate) fn new() -> Result<Self> {
        let ground = Self { layers: PathBuf::from("/run/lockc-bench-layers") };
        for dir in [Path::new(FILES), Path::new(OVERLAY), &ground.layers] {
            fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        }
        mount_tmpfs(Path::new(FILES))?;
        mount_tmpfs(&ground.layers)?;
        let layers = ground.layers.display();
        let lower = format!("{layers}/lower");
        for dir in ["upper", "work"] {
            fs::create_dir(ground.layers.join(dir))?;
        }
        place(&path(DEEP)?)?;
        place(Path::new(&path(DEEP_OVERLAY)?.to_string_lossy().replacen(OVERLAY, &lower, 1)))?;
        let options = format!("lowerdir={lower},upperdir={layers}/upper,workdir={layers}/work");
        mount(Some("overlay"), OVERLAY, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
            .with_context(|| format!("mount an overlay on {OVERLAY}"))?;
        for name in ["f", "r1"] {
            place(&Path::new(FILES).join(name))?;
        }
        fs::create_dir(Path::new(FILES).join("m"))?;
        let program = Path::new(PROGRAM);
        fs::write(program, TRUE).with_context(|| format!("write {}", program.display()))?;
        fs::set_permissions(program, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("make {} executable", program.display()))?;
        Ok(ground)
    }

    /// Makes the files new that are opened once only.
    pub(crate) fn renew() -> Result<()> {
        for dir in [FIRST, FIRST_DEEP].map(Path::new) {
            if dir.exists() {
                fs::remove_dir_all(dir).with_context(|| format!("remove {}", dir.display()))?;
            }
            for number in 0..FIRST_FILES {
                place(&dir.join(format!("{number:06}")))?;
            }
        }
        Ok(())
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        // Each fails only when it is not mounted.
        for dir in [Path::new(OVERLAY), Path::new(FILES), &self.layers] {
            let _ = umount2(dir, MntFlags::MNT_DETACH);
        }
    }
}

fn mount_tmpfs(dir: &Path) -> Result<()> {
    mount(Some("tmpfs"), dir, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
        .with_context(|| format!("mount tmpfs on {}", dir.display()))
}

fn path(text: &CStr) -> Result<PathBuf> {
    Ok(PathBuf::from(text.to_str()?))
}

/// A file of one byte, with the directories above it.
fn place(file: &Path) -> Result<()> {
    let dir = file.parent().with_context(|| format!("nothing above {}", file.display()))?;
    fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    fs::write(file, "x").with_context(|| format!("write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::{DEEP, DEEP_OVERLAY, FIRST_DEEP};

    #[test]
    fn deep_is_as_deep_as_it_says() {
        let deep = DEEP.to_str().unwrap();
        assert_eq!((deep.len(), deep.split('/').count() - 1), (100, 15));
        assert_eq!(format!("{FIRST_DEEP}/000000").len(), deep.len());
        assert_eq!(DEEP_OVERLAY.to_bytes().len(), deep.len());
    }
}
