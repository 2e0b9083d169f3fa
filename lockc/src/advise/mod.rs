//! What would have allowed what was denied: the smallest change of a policy.

mod learn;
mod place;

use std::net::SocketAddr;

pub use self::{learn::Learner, place::place};
use crate::{
    event::record::Record,
    policy::{Access, NetworkMode, PathRule, Policy, Verdict},
};

/// A change of a policy, or why there is none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// One more entry of a list.
    Entry {
        /// Key of the list, below `[policy.NAME]`.
        key: &'static str,
        /// The entry.
        value: String,
    },
    /// Another value.
    Value {
        /// Key, below `[policy.NAME]`.
        key: &'static str,
        /// The value, as TOML has it.
        value: &'static str,
    },
    /// No key does it.
    None {
        /// What does.
        instead: &'static str,
    },
}

const OTHER_POLICY: &str = "no key of a policy allows it; a rule can give this container a policy that does not deny it, such as `privileged`";

impl Change {
    /// The line below `[policy.NAME]`; nothing if no key does it.
    pub fn line(&self) -> Option<String> {
        match self {
            Self::Entry { key, value } => Some(format!("{key} = [{}]", quoted(value))),
            Self::Value { key, value } => Some(format!("{key} = {value}")),
            Self::None { .. } => None,
        }
    }
}

