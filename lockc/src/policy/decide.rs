//! Which policy a container gets.

use nix::unistd::Uid;

use super::{Level, Mode};
use crate::{config::Config, runtime::bundle::Facts};

/// Who starts a container, and what is known of it.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Who executes the runtime.
    pub owner: Uid,
    /// What the bundle says.
    pub facts: &'a Facts,
}

/// A decision with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The policy.
    pub policy: Level,
    /// Whether it is enforced.
    pub mode: Mode,
    /// Name of the rule that decided; `None` if the default did.
    pub rule: Option<String>,
    /// The reason, for people.
    pub why: String,
}

impl Decision {
    /// The configured default, because of `why`.
    pub fn fallback(config: &Config, why: impl Into<String>) -> Self {
        Self {
            policy: config.default.policy,
            mode: config.default.mode,
            rule: None,
            why: why.into(),
        }
    }
}

/// Decides by the first rule that matches; without one the default applies.
///
/// Annotations are written by whoever writes the bundle. For containers that root
/// starts that is an engine, and the rules say which annotations to trust. Anyone
/// else writes what they like, so for them a rule that goes by annotations counts
/// only if it does not loosen the default.
pub fn decide(subject: Subject<'_>, config: &Config) -> Decision {
    let mut passed_over = None;
    for rule in &config.rules {
        if !rule.matches.annotations_match(&subject.facts.annotations) {
            continue;
        }
        let by_annotation = !rule.matches.annotations.is_empty();
        if by_annotation
            && !subject.owner.is_root()
            && rule.policy.is_looser_than(config.default.policy)
        {
            passed_over.get_or_insert(&rule.name);
            continue;
        }
        return Decision {
            policy: rule.policy,
            mode: config.default.mode,
            rule: Some(rule.name.clone()),
            why: format!("rule `{}` matches", rule.name),
        };
    }
    Decision::fallback(
        config,
        match passed_over {
            Some(name) => format!(
                "rule `{name}` does not count: annotations of user {} cannot loosen the default",
                subject.owner
            ),
            None => "no rule matches".to_owned(),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(toml: &str) -> Config {
        Config::parse(toml, "lockc.toml".as_ref()).unwrap()
    }

    fn facts(annotations: &[(&str, &str)]) -> Facts {
        let annotations =
            annotations.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        Facts { annotations, ..Facts::default() }
    }

    fn level(config: &Config, uid: u32, annotations: &[(&str, &str)]) -> Level {
        let facts = facts(annotations);
        decide(Subject { owner: Uid::from_raw(uid), facts: &facts }, config).policy
    }

    const RULES: &str = r#"
        [[rule]]
        name = "agents"
        policy = "privileged"
        match.annotation."tier" = "infra"
        match.annotation."image" = "registry.example/agents/*"

        [[rule]]
        name = "kiosks"
        policy = "restricted"
        match.annotation."tier" = "{kiosk,infra}"
    "#;

    #[test]
    fn the_first_rule_that_matches_in_full_wins() {
        let config = config(RULES);
        let agent = &[("tier", "infra"), ("image", "registry.example/agents/a/b:1")];
        assert_eq!(level(&config, 0, agent), Level::Privileged);
        assert_eq!(level(&config, 0, &[("tier", "infra")]), Level::Restricted);
        assert_eq!(level(&config, 0, &[("tier", "kiosk")]), Level::Restricted);
        assert_eq!(level(&config, 0, &[("tier", "kiosks")]), Level::Baseline);
        assert_eq!(level(&config, 0, &[]), Level::Baseline);
    }

    #[test]
    fn annotations_of_others_do_not_loosen() {
        let config = config(RULES);
        let agent = &[("tier", "infra"), ("image", "registry.example/agents/a")];
        assert_eq!(level(&config, 1000, agent), Level::Restricted, "the next rule applies");
        let without_next = self::config(&RULES.replace("{kiosk,infra}", "kiosk"));
        assert_eq!(level(&without_next, 1000, agent), Level::Baseline);
        let facts = facts(agent);
        let subject = Subject { owner: Uid::from_raw(1000), facts: &facts };
        assert_eq!(
            decide(subject, &without_next).why,
            "rule `agents` does not count: annotations of user 1000 cannot loosen the default"
        );
    }

    #[test]
    fn a_rule_for_everyone_may_loosen() {
        let config = config("[[rule]]\nname = \"all\"\npolicy = \"privileged\"\n");
        assert_eq!(level(&config, 1000, &[]), Level::Privileged);
    }

    #[test]
    fn reasons_and_mode() {
        let config = config(&format!("[default]\nmode = \"audit\"\n{RULES}"));
        let facts = facts(&[("tier", "kiosk")]);
        let decision = decide(Subject { owner: Uid::from_raw(0), facts: &facts }, &config);
        assert_eq!(
            decision,
            Decision {
                policy: Level::Restricted,
                mode: Mode::Audit,
                rule: Some("kiosks".into()),
                why: "rule `kiosks` matches".into(),
            }
        );
    }

    proptest::proptest! {
        /// Whatever a user other than root writes, the policy is at least the default.
        #[test]
        fn never_looser_for_others(
            uid in 1u32..,
            tier in "(infra|kiosk|x)",
            image in "(registry.example/agents/)?[a-z]{0,3}",
            default in 0usize..3,
        ) {
            let default = Level::ALL[default];
            let config = config(&format!("[default]\npolicy = \"{default}\"\n{RULES}"));
            let level = level(&config, uid, &[("tier", &tier), ("image", &image)]);
            proptest::prop_assert!(!level.is_looser_than(default));
        }
    }
}
