//! Whether what is known of a container is what a rule asks for.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use globset::{GlobBuilder, GlobMatcher};
use nix::unistd::Uid;

use super::Subject;
use crate::runtime::engine::Fact;

/// Longest value, in bytes, that a glob is matched against; a longer one matches none but `*`.
/// Whoever writes a bundle could otherwise keep the gate busy until its deadline. Kubernetes bounds
/// the annotations of a pod to 256 KiB in all (`TotalAnnotationSizeLimitB`,
/// apimachinery/pkg/api/validation/objectmeta.go, 1.33), its names and labels to far less.
pub const MAX_VALUE: usize = 64 << 10;

/// Longest part of a value, in characters, that is kept to explain a decision.
const SHOWN: usize = 128;

/// A glob over a whole value: `?`, `*` (with `/`), `[a-z]`, `{a,b}`.
#[derive(Clone)]
pub struct Pattern {
    glob: GlobMatcher,
    /// What every match begins with.
    start: String,
    /// What every match has in it after that, in this order.
    parts: Vec<String>,
    /// What matches besides.
    rest: Rest,
}

/// What may follow the start of a value that matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    Nothing,
    Anything,
    /// That is up to the glob.
    Glob,
}

/// What has a meaning of its own in a glob.
const SPECIAL: [char; 7] = ['*', '?', '[', ']', '{', '}', '\\'];

impl Pattern {
    /// Compiles a glob.
    pub fn new(glob: &str) -> Result<Self, globset::Error> {
        let start = glob.split(SPECIAL).next().unwrap_or_default().to_owned();
        let rest = match &glob[start.len()..] {
            "" => Rest::Nothing,
            stars if stars.bytes().all(|byte| byte == b'*') => Rest::Anything,
            _ => Rest::Glob,
        };
        // What is in brackets may be left out by a match, and what is escaped looks different in it.
        let parts = if glob.contains(['[', ']', '{', '}', '\\']) {
            Vec::new()
        } else {
            let parts = glob[start.len()..].split(['*', '?']).filter(|part| !part.is_empty());
            parts.map(str::to_owned).collect()
        };
        let glob = GlobBuilder::new(glob).literal_separator(false).build()?;
        Ok(Self { glob: glob.compile_matcher(), start, parts, rest })
    }

    /// Whether `value` as a whole matches.
    pub fn is_match(&self, value: &str) -> bool {
        if self.is_any() {
            return true;
        }
        // The glob alone would do; it takes ten times as long.
        let Some(rest) = value.strip_prefix(&*self.start) else { return false };
        value.len() <= MAX_VALUE
            && match self.rest {
                Rest::Nothing => rest.is_empty(),
                Rest::Anything => true,
                Rest::Glob => self.has_parts(rest) && self.glob.is_match(value),
            }
    }

    /// Whether all parts are there, in their order, which a match needs.
    fn has_parts(&self, mut rest: &str) -> bool {
        self.parts.iter().all(|part| match rest.split_once(&**part) {
            Some((_, after)) => {
                rest = after;
                true
            }
            None => false,
        })
    }

    /// The glob as typed.
    pub fn as_str(&self) -> &str {
        self.glob.glob().glob()
    }

    /// Whether every value matches.
    pub fn is_any(&self) -> bool {
        self.start.is_empty() && self.rest == Rest::Anything
    }

    /// Whether it stands for one value only.
    pub fn is_literal(&self) -> bool {
        self.rest == Rest::Nothing
    }

    /// Whether all that matches `other` is known to match this too. In doubt it is not.
    pub fn covers(&self, other: &Self) -> bool {
        self == other || self.is_any() || (other.is_literal() && self.is_match(other.as_str()))
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Pattern {}

/// `match.owner`: user names and ids. Names were looked up when the configuration was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// What was typed; ids match it as decimal numbers.
    pub pattern: Pattern,
    /// Ids of the users whose names match it.
    pub uids: BTreeSet<u32>,
}

impl Owner {
    /// Whether a user is meant.
    pub fn is_match(&self, owner: Uid) -> bool {
        self.uids.contains(&owner.as_raw()) || self.pattern.is_match(&owner.to_string())
    }
}

/// `match`: all of it must hold. Nothing means every container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Match {
    /// Name of the engine.
    pub engine: Option<Pattern>,
    /// Kubernetes namespace.
    pub namespace: Option<Pattern>,
    /// Kubernetes pod.
    pub pod: Option<Pattern>,
    /// Name of the container.
    pub container: Option<Pattern>,
    /// Reference of the image.
    pub image: Option<Pattern>,
    /// Labels by key; each must be there.
    pub labels: BTreeMap<String, Pattern>,
    /// Annotations by key; each must be there.
    pub annotations: BTreeMap<String, Pattern>,
    /// Name of the runtime.
    pub runtime: Option<Pattern>,
    /// Who executes the runtime.
    pub owner: Option<Owner>,
}

