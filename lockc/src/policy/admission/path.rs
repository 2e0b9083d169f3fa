//! Host paths as text, and patterns of them.
//!
//! Symbolic links are not followed: admission reads no file. What is a matter of text (`.`, `//`,
//! the link `/var/run`) is put into normal form; what is not (`..`) is never admitted.

use std::iter;

/// `PATH_MAX` without the final NUL (`path_resolution(7)`).
const MAX_LEN: usize = 4095;

/// An absolute path in normal form, by components.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HostPath<'a>(Vec<&'a str>);

impl<'a> HostPath<'a> {
    /// `None` if the text does not tell what the path names: it is relative, contains `..`, whose
    /// meaning depends on links, or a NUL byte, where a runtime in C would stop reading; or if it is
    /// longer than the kernel takes.
    pub(super) fn new(path: &'a str) -> Option<Self> {
        let inside = path.strip_prefix('/')?;
        if path.contains('\0') || path.len() > MAX_LEN {
            return None;
        }
        let mut parts = Vec::new();
        for part in inside.split('/').filter(|part| !part.is_empty() && *part != ".") {
            if part == ".." {
                return None;
            }
            // `/var/run` is a link to `/run` (Filesystem Hierarchy Standard 3.0, 5.13).
            if part == "run" && parts == ["var"] {
                parts.clear();
            }
            parts.push(part);
        }
        Some(Self(parts))
    }

    pub(super) fn parts(&self) -> &[&'a str] {
        &self.0
    }

    /// Whether it is `other` or below it.
    pub(super) fn is_in(&self, other: &HostPath<'_>) -> bool {
        self.0.starts_with(&other.0)
    }

    /// Where it lies as seen from `pattern`: components separated by `/`, of which `*` stands for
    /// any one, and `#.#` for two numbers.
    pub(super) fn place(&self, pattern: Pattern) -> Place {
        let mut parts = self.0.iter();
        let mut pattern = pattern.parts();
        loop {
            match (parts.next(), pattern.next()) {
                (None, None) => return Place::At,
                (None, Some(_)) => return Place::Above,
                (Some(_), None) => return Place::Below,
                (Some(part), Some(expected)) if is_match(part, expected) => {}
                (Some(_), Some(_)) => return Place::Apart,
            }
        }
    }
}

fn is_match(part: &str, expected: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match expected {
        "*" => true,
        "#.#" => part.split_once('.').is_some_and(|(a, b)| number(a) && number(b)),
        _ => part == expected,
    }
}

/// Where a path lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It is a directory that contains what the pattern matches.
    Above,
    /// The pattern matches it.
    At,
    /// It is below what the pattern matches.
    Below,
    /// None of them.
    Apart,
}

/// A directory and what is meant below it, both possibly with wildcards.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pattern {
    /// Absolute.
    pub(super) root: &'static str,
    /// Relative; may be empty.
    pub(super) below: &'static str,
}

impl Pattern {
    pub(super) const fn absolute(root: &'static str) -> Self {
        Self { root, below: "" }
    }

    fn parts(self) -> impl Iterator<Item = &'static str> {
        let split = |text: &'static str| text.split('/').filter(|part| !part.is_empty());
        iter::chain(split(self.root), split(self.below))
    }
}

/// All combinations of roots and what is below them.
pub(super) fn patterns(
    roots: &'static [&'static str],
    below: &'static [&'static str],
) -> impl Iterator<Item = Pattern> {
    roots.iter().flat_map(move |root| below.iter().map(move |below| Pattern { root, below }))
}
