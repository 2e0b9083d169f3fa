//! `cargo xtask`: builds lockc, boots it in QEMU guests and checks it there.
//! One file per verb; what the verbs share has its own modules.

#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool talks to its terminal"
)]

mod apt;
mod artifacts;
mod bench;
mod command;
mod cpio;
mod crates;
mod debootstrap;
mod demo;
mod escapes;
mod examples;
mod fuzz;
mod guest;
mod image;
mod initramfs;
mod kernel;
mod lint;
mod mirror;
mod package;
mod paths;
mod qemu;
mod setup;
mod soak;
mod tally;
mod test;
mod tree;
mod userland;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Builds, boots and checks lockc.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Bench(bench::Bench),
    Demo(demo::Demo),
    Escapes(escapes::Escapes),
    Examples(examples::Examples),
    Fuzz(fuzz::Fuzz),
    Lint(lint::Lint),
    Package(package::Package),
    Setup(setup::Setup),
    Soak(soak::Soak),
    Test(test::Test),
    Vm(vm::Vm),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().verb {
        Verb::Bench(bench) => bench.run(),
        Verb::Demo(demo) => demo.run(),
        Verb::Escapes(escapes) => escapes.run(),
        Verb::Examples(examples) => examples.run(),
        Verb::Fuzz(fuzz) => fuzz.run(),
        Verb::Lint(lint) => lint.run(),
        Verb::Package(package) => package.run(),
        Verb::Setup(setup) => setup.run(),
        Verb::Soak(soak) => soak.run(),
        Verb::Test(test) => test.run(),
        Verb::Vm(vm) => vm.run(),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
