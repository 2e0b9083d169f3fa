//! From path globs to files.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use globset::GlobBuilder;

/// Most files that one expansion finds.
pub const MAX_FILES: usize = 256;

/// Most directory entries that one expansion reads.
pub const MAX_ENTRIES_READ: usize = 16_384;

/// What path globs stand for at this moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expansion {
    /// Regular files, through symbolic links, under the paths that matched.
    pub files: BTreeSet<PathBuf>,
    /// Existing directories in which another match may appear. Where a path leads
    /// through a directory that does not exist, the nearest one above it.
    pub directories: BTreeSet<PathBuf>,
    /// The bounds of this module were reached; there may be more files.
    pub cut: bool,
}

/// Finds the files that `patterns` stand for: absolute paths whose components may
/// be globs. `*` stands for no `/`, and components that do not start with `.`
/// must be meant literally to find hidden names, as in a shell.
pub fn expand<S: AsRef<str>>(patterns: &[S]) -> Expansion {
    let mut expansion = Expansion::default();
    let mut room = MAX_ENTRIES_READ;
    for pattern in patterns {
        let parts: Vec<&str> = components(pattern.as_ref()).collect();
        expansion.walk(Path::new("/"), &parts, &mut room);
    }
    expansion
}

/// Components of an absolute path, without empty ones and `.`.
pub(super) fn components(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|part| !part.is_empty() && *part != ".")
}

/// Whether a component is a glob.
pub(super) fn is_glob(component: &str) -> bool {
    component.contains(['*', '?', '[', '{', '\\'])
}

impl Expansion {
    fn walk(&mut self, dir: &Path, parts: &[&str], room: &mut usize) {
        let Some((part, rest)) = parts.split_first() else { return };
        if !is_glob(part) {
            let path = dir.join(part);
            if !rest.is_empty() && path.is_dir() {
                return self.walk(&path, rest, room);
            }
            self.directories.insert(dir.to_owned());
            if rest.is_empty() {
                self.add(path);
            }
            return;
        }
        self.directories.insert(dir.to_owned());
        let Ok(glob) = GlobBuilder::new(part).literal_separator(true).build() else { return };
        let glob = glob.compile_matcher();
        let Ok(entries) = fs::read_dir(dir) else { return };
        let mut matches = Vec::new();
        for entry in entries.flatten() {
            let Some(left) = room.checked_sub(1) else {
                self.cut = true;
                break;
            };
            *room = left;
            let name = entry.file_name();
            let hidden = name.as_encoded_bytes().starts_with(b".") && !part.starts_with('.');
            if !hidden && glob.is_match(Path::new(&name)) {
                matches.push(dir.join(name));
            }
        }
        matches.sort();
        for path in matches {
            if rest.is_empty() {
                self.add(path);
            } else if path.is_dir() {
                self.walk(&path, rest, room);
            }
        }
    }

    fn add(&mut self, path: PathBuf) {
        if !path.is_file() {
            return;
        }
        if self.files.len() == MAX_FILES && !self.files.contains(&path) {
            self.cut = true;
            return;
        }
        self.files.insert(path);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for path in ["data/a1/bin/runc", "data/b2/bin/runc", "data/.hidden/bin/runc", "bin/runc"] {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        fs::create_dir_all(dir.path().join("data/c3/bin/runc")).unwrap();
        fs::create_dir(dir.path().join("data/d4")).unwrap();
        symlink("a1", dir.path().join("data/current")).unwrap();
        dir
    }

    fn under(dir: &Path, paths: &BTreeSet<PathBuf>) -> Vec<String> {
        let relative =
            |path: &PathBuf| path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
        paths.iter().map(relative).collect()
    }

    fn expanded(dir: &Path, pattern: &str) -> (Vec<String>, Vec<String>) {
        let expansion = expand(&[dir.join(pattern).to_str().unwrap()]);
        assert!(!expansion.cut);
        (under(dir, &expansion.files), under(dir, &expansion.directories))
    }

    #[test]
    fn files_and_where_more_may_appear() {
        let tree = tree();
        let dir = tree.path();
        assert_eq!(expanded(dir, "bin/runc"), (vec!["bin/runc".into()], vec!["bin".into()]));
        assert_eq!(expanded(dir, "bin//./runc").0, ["bin/runc"]);
        assert_eq!(expanded(dir, "none/at/all/runc"), (vec![], vec![String::new()]));
        assert_eq!(expanded(dir, "bin/runc/x"), (vec![], vec!["bin".into()]));
        let (files, directories) = expanded(dir, "data/*/bin/runc");
        assert_eq!(files, ["data/a1/bin/runc", "data/b2/bin/runc", "data/current/bin/runc"]);
        assert_eq!(
            directories,
            ["data", "data/a1/bin", "data/b2/bin", "data/c3/bin", "data/current/bin", "data/d4"]
        );
        assert_eq!(expanded(dir, "data/[ab]?/bin/{runc,crun}").0.len(), 2);
        assert_eq!(expanded(dir, "data/.h*/bin/runc").0, ["data/.hidden/bin/runc"]);
    }

    #[test]
    fn bounds() {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..=MAX_FILES {
            fs::write(dir.path().join(n.to_string()), "").unwrap();
        }
        let pattern = dir.path().join("*");
        let expansion = expand(&[pattern.to_str().unwrap()]);
        assert_eq!((expansion.files.len(), expansion.cut), (MAX_FILES, true));
    }
}
