//! Builds the BPF object for the target architecture and leaves it in
//! `OUT_DIR`, from where `bpf::load` embeds it.

use std::{
    env,
    path::{Path, PathBuf},
};

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
    for (name, value) in [
        ("PATH", path.as_os_str()),
        // The pinned stable toolchain needs this for `-Z build-std=core`, and it is set for the
        // BPF side alone.
        ("RUSTC_BOOTSTRAP", "1".as_ref()),
        // BTF names the sources of every line: by names that no machine's directories are in.
        // aya-build sets the flags of the compiler itself, so that `--remap-path-prefix` does
        // not reach it.
        ("CARGO_UNSTABLE_TRIM_PATHS", "true".as_ref()),
        ("CARGO_PROFILE_RELEASE_TRIM_PATHS", "all".as_ref()),
    ] {
        // SAFETY: a build script has one thread, so nobody reads the environment meanwhile.
        unsafe { env::set_var(name, value) };
    }

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
    )?;
    let out = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is not set")?);
    strip(&out.join("lockc-ebpf"))
}

/// Takes the DWARF out of the object: it is there for the BTF that is made from it, and is three
/// quarters of the file. So does half of the rest: the numbers of lines, which are for the verifier's log
/// only, and relocations of BTF, which are for linkers. Their sections stay, empty, so that no index changes.
fn strip(path: &Path) -> anyhow::Result<()> {
    let data = std::fs::read(path)?;
    if data.is_empty() {
        return Ok(()); // AYA_BUILD_SKIP
    }
    let stripped = without_debugging(&data);
    let stripped = stripped.context("the BPF object is not the ELF file it should be")?;
    std::fs::write(path, stripped)?;
    Ok(())
}

/// Offsets are those of 64-bit little-endian ELF (elf(5)).
fn without_debugging(data: &[u8]) -> Option<Vec<u8>> {
    const HEADER: usize = 64;
    const SECTION: usize = 64;
    let number = |at: usize, len: usize| -> Option<usize> {
        let bytes = data.get(at..at + len)?;
        Some(bytes.iter().rev().fold(0, |value, byte| value << 8 | usize::from(*byte)))
    };
    let (table, count) = (number(0x28, 8)?, number(0x3c, 2)?);
    let names = number(table + number(0x3e, 2)? * SECTION + 24, 8)?;
    let mut out = data.get(..HEADER)?.to_vec();
    let mut headers = Vec::new();
    for index in 0..count {
        let at = table + index * SECTION;
        let mut header = data.get(at..at + SECTION)?.to_vec();
        let name = data.get(names + number(at, 4)?..)?;
        let is_for_debugging = [b".debug".as_slice(), b".rel.debug", b".rel.BTF"]
            .iter()
            .any(|prefix| name.starts_with(prefix));
        if is_for_debugging {
            header[4..8].fill(0); // SHT_NULL
            header[24..40].fill(0); // nowhere, and no bytes: where they were depends on paths in them
        } else if number(at + 4, 4)? != 8 {
            // Anything but SHT_NOBITS has bytes in the file.
            let (offset, size) = (number(at + 24, 8)?, number(at + 32, 8)?);
            let mut content = data.get(offset..offset + size)?.to_vec();
            if name.starts_with(b".BTF.ext\0") {
                content = without_lines(content)?;
                header[32..40].copy_from_slice(&(content.len() as u64).to_le_bytes());
            }
            out.resize(out.len().next_multiple_of(16), 0);
            header[24..32].copy_from_slice(&(out.len() as u64).to_le_bytes());
            out.extend(content);
        }
        headers.extend(header);
    }
    out.resize(out.len().next_multiple_of(16), 0);
    let table = (out.len() as u64).to_le_bytes();
    out[0x28..0x30].copy_from_slice(&table);
    out.extend(headers);
    Some(out)
}

/// What functions there are, and nothing else (`Documentation/bpf/btf.rst`, section 4.2, 6.12): a header that says where
/// after it each part begins and how long it is. Rust makes no third part (CO-RE relocations).
fn without_lines(mut content: Vec<u8>) -> Option<Vec<u8>> {
    const HEADER: u32 = 32;
    const FUNCTIONS: usize = 8;
    const LINES: usize = 16;
    const RELOCATIONS: usize = 24;
    let number = |content: &[u8], at: usize| -> Option<u32> {
        content.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
    };
    let (functions, len) = (number(&content, FUNCTIONS)?, number(&content, FUNCTIONS + 4)?);
    if number(&content, 4)? != HEADER || functions != 0 || number(&content, RELOCATIONS + 4)? != 0 {
        return None;
    }
    for part in [LINES, RELOCATIONS] {
        content.get_mut(part..part + 4)?.copy_from_slice(&len.to_le_bytes());
        content.get_mut(part + 4..part + 8)?.fill(0);
    }
    content.truncate(usize::try_from(HEADER + len).ok()?);
    Some(content)
}
