//! `[policy.NAME]`: which policies there are, and what they inherit.

use std::{collections::BTreeMap, ops::Range};

use lockc_common::POLICY_NAME_LEN;
use toml::de::DeTable;

use super::{Problem, reader::Reader};
use crate::policy::{Exec, Level, Network, PathRules, Policy};

/// Most `[policy.NAME]` tables.
pub const MAX_OWN_POLICIES: usize = 128;

/// Most entries of a list in a policy's table.
pub const MAX_RULES_PER_POLICY: usize = 1024;

/// Most path rules of all policies together, inherited ones counted for each, and most network rules. The
/// kernel side has room for eight times as many, in two modes and beside those of an earlier configuration.
pub const MAX_RULES_OF_POLICIES: usize = 16_384;

/// A policy's table.
#[derive(Clone, Debug)]
struct Typed<'v, 't> {
    table: &'v DeTable<'t>,
    /// Place of the name.
    span: Range<usize>,
}

impl Reader {
    /// All policies, by name. One with a mistake is there too, so that its uses cause no
    /// problems of their own.
    pub(super) fn policies(&mut self, table: &DeTable<'_>) -> BTreeMap<String, Policy> {
        let mut policies: BTreeMap<String, Policy> = Level::ALL
            .map(|level| (level.name().to_owned(), Policy::built_in(level)))
            .into_iter()
            .collect();
        let Some(tables) = self.table(table, "policy") else { return policies };
        let mut own = self.typed(tables);
        if own.len() > MAX_OWN_POLICIES {
            let span = tables.keys().next().map(toml::Spanned::span).unwrap_or_default();
            self.problem(span, format!("more than {MAX_OWN_POLICIES} [policy] tables"));
            return policies;
        }
        for (name, policy) in &mut policies {
            if let Some(Typed { table, .. }) = own.remove(name.as_str()) {
                if let Some((key, _)) = table.get_key_value("extends") {
                    let message = format!("`{name}` is built in and extends nothing");
                    let help = "give a policy of your own another name".to_owned();
                    self.problems.push(Problem::new(key.span(), message).help(Some(help)));
                }
                self.policy_table(table, policy);
            }
        }
        self.resolve(&own, &mut policies);
        policies
    }

    /// The tables with usable names.
    fn typed<'v, 't>(&mut self, tables: &'v DeTable<'t>) -> BTreeMap<&'v str, Typed<'v, 't>> {
        let mut typed = BTreeMap::new();
        for (key, value) in tables {
            let name = key.get_ref().as_ref();
            let usual = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            if name.is_empty() || name.len() > POLICY_NAME_LEN || !name.bytes().all(usual) {
                let message = format!(
                    "`{}` is no name of a policy: 1 to {POLICY_NAME_LEN} of A-Z, a-z, 0-9, -, _ \
                     and .",
                    name.chars().take(POLICY_NAME_LEN).collect::<String>().escape_debug()
                );
                self.problem(key.span(), message);
            } else if let Some(table) = value.get_ref().as_table() {
                typed.insert(name, Typed { table, span: key.span() });
            } else {
                self.wrong_type(value, name, "a table");
                if super::problem::suggest(name, ["extends", "mode", "paths"]).is_some()
                    && let Some(problem) = self.problems.last_mut()
                {
                    problem.help = Some("a policy is written [policy.NAME]".to_owned());
                }
            }
        }
        typed
    }

    fn resolve(
        &mut self,
        own: &BTreeMap<&str, Typed<'_, '_>>,
        policies: &mut BTreeMap<String, Policy>,
    ) {
        let count = |policy: &Policy| {
            [policy.paths.len() + policy.exec.rules().len(), policy.network.rule_count()]
        };
        let mut rules = [0; 2];
        for (sum, count) in
            policies.values().flat_map(|policy| count(policy).into_iter().enumerate())
        {
            rules[sum] += count;
        }
        for name in own.keys() {
            // From the policy up to one that is known, then down again.
            let mut chain: Vec<&str> = Vec::new();
            let mut next = Some(*name);
            let base = loop {
                let Some(at) = next else { break None };
                if let Some(policy) = policies.get(at) {
                    break Some(policy.clone());
                }
                if let Some(start) = chain.iter().position(|it| *it == at) {
                    self.report_cycle(&chain[start..], own);
                    break None;
                }
                chain.push(at);
                next = self.extended(at, own, policies);
            };
            let mut policy = base.unwrap_or_else(|| Policy::built_in(Level::Restricted));
            for name in chain.into_iter().rev() {
                let Some(Typed { table, span }) = own.get(name) else { continue };
                // A chain of policies would multiply them.
                if rules[0] > MAX_RULES_OF_POLICIES {
                    policy.paths = PathRules::default();
                    policy.exec = Exec::default();
                }
                if rules[1] > MAX_RULES_OF_POLICIES {
                    policy.network = Network::default();
                }
                name.clone_into(&mut policy.name);
                self.policy_table(table, &mut policy);
                policies.insert(name.to_owned(), policy.clone());
                let kinds = count(&policy).into_iter().zip(["path", "network"]);
                for (sum, (count, kind)) in rules.iter_mut().zip(kinds) {
                    let before = *sum;
                    *sum += count;
                    if (before..*sum).contains(&MAX_RULES_OF_POLICIES) {
                        let message = format!(
                            "the policies up to `{name}` have more than {MAX_RULES_OF_POLICIES} {kind} rules"
                        );
                        self.problem(span.clone(), message);
                    }
                }
            }
        }
    }

    /// The name of what a policy extends, if there is such a policy.
    fn extended<'v>(
        &mut self,
        name: &str,
        own: &BTreeMap<&'v str, Typed<'v, '_>>,
        policies: &BTreeMap<String, Policy>,
    ) -> Option<&'v str> {
        let Typed { table, span } = own.get(name)?;
        let levels = Level::ALL.map(Level::name).join(", ");
        let Some(value) = table.get("extends") else {
            let message = format!("policy `{name}` has no `extends`");
            let help = format!("the built-in policies: {levels}");
            self.problems.push(Problem::new(span.clone(), message).help(Some(help)));
            return None;
        };
        let Some(parent) = value.get_ref().as_str() else {
            self.wrong_type(value, "extends", "the name of a policy");
            return None;
        };
        if own.contains_key(parent) || policies.contains_key(parent) {
            return Some(parent);
        }
        let names: Vec<&str> =
            policies.keys().map(String::as_str).chain(own.keys().copied()).collect();
        self.unknown_policy(parent, value.span(), names.into_iter());
        None
    }

    fn report_cycle(&mut self, cycle: &[&str], own: &BTreeMap<&str, Typed<'_, '_>>) {
        let [first, ..] = cycle else { return };
        let place = own.get(first).and_then(|typed| typed.table.get("extends"));
        let mut shown = cycle.join(" -> ");
        shown.push_str(" -> ");
        shown.push_str(first);
        let message = format!("policy `{first}` extends itself: {shown}");
        self.problem(place.map(toml::Spanned::span).unwrap_or_default(), message);
    }
}
