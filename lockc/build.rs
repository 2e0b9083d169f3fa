//! Builds the BPF object for the target architecture and leaves it in
//! `OUT_DIR`, from where `bpf::load` embeds it.

use std::{env, path::PathBuf};

use anyhow::{Context as _, bail};
use aya_build::{Package, Toolchain, build_ebpf};

/// The toolchain of `rust-toolchain.toml`; `rustup run` wants it by name.
const TOOLCHAIN: &str = "1.95.0";

fn main() -> anyhow::Result<()> {
    let root =
        PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").context("CARGO_MANIFEST_DIR is not set")?)
            .join("..");
    let tools = root.join("target/tools/bin");
    println!("cargo:rerun-if-changed={}", root.join("lockc-common/src").display());
    println!("cargo:rerun-if-changed={}", tools.join("bpf-linker").display());

    let inherited = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths(std::iter::once(tools).chain(env::split_paths(&inherited)))?;
    if !env::split_paths(&path).any(|dir| dir.join("bpf-linker").is_file()) {
        bail!("bpf-linker not found in target/tools/bin or PATH; run `cargo xtask setup` first");
    }
    // SAFETY: a build script has one thread, so nobody reads the environment meanwhile.
    unsafe { env::set_var("PATH", path) };
    // SAFETY: as above. The pinned stable toolchain needs this for `-Z build-std=core`, and
    // it is set for the BPF side alone.
    unsafe { env::set_var("RUSTC_BOOTSTRAP", "1") };

    if env::var_os("AYA_BUILD_SKIP").is_some() {
        // For clippy, which only wants the file to be there.
        let out = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is not set")?);
        std::fs::write(out.join("lockc-ebpf"), "")?;
    }
    let ebpf = root.join("lockc-ebpf");
    build_ebpf(
        [Package {
            name: "lockc-ebpf",
            root_dir: ebpf.to_str().context("the path of lockc-ebpf is not UTF-8")?,
            ..Package::default()
        }],
        Toolchain::Custom(TOOLCHAIN),
    )
}
