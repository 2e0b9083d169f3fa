//! The explanation as programs read it. Its form is promised in docs/explain.md.

use serde_json::{Map, Value, json};

use super::{Case, Explanation, Known, Outcome, user};
use crate::{
    policy::{Miss, Passed, Reason, admission::Finding},
    runtime::engine::{Fact, Identity},
};

impl Explanation<'_> {
    /// One object, whose form docs/explain.md describes.
    pub fn json(&self) -> Value {
        let decision = self.decision();
        let policy = self
            .config
            .policy(&decision.policy)
            .map(|policy| policy.to_json(self.config.default.mode));
        let (facts, rules, admission, refused) = match &self.outcome {
            Outcome::Judged { identity, passed, judgement } => (
                facts(identity),
                passed.iter().map(rule).collect(),
                judgement.findings.iter().map(|it| finding(it, &decision.policy)).collect(),
                judgement.refused.clone(),
            ),
            Outcome::Unseen { why, starts, .. } => {
                (Value::Null, Vec::new(), Vec::new(), (!starts).then(|| why.clone()))
            }
        };
        let unseen = match &self.outcome {
            Outcome::Unseen { why, .. } => Some(why),
            Outcome::Judged { .. } => None,
        };
        json!({
            "version": 1,
            "container": container(&self.case),
            "notes": self.case.notes,
            "not_understood": unseen,
            "facts": facts,
            "rules": rules,
            "decision": {
                "policy": decision.policy,
                "mode": decision.mode.name(),
                "rule": decision.rule,
                "why": decision.why,
            },
            "policy": policy,
            "admission": admission,
            "starts": self.starts(),
            "refused": refused,
        })
    }
}

fn container(case: &Case) -> Value {
    let Case { target, id_from, owner: Known { value, how }, runtime, state, notes: _ } = case;
    let (name, uid) = user(*value);
    json!({
        "id": { "value": target.id.to_string(), "how": id_from },
        "bundle": target.bundle.as_ref().map(|path| path.to_string_lossy()),
        "config": target.config.as_ref().map(|path| path.to_string_lossy()),
        "owner": { "value": uid, "name": name, "how": how },
        "runtime": { "value": runtime.value, "how": runtime.how },
        "state": state.as_ref().map(|path| path.to_string_lossy()),
    })
}

fn facts(identity: &Identity) -> Value {
    let Identity { engine, namespace, pod, container, image, labels, annotations, notes } =
        identity;
    let map = |facts: &std::collections::BTreeMap<String, Fact<String>>| -> Map<String, Value> {
        facts.iter().map(|(key, it)| (key.clone(), fact(&it.value, it))).collect()
    };
    let single = |it: &Option<Fact<String>>| it.as_ref().map(|it| fact(&it.value, it));
    json!({
        "engine": fact(engine.value.name(), engine),
        "namespace": single(namespace),
        "pod": single(pod),
        "container": single(container),
        "image": single(image),
        "labels": map(labels),
        "annotations": map(annotations),
        "notes": notes,
    })
}

fn fact<T>(value: &str, fact: &Fact<T>) -> Value {
    json!({ "value": value, "trusted": fact.trusted, "source": fact.source })
}

fn rule(passed: &Passed) -> Value {
    let Passed { rule, reason } = passed;
    match reason {
        Reason::Miss(Miss { key, wanted, seen }) => {
            json!({ "rule": rule, "reason": "no match", "key": key, "wanted": wanted, "seen": seen })
        }
        Reason::Untrusted { key } => json!({ "rule": rule, "reason": "not trusted", "key": key }),
    }
}

fn finding(finding: &Finding, policy: &str) -> Value {
    let Finding { control, handling, found, .. } = finding;
    json!({
        "control": control.name(),
        "handling": handling.name(),
        "found": found,
        "remedy": finding.remedy_in(policy),
    })
}
