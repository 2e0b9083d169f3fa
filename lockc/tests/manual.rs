//! Manual pages and shell completions are those of the command line: packages bring the files of docs/man and
//! docs/completions. `BLESS=1 cargo test -p lockc --test manual` writes them anew.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::CommandFactory as _;
use clap_complete::Shell;

const SHELLS: [(Shell, &str); 3] =
    [(Shell::Bash, "lockc.bash"), (Shell::Fish, "lockc.fish"), (Shell::Zsh, "_lockc")];

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

/// `lockc-policy-show.8` for `lockc policy show`, and its text.
fn page(command: &clap::Command) -> (PathBuf, Vec<u8>) {
    let name = command.get_bin_name().unwrap_or(command.get_name()).replace(' ', "-");
    let page = clap_mangen::Man::new(command.clone().display_name(&name))
        .title(name.to_uppercase())
        .section("8")
        // Neither a day nor a version: the text changes when what it says does.
        .date("")
        .source("lockc")
        .manual("lockc");
    let mut text = Vec::new();
    page.render(&mut text).unwrap();
    // Where the command line has none either.
    let version = format!(".SH VERSION\nv{}\n", env!("CARGO_PKG_VERSION"));
    let text = String::from_utf8(text).unwrap().replace(&version, "");
    (docs().join("man").join(format!("{name}.8")), text.into_bytes())
}

fn all(command: &clap::Command, pages: &mut Vec<(PathBuf, Vec<u8>)>) {
    pages.push(page(command));
    for part in command.get_subcommands() {
        all(part, pages);
    }
}

#[test]
fn manual_pages_and_completions_are_those_of_the_command_line() {
    let mut command = lockc::commands::Cli::command();
    command.build();
    let mut files = Vec::new();
    all(&command, &mut files);
    for (shell, name) in SHELLS {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut lockc::commands::Cli::command(), "lockc", &mut text);
        files.push((docs().join("completions").join(name), text));
    }
    if std::env::var_os("BLESS").is_some() {
        for directory in ["man", "completions"] {
            let _ = fs::remove_dir_all(docs().join(directory));
            fs::create_dir_all(docs().join(directory)).unwrap();
        }
        for (path, text) in &files {
            fs::write(path, text).unwrap();
        }
    }
    for (path, text) in &files {
        let found = fs::read(path).unwrap_or_default();
        assert!(found == *text, "{} is not what the command line says", path.display());
    }
    let there: usize = ["man", "completions"]
        .map(|directory| fs::read_dir(docs().join(directory)).unwrap().count())
        .iter()
        .sum();
    assert_eq!(there, files.len(), "there are files of commands that are gone");
}
