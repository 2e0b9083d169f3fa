//! Texts that fit the terminal: where a line is too long it is broken between words, and where a table is too wide its
//! widest columns are cut, or its rows become lines of their own. Where there is no terminal, nothing is cut or broken.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _},
};

use anstyle::{AnsiColor, Style};
use terminal_size::{Width, terminal_size_of};

/// Width of a terminal that does not say, as a serial console's.
const USUAL: usize = 80;
/// Nothing is fitted to less.
const LEAST: usize = 20;
/// No column is cut to less.
const LEAST_COLUMN: usize = 9;
const GAP: &str = "  ";
/// Before what is left of a broken line.
const INDENT: &str = "    ";

/// Columns of the terminal that stdout is; nothing if it is none.
pub(super) fn width() -> Option<usize> {
    let stdout = io::stdout();
    let columns = || terminal_size_of(&stdout).map_or(USUAL, |(Width(columns), _)| columns.into());
    stdout.is_terminal().then(|| columns().max(LEAST))
}

/// How a verdict is shown.
pub(super) fn verdict(verdict: &str) -> Style {
    match verdict {
        "denied" => AnsiColor::Red.on_default(),
        "audited" => AnsiColor::Yellow.on_default(),
        "noticed" => Style::new().dimmed(),
        _ => Style::new(),
    }
}

/// The lines of `text`, broken to `width`.
pub(super) fn fold(text: &str, width: Option<usize>) -> String {
    let Some(width) = width else { return text.to_owned() };
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        fold_line(&mut out, line, width);
    }
    out
}

fn fold_line(out: &mut String, line: &str, width: usize) {
    let mut used = 0;
    let next_line = |out: &mut String| {
        out.push('\n');
        out.push_str(INDENT);
        INDENT.len()
    };
    for (at, word) in line.split(' ').enumerate() {
        let length = columns(word);
        if at > 0 && used + 1 + length > width {
            used = next_line(out);
        } else if at > 0 {
            out.push(' ');
            used += 1;
        }
        if used + length <= width {
            out.push_str(word);
            used += length;
            continue;
        }
        // Longer than a line. What has a style is never that long.
        for char in word.chars() {
            if used == width {
                used = next_line(out);
            }
            out.push(char);
            used += 1;
        }
    }
    out.push('\n');
}

/// Columns that a text takes, without its styles.
fn columns(text: &str) -> usize {
    anstream::adapter::strip_str(text).map(|part| part.chars().count()).sum()
}

/// A part of a row.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    pub(super) text: String,
    pub(super) style: Style,
}

/// A table with a line of `heads` above it. Columns are cut only if `may_cut`.
pub(super) fn table(
    heads: &[&str],
    rows: &[Vec<Cell>],
    width: Option<usize>,
    may_cut: bool,
) -> String {
    let natural = (0..heads.len()).map(|at| {
        let cells = rows.iter().map(|row| row[at].text.chars().count());
        cells.chain([heads[at].chars().count()]).max().unwrap_or(0)
    });
    match fit(natural.collect(), width, may_cut) {
        Some(widths) => lines(heads, rows, &widths),
        None if rows.is_empty() => fold(&(heads.join(" ") + "\n"), width),
        None => blocks(heads, rows, width),
    }
}

/// Widths with which a table fits: from the widest column on, each is cut as far as it must be. Nothing if that is too far.
fn fit(mut widths: Vec<usize>, width: Option<usize>, may_cut: bool) -> Option<Vec<usize>> {
    let Some(width) = width else { return Some(widths) };
    let gaps = GAP.len() * widths.len().saturating_sub(1);
    while widths.iter().sum::<usize>() + gaps > width {
        let widest = widths.iter_mut().max()?;
        if !may_cut || *widest <= LEAST_COLUMN {
            return None;
        }
        *widest -= 1;
    }
    Some(widths)
}

fn lines(heads: &[&str], rows: &[Vec<Cell>], widths: &[usize]) -> String {
    let mut out = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = (&str, Style)>| {
        let mut gap = 0;
        for ((text, style), width) in cells.zip(widths) {
            let text = cut(text, *width);
            // Before what follows, so that no line ends with blanks.
            if !text.is_empty() {
                // Writing to a string does not fail.
                let _ = write!(out, "{:gap$}{style}{text}{style:#}", "");
                gap = 0;
            }
            gap += width - text.chars().count() + GAP.len();
        }
        out.push('\n');
    };
    line(&mut heads.iter().map(|head| (*head, Style::new())));
    for row in rows {
        line(&mut row.iter().map(|cell| (cell.text.as_str(), cell.style)));
    }
    out
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// A block per row, a line per column.
fn blocks(heads: &[&str], rows: &[Vec<Cell>], width: Option<usize>) -> String {
    let block = |row: &Vec<Cell>| {
        let mut block = String::new();
        for (head, Cell { text, style }) in heads.iter().zip(row) {
            let _ = writeln!(block, "{}: {style}{text}{style:#}", head.to_lowercase());
        }
        fold(&block, width)
    };
    rows.iter().map(block).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_between_words_and_styles_take_no_room() {
        let folded = |text: &str| fold(text, Some(20));
        assert_eq!(folded("one two three four five six\n"), "one two three four\n    five six\n");
        assert_eq!(
            folded(&"x".repeat(40)),
            format!("{}\n    {}\n    {}\n", "x".repeat(20), "x".repeat(16), "xxxx")
        );
        assert_eq!(folded("  a\n\nb\n"), "  a\n\nb\n");
        let red = verdict("denied");
        let styled = format!("{red}denied{red:#} 3456789012345\n");
        assert_eq!(folded(&styled), styled);
        assert_eq!(fold("no terminal, no break\n", None), "no terminal, no break\n");
    }

    fn cells(row: &[&str]) -> Vec<Cell> {
        row.iter().map(|text| Cell { text: (*text).to_owned(), style: Style::new() }).collect()
    }

    #[test]
    fn the_widest_columns_are_cut_and_then_there_are_blocks() {
        let heads = ["ID", "NAME"];
        let rows = [cells(&["a23456789012", "b2345678901234567890"]), cells(&["c", ""])];
        let table = |width, may_cut| table(&heads, &rows, width, may_cut);
        let whole = "ID            NAME\na23456789012  b2345678901234567890\nc\n";
        assert_eq!(table(None, true), whole);
        assert_eq!(table(Some(34), true), whole);
        let cut = "ID            NAME\na23456789012  b2345678901…\nc\n";
        assert_eq!(table(Some(26), true), cut);
        let blocks = "id: a23456789012\nname: b2345678901234567890\n\nid: c\nname: \n";
        assert_eq!(table(Some(26), false), blocks);
        let narrow = "id: a23456789012\nname:\n    b234567890123456\n    7890\n\nid: c\nname: \n";
        // Two columns of nine and the gap are twenty.
        assert!(table(Some(20), true).lines().all(|line| line.chars().count() <= 20));
        assert_eq!(super::table(&heads, &rows, Some(20), false), narrow);
    }
}
