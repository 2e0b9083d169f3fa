//! From TOML to [`Config`], with all problems at once: everything but rules and policies.

use std::{
    collections::BTreeMap,
    ops::{Range, RangeInclusive},
    time::Duration,
};

use lockc_common::NAME_LEN;
use log::LevelFilter;
use toml::de::{DeTable, DeValue};

use super::{
    Config, Fallback, LogFormat, OnError, Problem, Runtime, Source, expand, merge,
    names::name_patterns,
    problem::suggest,
    reader::{Reader, Value, integer},
    users::GROUP,
};
use crate::{
    bpf::backend::{Backend, Wanted},
    event::store::Files,
    policy::Mode,
};

/// Most `[[runtime]]` tables, and most paths in one of them.
const MAX_RUNTIMES: usize = 64;

/// `mode`.
pub(super) const MODES: [(&str, Mode); 2] = [("enforce", Mode::Enforce), ("audit", Mode::Audit)];

/// Least and most milliseconds of `daemon.decision_timeout_ms`. Less would answer
/// before a slow disk has read a bundle; more would stall container engines, whose
/// own time-outs are of this order.
const TIMEOUT_MS: RangeInclusive<u64> = 50..=60_000;

/// Least and most of `events.max_size_mib`.
const SIZE_MIB: RangeInclusive<u64> = 1..=1024;

/// What comes of reading.
#[derive(Debug)]
pub(super) struct Outcome {
    /// What the sources mean, if they are TOML.
    pub(super) config: Option<Config>,
    /// What is wrong.
    pub(super) problems: Vec<Problem>,
    /// Globs of runtimes that are not built in.
    pub(super) runtime_globs: Vec<(String, Range<usize>)>,
}

/// Understands `sources`, and says all that is wrong with them.
pub(super) fn read(sources: &[Source]) -> Outcome {
    let mut reader = Reader::default();
    let table = merge::merge(sources, &mut reader.problems);
    let config = table.map(|table| reader.config(&table));
    let Reader { problems, runtime_globs, .. } = reader;
    Outcome { config, problems, runtime_globs }
}

impl Reader {
    fn config(&mut self, table: &DeTable<'_>) -> Config {
        self.check_keys(table, "", &["daemon", "events", "runtime", "default", "rule", "policy"]);
        let mut config = Config::default();
        if let Some(events) = self.table(table, "events") {
            self.events(events, &mut config.events);
        }
        if let Some(daemon) = self.table(table, "daemon") {
            self.daemon(daemon, &mut config);
        }
        if table.contains_key("runtime") {
            let built_in: Vec<String> =
                config.runtimes.drain(..).flat_map(|runtime| runtime.paths).collect();
            config.runtimes = self
                .tables(table, "runtime", MAX_RUNTIMES)
                .into_iter()
                .map(|(runtime, span)| self.runtime(runtime, span, &built_in))
                .collect();
            self.check_unique(table, "runtime");
        }
        config.policies = self.policies(table);
        self.fallback(table, &mut config);
        self.rules(table, &mut config);
        config
    }

    fn fallback(&mut self, table: &DeTable<'_>, config: &mut Config) {
        if let Some(default) = self.table(table, "default") {
            self.check_keys(default, "default", &["policy", "mode"]);
            let Fallback { policy, mode } = config.default.clone();
            let named = self.policy_name(default, "policy", config);
            config.default = Fallback {
                policy: named.map_or(policy, |(name, _)| name),
                mode: self.choice(default, "mode", &MODES).unwrap_or(mode),
            };
        }
    }

    /// The name of a policy that exists, and its place.
    pub(super) fn policy_name(
        &mut self,
        table: &DeTable<'_>,
        key: &str,
        config: &Config,
    ) -> Option<(String, Range<usize>)> {
        let value = table.get(key)?;
        let Some(name) = value.get_ref().as_str() else {
            self.wrong_type(value, key, "the name of a policy");
            return None;
        };
        if config.policy(name).is_some() {
            return Some((name.to_owned(), value.span()));
        }
        let names = || config.policies.keys().map(String::as_str);
        self.unknown_policy(name, value.span(), names());
        None
    }

