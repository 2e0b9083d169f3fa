//! From TOML to [`Config`], with all problems at once.

use std::{collections::BTreeSet, ops::Range, time::Duration};

use log::LevelFilter;
use toml::de::{DeTable, DeValue};

use super::{
    Config, Fallback, LogFormat, Match, OnError, Pattern, Problem, Rule, Runtime, expand,
    problem::suggest,
    reader::{Reader, Value, integer},
};
use crate::policy::{Level, Mode};

/// Most `[[runtime]]` tables, and most paths in one of them.
const MAX_RUNTIMES: usize = 64;

/// Most `[[rule]]` tables, and most keys to match in one of them.
const MAX_RULES: usize = 1024;

/// Least and most milliseconds of `daemon.decision_timeout_ms`. Less would answer
/// before a slow disk has read a bundle; more would stall container engines, whose
/// own time-outs are of this order.
const TIMEOUT_MS: std::ops::RangeInclusive<u64> = 50..=60_000;

/// Understands `text`, or says all that is wrong with it.
pub(super) fn read(text: &str) -> Result<Config, Vec<Problem>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        // What is left of the table after a syntax error would cause problems that are none.
        return Err(errors
            .iter()
            .map(|error| Problem::new(error.span().unwrap_or_default(), error.message()))
            .collect());
    }
    let mut reader = Reader::default();
    let config = reader.config(table.get_ref());
    if reader.problems.is_empty() { Ok(config) } else { Err(reader.problems) }
}

impl Reader {
    fn config(&mut self, table: &DeTable<'_>) -> Config {
        self.check_keys(table, "", &["daemon", "runtime", "default", "rule"], &["policy"]);
        let mut config = Config::default();
        if let Some(daemon) = self.table(table, "daemon") {
            self.daemon(daemon, &mut config);
        }
        if let Some(default) = self.table(table, "default") {
            self.check_keys(default, "default", &["policy", "mode"], &[]);
            let Fallback { policy, mode } = config.default;
            config.default = Fallback {
                policy: self.level(default, "policy").unwrap_or(policy),
                mode: self
                    .choice(default, "mode", &[("enforce", Mode::Enforce), ("audit", Mode::Audit)])
                    .unwrap_or(mode),
            };
        }
        if table.contains_key("runtime") {
            config.runtimes = self
                .tables(table, "runtime", MAX_RUNTIMES)
                .into_iter()
                .map(|(runtime, span)| self.runtime(runtime, span))
                .collect();
            self.check_unique(table, "runtime");
        }
        let rules = self.tables(table, "rule", MAX_RULES);
        for (rule, span) in rules {
            let known = self.problems.len();
            let rule = self.rule(rule, span.clone());
            // A rule that lacks what could not be understood seems to match more than it does.
            if let Some(rule) = rule.filter(|_| self.problems.len() == known) {
                self.check_reachable(&config.rules, &rule, span);
                config.rules.push(rule);
            }
        }
        self.check_unique(table, "rule");
        config
    }

    fn daemon(&mut self, table: &DeTable<'_>, config: &mut Config) {
        let keys = ["log_level", "log_format", "on_error", "decision_timeout_ms"];
        self.check_keys(table, "daemon", &keys, &[]);
        let levels = [
            ("off", LevelFilter::Off),
            ("error", LevelFilter::Error),
            ("warn", LevelFilter::Warn),
            ("info", LevelFilter::Info),
            ("debug", LevelFilter::Debug),
            ("trace", LevelFilter::Trace),
        ];
        let daemon = &mut config.daemon;
        if let Some(level) = self.choice(table, "log_level", &levels) {
            daemon.log_level = level;
        }
        let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
        if let Some(format) = self.choice(table, "log_format", &formats) {
            daemon.log_format = format;
        }
        let on_error = [("default", OnError::Default), ("deny", OnError::Deny)];
        if let Some(on_error) = self.choice(table, "on_error", &on_error) {
            daemon.on_error = on_error;
        }
        if let Some(value) = table.get("decision_timeout_ms") {
            match integer(value) {
                Some(ms) if TIMEOUT_MS.contains(&ms) => {
                    daemon.decision_timeout = Duration::from_millis(ms);
                }
                Some(_) => self.problem(
                    value.span(),
                    format!(
                        "`decision_timeout_ms` must be from {} to {}",
                        TIMEOUT_MS.start(),
                        TIMEOUT_MS.end()
                    ),
                ),
                None => self.wrong_type(value, "decision_timeout_ms", "a number"),
            }
        }
    }

    fn runtime(&mut self, table: &DeTable<'_>, span: Range<usize>) -> Runtime {
        self.check_keys(table, "runtime", &["name", "paths"], &[]);
        let name = self.required_string(table, "name", "[[runtime]]", span.clone());
        if let Some((name, span)) = &name
            && (name.contains(['/', '\0']) || name.len() > lockc_common::NAME_LEN)
        {
            let message = format!(
                "`name` must be the base name of an executable, of at most {} bytes",
                lockc_common::NAME_LEN
            );
            self.problem(span.clone(), message);
        }
        let mut paths = Vec::new();
        match table.get("paths") {
            None => self.problem(span, "[[runtime]] has no `paths`"),
            Some(value) => match value.get_ref() {
                DeValue::Array(array) if array.is_empty() => {
                    self.problem(value.span(), "`paths` is empty");
                }
                DeValue::Array(array) if array.len() > MAX_RUNTIMES => self
                    .problem(value.span(), format!("`paths` has more than {MAX_RUNTIMES} entries")),
                DeValue::Array(array) => {
                    paths.extend(array.iter().filter_map(|path| self.runtime_path(path)));
                }
                _ => self.wrong_type(value, "paths", "a list of paths"),
            },
        }
        Runtime { name: name.map(|(name, _)| name).unwrap_or_default(), paths }
    }

