//! Who else than root can write the configuration: whoever can, decides what containers may do.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Component, Path, PathBuf},
};

/// Most symbolic links that are followed, as by the kernel (`MAXSYMLINKS`, include/linux/namei.h, 6.12).
const MAX_LINKS: usize = 40;

/// The kernel's `S_IWGRP | S_IWOTH`. An access control list that lets somebody write shows as the
/// group's bit (acl(5)).
const OTHERS_WRITE: u32 = 0o022;

/// Owner and permissions of a file or directory that others than root can write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exposed {
    /// User id of the owner.
    pub owner: u32,
    /// Permission bits.
    pub mode: u32,
}

/// What others than root can write of `paths` and of the directories above them, through symbolic links.
/// What does not exist is not looked at.
pub fn exposed<'p>(paths: impl IntoIterator<Item = &'p Path>) -> BTreeMap<PathBuf, Exposed> {
    let mut found = BTreeMap::new();
    for path in paths {
        walk(path, &mut found);
    }
    found
}

fn walk(path: &Path, found: &mut BTreeMap<PathBuf, Exposed>) {
    let mut links = 0;
    let Ok(mut path) = std::path::absolute(path) else { return };
    loop {
        let mut at = PathBuf::new();
        let mut parts = path.components();
        let target = loop {
            let Some(part) = parts.next() else { return };
            let parent = at.clone();
            at.push(part);
            if part == Component::ParentDir {
                at = fs::canonicalize(&at).unwrap_or(at);
            }
            let Ok(metadata) = at.symlink_metadata() else { return };
            if metadata.is_symlink() {
                // Nobody writes a link: it is replaced, in a directory that was looked at.
                let Ok(target) = fs::read_link(&at) else { return };
                break parent.join(target).join(parts.as_path());
            }
            let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
            if owner != 0 || mode & OTHERS_WRITE != 0 {
                found.insert(at.clone(), Exposed { owner, mode });
            }
        };
        links += 1;
        if links > MAX_LINKS {
            return;
        }
        path = target;
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

    use super::*;

    /// What is exposed of `lockc/lockc.toml` after `change`, with owner and mode.
    fn after(change: impl FnOnce(&Path)) -> Vec<String> {
        // Below a directory that only root can write. Needs root.
        let dir = tempfile::Builder::new().prefix("lockc-test-").tempdir_in("/run").unwrap();
        let real = dir.path().join("real");
        fs::create_dir(&real).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(real.join("lockc.toml"), "").unwrap();
        symlink("real", dir.path().join("lockc")).unwrap();
        change(dir.path());
        let path = dir.path().join("lockc/lockc.toml");
        exposed([path.as_path()])
            .into_iter()
            .map(|(path, Exposed { owner, mode })| {
                let path = path.strip_prefix(dir.path()).unwrap().display();
                format!("/{path} {owner} {mode:o}")
            })
            .collect()
    }

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn files_and_directories_above_them() {
        assert_eq!(after(|_| {}), [""; 0]);
        let file = "real/lockc.toml";
        assert_eq!(after(|dir| mode(&dir.join(file), 0o664)), ["/real/lockc.toml 0 664"]);
        assert_eq!(after(|dir| mode(&dir.join(file), 0o646)), ["/real/lockc.toml 0 646"]);
        let give = |path: &Path| chown(path, Some(1000), Some(1000)).unwrap();
        assert_eq!(after(|dir| give(&dir.join(file))), ["/real/lockc.toml 1000 644"]);
        assert_eq!(after(|dir| mode(&dir.join("real"), 0o775)), ["/real 0 775"], "through a link");
        assert_eq!(after(|dir| mode(dir, 0o1777)), ["/ 0 1777"]);
        assert_eq!(after(|dir| fs::remove_file(dir.join(file)).unwrap()), [""; 0]);
        assert_eq!(
            after(|dir| {
                fs::remove_file(dir.join(file)).unwrap();
                symlink("lockc.toml", dir.join(file)).unwrap();
            }),
            [""; 0],
            "a circle ends"
        );
    }
}
