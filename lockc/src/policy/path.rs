//! Path rules, in the form the kernel side looks up.

use std::fmt;

use lockc_common::{PATH_RULE_LEN, PathKey};

/// A path in a container with everything below it: absolute, without `.` or
/// empty components, closed by `/`, at most [`PATH_RULE_LEN`] bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathRule {
    bytes: [u8; PATH_RULE_LEN],
    len: usize,
}

/// Why a path cannot be a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It does not start with `/`.
    #[error("path `{path}` is not absolute")]
    Relative {
        /// The path.
        path: String,
    },
    /// It has a `..` component, whose meaning depends on symbolic links.
    #[error("path `{path}` contains `..`")]
    Parent {
        /// The path.
        path: String,
    },
    /// It has a NUL byte, which no path can have.
    #[error("path `{path}` contains a NUL byte")]
    Nul {
        /// The path.
        path: String,
    },
    /// Its normal form is longer than the kernel side can hold.
    #[error("path `{path}` is longer than {} bytes", PATH_RULE_LEN - 1)]
    Long {
        /// The path.
        path: String,
    },
}

impl PathRule {
    /// Every path.
    pub const ROOT: Self = Self::literal("");

    /// Normalises `path`.
    pub fn new(path: &str) -> Result<Self, PathError> {
        let shown = || path.escape_debug().to_string();
        let Some(inside) = path.strip_prefix('/') else {
            return Err(PathError::Relative { path: shown() });
        };
        if path.contains('\0') {
            return Err(PathError::Nul { path: shown() });
        }
        let mut rule = Self { bytes: [0; PATH_RULE_LEN], len: 1 };
        rule.bytes[0] = b'/';
        for part in inside.split('/').filter(|part| !part.is_empty() && *part != ".") {
            if part == ".." {
                return Err(PathError::Parent { path: shown() });
            }
            let end = rule.len + part.len();
            if end >= PATH_RULE_LEN {
                return Err(PathError::Long { path: shown() });
            }
            rule.bytes[rule.len..end].copy_from_slice(part.as_bytes());
            rule.bytes[end] = b'/';
            rule.len = end + 1;
        }
        Ok(rule)
    }

    /// A built-in rule. `path` must be in normal form without its closing `/`;
    /// used in constants, so that one that is too long does not compile.
    pub(super) const fn literal(path: &str) -> Self {
        let path = path.as_bytes();
        let mut bytes = [0; PATH_RULE_LEN];
        let mut at = 0;
        while at < path.len() {
            bytes[at] = path[at];
            at += 1;
        }
        bytes[at] = b'/';
        Self { bytes, len: at + 1 }
    }

    /// The path with its closing `/`.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// The rules for all directories above, from the nearest to the root.
    pub fn parents(&self) -> impl Iterator<Item = Self> {
        let this = *self;
        (1..this.len).rev().filter(move |end| this.bytes[end - 1] == b'/').map(move |len| {
            let mut bytes = this.bytes;
            bytes[len..].fill(0);
            Self { bytes, len }
        })
    }

    /// Whether `other` is the same path or below it.
    pub fn covers(&self, other: &Self) -> bool {
        other.as_bytes().starts_with(self.as_bytes())
    }

    /// The rule's key among the rules with the number `rules`.
    pub fn key(&self, rules: u32) -> PathKey {
        PathKey { rules, path: self.bytes }
    }

    /// How many bits of [`Self::key`] must match: the number of the rules and the path.
    pub fn prefix_bits(&self) -> u32 {
        // At most 4 + 252 bytes.
        u32::try_from((size_of::<u32>() + self.len) * 8).unwrap_or(u32::MAX)
    }
}

impl fmt::Display for PathRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.as_bytes();
        let bytes = bytes.strip_suffix(b"/").filter(|rest| !rest.is_empty()).unwrap_or(bytes);
        String::from_utf8_lossy(bytes).fmt(f)
    }
}

impl fmt::Debug for PathRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rule(path: &str) -> Result<String, String> {
        PathRule::new(path)
            .map(|rule| String::from_utf8(rule.as_bytes().to_vec()).unwrap())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn normal_forms() {
        for (path, expected) in [
            ("/", "/"),
            ("//", "/"),
            ("/.", "/"),
            ("/a", "/a/"),
            ("/a/", "/a/"),
            ("//a//./b/.", "/a/b/"),
            ("/a/...", "/a/.../"),
            ("/a/..b", "/a/..b/"),
        ] {
            assert_eq!(rule(path).as_deref(), Ok(expected), "{path}");
        }
        for (path, expected) in [
            ("", "path `` is not absolute"),
            ("a/b", "path `a/b` is not absolute"),
            ("/a/../b", "path `/a/../b` contains `..`"),
            ("/..", "path `/..` contains `..`"),
            ("/a\0b", "path `/a\\0b` contains a NUL byte"),
        ] {
            assert_eq!(rule(path).unwrap_err(), expected);
        }
    }

    #[test]
    fn the_length_is_that_of_the_normal_form() {
        let longest = format!("/{}", "a".repeat(PATH_RULE_LEN - 2));
        assert_eq!(PathRule::new(&longest).unwrap().prefix_bits(), 256 * 8);
        assert!(PathRule::new(&format!("{longest}////././/")).is_ok());
        let error = PathRule::new(&format!("{longest}a")).unwrap_err();
        assert!(error.to_string().ends_with("is longer than 251 bytes"), "{error}");
    }

    #[test]
    fn parents() {
        let parents = |path: &str| -> Vec<String> {
            PathRule::new(path).unwrap().parents().map(|rule| rule.to_string()).collect()
        };
        assert_eq!(parents("/ab/c/d"), ["/ab/c", "/ab", "/"]);
        assert!(parents("/").is_empty());
        let above = PathRule::new("/ab/c/d").unwrap().parents().next().unwrap();
        assert_eq!(above, PathRule::new("/ab/c").unwrap());
    }

    #[test]
    fn keys() {
        let rule = PathRule::new("/a").unwrap();
        let key = rule.key(7);
        assert_eq!(key.rules, 7);
        assert_eq!(&key.path[..4], b"/a/\0");
        assert_eq!(rule.prefix_bits(), (4 + 3) * 8);
    }

    proptest! {
        #[test]
        fn normalising_is_idempotent_and_bounded(path in "/[a-c./]{0,300}") {
            if let Ok(rule) = PathRule::new(&path) {
                let text = rule.to_string();
                prop_assert_eq!(PathRule::new(&text).unwrap(), rule);
                prop_assert!(rule.as_bytes().ends_with(b"/"));
                let doubled = rule.as_bytes().windows(2).any(|pair| pair == b"//");
                prop_assert!(!doubled);
                prop_assert!(rule.as_bytes().len() <= PATH_RULE_LEN);
                prop_assert!(rule.bytes[rule.len..].iter().all(|byte| *byte == 0));
            }
        }

        /// A rule's bytes are a prefix of another's exactly if its path is above it.
        #[test]
        fn prefixes_are_directories(a in "(/[ab]{1,2}){0,3}", b in "(/[ab]{1,2}){0,3}") {
            let (a, b) = (format!("/{a}"), format!("/{b}"));
            let above = std::path::Path::new(&b).starts_with(&a);
            let (a, b) = (PathRule::new(&a).unwrap(), PathRule::new(&b).unwrap());
            prop_assert_eq!(b.as_bytes().starts_with(a.as_bytes()), above);
        }
    }
}
