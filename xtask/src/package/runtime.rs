//! What the toolchain links into every binary: Rust's standard library, musl, and LLVM's unwinder.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::{
    artifacts::cargo,
    command,
    crates::{self, Name},
    kernel::Architecture,
    setup,
};

/// The musl of the toolchain (`src/ci/docker/scripts/musl.sh`, rust 1.95.0); a test looks for it there.
pub(super) const MUSL_VERSION: &str = "1.2.5";

/// A library, or a crate that one was built from.
#[derive(Debug)]
pub(super) struct Runtime {
    pub(super) name: Name,
    pub(super) license: String,
    pub(super) purl: String,
}

/// All of them: libraries, and then crates that the standard library was built from.
pub(super) fn of(architecture: Architecture) -> Result<Vec<Runtime>> {
    let one = |name: &str, version: &str, license: &str| {
        let name = Name { name: name.to_owned(), version: version.to_owned() };
        Runtime { purl: crates::purl("generic", &name), name, license: license.to_owned() }
    };
    let mut found = vec![
        // With compiler_builtins, which has more licences than the rest.
        one(
            "rust-std",
            &setup::rustc_says("release")?,
            "(MIT OR Apache-2.0) AND MIT AND Apache-2.0 WITH LLVM-exception AND Unicode-3.0",
        ),
        one("musl", MUSL_VERSION, "MIT"),
        one(
            "llvm-libunwind",
            &setup::rustc_says("LLVM version")?,
            "Apache-2.0 WITH LLVM-exception",
        ),
    ];
    found.extend(of_std(architecture)?);
    Ok(found)
}

/// Crates of registries in the standard library, which is linked as the toolchain has it.
fn of_std(architecture: Architecture) -> Result<Vec<Runtime>> {
    let mut tree = cargo();
    tree.current_dir(setup::sysroot()?.join("lib/rustlib/src/rust/library"))
        // Its manifests use what is not stable.
        .env("RUSTC_BOOTSTRAP", "1")
        .args(["tree", "--locked", "--package", "std", "--target", architecture.target()])
        .args(["--edges", "normal,no-proc-macro", "--features", "backtrace"])
        .args(["--prefix", "none", "--format", "{p}|{l}|"]);
    let text = command::output(&mut tree, "asking cargo for the standard library's crates")?;
    let mut licenses = BTreeMap::new();
    // Those in directories are parts of the library itself.
    for line in text.lines().filter(|line| !line.contains(" (/")) {
        let mut fields = line.split('|');
        let (name, license) =
            (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        for name in crates::names(name)? {
            licenses.insert(name, crates::expression(license));
        }
    }
    let runtime = |(name, license)| Runtime { purl: crates::purl("cargo", &name), name, license };
    Ok(licenses.into_iter().map(runtime).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_musl_is_the_toolchain_s() {
        for architecture in [Architecture::X86_64, Architecture::Aarch64] {
            let library = setup::sysroot().expect("a toolchain").join("lib/rustlib");
            let library = library.join(architecture.target()).join("lib/self-contained/libc.a");
            let data = std::fs::read(&library).expect("a library for each target");
            // `__libc_version` of src/internal/version.c
            let version = format!("{MUSL_VERSION}\0");
            assert!(data.windows(version.len()).any(|it| it == version.as_bytes()));
        }
    }
}
