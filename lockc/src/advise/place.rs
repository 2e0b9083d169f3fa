//! Where something is configured.

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::config::Source;

/// `FILE:LINE` of `[policy.NAME]`, or of the `[[rule]]` with that name: the first one.
pub fn place(sources: &[Source], kind: &str, name: &str) -> Option<String> {
    sources.iter().find_map(|source| {
        let (table, _) = DeTable::parse_recoverable(&source.text);
        let at = find(table.get_ref(), kind, name)?;
        let line = source.text.get(..at)?.matches('\n').count() + 1;
        Some(format!("{}:{line}", source.path.display()))
    })
}

fn find(table: &DeTable<'_>, kind: &str, name: &str) -> Option<usize> {
    match table.get(kind)?.get_ref() {
        DeValue::Table(all) => {
            let (key, _) = all.iter().find(|(key, _)| key.get_ref().as_ref() == name)?;
            Some(key.span().start)
        }
        DeValue::Array(all) => {
            let is_it = |rule: &&Spanned<DeValue<'_>>| {
                let name_of = rule.get_ref().as_table().and_then(|table| table.get("name"));
                name_of.and_then(|it| it.get_ref().as_str()) == Some(name)
            };
            Some(all.iter().find(is_it)?.span().start)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_and_rules_have_places() {
        let source = |path: &str, text: &str| Source { path: path.into(), text: text.into() };
        let sources = [
            source("a.toml", "[default]\npolicy = \"x\"\n\n[policy.x]\nextends = \"baseline\"\n"),
            source(
                "b.toml",
                "[[rule]]\nname = \"one\"\n[[rule]]\nname = \"two\"\n[policy.\"y.z\"]\n",
            ),
        ];
        let at = |kind, name| place(&sources, kind, name);
        assert_eq!(at("policy", "x").as_deref(), Some("a.toml:4"));
        assert_eq!(at("policy", "y.z").as_deref(), Some("b.toml:5"));
        assert_eq!(at("rule", "two").as_deref(), Some("b.toml:3"));
        assert_eq!(at("rule", "three"), None);
        assert_eq!(at("policy", "baseline"), None);
    }
}
