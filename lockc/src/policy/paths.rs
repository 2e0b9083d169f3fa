//! Path rules of one policy.

use std::collections::BTreeMap;

use super::{PathRule, resolved::Access};

/// What a path rule says. The order is that of strictness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// An exception to a less specific rule.
    Allow,
    /// May be read and executed, not changed.
    ReadOnly,
    /// May not be opened.
    Deny,
}

impl Verdict {
    /// All of them, in the order of strictness.
    pub const ALL: [Self; 3] = [Self::Allow, Self::ReadOnly, Self::Deny];

    /// The key of its rules in the configuration, below `paths`.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::ReadOnly => "read_only",
            Self::Deny => "deny",
        }
    }
}

/// The path rules of a policy: each speaks for its path and all that is below it, as
/// far as no rule for a longer path does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathRules {
    rules: BTreeMap<PathRule, Verdict>,
    /// What paths get that no rule is about.
    pub default: Access,
}

impl FromIterator<(PathRule, Verdict)> for PathRules {
    fn from_iter<T: IntoIterator<Item = (PathRule, Verdict)>>(rules: T) -> Self {
        Self { rules: rules.into_iter().collect(), default: Access::Allow }
    }
}

impl PathRules {
    /// Adds a rule; it replaces one about the same path.
    pub fn insert(&mut self, rule: PathRule, verdict: Verdict) {
        self.rules.insert(rule, verdict);
    }

    /// The rules, sorted by path.
    pub fn iter(&self) -> impl Iterator<Item = (&PathRule, Verdict)> {
        self.rules.iter().map(|(rule, verdict)| (rule, *verdict))
    }

    /// Whether there is a rule about this very path.
    pub fn contains(&self, path: &PathRule) -> bool {
        self.rules.contains_key(path)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether they change anything at all for the kernel side.
    pub fn denies_something(&self) -> bool {
        self.default == Access::Deny || self.rules.values().any(|v| *v != Verdict::Allow)
    }

    /// What is said about `path` and what is below it, more specific rules apart.
    pub fn verdict(&self, path: &PathRule) -> Verdict {
        self.rules.get(path).copied().unwrap_or_else(|| self.above(path).1)
    }

    /// The rule for a directory above `path` that speaks for it if none does for the path
    /// itself; `None` with the verdict of the default.
    pub fn above(&self, path: &PathRule) -> (Option<&PathRule>, Verdict) {
        path.parents()
            .find_map(|parent| self.rules.get_key_value(&parent))
            .map_or((None, self.default_verdict()), |(rule, verdict)| (Some(rule), *verdict))
    }

    /// Whether some path gets less strict a verdict than from `other`.
    pub fn is_looser_than(&self, other: &Self) -> bool {
        // Between the paths of all rules the verdicts of both sides do not change.
        self.default_verdict() < other.default_verdict()
            || self
                .rules
                .keys()
                .chain(other.rules.keys())
                .any(|path| self.verdict(path) < other.verdict(path))
    }

    fn default_verdict(&self) -> Verdict {
        match self.default {
            Access::Allow => Verdict::Allow,
            Access::Deny => Verdict::Deny,
        }
    }
}

#[cfg(test)]
mod tests {
    use lockc_common::PathVerdict;
    use proptest::prelude::*;

    use super::*;
    use crate::policy::{Level, Mode, Policy};

    fn rules(rules: &[(String, Verdict)]) -> PathRules {
        rules.iter().map(|(path, verdict)| (PathRule::new(path).unwrap(), *verdict)).collect()
    }

    fn path() -> impl Strategy<Value = String> {
        "(/(a|b|ab|c)){0,5}/?".prop_map(|path| format!("/{path}"))
    }

    fn verdicts() -> impl Strategy<Value = Verdict> {
        prop_oneof![Just(Verdict::Allow), Just(Verdict::ReadOnly), Just(Verdict::Deny)]
    }

