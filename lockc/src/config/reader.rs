//! Reading of single keys: a value, or a problem with its place.

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    Problem,
    problem::suggest,
    users::{Groups, Users},
};

pub(super) type Value<'t> = Spanned<DeValue<'t>>;

/// Collects problems on the way.
#[derive(Debug, Default)]
pub(super) struct Reader {
    pub(super) problems: Vec<Problem>,
    /// Globs of runtimes that are not built in.
    pub(super) runtime_globs: Vec<(String, Range<usize>)>,
    pub(super) users: Users,
    pub(super) groups: Groups,
}

impl Reader {
    /// Reports keys of `table` that are not `known`.
    pub(super) fn check_keys(&mut self, table: &DeTable<'_>, place: &str, known: &[&str]) {
        let place = match place {
            "" => String::new(),
            _ => format!(" in `{}`", place.escape_debug()),
        };
        for key in table.keys() {
            let name = key.get_ref().as_ref();
            if !known.contains(&name) {
                let message = format!("unknown key `{}`{place}", name.escape_debug());
                let help = suggest(name, known.iter().copied())
                    .or_else(|| Some(format!("known keys: {}", known.join(", "))));
                self.problems.push(Problem::new(key.span(), message).help(help));
            }
        }
    }

    pub(super) fn choice<T: Copy>(
        &mut self,
        table: &DeTable<'_>,
        key: &str,
        choices: &[(&str, T)],
    ) -> Option<T> {
        let value = table.get(key)?;
        let names = || choices.iter().map(|(name, _)| *name);
        let listed = || names().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
        let Some(text) = value.get_ref().as_str() else {
            self.wrong_type(value, key, &format!("one of {}", listed()));
            return None;
        };
        let choice = choices.iter().find(|(name, _)| *name == text);
        if choice.is_none() {
            let message =
                format!("`{key}` must be one of {}, not `{}`", listed(), text.escape_debug());
            let problem = Problem::new(value.span(), message).help(suggest(text, names()));
            self.problems.push(problem);
        }
        choice.map(|(_, value)| *value)
    }

    pub(super) fn required_string(
        &mut self,
        table: &DeTable<'_>,
        key: &str,
        place: &str,
        span: Range<usize>,
    ) -> Option<(String, Range<usize>)> {
        let Some(value) = table.get(key) else {
            self.problem(span, format!("{place} has no `{key}`"));
            return None;
        };
        match value.get_ref() {
            DeValue::String(text) if text.is_empty() => {
                self.problem(value.span(), format!("`{key}` is empty"));
                None
            }
            DeValue::String(text) => Some((text.clone().into_owned(), value.span())),
            _ => {
                self.wrong_type(value, key, "a text in quotes");
                None
            }
        }
    }

    pub(super) fn table<'v, 't>(
        &mut self,
        table: &'v DeTable<'t>,
        key: &str,
    ) -> Option<&'v DeTable<'t>> {
        let value = table.get(key)?;
        let inner = value.get_ref().as_table();
        if inner.is_none() {
            self.wrong_type(value, key, "a table");
        }
        inner
    }

    pub(super) fn tables<'v, 't>(
        &mut self,
        table: &'v DeTable<'t>,
        key: &str,
        most: usize,
    ) -> Vec<(&'v DeTable<'t>, Range<usize>)> {
        let Some(value) = table.get(key) else { return Vec::new() };
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(value, key, &format!("written [[{key}]]"));
            return Vec::new();
        };
        if array.len() > most {
            self.problem(value.span(), format!("more than {most} [[{key}]] tables"));
            return Vec::new();
        }
        let mut tables = Vec::with_capacity(array.len());
        for value in array {
            match value.get_ref().as_table() {
                Some(table) => tables.push((table, value.span())),
                None => self.wrong_type(value, key, &format!("written [[{key}]]")),
            }
        }
        tables
    }

    pub(super) fn boolean(&mut self, table: &DeTable<'_>, key: &str) -> Option<bool> {
        let value = table.get(key)?;
        let boolean = value.get_ref().as_bool();
        if boolean.is_none() {
            self.wrong_type(value, key, "true or false");
        }
        boolean
    }

    /// A list of at most `most` texts; entries of another type are reported and left out.
    pub(super) fn texts<'v>(
        &mut self,
        table: &'v DeTable<'_>,
        key: &str,
        most: usize,
    ) -> Option<Vec<(&'v str, Range<usize>)>> {
        let value = table.get(key)?;
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(value, key, "a list of texts");
            return None;
        };
        if array.len() > most {
            self.problem(value.span(), format!("`{key}` has more than {most} entries"));
            return None;
        }
        let mut texts = Vec::with_capacity(array.len());
        for value in array {
            match value.get_ref().as_str() {
                Some(text) => texts.push((text, value.span())),
                None => self.wrong_type(value, key, "a list of texts"),
            }
        }
        Some(texts)
    }

    pub(super) fn problem(&mut self, span: Range<usize>, message: impl Into<String>) {
        self.problems.push(Problem::new(span, message));
    }

    pub(super) fn wrong_type(&mut self, value: &Value<'_>, key: &str, expected: &str) {
        let message =
            format!("`{}` must be {expected}, not {}", key.escape_debug(), kind(value.get_ref()));
        self.problem(value.span(), message);
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// The number, saturated: every bound is far below.
pub(super) fn integer(value: &Value<'_>) -> Option<u64> {
    let integer = value.get_ref().as_integer()?;
    if integer.as_str().starts_with('-') {
        return Some(0);
    }
    Some(u64::from_str_radix(integer.as_str(), integer.radix()).unwrap_or(u64::MAX))
}
