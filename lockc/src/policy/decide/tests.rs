use std::collections::BTreeMap;

use proptest::strategy::Strategy as _;

use super::*;
use crate::{
    policy::Level,
    runtime::engine::{Engine, Fact},
};

/// Rules may ask for what this version does not tell apart yet.
fn config(toml: &str) -> Config {
    Config::understand(toml, "lockc.toml".as_ref())
}

fn fact<T>(value: T, trusted: bool) -> Fact<T> {
    Fact { value, source: "test".into(), trusted }
}

fn map(pairs: &[(&str, &str)], trusted: bool) -> BTreeMap<String, Fact<String>> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), fact((*v).to_owned(), trusted))).collect()
}

/// A container of Docker whose labels anybody may have chosen.
fn identity(labels: &[(&str, &str)]) -> Identity {
    Identity {
        engine: fact(Engine::Docker, true),
        namespace: None,
        pod: None,
        container: Some(fact("web-1".into(), false)),
        image: Some(fact("registry.example/agents/a:1".into(), false)),
        labels: map(labels, false),
        annotations: BTreeMap::new(),
        notes: Vec::new(),
    }
}

fn decided(config: &Config, uid: u32, identity: &Identity) -> Decision {
    decide(Subject { owner: Uid::from_raw(uid), runtime: "runc", identity }, config)
}

/// The rules that did not decide.
fn passed(config: &Config, uid: u32, identity: &Identity) -> Vec<Passed> {
    let subject = Subject { owner: Uid::from_raw(uid), runtime: "runc", identity };
    passed_over(subject, config, decide(subject, config).passed)
}

