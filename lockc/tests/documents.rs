//! What the documents show is accepted: configurations by themselves, and command lines.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::Parser as _;
use lockc::{commands::Cli, config::Config};
use lockc_common::LAYOUT_VERSION;

fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut paths = vec![root.join("README.md"), root.join("vagrant/README.md")];
    for entry in fs::read_dir(root.join("docs")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "md") {
            paths.push(path);
        }
    }
    paths
}

/// Blocks of a kind, each with its line.
fn blocks(path: &Path, kind: &str) -> Vec<(usize, String)> {
    let text = fs::read_to_string(path).unwrap();
    let mut blocks = Vec::new();
    let mut block: Option<(usize, bool, String)> = None;
    for (number, line) in text.lines().enumerate() {
        match (&mut block, line.strip_prefix("```")) {
            (None, Some(of)) => block = Some((number + 1, of == kind, String::new())),
            (Some(_), Some(_)) => {
                let (start, is_wanted, text) = block.take().unwrap();
                if is_wanted {
                    blocks.push((start, text));
                }
            }
            (Some((.., text)), None) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(block.is_none(), "{} has a block without an end", path.display());
    blocks
}

#[test]
fn configurations_in_documents_are_usable() {
    let mut count = 0;
    for path in documents() {
        for (line, text) in blocks(&path, "toml") {
            let place = format!("{}:{line}", path.display());
            let config = Config::parse(&text, "block.toml".as_ref());
            assert!(config.is_ok(), "{place}: {}", config.unwrap_err());
            count += 1;
        }
    }
    assert!(count > 8, "only {count}");
}

#[test]
fn command_lines_in_documents_are_understood() {
    let mut count = 0;
    for path in documents() {
        for (line, text) in blocks(&path, "console") {
            let lines = text.lines().enumerate();
            let commands = lines.filter_map(|(n, it)| Some((n, it.strip_prefix("# lockc ")?)));
            for (number, command) in commands {
                // What comes after two spaces is a remark.
                let command = command.split("  ").next().unwrap();
                let words = ["lockc"].into_iter().chain(command.split_whitespace());
                let place = format!("{}:{}", path.display(), line + number + 1);
                let parsed = Cli::try_parse_from(words);
                assert!(parsed.is_ok(), "{place}: {}", parsed.unwrap_err());
                count += 1;
            }
        }
    }
    assert!(count > 10, "only {count}");
}

#[test]
fn layout_in_documents_is_this_one() {
    let mut count = 0;
    for path in documents() {
        let text = fs::read_to_string(&path).unwrap();
        for phrase in ["layout version ", "/sys/fs/bpf/lockc/v"] {
            for (at, _) in text.match_indices(phrase) {
                let rest = &text[at + phrase.len()..];
                let digits = rest.split(|char: char| !char.is_ascii_digit()).next().unwrap();
                // Others speak of layouts as such.
                let Ok(number) = digits.parse::<u32>() else { continue };
                assert_eq!(number, LAYOUT_VERSION, "{}: {phrase}{number}", path.display());
                count += 1;
            }
        }
    }
    assert!(count > 1, "only {count}");
}
