//! Whether what is shipped comes out the same from sources at another place.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs, io,
    os::unix::fs::{MetadataExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
    time::SystemTime,
};

use anyhow::{Context as _, Result, bail};
use nix::sys::stat::{Mode, umask};

use crate::{
    command, paths, setup,
    tree::{self, Tree},
};

/// Copies the sources to where nothing is built yet. From now on the umask is another one; programs that run in the
/// copy have another time zone, language, user name and cargo home.
pub(super) fn copy() -> Result<Tree> {
    umask(Mode::from_bits_truncate(0o077));
    let place = paths::target().join("verify");
    if place.exists() {
        fs::remove_dir_all(&place).with_context(|| format!("cannot remove {}", place.display()))?;
    }
    let root = place.join("another-directory/sources");
    for file in tree::copy_sources(paths::workspace(), &root)? {
        age(&file)?;
    }
    paths::create_dir(&root.join("target"))?;
    link(&paths::tools(), &root.join("target/tools"))?;
    let home = place.join("cargo-home");
    paths::create_dir(&home)?;
    for name in ["registry", "config.toml"] {
        let shared = cargo_home()?.join(name);
        if shared.exists() {
            link(&shared, &home.join(name))?;
        }
    }
    let environment = vec![
        ("CARGO_HOME", home.into()),
        ("TZ", "XYZ-14".into()),
        ("LC_ALL", "C".into()),
        ("LANG", "C".into()),
        ("USER", "somebody".into()),
        ("LOGNAME", "somebody".into()),
    ];
    Ok(Tree::copy(root, environment))
}

/// Makes a file older than any commit: when it was written must not matter.
fn age(path: &Path) -> Result<()> {
    let file = fs::File::options().write(true).open(path);
    let aged = file.and_then(|file| file.set_modified(SystemTime::UNIX_EPOCH));
    aged.with_context(|| format!("cannot age {}", path.display()))
}

fn link(to: &Path, path: &Path) -> Result<()> {
    symlink(to, path).with_context(|| format!("cannot make {}", path.display()))
}

fn cargo_home() -> Result<PathBuf> {
    let home = || Some(PathBuf::from(env::var_os("HOME")?).join(".cargo"));
    let home = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(home);
    home.context("neither CARGO_HOME nor HOME is set")
}

/// Whether a binary names no directory of this machine. Some are the same for both builds: the toolchain's.
pub(super) fn names_no_place(binary: &Path) -> Result<bool> {
    let data = read(binary)?;
    let mut ok = true;
    for place in [paths::workspace().to_owned(), cargo_home()?, setup::sysroot()?] {
        let name = place.as_os_str().as_encoded_bytes();
        if data.windows(name.len()).any(|it| it == name) {
            println!("DIFFERENT {}: names {}", binary.display(), place.display());
            ok = false;
        }
    }
    Ok(ok)
}

/// Says of each of these files in `tree` whether it is the same in `copy`.
pub(super) fn compare(tree: &Tree, copy: &Tree, files: &[PathBuf]) -> Result<bool> {
    let mut ok = true;
    for file in files {
        let name = file.strip_prefix(tree.root()).unwrap_or(file);
        let differences = differences(file, &copy.root().join(name))?;
        if differences.is_empty() {
            println!("same      {}", name.display());
        }
        for difference in &differences {
            println!("DIFFERENT {}: {difference}", name.display());
        }
        ok &= differences.is_empty();
    }
    Ok(ok)
}

/// What is different between two files, by name if they are packages.
fn differences(one: &Path, other: &Path) -> Result<Vec<String>> {
    let (one_data, other_data) = (read(one)?, read(other)?);
    let Some(first) = first_difference(&one_data, &other_data) else { return Ok(Vec::new()) };
    let here = format!("from byte {first} on");
    let unpack = match one.extension().and_then(|it| it.to_str()) {
        Some("deb") => unpack_deb,
        Some("rpm") => unpack_rpm,
        _ => return Ok(vec![here]),
    };
    let (one, other) = (members(one, unpack)?, members(other, unpack)?);
    let names: BTreeSet<_> = one.keys().chain(other.keys()).collect();
    let different = names.into_iter().filter_map(|name| {
        let what = one.get(name).zip(other.get(name)).map_or("is in one only", Member::difference);
        (!what.is_empty()).then(|| format!("{} {what}", name.display()))
    });
    let different: Vec<_> = different.collect();
    Ok(if different.is_empty() {
        vec![format!("what is around the files, {here}")]
    } else {
        different
    })
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn first_difference(one: &[u8], other: &[u8]) -> Option<usize> {
    let common = one.iter().zip(other).position(|(one, other)| one != other);
    common.or_else(|| (one.len() != other.len()).then(|| one.len().min(other.len())))
}

/// A file of a package.
#[derive(Debug, PartialEq, Eq)]
struct Member {
    mode: u32,
    modified: i64,
    data: Vec<u8>,
}

impl Member {
    fn difference((one, other): (&Self, &Self)) -> &'static str {
        if one.data != other.data {
            "has other contents"
        } else if one.mode != other.mode {
            "has another mode"
        } else if one.modified != other.modified {
            "has another time"
        } else {
            ""
        }
    }
}

