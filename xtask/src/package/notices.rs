//! Copyright and licence texts of all that is linked, which have to go where the binary goes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use super::{VERSION, binary, runtime};
use crate::{
    crates::{self, Crate},
    kernel::Architecture,
    setup,
    tree::Tree,
};

/// What names of files with such texts begin with, in small letters.
const NAMES: [&str; 6] = ["copying", "copyright", "licence", "license", "notice", "unlicense"];

/// musl's, which the toolchain does not have: as Debian's package musl 1.2.5-3.1 has it.
const MUSL: &str = include_str!("musl.copyright");

/// Texts, and whose they are.
type Texts = BTreeMap<String, BTreeSet<String>>;

/// Writes them beside the binary of a profile, from where packages take them.
pub(super) fn write(tree: &Tree, architecture: Architecture, profile: &str) -> Result<()> {
    let place = binary(tree, architecture, profile);
    let docs = setup::sysroot()?.join("share/doc/rust");
    // Of crates that are already built into the library, too.
    let library = read(&docs.join("COPYRIGHT-library.html"))?;
    save(&place.with_file_name("THIRD-PARTY-rust-std.html"), &library)?;

    let crates = crates::of_binary(tree, architecture)?;
    let others: Vec<_> = crates.iter().filter(|it| it.checksum.is_some()).collect();
    let mut texts = texts(&others)?;
    add(&mut texts, MUSL, "musl");
    for name in ["Apache-2.0.txt", "LLVM-exception.txt"] {
        add(&mut texts, &read(&docs.join("licenses").join(name))?, "llvm-libunwind");
    }
    let others = others.iter().map(|it| (&it.name, &it.license));
    let runtime = runtime::of(architecture)?;
    let runtime = runtime.iter().map(|it| (&it.name, &it.license));
    let mut lines = vec![
        format!(
            "What lockc {VERSION} for {} is made of besides its own code,",
            architecture.name()
        ),
        "and under which licences. Texts follow; those of rust-std and of what".to_owned(),
        "it is built from are in THIRD-PARTY-rust-std.html.".to_owned(),
        String::new(),
    ];
    for (name, license) in others.chain(runtime) {
        lines.push(format!("  {} {}: {license}", name.name, name.version));
    }
    for (text, whose) in &texts {
        lines.extend([String::new(), "-".repeat(72)]);
        lines.extend(whose.iter().cloned());
        lines.extend([String::new(), text.clone()]);
    }
    lines.push(String::new());
    save(&place.with_file_name("THIRD-PARTY"), &lines.join("\n"))
}

/// The texts of these crates.
fn texts(crates: &[&Crate]) -> Result<Texts> {
    let mut texts = Texts::new();
    for part in crates {
        let mut files = files(&part.directory)?;
        if files.is_empty() {
            // Some repositories put them into one of their crates only.
            let of_repository = |other: &&&Crate| {
                !part.repository.is_empty() && other.repository == part.repository
            };
            for other in crates.iter().filter(of_repository) {
                files.extend(self::files(&other.directory)?);
            }
        }
        let whose = format!("{} {}", part.name.name, part.name.version);
        ensure!(!files.is_empty(), "no licence text in {}", part.directory.display());
        for file in files {
            add(&mut texts, &read(&file)?, &whose);
        }
    }
    Ok(texts)
}

fn add(texts: &mut Texts, text: &str, whose: &str) {
    // Copies of one text differ in how their lines end.
    let lines: Vec<_> = text.trim().lines().map(str::trim_end).collect();
    texts.entry(lines.join("\n")).or_default().insert(whose.to_owned());
}

/// Files of a directory that have such texts, by their names.
fn files(directory: &Path) -> Result<BTreeSet<PathBuf>> {
    let cannot = || format!("cannot read {}", directory.display());
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(directory).with_context(cannot)? {
        let entry = entry.with_context(cannot)?;
        let name = entry.file_name().to_string_lossy().to_lowercase();
        if NAMES.iter().any(|it| name.starts_with(it)) && entry.path().is_file() {
            found.insert(entry.path());
        }
    }
    Ok(found)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn save(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crates::{Name, Place};

    /// A crate with these files.
    fn part(root: &Path, name: &str, repository: &str, files: &[(&str, &str)]) -> Crate {
        let directory = root.join(name);
        fs::create_dir_all(&directory).expect("a directory");
        for (file, text) in files {
            fs::write(directory.join(file), text).expect("a file");
        }
        Crate {
            name: Name { name: name.to_owned(), version: "1.0.0".to_owned() },
            license: "MIT".to_owned(),
            purl: String::new(),
            repository: repository.to_owned(),
            checksum: None,
            place: Place::Linked,
            directory,
            dependencies: Vec::new(),
        }
    }

    #[test]
    fn every_crate_has_its_texts() {
        let root = tempfile::tempdir().expect("a directory");
        let own = part(
            root.path(),
            "own",
            "",
            &[("LICENSE-MIT", "MIT\r\n"), ("Unlicense", "none"), ("lib.rs", "x")],
        );
        let shared =
            part(root.path(), "shared", "https://example.org/r", &[("COPYING", "\nMIT  \n\n")]);
        let bare = part(root.path(), "bare", "https://example.org/r", &[]);
        let texts = texts(&[&own, &shared, &bare]).expect("texts of all");
        let whose = |text: &str| texts[text].iter().map(String::as_str).collect::<Vec<_>>();
        assert_eq!(whose("MIT"), ["bare 1.0.0", "own 1.0.0", "shared 1.0.0"]);
        assert_eq!(whose("none"), ["own 1.0.0"]);
        assert_eq!(texts.len(), 2);
    }

    #[test]
    fn a_crate_without_any_is_named() {
        let root = tempfile::tempdir().expect("a directory");
        let lonely = part(root.path(), "lonely", "", &[("README.md", "MIT")]);
        let error = texts(&[&lonely]).expect_err("there is none").to_string();
        assert!(error.contains("lonely"), "{error}");
    }
}