    pub(super) fn unknown_policy<'n>(
        &mut self,
        name: &str,
        span: Range<usize>,
        names: impl Iterator<Item = &'n str> + Clone,
    ) {
        let message = format!("unknown policy `{}`", name.escape_debug());
        let help = suggest(name, names.clone()).unwrap_or_else(|| {
            format!("policies: {}", names.take(16).collect::<Vec<_>>().join(", "))
        });
        self.problems.push(Problem::new(span, message).help(Some(help)));
    }

    fn daemon(&mut self, table: &DeTable<'_>, config: &mut Config) {
        let keys = [
            "log_level",
            "log_format",
            "on_error",
            "decision_timeout_ms",
            "group",
            "backend",
            "require_full",
        ];
        self.check_keys(table, "daemon", &keys);
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
        let backends = [
            ("auto", Wanted::Auto),
            ("lsm", Wanted::Only(Backend::Lsm)),
            ("modify_return", Wanted::Only(Backend::ModifyReturn)),
        ];
        if let Some(backend) = self.choice(table, "backend", &backends) {
            daemon.backend = backend;
        }
        if let Some(require_full) = self.boolean(table, "require_full") {
            daemon.require_full = require_full;
        }
        if let Some(value) = table.get("group") {
            daemon.group = self.group(value);
        }
        if let Some(ms) = self.number(table, "decision_timeout_ms", &TIMEOUT_MS) {
            daemon.decision_timeout = Duration::from_millis(ms);
        }
    }

    fn events(&mut self, table: &DeTable<'_>, events: &mut Files) {
        self.check_keys(table, "events", &["file", "max_size_mib"]);
        if let Some(value) = table.get("file")
            && let Some(path) = self.plain_path(value, "file", "file")
        {
            if path.ends_with('/') {
                self.problem(value.span(), format!("`{}` is a directory", path.escape_debug()));
            }
            events.file = path.into();
        }
        if let Some(size) = self.number(table, "max_size_mib", &SIZE_MIB) {
            events.max_size = size << 20;
        }
    }

    fn number(
        &mut self,
        table: &DeTable<'_>,
        key: &str,
        range: &RangeInclusive<u64>,
    ) -> Option<u64> {
        let value = table.get(key)?;
        match integer(value) {
            Some(number) if range.contains(&number) => return Some(number),
            Some(_) => {
                let message = format!("`{key}` must be from {} to {}", range.start(), range.end());
                self.problem(value.span(), message);
            }
            None => self.wrong_type(value, key, "a number"),
        }
        None
    }

    /// A group that is not there is nobody: lockc must start all the same.
    fn group(&mut self, value: &Value<'_>) -> Option<u32> {
        if let Some(gid) = integer(value) {
            let gid = u32::try_from(gid).ok().filter(|gid| *gid != u32::MAX);
            if gid.is_none() {
                self.problem(value.span(), "`group` is too large for a group id");
            }
            return gid;
        }
        let Some(name) = value.get_ref().as_str() else {
            self.wrong_type(value, "group", "the name of a group or its id");
            return None;
        };
        let found = self.groups.id(name);
        if found.is_none() {
            let message = format!("no group is named `{}` in {GROUP}", name.escape_debug());
            let help =
                "only root can ask what lockc knows; `groupadd --system` adds a group".to_owned();
            self.problems.push(Problem::warning(value.span(), message).help(Some(help)));
        }
        found
    }

    fn runtime(&mut self, table: &DeTable<'_>, span: Range<usize>, built_in: &[String]) -> Runtime {
        self.check_keys(table, "runtime", &["name", "paths", "state"]);
        let name = self.required_string(table, "name", "[[runtime]]", span.clone());
        if let Some((name, span)) = &name
            && (name.contains(['/', '\0']) || name.len() > NAME_LEN)
        {
            let message = format!(
                "`name` must be the base name of an executable, of at most {NAME_LEN} bytes"
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
                    let globs = array.iter().filter_map(|value| {
                        let path = value.get_ref().as_str()?;
                        let own = expand::is_glob(path) && !built_in.iter().any(|it| it == path);
                        own.then(|| (path.to_owned(), value.span()))
                    });
                    self.runtime_globs.extend(globs);
                }
                _ => self.wrong_type(value, "paths", "a list of paths"),
            },
        }
        let state = match table.get("state").map(|value| (value, value.get_ref())) {
            None => Vec::new(),
            Some((value, DeValue::Array(array))) if array.len() > MAX_RUNTIMES => {
                let message = format!("`state` has more than {MAX_RUNTIMES} entries");
                self.problem(value.span(), message);
                Vec::new()
            }
            Some((_, DeValue::Array(array))) => {
                array.iter().filter_map(|path| self.state_directory(path)).collect()
            }
            Some((value, _)) => {
                self.wrong_type(value, "state", "a list of directories");
                Vec::new()
            }
        };
        Runtime { name: name.map(|(name, _)| name).unwrap_or_default(), paths, state }
    }

    fn state_directory(&mut self, value: &Value<'_>) -> Option<String> {
        if value.get_ref().as_str().is_none() {
            self.wrong_type(value, "state", "a list of directories");
            return None;
        }
        self.plain_path(value, "state", "directory")
    }

    /// The path of something of `kind`.
    fn plain_path(&mut self, value: &Value<'_>, key: &str, kind: &str) -> Option<String> {
        let DeValue::String(path) = value.get_ref() else {
            self.wrong_type(value, key, "a path in quotes");
            return None;
        };
        let is_plain = path.starts_with('/') && path.len() < 4096 && !path.contains('\0');
        if !is_plain || expand::components(path).any(|part| part == "..") {
            let message = format!(
                "{kind} `{}` must be an absolute path of less than 4096 bytes, without `..`",
                path.escape_debug()
            );
            self.problem(value.span(), message);
            return None;
        }
        Some(path.clone().into_owned())
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
        } else if name_patterns(path).is_none() {
            let message = format!(
                "a file that becomes `{}` is no runtime until lockc has seen it: its name is not one with at most \
                 one `*`, `{{a,b}}`, and less than {NAME_LEN} bytes",
                path.escape_debug()
            );
            self.problems.push(Problem::warning(value.span(), message));
        }
        Some(path.clone().into_owned())
    }

    pub(super) fn check_unique(&mut self, table: &DeTable<'_>, key: &str) {
        let mut seen = BTreeMap::new();
        let tables = table.get(key).and_then(|value| value.get_ref().as_array());
        let names = tables.into_iter().flat_map(|array| array.iter()).filter_map(|value| {
            let name = value.get_ref().as_table()?.get("name")?;
            Some((name.get_ref().as_str()?, name.span()))
        });
        for (name, span) in names {
            if let Some(first) = seen.get(name) {
                let message = format!("a [[{key}]] named `{}` is above", name.escape_debug());
                self.problems.push(Problem::new(span, message).also("first", Range::clone(first)));
            } else {
                seen.insert(name, span);
            }
        }
    }
}