    fn parts(path: &str) -> Vec<&str> {
        path.split('/').filter(|part| !part.is_empty()).collect()
    }

    /// What the configuration's text promises, in the plainest way: of the rules whose
    /// components start the path's, the last one with the most components.
    fn reference(rules: &[(String, Verdict)], path: &str) -> Option<Verdict> {
        let mut best: Option<(usize, Verdict)> = None;
        for (rule, verdict) in rules {
            let rule = parts(rule);
            if parts(path).starts_with(&rule) && best.is_none_or(|(len, _)| rule.len() >= len) {
                best = Some((rule.len(), *verdict));
            }
        }
        best.map(|(_, verdict)| verdict)
    }

    /// What the kernel side does: the longest key of the trie that is a prefix of the path,
    /// which ends with `/`.
    fn longest_prefix(keys: &[(PathRule, PathVerdict)], path: &str) -> Option<PathVerdict> {
        let path = PathRule::new(path).unwrap();
        keys.iter()
            .filter(|(rule, _)| path.as_bytes().starts_with(rule.as_bytes()))
            .max_by_key(|(rule, _)| rule.prefix_bits())
            .map(|(_, verdict)| *verdict)
    }

    #[test]
    fn the_most_specific_rule_wins() {
        let rules = rules(&[
            ("/run".into(), Verdict::Deny),
            ("/run/user".into(), Verdict::Allow),
            ("/run/user/0".into(), Verdict::ReadOnly),
        ]);
        let verdict = |path: &str| rules.verdict(&PathRule::new(path).unwrap());
        for (path, expected) in [
            ("/", Verdict::Allow),
            ("/runner", Verdict::Allow),
            ("/run", Verdict::Deny),
            ("/run/x", Verdict::Deny),
            ("/run/users", Verdict::Deny),
            ("/run/user", Verdict::Allow),
            ("/run/user/1", Verdict::Allow),
            ("/run/user/0/x/y", Verdict::ReadOnly),
        ] {
            assert_eq!(verdict(path), expected, "{path}");
        }
    }

    proptest! {
        #[test]
        fn compiled_rules_say_what_was_typed(
            typed in prop::collection::vec((path(), verdicts()), 0..12),
            path in path(),
            denies in any::<bool>(),
        ) {
            let default = if denies { Verdict::Deny } else { Verdict::Allow };
            let expected = reference(&typed, &path);
            let mut policy = Policy::built_in(Level::Privileged);
            policy.paths = rules(&typed);
            policy.paths.default = if denies { Access::Deny } else { Access::Allow };
            let ours = policy.paths.verdict(&PathRule::new(&path).unwrap());
            prop_assert_eq!(ours, expected.unwrap_or(default));
            let compiled = policy.kernel_rules(Mode::Enforce).paths;
            let found = longest_prefix(&compiled, &path);
            let wanted = match expected {
                Some(Verdict::Deny) => PathVerdict::Deny,
                Some(Verdict::ReadOnly) => PathVerdict::ReadOnly,
                None if denies => PathVerdict::Default,
                Some(Verdict::Allow) | None => PathVerdict::Allow,
            };
            prop_assert_eq!(found.unwrap_or(PathVerdict::Allow), wanted);
        }

        /// Some path tells exactly if one set of rules is looser than another.
        #[test]
        fn looser_means_that_a_path_is_freer(
            one in prop::collection::vec((path(), verdicts()), 0..4),
            other in prop::collection::vec((path(), verdicts()), 0..4),
            tried in prop::collection::vec(path(), 20),
        ) {
            let looser = rules(&one).is_looser_than(&rules(&other));
            let verdict = |set: &[_], path: &str| reference(set, path).unwrap_or(Verdict::Allow);
            let mut tried = tried;
            tried.extend(one.iter().chain(&other).map(|(path, _)| path.clone()));
            let found = tried.iter().any(|path| verdict(&one, path) < verdict(&other, path));
            prop_assert_eq!(looser, found);
        }
    }
}
