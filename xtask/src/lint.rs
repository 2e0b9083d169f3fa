//! `cargo xtask lint`: formatting, clippy for both sides, dependencies.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::{
    artifacts::cargo,
    command::check,
    paths,
    setup::{self, Tool},
};

/// Checks formatting, runs clippy on every crate with warnings as errors, and
/// checks the dependencies' licences and sources.
#[derive(Debug, clap::Args)]
pub(crate) struct Lint {}

impl Lint {
    #[expect(clippy::unused_self, reason = "every verb is called the same way")]
    pub(crate) fn run(self) -> Result<ExitCode> {
        setup::linker()?;
        let mut ok = true;
        ok &= check("rustfmt", cargo().args(["fmt", "--all", "--check"]));
        ok &= check(
            "clippy",
            cargo()
                // lockc's build script then leaves out the BPF object, which is checked below.
                .env("AYA_BUILD_SKIP", "1")
                .args(["clippy", "--quiet", "--workspace", "--exclude", "lockc-ebpf"])
                .args(["--all-targets", "--", "-D", "warnings"]),
        );
        for architecture in ["x86_64", "aarch64"] {
            ok &=
                check(&format!("clippy of lockc-ebpf for {architecture}"), &mut ebpf(architecture));
        }
        // A workspace of its own, whose lock file nobody's build brings up to date.
        ok &= check(
            "fuzz/Cargo.lock",
            cargo()
                .args(["tree", "--locked", "--quiet", "--depth", "0"])
                .args(["--manifest-path", "fuzz/Cargo.toml"]),
        );
        let deny = Tool::deny()?;
        ok &= check("cargo deny", deny.command().args(["check", "bans", "licenses", "sources"]));
        Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// The BPF side builds for a target without a precompiled `core`, which the
/// pinned stable toolchain can do when told that it may.
fn ebpf(architecture: &str) -> Command {
    let mut cargo = cargo();
    cargo
        .env("RUSTC_BOOTSTRAP", "1")
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            format!(
                "--cfg=bpf_target_arch=\"{architecture}\"\u{1f}-Cdebuginfo=2\u{1f}-Clink-arg=--btf"
            ),
        )
        // As aya-build does; its own directory, so that the flags of one build do not
        // throw away the other's.
        .env("CARGO_TARGET_DIR", paths::target().join(format!("lint-bpf-{architecture}")))
        .args(["clippy", "--quiet", "--package", "lockc-ebpf"])
        .args(["-Z", "build-std=core", "--target", "bpfel-unknown-none", "--", "-D", "warnings"]);
    cargo
}