/// A text as TOML has it.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// What was decided about an event, and the change of `policy` that would have allowed it.
pub fn advise(record: &Record, policy: &Policy) -> (String, Change) {
    let is_none = policy.network.mode == NetworkMode::None;
    let of_path = |list: &'static str, rules: &crate::policy::PathRules| path(record, list, rules);
    let value = |why: &str, key, value| (why.to_owned(), Change::Value { key, value });
    let other = |why: &str, instead| (why.to_owned(), Change::None { instead });
    match record.operation.as_str() {
        "open" | "change" | "rename" => of_path("paths", &policy.paths),
        "exec" => of_path("exec", &policy.exec.rules()),
        "fileless" => value(r#"`exec.fileless` is "deny""#, "exec.fileless", r#""allow""#),
        "drift" => value(r#"`exec.drift` is "deny""#, "exec.drift", r#""allow""#),
        "user-namespace" => {
            value(r#"`user_namespaces` is "deny""#, "user_namespaces", r#""allow""#)
        }
        "io-uring" => value(r#"`io_uring` is "deny""#, "io_uring", r#""allow""#),
        "socket" | "connect" | "bind" if is_none => {
            value(r#"`network.mode` is "none""#, "network.mode", r#""host-default""#)
        }
        "socket" => family(record),
        "connect" | "bind" => address(record.address),
        "root" => value("`run_as_non_root` is true", "run_as_non_root", "false"),
        "runtime-socket" => value(
            "`admission.runtime_sockets` is not \"off\"",
            "admission.runtime_sockets",
            r#""off""#,
        ),
        "host-path" => other(
            "a path of `host_paths.deny` leads there",
            "remove the path from that list; there are no exceptions to it",
        ),
        "runtime-file" | "lockc-file" => {
            other("runtimes and lockc's own files are not for containers to change", OTHER_POLICY)
        }
        "start" => other(
            record.why.as_deref().unwrap_or("it was not decided"),
            "the reason says what would; `lockc explain` tells more of a bundle",
        ),
        _ => other("the policy denies this operation", OTHER_POLICY),
    }
}

fn path(record: &Record, list: &'static str, rules: &crate::policy::PathRules) -> (String, Change) {
    let key = if list == "exec" { "exec.allow" } else { "paths.allow" };
    let missing = |why: &str| (why.to_owned(), Change::None { instead: "allow it by hand" });
    let Some(text) = record.path.as_ref().filter(|_| !record.path_cut) else {
        return missing("its whole path is not known");
    };
    let Ok(rule) = PathRule::new(text) else {
        return missing("no rule can be about such a path");
    };
    let why = match rules.above(&rule) {
        _ if rules.contains(&rule) => {
            format!("`{list}.{}` has `{text}`", name(list, rules.verdict(&rule)))
        }
        (Some(above), verdict) => {
            format!("`{list}.{}` has `{above}`", name(list, verdict))
        }
        (None, _) if rules.default == Access::Deny => {
            if list == "exec" {
                "`exec.allow` does not have it".to_owned()
            } else {
                "`paths.default` is \"deny\"".to_owned()
            }
        }
        // A directory above what has a rule, say, which keeps its name.
        (None, _) => format!("a rule of `{list}` is about what is below, or leads there"),
    };
    (why, Change::Entry { key, value: text.clone() })
}

fn name(list: &str, verdict: Verdict) -> &'static str {
    // There is no other list that denies.
    if list == "exec" { "deny" } else { verdict.key() }
}

fn family(record: &Record) -> (String, Change) {
    match &record.family {
        Some(family) if family.parse::<u32>().is_err() => (
            "`network.families` does not have it".to_owned(),
            Change::Entry { key: "network.families", value: family.clone() },
        ),
        _ => ("sockets of this kind are denied".to_owned(), Change::None { instead: OTHER_POLICY }),
    }
}

fn address(address: Option<SocketAddr>) -> (String, Change) {
    match address {
        Some(address) => (
            "`network.deny` has it, or `network.default` is \"deny\"".to_owned(),
            Change::Entry { key: "network.allow", value: address.to_string() },
        ),
        None => {
            ("its address is not known".to_owned(), Change::None { instead: "allow it by hand" })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn policy(text: &str) -> Policy {
        let text = format!("[policy.x]\nextends = \"baseline\"\n{text}");
        let config = Config::parse(&text, "x.toml".as_ref()).unwrap();
        config.policies["x"].clone()
    }

    fn denied(operation: &str, path: Option<&str>) -> Record {
        Record { path: path.map(str::to_owned), ..Record::now("denied", operation) }
    }

    /// Every change that is proposed must be one that the configuration accepts.
    #[test]
    fn changes_are_valid_and_name_the_reason() {
        let socket = |operation: &str, family: &str| Record {
            family: Some(family.to_owned()),
            ..denied(operation, None)
        };
        let to = |address: &str| Record {
            address: Some(address.parse().unwrap()),
            ..denied("connect", None)
        };
        let cases = [
            (
                "paths.deny = [\"/a\"]",
                denied("open", Some("/a/b")),
                "`paths.deny` has `/a`",
                "paths.allow = [\"/a/b\"]",
            ),
            (
                "paths.read_only = [\"/a\"]",
                denied("change", Some("/a")),
                "`paths.read_only` has `/a`",
                "paths.allow = [\"/a\"]",
            ),
            (
                "paths.default = \"deny\"",
                denied("open", Some("/a\"b")),
                "`paths.default` is \"deny\"",
                "paths.allow = ['/a\"b']",
            ),
            (
                "exec.deny = [\"/bin\"]",
                denied("exec", Some("/bin/sh")),
                "`exec.deny` has `/bin`",
                "exec.allow = [\"/bin/sh\"]",
            ),
            (
                "exec.allow = [\"/lib\"]",
                denied("exec", Some("/bin/sh")),
                "`exec.allow` does not have it",
                "exec.allow = [\"/bin/sh\"]",
            ),
            (
                "exec.drift = \"deny\"",
                denied("drift", Some("/x")),
                "`exec.drift`",
                "exec.drift = \"allow\"",
            ),
            (
                "exec.fileless = \"deny\"",
                denied("fileless", None),
                "`exec.fileless`",
                "exec.fileless = \"allow\"",
            ),
            (
                "",
                denied("user-namespace", None),
                "`user_namespaces`",
                "user_namespaces = \"allow\"",
            ),
            ("", denied("io-uring", None), "`io_uring`", "io_uring = \"allow\""),
            ("", socket("socket", "vsock"), "`network.families`", "network.families = [\"vsock\"]"),
            (
                "network.mode = \"none\"",
                socket("socket", "inet"),
                "`network.mode`",
                "network.mode = \"host-default\"",
            ),
            (
                "network.default = \"deny\"",
                to("10.0.0.1:80"),
                "`network.default`",
                "network.allow = [\"10.0.0.1:80\"]",
            ),
            (
                "network.default = \"deny\"",
                to("[::1]:80"),
                "`network.default`",
                "network.allow = [\"[::1]:80\"]",
            ),
            (
                "run_as_non_root = true",
                denied("root", None),
                "`run_as_non_root`",
                "run_as_non_root = false",
            ),
            (
                "",
                denied("runtime-socket", None),
                "`admission.runtime_sockets`",
                "admission.runtime_sockets = \"off\"",
            ),
        ];
        for (typed, record, why, line) in cases {
            let (said, change) = advise(&record, &policy(typed));
            assert!(said.contains(why), "{record:?}: {said}");
            assert_eq!(change.line().as_deref(), Some(line), "{record:?}");
            policy(line);
        }
    }

    #[test]
    fn what_no_key_allows_says_so() {
        for record in [
            denied("mount", None),
            denied("host-path", Some("/x")),
            denied("start", None),
            denied("open", None),
            Record { path_cut: true, ..denied("open", Some("b/c")) },
            Record { family: Some("99".into()), ..denied("socket", None) },
        ] {
            assert_eq!(advise(&record, &policy("")).1.line(), None, "{record:?}");
        }
    }
}
