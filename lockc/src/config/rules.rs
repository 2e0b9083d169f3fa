//! `[[rule]]`.

use std::{collections::BTreeMap, ops::Range};

use toml::de::DeTable;

use super::{
    Config, Problem, Rule,
    problem::suggest,
    read::MODES,
    reader::{Reader, Value, integer},
    users::PASSWD,
};
use crate::{
    policy::{Match, Owner, Pattern},
    runtime::engine::Engine,
};

/// Most `[[rule]]` tables, and most labels, or annotations, to match in one of them.
pub const MAX_RULES: usize = 1024;

/// Keys of `match`.
const KEYS: &[&str] = &[
    "engine",
    "namespace",
    "pod",
    "container",
    "image",
    "label",
    "annotation",
    "runtime",
    "owner",
];

impl Reader {
    pub(super) fn rules(&mut self, table: &DeTable<'_>, config: &mut Config) {
        for (rule, span) in self.tables(table, "rule", MAX_RULES) {
            let known = self.problems.len();
            let Some(rule) = self.rule(rule, span.clone(), config) else { continue };
            // A rule that lacks what could not be understood seems to match more than it does.
            let new = &self.problems[known..];
            if new.iter().all(|problem| problem.severity != super::Severity::Error) {
                self.check_reachable(&config.rules, &rule, span);
                config.rules.push(rule);
            }
        }
        self.check_unique(table, "rule");
    }

    fn rule(&mut self, table: &DeTable<'_>, span: Range<usize>, config: &Config) -> Option<Rule> {
        self.check_keys(table, "rule", &["name", "policy", "mode", "trust_claims", "match"]);
        let name = self.required_string(table, "name", "[[rule]]", span.clone());
        if !table.contains_key("policy") {
            self.problem(span, "[[rule]] has no `policy`");
        }
        let policy = self.policy_name(table, "policy", config);
        let mode = self.choice(table, "mode", &MODES);
        let trust_claims = self.boolean(table, "trust_claims").unwrap_or(false);
        let matches = self.table(table, "match").map(|table| self.matches(table, config));
        let matches = matches.unwrap_or_default();
        Some(Rule { name: name?.0, policy: policy?.0, mode, trust_claims, matches })
    }

    fn matches(&mut self, table: &DeTable<'_>, config: &Config) -> Match {
        self.check_keys(table, "rule.match", KEYS);
        Match {
            engine: self.engine(table),
            namespace: self.key(table, "namespace"),
            pod: self.key(table, "pod"),
            container: self.key(table, "container"),
            image: self.key(table, "image"),
            labels: self.patterns(table, "label"),
            annotations: self.patterns(table, "annotation"),
            runtime: self.match_runtime(table, config),
            owner: self.owner(table),
        }
    }

    fn key(&mut self, table: &DeTable<'_>, key: &str) -> Option<Pattern> {
        table.get(key).and_then(|value| self.pattern(value, key))
    }

    fn engine(&mut self, table: &DeTable<'_>) -> Option<Pattern> {
        let pattern = self.key(table, "engine")?;
        let names = Engine::ALL.map(Engine::name);
        if !names.iter().any(|name| pattern.is_match(name)) {
            let message = format!("no engine is named `{}`", pattern.as_str().escape_debug());
            let help = suggest(pattern.as_str(), names)
                .unwrap_or_else(|| format!("engines: {}", names.join(", ")));
            let span = table.get("engine").map(Value::span).unwrap_or_default();
            self.problems.push(Problem::new(span, message).help(Some(help)));
        }
        Some(pattern)
    }

    fn match_runtime(&mut self, table: &DeTable<'_>, config: &Config) -> Option<Pattern> {
        let pattern = self.key(table, "runtime")?;
        let names = || config.runtimes.iter().map(|runtime| runtime.name.as_str());
        if !names().any(|name| pattern.is_match(name)) {
            let message = format!("no [[runtime]] is named `{}`", pattern.as_str().escape_debug());
            let help = suggest(pattern.as_str(), names());
            let span = table.get("runtime").map(Value::span).unwrap_or_default();
            self.problems.push(Problem::warning(span, message).help(help));
        }
        Some(pattern)
    }

    fn owner(&mut self, table: &DeTable<'_>) -> Option<Owner> {
        let value = table.get("owner")?;
        let pattern = match integer(value) {
            Some(uid) => Pattern::new(&uid.to_string()).ok()?,
            None => self.pattern(value, "owner")?,
        };
        let uids = self.users.find(&pattern);
        let text = pattern.as_str();
        let number = text.bytes().all(|byte| byte.is_ascii_digit());
        if number && text.parse::<u32>().is_ok_and(|uid| uid.to_string() != text) {
            let message = format!("`{text}` is not how a user id is written");
            self.problem(value.span(), message);
        } else if number && text.parse::<u32>().is_err() {
            self.problem(value.span(), format!("`{text}` is too large for a user id"));
        } else if pattern.is_literal() && !number && uids.is_empty() {
            let message = format!("no user is named `{}` in {PASSWD}", text.escape_debug());
            let help = "a user that only a directory service knows must be given by id".to_owned();
            self.problems.push(Problem::warning(value.span(), message).help(Some(help)));
        }
        Some(Owner { pattern, uids })
    }

    fn patterns(&mut self, table: &DeTable<'_>, kind: &str) -> BTreeMap<String, Pattern> {
        let mut patterns = BTreeMap::new();
        let Some(table) = self.table(table, kind) else { return patterns };
        if table.len() > MAX_RULES {
            let span = table.keys().next().map(toml::Spanned::span).unwrap_or_default();
            self.problem(span, format!("more than {MAX_RULES} keys of `{kind}` to match"));
            return patterns;
        }
        for (key, value) in table {
            if let Some(pattern) = self.pattern(value, key.get_ref()) {
                patterns.insert(key.get_ref().clone().into_owned(), pattern);
            }
        }
        patterns
    }

    fn pattern(&mut self, value: &Value<'_>, key: &str) -> Option<Pattern> {
        let Some(glob) = value.get_ref().as_str() else {
            self.wrong_type(value, key, "a glob in quotes");
            // `label.a.b` without quotes around `a.b`.
            if value.get_ref().is_table()
                && let Some(problem) = self.problems.last_mut()
            {
                problem.help = Some("a key that contains dots must be in quotes".to_owned());
            }
            return None;
        };
        if glob.is_empty() {
            let help = "`*` matches any value, also an empty one".to_owned();
            self.problems.push(Problem::new(value.span(), "the glob is empty").help(Some(help)));
            return None;
        }
        Pattern::new(glob)
            .map_err(|error| {
                let message = format!("`{}` is not a glob: {}", glob.escape_debug(), error.kind());
                self.problem(value.span(), message);
            })
            .ok()
    }
}
