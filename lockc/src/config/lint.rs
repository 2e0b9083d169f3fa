//! What is understood and yet most likely a mistake.

use std::{collections::BTreeMap, ops::Range};

use lockc_common::PolicyFlags;

use super::{Problem, Rule, reader::Reader};
use crate::policy::{PathRule, PathRules, Policy, Verdict};

/// Directories that are links in most images, and where they lead. Path rules are about resolved
/// paths, so that one about the link says nothing there.
const LINKS: &[(&str, &str)] = &[
    ("/var/run", "/run"),
    ("/var/lock", "/run/lock"),
    ("/bin", "/usr/bin"),
    ("/sbin", "/usr/sbin"),
    ("/lib", "/usr/lib"),
    ("/lib64", "/usr/lib64"),
];

impl Reader {
    /// A rule behind one that matches all it matches is a mistake.
    pub(super) fn check_reachable(&mut self, before: &[Rule], rule: &Rule, span: Range<usize>) {
        if let Some(other) = before.iter().find(|other| other.matches.covers(&rule.matches)) {
            self.problems.push(Problem::warning(
                span,
                format!(
                    "rule `{}` comes too late: rule `{}` before it matches all that it matches",
                    rule.name.escape_debug(),
                    other.name.escape_debug()
                ),
            ));
        }
    }

    /// Path rules without effect. `typed` are those of the policy's own table, which are in the
    /// policy already, beside the `inherited` ones that they do not replace.
    pub(super) fn check_paths(
        &mut self,
        policy: &Policy,
        inherited: &PathRules,
        typed: &BTreeMap<PathRule, (Verdict, Range<usize>)>,
    ) {
        for (rule, (verdict, span)) in typed {
            let (above, otherwise) = policy.paths.above(rule);
            if otherwise == *verdict && !inherited.contains(rule) {
                let key = verdict.key();
                let why = match above {
                    Some(above) => format!("`{above}` above it has the same"),
                    None => "that is the default".to_owned(),
                };
                let message = format!("`paths.{key}` of `{rule}` changes nothing: {why}");
                self.problems.push(Problem::warning(span.clone(), message));
            } else if *verdict != Verdict::Allow {
                self.check_link(policy, rule, *verdict, span);
            }
        }
        let denied = typed.values().find(|(verdict, _)| *verdict != Verdict::Allow);
        if let Some((verdict, span)) = denied
            && policy.denials.0 & PolicyFlags::MOUNT == 0
        {
            let message = format!(
                "`paths.{}` can be evaded: policy `{}` does not deny mounting, and whoever may \
                 mount can give a path another name",
                verdict.key(),
                policy.name
            );
            self.problems.push(Problem::warning(span.clone(), message));
        }
    }

    fn check_link(
        &mut self,
        policy: &Policy,
        rule: &PathRule,
        verdict: Verdict,
        span: &Range<usize>,
    ) {
        let path = rule.to_string();
        for (link, target) in LINKS {
            let Some(rest) = path.strip_prefix(link) else { continue };
            if !rest.is_empty() && !rest.starts_with('/') {
                continue;
            }
            let Ok(real) = PathRule::new(&format!("{target}{rest}")) else { continue };
            if policy.paths.verdict(&real) < verdict {
                let message = format!(
                    "`{link}` is a link to `{target}` in most images, where `{path}` is never met"
                );
                let help = Some(format!("add `{real}`"));
                self.problems.push(Problem::warning(span.clone(), message).help(help));
            }
        }
    }
}
