//! Several files as one.
//!
//! Each file is parsed alone. The trees are then laid over each other: tables are merged, lists
//! appended, and what two files set is a problem with both places. Spans count from the start of
//! the first file through all of them, so that a place is one number; [`super::Report`] finds the
//! file again.

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue},
};

use super::{Problem, Source};

/// Parses and merges `sources`; `None` after syntax errors: what is left of a table then would
/// cause problems that are none.
pub(super) fn merge<'t>(sources: &'t [Source], problems: &mut Vec<Problem>) -> Option<DeTable<'t>> {
    let mut merged = DeTable::new();
    let mut start = 0;
    let mut broken = false;
    for source in sources {
        let (table, errors) = DeTable::parse_recoverable(&source.text);
        broken |= !errors.is_empty();
        problems.extend(errors.iter().map(|error| {
            Problem::new(moved(error.span().unwrap_or_default(), start), error.message())
        }));
        if !broken {
            lay_over(&mut merged, move_table(table.into_inner(), start), "", problems);
        }
        start = next_start(start, source);
    }
    (!broken).then_some(merged)
}

/// Where the source after `source`, which starts at `start`, starts. One more than its length, so
/// that the end of a file is no place in the next one.
pub(super) fn next_start(start: usize, source: &Source) -> usize {
    start + source.text.len() + 1
}

fn lay_over<'t>(
    below: &mut DeTable<'t>,
    table: DeTable<'t>,
    place: &str,
    problems: &mut Vec<Problem>,
) {
    for (key, value) in table {
        let Some(old) = below.get_mut(key.get_ref().as_ref()) else {
            below.insert(key, value);
            continue;
        };
        let name = match place {
            "" => key.get_ref().to_string(),
            _ => format!("{place}.{}", key.get_ref()),
        };
        let (span, first) = (key.span(), old.span());
        match (old.get_mut(), value.into_inner()) {
            (DeValue::Table(old), DeValue::Table(new)) => lay_over(old, new, &name, problems),
            (DeValue::Array(old), DeValue::Array(new)) => {
                for item in new {
                    old.push(item);
                }
            }
            _ => problems.push(
                Problem::new(span, format!("`{}` is set in two files", name.escape_debug()))
                    .also("first", first),
            ),
        }
    }
}

fn moved(span: Range<usize>, by: usize) -> Range<usize> {
    span.start + by..span.end + by
}

fn move_table(table: DeTable<'_>, by: usize) -> DeTable<'_> {
    if by == 0 {
        return table;
    }
    table
        .into_iter()
        .map(|(key, value)| {
            let span = moved(key.span(), by);
            (Spanned::new(span, key.into_inner()), move_value(value, by))
        })
        .collect()
}

fn move_value(value: Spanned<DeValue<'_>>, by: usize) -> Spanned<DeValue<'_>> {
    let span = moved(value.span(), by);
    let inner = match value.into_inner() {
        DeValue::Table(table) => DeValue::Table(move_table(table, by)),
        DeValue::Array(array) => {
            let array: DeArray<'_> = array.into_iter().map(|value| move_value(value, by)).collect();
            DeValue::Array(array)
        }
        other => other,
    };
    Spanned::new(span, inner)
}
