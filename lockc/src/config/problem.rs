//! Problems of a configuration file, and how they are shown.

use std::{fmt, ops::Range, path::PathBuf};

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where, in bytes of the file.
    pub span: Range<usize>,
    /// What is wrong, naming the key or value.
    pub message: String,
    /// What may have been meant.
    pub help: Option<String>,
}

impl Problem {
    pub(super) fn new(span: Range<usize>, message: impl Into<String>) -> Self {
        Self { span, message: message.into(), help: None }
    }

    pub(super) fn help(self, help: Option<String>) -> Self {
        Self { help, ..self }
    }
}

/// All problems of a file, in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    path: PathBuf,
    places: Vec<Place>,
    /// Problems beyond [`Report::LONGEST`].
    more: usize,
}

/// A problem with what is shown of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    problem: Problem,
    /// From 1.
    line: usize,
    /// In characters, from 1.
    column: usize,
    text: String,
    /// Characters of `text` to underline.
    width: usize,
}

impl Report {
    /// Most problems that are kept. A file of the wrong kind has one in every line.
    const LONGEST: usize = 64;

    pub(super) fn new(path: PathBuf, text: &str, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| (problem.span.start, problem.span.end));
        problems.dedup();
        let more = problems.len().saturating_sub(Self::LONGEST);
        problems.truncate(Self::LONGEST);
        let places = problems.into_iter().map(|problem| Place::new(text, problem)).collect();
        Self { path, places, more }
    }

    /// The problems, in the order of the file.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.places.iter().map(|place| &place.problem)
    }
}

impl Place {
    fn new(text: &str, problem: Problem) -> Self {
        let start = text.floor_char_boundary(problem.span.start);
        let end = text.floor_char_boundary(problem.span.end).max(start);
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[line_start..].find('\n').map_or(text.len(), |at| line_start + at);
        let line = text[line_start..line_end].trim_end_matches('\r');
        let inside = end.min(line_start + line.len()).max(start);
        Self {
            line: text[..line_start].matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            text: line.to_owned(),
            width: text[start..inside].chars().count().max(1),
            problem,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, place) in self.places.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            place.show(&self.path, f)?;
        }
        if self.more > 0 {
            write!(f, "\n{}: {} more problems", self.path.display(), self.more)?;
        }
        Ok(())
    }
}

impl Place {
    /// The longest part of a line that is shown, in characters.
    const SHOWN: usize = 160;

    fn show(&self, path: &std::path::Path, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { problem: Problem { message, help, .. }, line, column, text, width } = self;
        write!(f, "{}:{line}:{column}: {message}", path.display())?;
        // Past a very long start the place would not be seen.
        if *column < Self::SHOWN {
            let text: String = text.chars().take(Self::SHOWN).map(printable).collect();
            let indent: String =
                text.chars().take(column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
            let width = (*width).min((text.chars().count() + 1).saturating_sub(*column)).max(1);
            let margin = " ".repeat(line.to_string().len());
            write!(f, "\n  {line} | {text}")?;
            write!(f, "\n  {margin} | {indent}{}", "^".repeat(width))?;
        }
        if let Some(help) = help {
            write!(f, "\n  help: {help}")?;
        }
        Ok(())
    }
}

/// A terminal must not act on what a file contains.
fn printable(c: char) -> char {
    if c.is_control() && c != '\t' { char::REPLACEMENT_CHARACTER } else { c }
}

/// Which of `names` was meant by `name`, if one is near.
pub(super) fn suggest<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let farthest = (name.chars().count() / 3).clamp(1, 3);
    names
        .into_iter()
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= farthest)
        .min()
        .map(|(_, candidate)| format!("did you mean `{candidate}`?"))
}

/// Insertions, deletions, replacements and swaps of neighbours that make `b` of
/// `a` (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    // Names are short; a long text is near none of them.
    const LONGEST: usize = 64;
    let a: Vec<char> = a.chars().take(LONGEST).collect();
    let b: Vec<char> = b.chars().take(LONGEST).collect();
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        rows[i][0] = i;
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("policy", "policy", 0),
            ("polcy", "policy", 1),
            ("poilcy", "policy", 1),
            ("log_levle", "log_level", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
            assert_eq!(distance(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn suggestions_are_near() {
        let names = ["policy", "name", "match"];
        assert_eq!(suggest("polcy", names).as_deref(), Some("did you mean `policy`?"));
        assert_eq!(suggest("nmae", names).as_deref(), Some("did you mean `name`?"));
        assert_eq!(suggest("zebra", names), None);
        assert_eq!(suggest(&"x".repeat(100_000), names), None);
    }

    #[test]
    fn places_in_odd_texts() {
        let shown = |text: &str, span: Range<usize>| {
            Report::new("f".into(), text, vec![Problem::new(span, "m")]).to_string()
        };
        assert_eq!(shown("", 0..0), "f:1:1: m\n  1 | \n    | ^");
        assert_eq!(shown("a\nbc\n", 2..4), "f:2:1: m\n  2 | bc\n    | ^^");
        assert_eq!(shown("a\nbc\n", 5..5), "f:3:1: m\n  3 | \n    | ^");
        assert_eq!(shown("a\r\nb", 0..4), "f:1:1: m\n  1 | a\n    | ^");
        assert_eq!(shown("\tä = 1", 1..3), "f:1:2: m\n  1 | \tä = 1\n    | \t^");
        assert_eq!(shown("\u{1b}[31m", 0..1), "f:1:1: m\n  1 | \u{fffd}[31m\n    | ^");
        assert_eq!(shown("ä", 1..9), "f:1:1: m\n  1 | ä\n    | ^");
        assert_eq!(shown(&"x".repeat(1000), 900..901), "f:1:901: m");
    }
}
