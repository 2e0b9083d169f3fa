//! Problems of the configuration, and how they are shown.

use std::{
    fmt,
    ops::Range,
    path::{Path, PathBuf},
};

use super::{Source, merge::next_start};

/// How bad a problem is. The worst come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// A mistake.
    Error,
    /// Probably not what was meant.
    Warning,
}

impl Severity {
    /// Its name in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where, in bytes from the start of the first file through all files, each of them one byte
    /// longer than it is.
    pub span: Range<usize>,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, naming the key or value.
    pub message: String,
    /// What may have been meant.
    pub help: Option<String>,
    /// Another place that it has to do with, and what it is.
    pub also: Option<(&'static str, Range<usize>)>,
}

impl Problem {
    pub(super) fn new(span: Range<usize>, message: impl Into<String>) -> Self {
        Self { span, severity: Severity::Error, message: message.into(), help: None, also: None }
    }

    pub(super) fn warning(span: Range<usize>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::new(span, message) }
    }

    pub(super) fn help(self, help: Option<String>) -> Self {
        Self { help, ..self }
    }

    pub(super) fn also(self, what: &'static str, span: Range<usize>) -> Self {
        Self { also: Some((what, span)), ..self }
    }
}

/// All problems of the configuration, in the order of its files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    places: Vec<Place>,
    /// Problems beyond [`Report::LONGEST`].
    more: usize,
    /// The worst of all.
    worst: Option<Severity>,
}

/// A problem with what is shown of its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The problem.
    pub problem: Problem,
    /// The file.
    pub path: PathBuf,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// The line.
    pub text: String,
    /// Characters of `text` to underline.
    pub width: usize,
    /// File, line and column of the other place of the problem, and what it is.
    pub also: Option<String>,
}

impl Report {
    /// Most problems that are kept. A file of the wrong kind has one in every line.
    const LONGEST: usize = 64;

    pub(super) fn new(sources: &[Source], problems: Vec<Problem>) -> Self {
        let mut report = Self::default();
        report.extend(sources, problems);
        report
    }

    /// Adds problems.
    pub(super) fn extend(&mut self, sources: &[Source], mut problems: Vec<Problem>) {
        // A file that is full of warnings must not hide a mistake.
        problems.sort_by_key(|it| (it.severity, it.span.start, it.span.end));
        problems.dedup();
        self.worst = self.worst.into_iter().chain(problems.first().map(|it| it.severity)).min();
        let room = Self::LONGEST.saturating_sub(self.places.len());
        self.more += problems.len().saturating_sub(room);
        problems.truncate(room);
        self.places.extend(problems.into_iter().map(|problem| Place::new(sources, problem)));
        self.places.sort_by_key(|place| (place.problem.span.start, place.problem.span.end));
    }

    /// The problems, in the order of the files.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// Whether there is no problem at all.
    pub fn is_empty(&self) -> bool {
        self.worst.is_none()
    }

    /// Whether there is a problem of this kind or a worse one.
    pub fn has(&self, severity: Severity) -> bool {
        self.worst.is_some_and(|worst| worst <= severity)
    }

    /// Whether lockc must not run with this configuration.
    pub fn is_fatal(&self) -> bool {
        self.has(Severity::Error)
    }

    pub(super) fn without_warnings(mut self) -> Self {
        self.places.retain(|place| place.problem.severity != Severity::Warning);
        self
    }
}

/// The source at a position, and the position in it.
fn locate(sources: &[Source], position: usize) -> Option<(&Source, usize)> {
    let mut start = 0;
    for source in sources {
        let next = next_start(start, source);
        if position < next {
            return Some((source, position - start));
        }
        start = next;
    }
    None
}

/// Line and column, from 1, of a position, and where the line starts.
fn line_column(text: &str, at: usize) -> (usize, usize, usize) {
    let line_start = text[..at].rfind('\n').map_or(0, |at| at + 1);
    let line = text[..line_start].matches('\n').count() + 1;
    (line, text[line_start..at].chars().count() + 1, line_start)
}

impl Place {
    fn new(sources: &[Source], problem: Problem) -> Self {
        let nowhere = Source { path: PathBuf::new(), text: String::new() };
        let (source, start) = locate(sources, problem.span.start).unwrap_or((&nowhere, 0));
        let text = source.text.as_str();
        let start = text.floor_char_boundary(start);
        let end = start + problem.span.end.saturating_sub(problem.span.start);
        let end = text.floor_char_boundary(end).max(start);
        let (line, column, line_start) = line_column(text, start);
        let line_end = text[line_start..].find('\n').map_or(text.len(), |at| line_start + at);
        let shown = text[line_start..line_end].trim_end_matches('\r');
        let inside = end.min(line_start + shown.len()).max(start);
        let also = problem.also.as_ref().and_then(|(what, span)| {
            let (source, at) = locate(sources, span.start)?;
            let (line, column, _) = line_column(&source.text, source.text.floor_char_boundary(at));
            Some(format!("{what}: {}:{line}:{column}", source.path.display()))
        });
        Self {
            path: source.path.clone(),
            line,
            column,
            text: shown.to_owned(),
            width: text[start..inside].chars().count().max(1),
            also,
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
            write!(f, "{place}")?;
        }
        if self.more > 0 {
            let path = self.places.first().map_or(Path::new(""), |place| &place.path);
            write!(f, "\n{}: {} more problems", path.display(), self.more)?;
        }
        Ok(())
    }
}

impl Place {
    /// The longest part of a line that is shown, in characters.
    const SHOWN: usize = 160;
}

/// With `#` on one line, without the text of the file.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { problem, path, line, column, text, width, also } = self;
        let Problem { message, help, severity, .. } = problem;
        write!(f, "{}:{line}:{column}: {}: {message}", path.display(), severity.name())?;
        if f.alternate() {
            return Ok(());
        }
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
        if let Some(also) = also {
            write!(f, "\n  {also}")?;
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
mod tests;