fn members(
    package: &Path,
    unpack: fn(&Path, &Path) -> Result<()>,
) -> Result<BTreeMap<PathBuf, Member>> {
    let root = paths::target().join("verify/unpacked");
    match fs::remove_dir_all(&root) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            bail!("cannot remove {}: {error}", root.display())
        }
        _ => paths::create_dir(&root)?,
    }
    unpack(package, &root)?;
    let mut members = BTreeMap::new();
    let mut directories = vec![root.clone()];
    while let Some(directory) = directories.pop() {
        let cannot = || format!("cannot read {}", directory.display());
        for entry in fs::read_dir(&directory).with_context(cannot)? {
            let path = entry.with_context(cannot)?.path();
            let found = fs::symlink_metadata(&path)
                .with_context(|| format!("cannot look at {}", path.display()))?;
            if found.is_dir() {
                directories.push(path);
                continue;
            }
            let data = read(&path)?;
            let member = Member { mode: found.mode(), modified: found.mtime(), data };
            members.insert(path.strip_prefix(&root).unwrap_or(&path).to_owned(), member);
        }
    }
    Ok(members)
}

fn unpack_deb(package: &Path, to: &Path) -> Result<()> {
    command::run(Command::new("dpkg-deb").arg("-R").arg(package).arg(to), "unpacking")
}

fn unpack_rpm(package: &Path, to: &Path) -> Result<()> {
    setup::install(&[("cpio", "cpio"), ("rpm2cpio", "rpm2cpio")])?;
    let mut shell = Command::new("sh");
    shell.args([
        "-c",
        "rpm2cpio \"$0\" | cpio --extract --make-directories --preserve-modification-time",
    ]);
    command::run(shell.arg(package).current_dir(to), "unpacking")
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    /// A deb whose only file has this text, mode and name.
    fn deb(root: &Path, text: &str, mode: &str) -> PathBuf {
        let tree = root.join("tree");
        paths::create_dir(&tree.join("DEBIAN")).expect("a directory");
        let control = "Package: p\nVersion: 1\nArchitecture: all\nMaintainer: m\nDescription: d\n";
        fs::write(tree.join("DEBIAN/control"), control).expect("a file");
        fs::write(tree.join("file"), text).expect("a file");
        let deb = root.join("p.deb");
        let run = |program: &str, arguments: &[&Path]| {
            let mut command = Command::new(program);
            command.env("SOURCE_DATE_EPOCH", "0").args(arguments);
            command::run(&mut command, program).expect(program);
        };
        run("chmod", &[mode.as_ref(), &tree.join("file")]);
        run("touch", &["-d@0".as_ref(), &tree.join("file"), &tree.join("DEBIAN/control")]);
        run("dpkg-deb", &["--build".as_ref(), &tree, &deb]);
        deb
    }

    #[test]
    fn what_is_different_is_named() {
        let roots = [(); 4].map(|()| tempfile::tempdir().expect("a directory"));
        let [one, same, other, mode] = roots.each_ref().map(TempDir::path);
        let one = deb(one, "text", "644");
        assert_eq!(differences(&one, &deb(same, "text", "644")).ok(), Some(Vec::new()));
        let other = differences(&one, &deb(other, "texts", "644"));
        assert_eq!(other.ok(), Some(vec!["file has other contents".to_owned()]));
        let mode = differences(&one, &deb(mode, "text", "755"));
        assert_eq!(mode.ok(), Some(vec!["file has another mode".to_owned()]));
    }

    #[test]
    fn the_first_difference_is_found() {
        assert_eq!(first_difference(b"abc", b"abc"), None);
        assert_eq!(first_difference(b"abc", b"abd"), Some(2));
        assert_eq!(first_difference(b"ab", b"abc"), Some(2));
    }
}