    fn runtime_path(&mut self, value: &Value<'_>) -> Option<String> {
        let DeValue::String(path) = value.get_ref() else {
            self.wrong_type(value, "paths", "a list of paths");
            return None;
        };
        let problem = if !path.starts_with('/') {
            Some(format!("path `{}` is not absolute", path.escape_debug()))
        } else if path.ends_with('/') {
            Some(format!("path `{}` is a directory", path.escape_debug()))
        } else if path.contains('\0') || path.len() >= 4096 {
            Some("a path has no NUL byte, and less than 4096 bytes".to_owned())
        } else {
            expand::components(path).find_map(|part| match part {
                ".." => Some(format!("path `{}` contains `..`", path.escape_debug())),
                _ if part.contains("**") => Some(format!(
                    "path `{}` contains `**`; `*` stands for one component",
                    path.escape_debug()
                )),
                _ if expand::is_glob(part) => globset::Glob::new(part)
                    .err()
                    .map(|error| format!("`{part}` is not a glob: {}", error.kind())),
                _ => None,
            })
        };
        if let Some(problem) = problem {
            self.problem(value.span(), problem);
        }
        Some(path.clone().into_owned())
    }

    fn rule(&mut self, table: &DeTable<'_>, span: Range<usize>) -> Option<Rule> {
        self.check_keys(table, "rule", &["name", "policy", "match"], &[]);
        let name = self.required_string(table, "name", "[[rule]]", span.clone());
        if !table.contains_key("policy") {
            self.problem(span, "[[rule]] has no `policy`");
        }
        let policy = self.level(table, "policy");
        let mut matches = Match::default();
        if let Some(table) = self.table(table, "match") {
            let later = ["engine", "namespace", "image", "container", "label", "runtime", "owner"];
            self.check_keys(table, "rule.match", &["annotation"], &later);
            if let Some(annotations) = self.table(table, "annotation") {
                self.patterns(annotations, &mut matches);
            }
        }
        Some(Rule { name: name?.0, policy: policy?, matches })
    }

    fn patterns(&mut self, table: &DeTable<'_>, matches: &mut Match) {
        for (key, value) in table {
            if matches.annotations.len() == MAX_RULES {
                self.problem(key.span(), format!("more than {MAX_RULES} annotations to match"));
                break;
            }
            let DeValue::String(glob) = value.get_ref() else {
                self.wrong_type(value, key.get_ref(), "a glob in quotes");
                continue;
            };
            if glob.is_empty() {
                let help = "`*` matches any value, also an empty one".to_owned();
                self.problems
                    .push(Problem::new(value.span(), "the glob is empty").help(Some(help)));
                continue;
            }
            match Pattern::new(glob) {
                Ok(pattern) => {
                    matches.annotations.insert(key.get_ref().clone().into_owned(), pattern);
                }
                Err(error) => self.problem(
                    value.span(),
                    format!("`{}` is not a glob: {}", glob.escape_debug(), error.kind()),
                ),
            }
        }
    }

    /// A rule behind one that matches all it matches is a mistake.
    fn check_reachable(&mut self, before: &[Rule], rule: &Rule, span: Range<usize>) {
        let covers = |other: &&Rule| {
            other.matches.annotations.iter().all(|(key, pattern)| {
                rule.matches.annotations.get(key).is_some_and(|own| own == pattern)
            })
        };
        if let Some(other) = before.iter().find(covers) {
            self.problem(
                span,
                format!(
                    "rule `{}` can never decide: rule `{}` before it matches all that it matches",
                    rule.name, other.name
                ),
            );
        }
    }

    fn check_unique(&mut self, table: &DeTable<'_>, key: &str) {
        let mut seen = BTreeSet::new();
        let tables = table.get(key).and_then(|value| value.get_ref().as_array());
        let names = tables.into_iter().flat_map(|array| array.iter()).filter_map(|value| {
            let name = value.get_ref().as_table()?.get("name")?;
            Some((name.get_ref().as_str()?, name.span()))
        });
        for (name, span) in names {
            if !seen.insert(name) {
                let message = format!("a [[{key}]] named `{}` is above", name.escape_debug());
                self.problem(span, message);
            }
        }
    }

    fn level(&mut self, table: &DeTable<'_>, key: &str) -> Option<Level> {
        let value = table.get(key)?;
        let Some(name) = value.get_ref().as_str() else {
            self.wrong_type(value, key, "the name of a policy");
            return None;
        };
        let level = Level::ALL.into_iter().find(|level| level.name() == name);
        if level.is_none() {
            let problem = if name == "offline" {
                Problem::new(value.span(), "policy `offline` is not supported yet")
            } else {
                let message = format!("unknown policy `{}`", name.escape_debug());
                let help = suggest(name, Level::ALL.map(Level::name)).unwrap_or_else(|| {
                    format!("policies: {}", Level::ALL.map(Level::name).join(", "))
                });
                Problem::new(value.span(), message).help(Some(help))
            };
            self.problems.push(problem);
        }
        level
    }
}
