//! Policies as people and programs read them: fully resolved.

use std::fmt::Write as _;

use lockc_common::PolicyFlags;
use serde_json::{Value, json};

use super::{
    Access, Exec, Mode, Network, NetworkMode, PathRule, Policy, Verdict,
    admission::{Control, Handling, Standard},
};

/// Names of [`PolicyFlags`], as docs/configuration.md has them.
const DENIALS: &[(u32, &str)] = &[
    (PolicyFlags::DEVICES, "devices"),
    (PolicyFlags::FOREIGN_MOUNT, "foreign_mounts"),
    (PolicyFlags::IO_URING, "io_uring"),
    (PolicyFlags::KERNEL_CALLS, "kernel_calls"),
    (PolicyFlags::KERNEL_INTERFACES, "kernel_interfaces"),
    (PolicyFlags::KERNEL_LOG, "kernel_log"),
    (PolicyFlags::MOUNT, "mount"),
    (PolicyFlags::NAMESPACES, "namespaces"),
    (PolicyFlags::PROCESSES, "processes"),
    (PolicyFlags::ROOT, "root"),
    (PolicyFlags::RUNTIME_FILES, "runtime_files"),
    (PolicyFlags::RUNTIME_SOCKETS, "runtime_sockets"),
    (PolicyFlags::SOCKET_FAMILIES, "socket_families"),
    (PolicyFlags::TERMINAL_INPUT, "terminal_input"),
    (PolicyFlags::USER_NAMESPACES, "user_namespaces"),
];

/// Those that a key of their own decides about.
const BY_KEY: &[&str] = &["io_uring", "root", "user_namespaces"];

/// Most paths in a summary.
const MAX_BRIEF: usize = 4;

impl Policy {
    /// The policy with everything it inherits, by the keys of the configuration. `default` is the
    /// mode of a policy that names none.
    pub fn to_json(&self, default: Mode) -> Value {
        let Self { name, base, mode, network, exec, admission, .. } = self;
        let texts =
            |list: &[PathRule]| -> Vec<String> { list.iter().map(PathRule::to_string).collect() };
        let paths = |wanted| -> Vec<String> {
            let rules = self.paths.iter().filter(|(_, verdict)| *verdict == wanted);
            rules.map(|(rule, _)| rule.to_string()).collect()
        };
        let endpoints = |list: &[super::Endpoint]| -> Vec<String> {
            list.iter().map(ToString::to_string).collect()
        };
        let mut controls = serde_json::Map::new();
        let standard = match admission.standard {
            Standard::Baseline => "baseline",
            Standard::Restricted => "restricted",
        };
        controls.insert("standard".into(), standard.into());
        for control in Control::ALL {
            controls.insert(control.name().into(), admission.handling(control).name().into());
        }
        controls.insert("allow_capabilities".into(), json!(admission.capabilities));
        controls.insert("allow_host_paths".into(), json!(admission.host_paths));
        json!({
            "name": name,
            "base": base.name(),
            "denies": self.denied_names(),
            "mode": mode.unwrap_or(default).name(),
            "run_as_non_root": self.run_as_non_root(),
            "user_namespaces": self.user_namespaces().name(),
            "io_uring": self.io_uring().name(),
            "paths": {
                "deny": paths(Verdict::Deny),
                "read_only": paths(Verdict::ReadOnly),
                "allow": paths(Verdict::Allow),
                "default": self.paths.default.name(),
            },
            "host_paths": { "deny": texts(&self.host_paths) },
            "network": {
                "mode": network.mode.name(),
                "deny": endpoints(&network.deny),
                "allow": endpoints(&network.allow),
                "default": network.default.name(),
                "families": network.families.iter().map(ToString::to_string).collect::<Vec<_>>(),
            },
            "exec": {
                "allow": exec.allow.as_deref().map(texts),
                "deny": texts(&exec.deny),
                "fileless": exec.fileless.name(),
                "drift": exec.drift.name(),
            },
            "admission": controls,
        })
    }

    /// The same as a table that can be put into a configuration, where it means the same.
    pub fn to_toml(&self, default: Mode) -> String {
        let json = self.to_json(default);
        let name = &self.name;
        let mut denied = self.denied_names();
        denied.retain(|name| !BY_KEY.contains(name));
        let denied = if denied.is_empty() { "nothing".to_owned() } else { denied.join(", ") };
        let mut out = format!("# Denied whatever the keys below say: {denied}\n");
        let _ = writeln!(out, "[policy.{}]", toml_key(name));
        if *name != self.base.name() {
            let _ = writeln!(out, "extends = \"{}\"", self.base);
        }
        let mut line = |key: &str, value: &Value| {
            if !value.is_null() {
                let _ = writeln!(out, "{key} = {}", toml_value(value));
            }
        };
        for key in ["mode", "user_namespaces", "io_uring"] {
            line(key, &json[key]);
        }
        for table in ["paths", "host_paths", "network", "exec"] {
            for (key, value) in json[table].as_object().into_iter().flatten() {
                line(&format!("{table}.{key}"), value);
            }
        }
        let _ = writeln!(out, "\n[policy.{}.admission]", toml_key(name));
        // The standard first: it sets controls, and every one of them follows.
        let _ = writeln!(out, "standard = {}", toml_value(&json["admission"]["standard"]));
        for (key, value) in json["admission"].as_object().into_iter().flatten() {
            if key != "standard" {
                let _ = writeln!(out, "{key} = {}", toml_value(value));
            }
        }
        out
    }

