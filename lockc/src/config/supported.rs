//! What can be configured and is not enforced yet. The only list of such things: what a later
//! version enforces is taken from here.
//!
//! A configuration that uses any of it is refused: whoever wrote it believes to be protected.

use crate::policy::Policy;

/// Keys below `[policy.NAME]` that the policy uses and that are not enforced.
pub fn missing(policy: &Policy) -> Vec<&'static str> {
    let Policy { host_paths, .. } = policy;
    let used = [("host_paths.deny", !host_paths.is_empty())];
    used.into_iter().filter(|(_, used)| *used).map(|(key, _)| key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Level;

    #[test]
    fn what_the_built_in_policies_need() {
        let missing = |level| missing(&Policy::built_in(level));
        for level in Level::ALL {
            assert!(missing(level).is_empty(), "{level}");
        }
    }
}
