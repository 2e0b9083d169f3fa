//! The explanation as people read it. Much of it was chosen by whoever started the container: it is
//! escaped, and long values are cut.

use std::fmt::Write as _;

use super::{Case, Explanation, Known, Outcome, plain, user};
use crate::{
    policy::{Decision, Miss, Passed, Reason},
    runtime::{
        engine::{Fact, Identity},
        plan::Judgement,
    },
};

/// Longest value that is shown in full, in characters.
const MAX_SHOWN: usize = 128;
/// Most labels, and most annotations, that are shown.
const MAX_LISTED: usize = 64;

impl Explanation<'_> {
    /// Text of several lines.
    pub fn text(&self) -> String {
        let mut out = String::new();
        container(&mut out, &self.case);
        match &self.outcome {
            Outcome::Judged { identity, passed, judgement } => {
                facts(&mut out, identity);
                self.rules(&mut out, passed);
                self.policy(&mut out);
                heading(&mut out, "admission");
                findings(&mut out, judgement);
            }
            Outcome::Unseen { why, .. } => {
                line(&mut out, "not understood", &plain(why));
                self.policy(&mut out);
            }
        }
        let verdict = self.verdict();
        line(&mut out, "verdict", &verdict);
        if self.case.state.is_some() {
            line(
                &mut out,
                "note",
                "lockc decided about this container when it started; this is what the configuration on \
                 disk says now",
            );
        }
        out
    }

    fn rules(&self, out: &mut String, passed: &[Passed]) {
        heading(out, "rules");
        for passed in passed {
            let _ = writeln!(out, "  {}", reason(passed));
        }
        let last = match &self.decision().rule {
            Some(rule) => format!("`{}` matches", plain(rule)),
            None => "no rule decides: the default applies".to_owned(),
        };
        let _ = writeln!(out, "  {last}");
    }

    fn policy(&self, out: &mut String) {
        let Decision { policy, mode, why, .. } = self.decision();
        line(out, "policy", &format!("{policy} ({mode}): {}", plain(why)));
        if let Some(policy) = self.config.policy(policy) {
            for part in policy.brief(*mode) {
                let _ = writeln!(out, "  {}", plain(&part));
            }
            let _ = writeln!(out, "  in full: lockc policy show {}", policy.name);
        }
    }

    fn verdict(&self) -> String {
        let Decision { policy, mode, .. } = self.decision();
        let refused = match &self.outcome {
            Outcome::Judged { judgement, .. } => judgement.refused.as_deref(),
            Outcome::Unseen { why, starts, .. } => (!starts).then_some(why.as_str()),
        };
        let Some(why) = refused else { return format!("starts, under policy {policy} ({mode})") };
        let controls: Vec<&str> = match &self.outcome {
            Outcome::Judged { judgement, .. } => {
                let refusing = judgement.findings.iter().filter(|finding| finding.refuses());
                refusing.map(|finding| finding.control.name()).collect()
            }
            Outcome::Unseen { .. } => Vec::new(),
        };
        if controls.is_empty() {
            return format!("is refused: {}", plain(why));
        }
        format!("is refused: policy {policy} does not admit {}", controls.join(", "))
    }
}

fn container(out: &mut String, case: &Case) {
    let Case { target, id_from, owner, runtime, state, notes } = case;
    let path = |path: &std::path::Path| plain(&path.to_string_lossy());
    line(out, "container", &format!("{} ({id_from})", target.id));
    if let Some(bundle) = &target.bundle {
        line(out, "bundle", &path(bundle));
    }
    if let Some(config) = &target.config {
        line(out, "config", &format!("{}, as with crun --config", path(config)));
    }
    let Known { value, how } = owner;
    let (name, uid) = user(*value);
    let name = name.map_or_else(|| uid.to_string(), |name| format!("{} {uid}", plain(&name)));
    line(out, "owner", &format!("{name} ({how})"));
    line(out, "runtime", &format!("{} ({})", plain(&runtime.value), runtime.how));
    if let Some(state) = state {
        line(out, "state", &path(state));
    }
    for note in notes {
        line(out, "note", &plain(note));
    }
}

fn facts(out: &mut String, identity: &Identity) {
    let Identity { engine, namespace, pod, container, image, labels, annotations, notes } =
        identity;
    heading(out, "facts");
    fact(out, "engine", engine.value.name(), engine, true);
    let single =
        [("namespace", namespace), ("pod", pod), ("container", container), ("image", image)];
    for (key, it) in single {
        if let Some(it) = it {
            fact(out, key, &it.value, it, true);
        }
    }
    for (kind, facts) in [("label", labels), ("annotation", annotations)] {
        for (key, it) in facts.iter().take(MAX_LISTED) {
            // The source of an annotation is itself.
            fact(out, &format!("{kind} {}", value(key)), &it.value, it, kind == "label");
        }
        let more = facts.len().saturating_sub(MAX_LISTED);
        if more > 0 {
            let _ = writeln!(out, "  and {more} more of kind {kind}, see --format json");
        }
    }
    for note in notes {
        let _ = writeln!(out, "  note: {}", plain(note));
    }
}

fn fact<T>(out: &mut String, key: &str, text: &str, fact: &Fact<T>, with_source: bool) {
    let trust = if fact.trusted { "trusted" } else { "claimed" };
    let source = if with_source { format!(" ({})", plain(&fact.source)) } else { String::new() };
    let _ = writeln!(out, "  {trust} {key}: {}{source}", value(text));
}

fn reason(passed: &Passed) -> String {
    let Passed { rule, reason } = passed;
    let rule = plain(rule);
    match reason {
        Reason::Miss(Miss { key, wanted, seen }) => {
            let seen = match seen {
                Some(seen) => format!("it is `{}`", value(seen)),
                None => "there is none".to_owned(),
            };
            format!("`{rule}` does not match: {} must be `{}`, {seen}", value(key), plain(wanted))
        }
        Reason::Untrusted { key } => format!(
            "`{rule}` matches by {}, which is not trusted to loosen the policy: it does not count",
            value(key)
        ),
    }
}

fn findings(out: &mut String, judgement: &Judgement) {
    let Judgement { decision, findings, .. } = judgement;
    if findings.is_empty() {
        let looked = decision.refused.is_none();
        let _ = writeln!(out, "  {}", if looked { "nothing is found" } else { "is not looked at" });
    }
    for finding in findings {
        let what = if finding.refuses() { "refused" } else { "reported" };
        let _ = writeln!(out, "  {what} {}: {}", finding.control.name(), plain(&finding.found));
        let remedy = finding.remedy_in(&decision.policy);
        let _ = writeln!(out, "    to allow it: {}", plain(&remedy));
    }
}

fn heading(out: &mut String, name: &str) {
    let _ = writeln!(out, "{name}:");
}

fn line(out: &mut String, name: &str, text: &str) {
    let _ = writeln!(out, "{name}: {text}");
}

/// A value that others chose.
fn value(text: &str) -> String {
    let shown: String = text.chars().take(MAX_SHOWN).collect();
    if shown.len() == text.len() { plain(&shown) } else { format!("{}…", plain(&shown)) }
}
