//! lockc's own files, which no container changes.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io,
    os::unix::{ffi::OsStrExt as _, fs::OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use lockc_common::KnownFile;
use nix::fcntl::OFlag;

use crate::{config::drop_in_directory, state::DIRECTORY};

/// The files and directories by their real paths, each with its kind, a constant of [`KnownFile`]: the configuration at
/// `config` with the directory that it is in, its drop-ins, what is in `/run`, the binary, and the directories above.
pub(super) fn own_files(config: &Path) -> BTreeMap<PathBuf, u64> {
    let configuration = [
        config.parent().map(Path::to_owned),
        // If it is a link.
        real(config).and_then(|path| path.parent().map(Path::to_owned)),
        Some(drop_in_directory(config)),
        Some(config.to_owned()),
    ];
    let others = [Some(PathBuf::from(DIRECTORY)), binary()];
    own(configuration.into_iter().chain(others).flatten().filter_map(|path| real(&path)))
}

fn own(paths: impl IntoIterator<Item = PathBuf>) -> BTreeMap<PathBuf, u64> {
    let mut all = BTreeMap::new();
    for path in paths {
        for above in path.ancestors().skip(1) {
            all.entry(above.to_owned()).or_insert(KnownFile::ABOVE);
        }
        all.insert(path, KnownFile::OWN);
    }
    all
}

fn real(path: &Path) -> Option<PathBuf> {
    fs::canonicalize(path).ok()
}

/// Where this program is, or the one that has replaced it.
fn binary() -> Option<PathBuf> {
    let path = fs::read_link("/proc/self/exe").ok()?;
    // What was removed has its name all the same (`d_path`, fs/d_path.c, 6.12).
    let name = path.as_os_str().as_bytes();
    let name = name.strip_suffix(b" (deleted)").unwrap_or(name);
    Some(Path::new(std::ffi::OsStr::from_bytes(name)).to_owned())
}

/// Opens what is there to name it to the kernel side, and for nothing else.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW;
    OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_above_are_known_and_do_not_take_the_place_of_own_ones() {
        let all = own(["/etc/lockc/lockc.d", "/etc/lockc", "/usr/bin/lockc"].map(PathBuf::from));
        let kind = |path: &str| all.get(Path::new(path)).copied();
        assert_eq!(kind("/etc/lockc"), Some(KnownFile::OWN));
        assert_eq!(kind("/etc/lockc/lockc.d"), Some(KnownFile::OWN));
        assert_eq!(kind("/usr/bin/lockc"), Some(KnownFile::OWN));
        assert_eq!(kind("/etc"), Some(KnownFile::ABOVE));
        assert_eq!(kind("/"), Some(KnownFile::ABOVE));
        assert_eq!(kind("/usr/bin"), Some(KnownFile::ABOVE));
        assert_eq!(all.len(), 7);
    }

    #[test]
    fn a_configuration_behind_a_link_is_kept_at_both_ends() {
        let dir = tempfile::tempdir().unwrap();
        let top = fs::canonicalize(dir.path()).unwrap();
        for name in ["a", "b", "a/lockc.d"] {
            fs::create_dir(top.join(name)).unwrap();
        }
        fs::write(top.join("b/real.toml"), "").unwrap();
        std::os::unix::fs::symlink("../b/real.toml", top.join("a/lockc.toml")).unwrap();
        let all = own_files(&top.join("a/lockc.toml"));
        for name in ["a", "b", "b/real.toml", "a/lockc.d"] {
            assert_eq!(all.get(&top.join(name)), Some(&KnownFile::OWN), "{name}");
        }
        assert_eq!(all.get(&top), Some(&KnownFile::ABOVE));
    }
}
