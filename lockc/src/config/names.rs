//! By which names the kernel side knows OCI runtimes whose files the daemon has not seen yet.

use lockc_common::NAME_LEN;

use super::expand::components;

/// Most names that the braces of one glob stand for.
const MAX_ALTERNATIVES: usize = 64;
/// Fewest bytes that a glob says of a name: `*` would make every program a runtime.
const FEWEST_BYTES: usize = 3;

/// Base names of runtimes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamePattern {
    /// How they begin.
    pub begin: Vec<u8>,
    /// How they end; `None` if `begin` is the whole name.
    pub end: Option<Vec<u8>>,
}

impl NamePattern {
    /// A name that stands for itself.
    pub fn exact(name: impl Into<Vec<u8>>) -> Self {
        Self { begin: name.into(), end: None }
    }

    /// Whether the kernel side has room for it.
    pub fn fits(&self) -> bool {
        self.begin.len() < NAME_LEN && self.end.as_ref().is_none_or(|end| end.len() < NAME_LEN)
    }

    /// Whether all names that `other` stands for begin as this says, so that of both only `other` is looked at.
    fn is_hidden_by(&self, other: &Self) -> bool {
        self.end.is_some() && other.end.is_some() && other.begin.starts_with(&self.begin)
    }
}

/// What the last component of a path stands for. `None` if the kernel side cannot tell: it knows names, one `*` in them,
/// and `{a,b}`.
pub fn name_patterns(path: &str) -> Option<Vec<NamePattern>> {
    let name = components(path).last()?;
    let names = alternatives(name)?;
    let patterns: Option<Vec<_>> = names.iter().map(|name| pattern(name)).collect();
    patterns.filter(|patterns| patterns.iter().all(NamePattern::fits))
}

/// Those of which the kernel side keeps each apart, and those that it cannot: it looks at the longest beginning only.
pub fn separate(
    patterns: impl IntoIterator<Item = NamePattern>,
) -> (Vec<NamePattern>, Vec<NamePattern>) {
    let mut patterns: Vec<_> = patterns
        .into_iter()
        .filter(|pattern| !pattern.begin.is_empty() || pattern.end.is_some())
        .collect();
    // The shortest beginning first, and of those with the same one the loosest.
    patterns.sort_by_key(|it| (it.begin.len(), it.end.as_ref().map_or(0, Vec::len), it.clone()));
    patterns.dedup();
    let (mut kept, mut left): (Vec<NamePattern>, Vec<NamePattern>) = (Vec::new(), Vec::new());
    for pattern in patterns {
        let has_end = pattern.end.as_ref().is_some_and(|end| !end.is_empty());
        let hidden = kept.iter().find(|other| has_end && other.is_hidden_by(&pattern));
        match hidden {
            None => kept.push(pattern),
            // What the other says is looser.
            Some(other) if other.end.as_ref().is_some_and(Vec::is_empty) => {}
            Some(_) => left.push(pattern),
        }
    }
    (kept, left)
}

fn pattern(name: &str) -> Option<NamePattern> {
    if name.contains(['?', '[', ']', '{', '}', '\\']) {
        return None;
    }
    match name.split_once('*') {
        None => Some(NamePattern::exact(name)),
        Some((_, end)) if end.contains('*') => None,
        Some((begin, end)) if begin.len() + end.len() < FEWEST_BYTES => None,
        Some((begin, end)) => Some(NamePattern { begin: begin.into(), end: Some(end.into()) }),
    }
}

/// A name for each of the alternatives in braces, which are not nested.
fn alternatives(name: &str) -> Option<Vec<String>> {
    let Some((before, rest)) = name.split_once('{') else {
        return Some(vec![name.to_owned()]);
    };
    let (inner, after) = rest.split_once('}')?;
    if inner.contains('{') {
        return None;
    }
    let tails = alternatives(after)?;
    let mut all = Vec::new();
    for choice in inner.split(',') {
        all.extend(tails.iter().map(|tail| format!("{before}{choice}{tail}")));
        if all.len() > MAX_ALTERNATIVES {
            return None;
        }
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(path: &str) -> Option<Vec<String>> {
        let show = |pattern: NamePattern| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            pattern.end.map_or(text(&pattern.begin), |end| {
                format!("{}*{}", text(&pattern.begin), text(&end))
            })
        };
        name_patterns(path).map(|patterns| patterns.into_iter().map(show).collect())
    }

    #[test]
    fn names_one_star_and_braces() {
        let is = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(said("/usr/bin/runc"), is(&["runc"]));
        assert_eq!(said("/data/*/bin/runc/."), is(&["runc"]));
        assert_eq!(said("/opt/runc-*"), is(&["runc-*"]));
        assert_eq!(said("/opt/*-runc"), is(&["*-runc"]));
        assert_eq!(said("/opt/{runc,crun}{,-*}"), is(&["runc", "runc-*", "crun", "crun-*"]));
        for path in [
            "/opt/run[cx]",
            "/opt/run?",
            "/opt/*",
            "/opt/r*",
            "/opt/a*b*c",
            "/opt/{a,{b,c}}",
            r"/opt/\*x",
            "/",
        ] {
            assert_eq!(said(path), None, "{path}");
        }
        assert_eq!(said(&format!("/x/{}", "n".repeat(NAME_LEN))), None);
        assert_eq!(said(&format!("/x/{}", "{a,b}".repeat(7))), None);
        assert!(said(&format!("/x/{}", "n".repeat(NAME_LEN - 1))).is_some());
    }

    #[test]
    fn what_a_longer_beginning_would_hide_is_left_out() {
        let all = |paths: &[&str]| {
            let patterns = paths.iter().flat_map(|path| name_patterns(path).unwrap());
            let (kept, left) = separate(patterns);
            (kept.len(), left.len())
        };
        assert_eq!(all(&["/runc", "/runc", "/runc-*", "/crun"]), (3, 0));
        // Names that stand for themselves hide nothing else.
        assert_eq!(all(&["/runc*", "/runc-a"]), (2, 0));
        assert_eq!(all(&["/runc*", "/runc-*", "/runc-*-x"]), (2, 0));
        assert_eq!(all(&["/runc-*-a", "/runc-*-b"]), (1, 1));
        assert_eq!(all(&["/run*-a", "/runc-*-b", "/youki-*-b"]), (2, 1));
    }
}