/// As an engine of root writes them.
fn policy(config: &Config, uid: u32, annotations: &[(&str, &str)]) -> String {
    let identity = Identity { annotations: map(annotations, true), ..identity(&[]) };
    decided(config, uid, &identity).policy
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

const AGENT: &[(&str, &str)] = &[("tier", "infra"), ("image", "registry.example/agents/a/b:1")];

#[test]
fn the_first_rule_that_matches_in_full_wins() {
    let config = config(RULES);
    assert_eq!(policy(&config, 0, AGENT), "privileged");
    assert_eq!(policy(&config, 0, &[("tier", "infra")]), "restricted");
    assert_eq!(policy(&config, 0, &[("tier", "kiosk")]), "restricted");
    assert_eq!(policy(&config, 0, &[("tier", "kiosks")]), "baseline");
    assert_eq!(policy(&config, 0, &[]), "baseline");
}

#[test]
fn annotations_of_others_do_not_loosen() {
    let config = config(RULES);
    assert_eq!(policy(&config, 1000, AGENT), "restricted", "the next rule applies");
    let without_next = self::config(&RULES.replace("{kiosk,infra}", "kiosk"));
    assert_eq!(policy(&without_next, 1000, AGENT), "baseline");
    let identity = Identity { annotations: map(AGENT, true), ..identity(&[]) };
    assert_eq!(
        decided(&without_next, 1000, &identity).why,
        "rule `agents` does not count: it matches by `annotation.image`, which is not trusted to \
         loosen the policy"
    );
}

#[test]
fn a_rule_for_everyone_may_loosen() {
    let config = config("[[rule]]\nname = \"all\"\npolicy = \"privileged\"\n");
    assert_eq!(policy(&config, 1000, &[]), "privileged");
}

#[test]
fn reasons_and_modes() {
    let config = config(&format!("[default]\nmode = \"audit\"\n{RULES}"));
    let identity = Identity { annotations: map(&[("tier", "kiosk")], true), ..identity(&[]) };
    let decision = decided(&config, 0, &identity);
    let miss = Miss {
        key: "annotation.image".into(),
        wanted: "registry.example/agents/*".into(),
        seen: None,
    };
    assert_eq!(
        decision,
        Decision {
            policy: "restricted".into(),
            mode: Mode::Audit,
            rule: Some("kiosks".into()),
            why: "rule `kiosks` matches".into(),
            refused: None,
            passed: 1,
        }
    );
    assert_eq!(
        passed(&config, 0, &identity),
        [Passed { rule: "agents".into(), reason: Reason::Miss(miss) }]
    );
    // The rule's mode wins over the policy's, and that over the default's.
    for (policy, rule, expected) in [
        ("", "", Mode::Audit),
        ("mode = \"enforce\"", "", Mode::Enforce),
        ("mode = \"enforce\"", "mode = \"audit\"", Mode::Audit),
        ("", "mode = \"enforce\"", Mode::Enforce),
    ] {
        let config = self::config(&format!(
            "[default]\nmode = \"audit\"\n[policy.restricted]\n{policy}\n\
             [[rule]]\nname = \"a\"\npolicy = \"restricted\"\n{rule}\n"
        ));
        assert_eq!(decided(&config, 0, &identity).mode, expected, "{policy} {rule}");
    }
}

/// Each key matches, misses, and says what was seen.
#[test]
fn every_key() {
    let identity = Identity {
        namespace: Some(fact("kube-system".into(), true)),
        pod: Some(fact("coredns-7".into(), true)),
        annotations: map(&[("b", "2")], true),
        ..identity(&[("a", "1")])
    };
    for (key, matching, missing, seen) in [
        ("engine", "docker", "cri", Some("docker")),
        ("namespace", "kube-*", "default", Some("kube-system")),
        ("pod", "coredns-*", "x", Some("coredns-7")),
        ("container", "web-?", "db", Some("web-1")),
        ("image", "registry.example/*", "docker.io/*", Some("registry.example/agents/a:1")),
        ("label.a", "1", "2", Some("1")),
        ("label.c", "", "2", None),
        ("annotation.b", "2", "1", Some("2")),
        ("annotation.c", "", "1", None),
        ("runtime", "run?", "crun", Some("runc")),
        ("owner", "0", "1000", Some("0")),
    ] {
        let decide = |glob: &str| {
            let config = config(&format!(
                "[[rule]]\nname = \"r\"\npolicy = \"restricted\"\nmatch.{key} = \"{glob}\"\n"
            ));
            (decided(&config, 0, &identity), passed(&config, 0, &identity))
        };
        if !matching.is_empty() {
            assert_eq!(decide(matching).0.policy, "restricted", "{key}");
        }
        let (decision, passed) = decide(missing);
        assert_eq!(decision.policy, "baseline", "{key}");
        let wanted = missing.to_owned();
        let miss = Miss { key: key.into(), wanted, seen: seen.map(str::to_owned) };
        assert_eq!(passed, [Passed { rule: "r".into(), reason: Reason::Miss(miss) }]);
    }
}

/// One key of a rule that anybody can fulfil is enough to distrust it.
#[test]
fn rules_by_untrusted_facts_tighten_only() {
    for key in ["container = \"web-*\"", "image = \"*\"", "label.x = \"y\""] {
        for (target, expected) in [("privileged", "baseline"), ("restricted", "restricted")] {
            let config = config(&format!(
                "[[rule]]\nname = \"r\"\npolicy = \"{target}\"\nmatch.engine = \"docker\"\n\
                 match.{key}\n"
            ));
            let decision = decided(&config, 0, &identity(&[("x", "y")]));
            assert_eq!(decision.policy, expected, "{key}");
        }
    }
    let engine = "[[rule]]\nname = \"r\"\npolicy = \"privileged\"\nmatch.engine = \"docker\"\n";
    assert_eq!(decided(&config(engine), 0, &identity(&[])).policy, "privileged");
    let audit = "[[rule]]\nname = \"r\"\npolicy = \"restricted\"\nmode = \"audit\"\nmatch.label.x = \"y\"\n";
    let decision = decided(&config(audit), 0, &identity(&[("x", "y")]));
    assert_eq!((decision.policy.as_str(), decision.mode), ("baseline", Mode::Enforce));
}

/// A label must not lead past a stricter rule either.
#[test]
fn an_untrusted_rule_does_not_hide_a_stricter_one() {
    let config = config(
        r#"
        [[rule]]
        name = "by label"
        policy = "baseline"
        match.label.x = "y"

        [[rule]]
        name = "docker"
        policy = "restricted"
        match.engine = "docker"
        "#,
    );
    let claims = identity(&[("x", "y")]);
    let decision = decided(&config, 0, &claims);
    assert_eq!(
        (decision.policy.as_str(), decision.rule.as_deref()),
        ("restricted", Some("docker"))
    );
    assert_eq!(
        decision.why,
        "rule `docker` matches; rule `by label` does not count: it matches by `label.x`, which is \
         not trusted to loosen the policy"
    );
    let reason = Reason::Untrusted { key: "label.x".into() };
    assert_eq!(passed(&config, 0, &claims), [Passed { rule: "by label".into(), reason }]);
}

#[test]
fn a_label_asks_for_a_policy() {
    let config = config(
        "[policy.kiosk]\nextends = \"baseline\"\npaths.deny = [\"/etc/shadow\"]\n\
         [policy.lax]\nextends = \"baseline\"\nmode = \"audit\"\n\
         [policy.host]\nextends = \"baseline\"\nhost_paths.deny = [\"/x\"]\n",
    );
    for (asked, policy, refused) in [
        ("restricted", "restricted", None),
        ("kiosk", "kiosk", None),
        ("baseline", "baseline", None),
        ("privileged", "baseline", None),
        ("lax", "baseline", None),
        ("offline", "offline", None),
        ("host", "host", None),
        ("restrictd", "baseline", Some("asks for policy `restrictd`, which does not exist")),
        ("\u{1b}[2J", "baseline", Some("`\\u{1b}[2J`")),
    ] {
        let decision = decided(&config, 0, &identity(&[(LABEL, asked)]));
        assert_eq!((decision.policy.as_str(), decision.mode), (policy, Mode::Enforce), "{asked}");
        let said = decision.refused.unwrap_or_default();
        assert_eq!(said.is_empty(), refused.is_none(), "{asked}: {said}");
        assert!(said.contains(refused.unwrap_or_default()), "{said}");
    }
    // An annotation and a label: the stricter one.
    let both = Identity {
        annotations: map(&[(LABEL, "restricted")], true),
        ..identity(&[(LABEL, "baseline")])
    };
    let decision = decided(&config, 0, &both);
    assert_eq!(decision.policy, "restricted");
    assert_eq!(
        decision.why,
        "no rule matches; annotation org.lockc.policy asks for `restricted`; label \
         org.lockc.policy = `baseline` does not count: that may be looser than `restricted`"
    );
}

#[test]
fn values_are_cut() {
    let config = config("[[rule]]\nname = \"r\"\npolicy = \"restricted\"\nmatch.label.x = \"y\"\n");
    let passed = passed(&config, 0, &identity(&[("x", &"z".repeat(1 << 20))]));
    let Reason::Miss(miss) = &passed[0].reason else { panic!() };
    assert_eq!(miss.seen.as_ref().map(String::len), Some(128));
}

proptest::proptest! {
    /// Whatever a user other than root writes, the policy is at least the default.
    #[test]
    fn never_looser_for_others(
        uid in 1u32..,
        tier in "(infra|kiosk|x)",
        image in "(registry.example/agents/)?[a-z]{0,3}",
        asked in "(privileged|baseline|restricted)",
        default in 0usize..4,
    ) {
        let default = Policy::built_in(Level::ALL[default]);
        let config = config(&format!("[default]\npolicy = \"{}\"\n{RULES}", default.name));
        let annotations = [("tier", tier.as_str()), ("image", &image), (LABEL, &asked)];
        let policy = config.policy(&policy(&config, uid, &annotations)).unwrap().clone();
        proptest::prop_assert!(!policy.is_looser_than(Mode::Enforce, &default, Mode::Enforce));
    }

    /// What is not trusted never gives less strict a policy than its absence would.
    #[test]
    fn labels_only_tighten(
        order in proptest::sample::subsequence(vec![0, 1, 2, 3, 4], 0..5).prop_shuffle(),
        x in "[yz]?",
        asked in "(privileged|baseline|restricted)?",
    ) {
        let rules = [
            ("privileged", "label.x = \"y\""),
            ("baseline", "label.x = \"z\""),
            ("restricted", "label.x = \"*\""),
            ("restricted", "engine = \"docker\""),
            ("privileged", "owner = \"0\""),
        ];
        let tables: Vec<String> = order.iter().map(|at| {
            let (policy, key) = rules[*at];
            format!("[[rule]]\nname = \"{at}\"\npolicy = \"{policy}\"\nmatch.{key}\n")
        }).collect();
        let config = config(&tables.concat());
        let with = |labels: &[(&str, &str)]| {
            let decision = decided(&config, 0, &identity(labels));
            config.policy(&decision.policy).unwrap().clone()
        };
        let mut labels = vec![];
        if !x.is_empty() { labels.push(("x", x.as_str())); }
        if !asked.is_empty() { labels.push((LABEL, asked.as_str())); }
        let (with, without) = (with(&labels), with(&[]));
        proptest::prop_assert!(!with.is_looser_than(Mode::Enforce, &without, Mode::Enforce));
    }
}

#[test]
fn claims_count_where_the_rule_trusts_them_and_root_runs_the_engine() {
    let rule = |extra: &str| {
        config(&format!(
            "[[rule]]\nname = \"a\"\npolicy = \"privileged\"\n{extra}\nmatch.label.\"tier\" = \"x\"\n"
        ))
    };
    let claims = identity(&[("tier", "x")]);
    assert_eq!(decided(&rule(""), 0, &claims).policy, "baseline");
    let trusting = rule("trust_claims = true");
    assert_eq!(decided(&trusting, 0, &claims).policy, "privileged");
    assert_eq!(decided(&trusting, 1000, &claims).policy, "baseline");
    assert_eq!(decided(&trusting, 0, &identity(&[])).policy, "baseline");
}
