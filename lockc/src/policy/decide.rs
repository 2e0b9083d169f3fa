//! Which policy a container gets.

use std::fmt::Write as _;

use nix::unistd::Uid;

use super::{Miss, Mode, Policy};
use crate::{
    config::{Config, Rule},
    runtime::engine::Identity,
};

/// Label, or annotation, by which a container asks for a policy that is not looser than the one
/// that it would get.
pub const LABEL: &str = "org.lockc.policy";

/// Who starts a container, by what, and what is known of it.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Who executes the runtime.
    pub owner: Uid,
    /// The runtime's name in the configuration, or its base name.
    pub runtime: &'a str,
    /// Engine, names, labels and annotations.
    pub identity: &'a Identity,
}

/// A decision with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Name of the policy.
    pub policy: String,
    /// Whether it is enforced.
    pub mode: Mode,
    /// Name of the rule that decided; `None` if the default did.
    pub rule: Option<String>,
    /// The reason, for people.
    pub why: String,
    /// The container must not start: it asks for a policy that it cannot get. The reason, for
    /// people.
    pub refused: Option<String>,
    /// Number of rules that come earlier and did not decide; [`passed_over`] says why.
    pub passed: usize,
}

/// A rule that did not decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// Its name.
    pub rule: String,
    /// Why.
    pub reason: Reason,
}

/// Why a rule did not decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It does not match.
    Miss(Miss),
    /// It matches, by a fact that is not trusted, and would loosen the policy.
    Untrusted {
        /// Key of the fact below `match`.
        key: String,
    },
}

impl Decision {
    /// The configured default, because of `why`.
    pub fn fallback(config: &Config, why: impl Into<String>) -> Self {
        Self {
            policy: config.default.policy.clone(),
            mode: config.default_mode(),
            rule: None,
            why: why.into(),
            refused: None,
            passed: 0,
        }
    }
}

/// Decides by the first rule that matches; without one the default applies. Then a label may make
/// the policy stricter.
///
/// A rule that matches through a fact which is not trusted counts only if its policy is not looser
/// than what the container would get without it, by the rules behind it or the default: whoever
/// writes such a fact may make the policy stricter, never looser. The same holds for [`LABEL`],
/// whoever wrote it. A rule with `trust_claims` counts all the same if root executes the runtime.
pub fn decide(subject: Subject<'_>, config: &Config) -> Decision {
    let mut untrusted: Vec<(usize, &Rule, String)> = Vec::new();
    let mut winner = (config.rules.len(), None);
    for (at, rule) in config.rules.iter().enumerate() {
        match rule.matches.matches(&subject) {
            None => {}
            Some(Some(key)) if !(rule.trust_claims && subject.owner.is_root()) => {
                untrusted.push((at, rule, key));
            }
            Some(_) => {
                winner = (at, Some(rule));
                break;
            }
        }
    }
    let mut ignored = None;
    for (at, rule, key) in untrusted.into_iter().rev() {
        if is_looser(config, Some(rule), winner.1) {
            ignored = Some((rule, key));
        } else {
            winner = (at, Some(rule));
            ignored = None;
        }
    }
    let passed = winner.0;
    let mut decision = match winner.1 {
        Some(rule) => Decision {
            policy: rule.policy.clone(),
            mode: config.mode(&rule.policy, rule.mode),
            rule: Some(rule.name.clone()),
            why: format!("rule `{}` matches", rule.name),
            refused: None,
            passed,
        },
        None => Decision { passed, ..Decision::fallback(config, "no rule matches") },
    };
    if let Some((rule, key)) = ignored {
        let ignored = format!(
            "rule `{}` does not count: it matches by `{}`, which is not trusted to loosen the policy",
            rule.name,
            key.escape_debug()
        );
        decision.why = match decision.rule {
            Some(_) => format!("{}; {ignored}", decision.why),
            None => ignored,
        };
    }
    ask(subject.identity, config, &mut decision);
    decision
}

/// Why the first `count` rules did not decide about a container: not needed to decide, and as long as
/// the configuration.
pub fn passed_over(subject: Subject<'_>, config: &Config, count: usize) -> Vec<Passed> {
    let reason = |rule: &Rule| match rule.matches.compare(&subject) {
        Err(miss) => Some(Reason::Miss(miss)),
        Ok(key) => key.map(|key| Reason::Untrusted { key }),
    };
    let passed = |rule: &Rule| Some(Passed { rule: rule.name.clone(), reason: reason(rule)? });
    config.rules.iter().take(count).filter_map(passed).collect()
}

/// Whether the policy of one rule is looser than that of another; `None` is the default.
fn is_looser(config: &Config, rule: Option<&Rule>, other: Option<&Rule>) -> bool {
    let parts = |rule: Option<&Rule>| match rule {
        Some(rule) => (config.policy(&rule.policy), config.mode(&rule.policy, rule.mode)),
        None => (config.policy(&config.default.policy), config.default_mode()),
    };
    let ((policy, mode), (other, other_mode)) = (parts(rule), parts(other));
    compare(policy, mode, other, other_mode)
}

/// A policy that is not there cannot be compared: that counts as looser.
fn compare(policy: Option<&Policy>, mode: Mode, other: Option<&Policy>, other_mode: Mode) -> bool {
    match (policy, other) {
        (Some(policy), Some(other)) => policy.is_looser_than(mode, other, other_mode),
        _ => true,
    }
}

/// Follows [`LABEL`]. One that asks for what lockc does not have must not be ignored: its author
/// believes the container to be protected.
fn ask(identity: &Identity, config: &Config, decision: &mut Decision) {
    let asked = [("annotation", &identity.annotations), ("label", &identity.labels)];
    for (kind, facts) in asked {
        let Some(name) = facts.get(LABEL).map(|fact| fact.value.as_str()) else { continue };
        let shown = || name.chars().take(64).collect::<String>().escape_debug().to_string();
        let Some(policy) = config.policy(name) else {
            decision.refused = Some(format!(
                "its {kind} {LABEL} asks for policy `{}`, which does not exist",
                shown()
            ));
            return;
        };
        let mode = config.mode(name, None);
        let current = config.policy(&decision.policy);
        if compare(Some(policy), mode, current, decision.mode) {
            let Decision { policy, why, .. } = decision;
            let _ = write!(
                why,
                "; {kind} {LABEL} = `{name}` does not count: that may be looser than `{policy}`"
            );
        } else if (policy.name.as_str(), mode) != (decision.policy.as_str(), decision.mode) {
            let _ = write!(decision.why, "; {kind} {LABEL} asks for `{name}`");
            name.clone_into(&mut decision.policy);
            decision.mode = mode;
        }
    }
}

#[cfg(test)]
mod tests;