/// The first thing that a rule asks for and a container is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Miss {
    /// Key below `match`, as in `label.tier`.
    pub key: String,
    /// The glob that is asked for.
    pub wanted: String,
    /// The value, cut to a length that can be shown; `None` if there is none.
    pub seen: Option<String>,
}

/// One key that is asked for: what is seen, whether it is as asked for, and whether it can be
/// trusted.
struct Seen<'s> {
    key: Cow<'static, str>,
    wanted: &'s Pattern,
    value: Option<Cow<'s, str>>,
    holds: bool,
    trusted: bool,
}

impl<'s> Seen<'s> {
    fn new(
        key: impl Into<Cow<'static, str>>,
        pattern: &'s Pattern,
        fact: Option<&'s Fact<String>>,
    ) -> Self {
        Self {
            key: key.into(),
            wanted: pattern,
            value: fact.map(|fact| fact.value.as_str().into()),
            holds: fact.is_some_and(|fact| pattern.is_match(&fact.value)),
            trusted: fact.is_some_and(|fact| fact.trusted),
        }
    }
}

impl Match {
    /// Whether it asks for nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a container matches; if so, the first key that only a fact which is not trusted makes
    /// match. [`Self::compare`] without the reason: most rules do not match.
    pub fn matches(&self, subject: &Subject<'_>) -> Option<Option<String>> {
        let mut untrusted = None;
        for seen in self.seen(subject) {
            if !seen.holds {
                return None;
            }
            if !seen.trusted {
                untrusted.get_or_insert(seen.key);
            }
        }
        Some(untrusted.map(Cow::into_owned))
    }

    /// Compares with a container. If it matches, gives the first key that only a fact which is not
    /// trusted makes match.
    ///
    /// Labels and annotations of a user other than root are never trusted: such a user writes
    /// bundles, and records of engines, as they like.
    pub fn compare(&self, subject: &Subject<'_>) -> Result<Option<String>, Miss> {
        let mut untrusted = None;
        for seen in self.seen(subject) {
            if !seen.holds {
                return Err(Miss {
                    key: seen.key.into_owned(),
                    wanted: seen.wanted.as_str().to_owned(),
                    seen: seen.value.map(|value| value.chars().take(SHOWN).collect()),
                });
            }
            if !seen.trusted {
                untrusted.get_or_insert(seen.key);
            }
        }
        Ok(untrusted.map(Cow::into_owned))
    }