    /// What it does under `mode`, a line for each kind.
    pub fn brief(&self, mode: Mode) -> Vec<String> {
        let list = |items: &[&str]| match items {
            [] => "nothing".to_owned(),
            _ => items.join(", "),
        };
        let denies = match mode {
            Mode::Enforce => "denies",
            Mode::Audit => "reports",
        };
        let mut lines = vec![format!("{denies} operations: {}", list(&self.denied_names()))];
        let mut denied = self.paths.iter().filter(|(_, verdict)| *verdict == Verdict::Deny);
        let shown: Vec<String> =
            denied.by_ref().take(MAX_BRIEF).map(|(rule, _)| rule.to_string()).collect();
        let more = denied.count();
        if !shown.is_empty() {
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            lines.push(format!("{denies} paths: {}{more}", shown.join(", ")));
        }
        lines.extend(self.exec.brief(denies));
        match &self.network {
            Network { mode: NetworkMode::None, .. } => {
                lines.push(format!("{denies} all of the network"));
            }
            network if network.restricts_addresses() => {
                let count = network.deny.len();
                let rest = match network.default {
                    Access::Allow => "",
                    Access::Deny => ", and all that no rule is about",
                };
                lines.push(format!("{denies} addresses: {count} rules{rest}"));
            }
            _ => {}
        }
        let admission = self.admission(mode);
        for (handling, text) in [
            (Handling::Enforce, "refuses containers for"),
            (Handling::Audit, "reports containers for"),
            (Handling::Off, "does not look at"),
        ] {
            let controls = Control::ALL.iter().filter(|it| admission.handling(**it) == handling);
            let controls: Vec<&str> = controls.map(|control| control.name()).collect();
            match controls.len() {
                0 => {}
                all if all == Control::ALL.len() => lines.push(format!("{text}: all controls")),
                _ => lines.push(format!("{text}: {}", controls.join(", "))),
            }
        }
        lines
    }

    fn denied_names(&self) -> Vec<&'static str> {
        let flags = self.denied_operations();
        let denied = DENIALS.iter().filter(|(flag, _)| flags.0 & flag != 0);
        denied.map(|(_, name)| *name).collect()
    }
}

impl Exec {
    /// What it denies, in a line, if it does.
    fn brief(&self, denies: &str) -> Option<String> {
        let named = |what: &str, access| (access == Access::Deny).then(|| what.to_owned());
        let parts = [
            (!self.deny.is_empty()).then(|| format!("{} rules", self.deny.len())),
            self.allow.as_ref().map(|allow| format!("all but {} rules", allow.len())),
            named("what has no name", self.fileless),
            named("what did not come with the image", self.drift),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        (!parts.is_empty()).then(|| format!("{denies} executing: {}", parts.join(", ")))
    }
}

/// A name of a policy, in quotes where TOML would take a dot for a table.
fn toml_key(name: &str) -> String {
    if name.contains('.') { format!("\"{name}\"") } else { name.to_owned() }
}

/// Texts, booleans and lists of texts. TOML escapes control characters as JSON does, except for
/// DEL, which JSON leaves as it is.
fn toml_value(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(toml_value).collect();
            format!("[{}]", items.join(", "))
        }
        other => other.to_string().replace('\u{7f}', "\\u007f"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn understood(toml: &str) -> Config {
        Config::understand(toml, "lockc.toml".as_ref())
    }

    #[test]
    fn what_admission_allows_is_not_shown_as_denied() {
        let mut policy = Policy::built_in(crate::policy::Level::Baseline);
        assert!(policy.denied_names().contains(&"runtime_sockets"));
        policy.admission.set(Control::RuntimeSockets, Handling::Off);
        assert!(!policy.denied_names().contains(&"runtime_sockets"));
    }

    /// What is shown means what is shown.
    #[test]
    fn shown_policies_can_be_read_again() {
        let config = understood(
            r#"
            [policy."own.one"]
            extends = "offline"
            mode = "audit"
            run_as_non_root = false
            user_namespaces = "allow"
            io_uring = "allow"
            paths.deny = ["/etc/**", "/a\u007f\"b"]
            paths.allow = ["/etc/hosts"]
            paths.read_only = ["/usr"]
            paths.default = "deny"
            host_paths.deny = ["/var/run/docker.sock"]
            network.deny = ["169.254.169.254"]
            network.allow = ["[fd00::/8]:443"]
            network.default = "deny"
            network.families = ["can", "vsock"]
            exec.allow = ["/usr/bin/**"]
            exec.deny = ["/usr/bin/sh"]
            exec.fileless = "deny"
            exec.drift = "deny"
            admission.standard = "baseline"
            admission.host_paths = "audit"
            admission.allow_capabilities = ["CAP_NET_ADMIN"]
            admission.allow_host_paths = ["/srv"]
            "#,
        );
        for policy in config.policies.values() {
            let shown = policy.to_toml(Mode::Enforce);
            let again = understood(&shown).policies[&policy.name].clone();
            let mode = Some(policy.mode.unwrap_or(Mode::Enforce));
            assert_eq!(again, Policy { mode, ..policy.clone() }, "{shown}");
        }
    }
}