    /// The keys that are asked for, in the order in which they are looked at.
    fn seen<'s>(&'s self, subject: &'s Subject<'_>) -> impl Iterator<Item = Seen<'s>> {
        let Subject { owner, runtime, identity } = *subject;
        let engine = self.engine.iter().map(move |pattern| {
            let name = identity.engine.value.name();
            Seen {
                key: "engine".into(),
                wanted: pattern,
                value: Some(name.into()),
                holds: pattern.is_match(name),
                trusted: identity.engine.trusted,
            }
        });
        let names = [
            ("namespace", &self.namespace, &identity.namespace),
            ("pod", &self.pod, &identity.pod),
            ("container", &self.container, &identity.container),
            ("image", &self.image, &identity.image),
        ];
        let names = names.into_iter().filter_map(|(key, pattern, fact)| {
            Some(Seen::new(key, pattern.as_ref()?, fact.as_ref()))
        });
        let maps = [
            ("label", &self.labels, &identity.labels),
            ("annotation", &self.annotations, &identity.annotations),
        ];
        let maps = maps.into_iter().flat_map(move |(kind, patterns, facts)| {
            patterns.iter().map(move |(key, pattern)| {
                let seen = Seen::new(format!("{kind}.{key}"), pattern, facts.get(key));
                Seen { trusted: seen.trusted && owner.is_root(), ..seen }
            })
        });
        let runtime = self.runtime.iter().map(move |pattern| Seen {
            key: "runtime".into(),
            wanted: pattern,
            value: Some(runtime.into()),
            holds: pattern.is_match(runtime),
            trusted: true,
        });
        let owner = self.owner.iter().map(move |wanted| Seen {
            key: "owner".into(),
            wanted: &wanted.pattern,
            value: Some(owner.to_string().into()),
            holds: wanted.is_match(owner),
            trusted: true,
        });
        engine.chain(names).chain(maps).chain(runtime).chain(owner)
    }

    /// Whether every container that matches `other` is known to match this too. In doubt it is
    /// not.
    pub fn covers(&self, other: &Self) -> bool {
        let one = |own: &Option<Pattern>, others: &Option<Pattern>| match (own, others) {
            (None, _) => true,
            (Some(own), Some(others)) => own.covers(others),
            (Some(_), None) => false,
        };
        let all = |own: &BTreeMap<String, Pattern>, others: &BTreeMap<String, Pattern>| {
            own.iter()
                .all(|(key, pattern)| others.get(key).is_some_and(|other| pattern.covers(other)))
        };
        // An engine is always known.
        let engine = self.engine.clone().filter(|pattern| !pattern.is_any());
        let runtime = self.runtime.clone().filter(|pattern| !pattern.is_any());
        let owner = match (&self.owner, &other.owner) {
            (None, _) => true,
            (Some(own), _) if own.pattern.is_any() => true,
            (Some(own), Some(others)) => {
                own == others
                    || (others.pattern.is_literal()
                        && if others.uids.is_empty() {
                            own.pattern.covers(&others.pattern)
                        } else {
                            others.uids.iter().all(|uid| own.is_match(Uid::from_raw(*uid)))
                        })
            }
            (Some(_), None) => false,
        };
        one(&engine, &other.engine)
            && one(&self.namespace, &other.namespace)
            && one(&self.pod, &other.pod)
            && one(&self.container, &other.container)
            && one(&self.image, &other.image)
            && all(&self.labels, &other.labels)
            && all(&self.annotations, &other.annotations)
            && one(&runtime, &other.runtime)
            && owner
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(glob: &str) -> Pattern {
        Pattern::new(glob).unwrap()
    }

    #[test]
    fn globs_are_over_whole_values() {
        for (glob, value, expected) in [
            ("a*", "a/b/c", true),
            ("a*", "ba", false),
            ("a?c", "a/c", true),
            ("{a,b}", "b", true),
            ("[a-c]1", "b1", true),
            ("*", "", true),
            ("a", "ab", false),
        ] {
            assert_eq!(pattern(glob).is_match(value), expected, "{glob} {value}");
        }
        let long = "a".repeat(MAX_VALUE + 1);
        assert!(pattern("a*").is_match(&long[1..]));
        assert!(!pattern("a*").is_match(&long));
        assert!(pattern("*").is_match(&long));
    }

    proptest::proptest! {
        #[test]
        fn short_cuts_match_what_the_glob_matches(glob in "[ab*?\\[\\]{},]{0,6}", value in "[ab/,]{0,6}") {
            if let Ok(pattern) = Pattern::new(&glob) {
                proptest::prop_assert_eq!(pattern.is_match(&value), pattern.glob.is_match(&value));
            }
        }
    }

    #[test]
    fn covering_is_certain() {
        for (outer, inner, expected) in [
            ("*", "a*", true),
            ("a*", "a*", true),
            ("a*", "ab", true),
            ("a*", "ab*", false),
            ("a*", "b", false),
            ("a", "*", false),
        ] {
            assert_eq!(pattern(outer).covers(&pattern(inner)), expected, "{outer} {inner}");
        }
        let with = |image: Option<&str>, engine: Option<&str>| Match {
            image: image.map(pattern),
            engine: engine.map(pattern),
            ..Match::default()
        };
        assert!(Match::default().covers(&with(Some("x"), None)));
        assert!(with(None, Some("*")).covers(&Match::default()));
        assert!(!with(Some("*"), None).covers(&Match::default()), "there may be no image");
        assert!(with(Some("x*"), None).covers(&with(Some("xy"), Some("docker"))));
        assert!(!with(Some("x*"), Some("docker")).covers(&with(Some("xy"), None)));
    }

    #[test]
    fn owners_by_name_and_id() {
        let owner = |glob, uids: &[u32]| Owner {
            pattern: pattern(glob),
            uids: uids.iter().copied().collect(),
        };
        assert!(owner("root", &[0]).is_match(Uid::from_raw(0)));
        assert!(!owner("root", &[0]).is_match(Uid::from_raw(1000)));
        assert!(owner("1000", &[]).is_match(Uid::from_raw(1000)));
        assert!(owner("[1-9]*", &[]).is_match(Uid::from_raw(1000)));
        assert!(!owner("[1-9]*", &[]).is_match(Uid::from_raw(0)));
    }
}
